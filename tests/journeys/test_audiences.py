"""Right after consent a token is minted for each audience asked for: what is missing is named, and what that means."""

from __future__ import annotations

import pytest
from django.utils import timezone

from consent import invitations
from consent.models import Consent
from consent.refusal_words import REASONS
from partners import jobs
from partners.models import Job
from tests.conftest import SERVICE
from tests.journeys.test_roles import listed
from tests.pretend import text_of
from tokens import broker, minting
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.models import AuditEvent, RefreshToken, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
USERS, GROUPS, GDAP = "User.Read.All", "GroupMember.Read.All", "DelegatedAdminRelationship.ReadWrite.All"
ARM = "https://management.azure.com/user_impersonation"
WAYS = ["withheld", "unconsented"]  # left out of the token in silence; the whole request refused with 65001


def take_away(tenant, way, *scopes):
    getattr(tenant, way).update(scopes)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scope", ["user_impersonation", GROUPS])
def test_without_a_required_permission_nothing_is_stored_and_it_is_named(person, invited, contoso, world, way, scope):
    take_away(contoso, way, scope)

    answer = person.connect(invited[1], SERVICE)

    assert REASONS["missing_scope"].title in text_of(answer)
    if (way, scope) != ("unconsented", "user_impersonation"):  # there Entra refuses the code, and names nothing
        assert f"Missing: {scope}" in text_of(answer)
    assert not RefreshToken.objects.exists()
    assert not any(call.service == "vault" for call in world.calls)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scopes", [(USERS,), (GDAP,), (USERS, GDAP)], ids=["users", "gdap", "both"])
def test_without_another_the_partner_is_limited_and_exactly_that_is_named(person, invited, contoso, way, scopes):
    take_away(contoso, way, *scopes)

    connected = text_of(person.connect(invited[1], SERVICE))
    home = text_of(person.portal.get("/"))

    named = ", ".join(scopes)
    assert f"permissions missing: {named}" in connected
    for words in (connected, home):
        assert "Connected with limits" in words
        assert f"Missing: {named}." in words
    assert "Agree again with Microsoft" in home
    row = listed()
    assert (row["state"], row["missing_scopes"], row["owner"]) == ("limited", list(scopes), "partner")
    assert RefreshToken.objects.get().missing_scopes == list(scopes)
    assert set(Consent.objects.get().scopes).isdisjoint(scopes)
    assert AuditEvent.objects.get(action="consent.given").detail["missing"] == list(scopes)


@pytest.mark.parametrize("way", WAYS)
def test_a_required_and_another_missing_are_both_named(person, invited, contoso, way):
    take_away(contoso, way, USERS, GROUPS)

    assert f"Missing: {USERS} , {GROUPS}" in text_of(person.connect(invited[1], SERVICE))


def test_a_limited_partner_works_with_what_it_has(person, invited, contoso):
    take_away(contoso, "unconsented", USERS)
    person.connect(invited[1], SERVICE)
    broker.forget()
    token = RefreshToken.objects.get()

    answer = broker.session(token, Audience.GRAPH, purpose="token.explain", actor=SYSTEM).get("/v1.0/me")

    assert answer.status_code == 200
    assert jobs.run_job(Job.objects.get().pk).outcome == "done"
    assert listed()["state"] == "limited"


def test_agreeing_again_ends_the_limits(person, invited, contoso):
    take_away(contoso, "unconsented", USERS)
    person.connect(invited[1], SERVICE)
    contoso.unconsented.clear()

    shown = text_of(person.connect("/connection/renew", SERVICE))

    assert USERS in shown
    assert listed()["missing_scopes"] == [USERS], "until an owner has said yes"
    person.portal.post("/connection/renewal", {"answer": "yes"})
    row = listed()
    assert (row["state"], row["missing_scopes"]) == ("active", [])


def test_lesser_role_and_missing_permission_are_both_said(person, invited, contoso, settings):
    settings.CPV_CONSENT_ROLES = ["admin_agent", "sales_agent"]
    contoso.add_account("sales@contoso.test", groups={"SalesAgents"})
    take_away(contoso, "withheld", USERS)

    person.connect(invited[1], "sales@contoso.test")

    row = listed()
    assert "Sales agent only." in row["reason"]
    assert f"Missing: {USERS}." in row["reason"]
    assert row["action"] == (
        "Reconnect with an account that is an admin agent. Agree again, and accept all the permissions shown."
    )


def test_every_audience_asked_for_is_minted_once(person, invited, settings):
    settings.CPV_PERMISSIONS = "standard+arm"

    person.connect(invited[1], SERVICE)

    assert list(TokenUse.objects.order_by("pk").values_list("audience", flat=True)) == ["partnercenter", "graph", "arm"]
    assert listed()["state"] == "active"


@pytest.mark.parametrize("way", WAYS)
def test_a_whole_audience_missing_is_named_and_never_asked_again(person, invited, contoso, settings, way):
    settings.CPV_PERMISSIONS = "standard+arm"
    take_away(contoso, way, ARM)

    person.connect(invited[1], SERVICE)

    assert listed()["missing_scopes"] == ["arm/user_impersonation"]
    assert "Granted 4 of 5" in text_of(person.portal.get("/permissions/"))
    broker.forget()
    before = len(person.world.calls)
    with pytest.raises(minting.AudienceNotAsked):
        broker.session(RefreshToken.objects.get(), Audience.ARM, purpose="token.explain", actor=SYSTEM).get(
            "/subscriptions"
        )
    assert len(person.world.calls) == before
    assert jobs.run_job(Job.objects.get().pk).outcome == "done"


def test_an_audience_that_is_gained_is_shown_before_an_owner_says_yes(person, invited, contoso, settings):
    settings.CPV_PERMISSIONS = "standard+arm"
    take_away(contoso, "unconsented", ARM)
    person.connect(invited[1], SERVICE)
    contoso.unconsented.clear()

    shown = text_of(person.connect("/connection/renew", SERVICE))

    assert "arm/user_impersonation" in shown
    assert "The permissions stay the same." not in shown
    person.portal.post("/connection/renewal", {"answer": "yes"})
    assert "Granted 5 of 5" in text_of(person.portal.get("/permissions/"))


def test_another_invitations_tab_replaces_nothing_that_works_with_limits_unasked(person, invited, contoso):
    """It left for Microsoft before anybody had connected."""
    take_away(contoso, "unconsented", USERS)
    _, other_url = invitations.invite(partner=invited[0], by=SYSTEM)
    other_tab = person.at_microsoft(person.leave(other_url), SERVICE)
    person.connect(invited[1], SERVICE)
    before = RefreshToken.objects.current().get()

    person.come_back(other_tab)

    assert RefreshToken.objects.current().get() == before
    assert RefreshToken.objects.pending(timezone.now()).exists(), "it waits until an owner has said yes"


def test_a_policy_that_refuses_one_audience_is_a_refusal_and_no_missing_permission(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    world.fail("partnercenter", "slow", times=1, seconds=1)
    world.sleep = lambda _seconds: world.fail("entra", "AADSTS50076", path="/token", times=1)

    answer = person.come_back(back)

    assert REASONS["no_mfa"].title in text_of(answer)
    assert not RefreshToken.objects.exists()
