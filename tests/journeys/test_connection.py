"""The connection page: state and clocks, renewing with a look at what changes, choosing a period, ending access."""

from __future__ import annotations

import datetime as dt
import io
import json

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from consent import flow
from consent.models import Consent
from partners import jobs
from partners.models import Job, Member, Partner, User
from partners.standing import current_token
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import Person, text_of
from tokens import custody, sweeping
from tokens.models import AuditEvent, RefreshToken

pytestmark = pytest.mark.django_db(transaction=True)
OTHER, SALES = "svc-new@contoso.test", "svc-sales@contoso.test"
PAGE, RENEWAL = "/connection/", "/connection/renewal"
VAULT = "cpv-demo.vault.azure.net"


@pytest.fixture
def contoso(contoso):
    contoso.add_account(OTHER, groups={"AdminAgents"}, name="New Service")
    contoso.add_account(SALES, groups={"SalesAgents"}, name="Sales Service")
    return contoso


def renew(member: Person, account: str, **how: bool):
    """Renew from the page; the last answer."""
    return member.come_back(member.at_microsoft(member.leave("/connection/renew"), account, **how))


def in_force() -> RefreshToken:
    return RefreshToken.objects.current().select_related("consent", "partner").get()


def enabled(world) -> int:
    return sum(version.enabled for versions in world.vault(VAULT).secrets.values() for version in versions)


def works() -> bool:
    Job.objects.update(next_run_at=timezone.now(), claimed_until=None)
    run = jobs.run_job(Job.objects.get().pk)
    return run is not None and run.outcome == "done"


def later(**by: float):
    return time_machine.travel(timezone.now() + dt.timedelta(**by))


# --- What is there --------------------------------------------------------------------------------------------------
def test_the_page_tells_state_person_role_and_both_clocks(member):
    words = text_of(member.portal.get(PAGE))

    for part in (
        "Connected", SERVICE, "Admin agent", "Access ends", "180 days from each consent", "(90 days without use)",
        "4 granted", "Renew with Microsoft", "End access",
    ):  # fmt: skip
        assert part in words, part


def test_who_may_not_change_it_sees_it_and_whom_to_ask(member):
    Member.objects.update(role=Member.Role.OPERATOR)
    boss = User.objects.create_user("boss", name="Bea Boss")
    Member.objects.create(user=boss, partner=Partner.objects.get(), role=Member.Role.OWNER)

    words = text_of(member.portal.get(PAGE))

    assert "Bea Boss" in words
    assert "Renew with Microsoft" not in words
    for path, form in (
        ("/connection/renew", {}), ("/connection/period", {"days": "90"}), ("/connection/revoke", {"sure": "yes"}),
        (RENEWAL, {"answer": "yes"}),
    ):  # fmt: skip
        assert member.portal.post(path, form).status_code == 404, path
    partner = Partner.objects.get()
    assert (partner.withdrawn_at, partner.access_days) == (None, 180)


# --- Renewing -------------------------------------------------------------------------------------------------------
def test_a_renewal_changes_nothing_until_an_owner_says_yes(member, world):
    before = in_force()

    page = renew(member, OTHER)

    words = text_of(page)
    assert page.request["PATH_INFO"] == RENEWAL
    assert f"Signed in as changes {SERVICE} {OTHER}" in words
    assert "The permissions stay the same." in words
    assert in_force() == before
    assert works()
    assert "A renewal waits for your yes" in text_of(member.portal.get(PAGE))

    answer = member.portal.post(RENEWAL, {"answer": "yes"}, follow=True)

    after = in_force()
    assert "The new connection is in force" in text_of(answer)
    assert (after.generation, after.consent.upn) == (before.generation + 1, OTHER)
    assert works()
    sweeping.sweep()
    assert enabled(world) == 1
    assert AuditEvent.objects.get(action="renewal.confirmed").detail == {"generation": after.generation}
    assert list(Member.objects.values_list("user__upn", flat=True)) == [SERVICE], "a yes lets nobody in"


def test_before_the_yes_the_page_says_that_the_other_account_gets_no_access(member):
    assert f"{OTHER} is no member of your team, and your yes does not make it one" in text_of(renew(member, OTHER))
    assert "is no member of your team" not in text_of(renew(member, SERVICE))


def test_an_owner_who_reconnects_with_the_service_account_stays_who_they_are(member):
    in_force().mark_refused("needs_consent", code="AADSTS50173")

    page = renew(member, OTHER)

    assert page.request["PATH_INFO"] == "/connect/connected"
    assert (in_force().upn, Member.objects.get().user.upn) == (OTHER, SERVICE)
    assert member.portal.get("/team/").status_code == 200
    line = AuditEvent.objects.filter(action="consent.given").latest("pk")
    assert (line.actor_kind, line.actor_label) == ("visitor", OTHER)


def test_a_yes_opens_a_new_period(member):
    nearly_over = timezone.now() + dt.timedelta(days=1)
    Partner.objects.update(lapses_at=nearly_over)
    renew(member, SERVICE)
    assert Partner.objects.get().lapses_at == nearly_over

    member.portal.post(RENEWAL, {"answer": "yes"})

    assert Partner.objects.get().lapses_at > timezone.now() + dt.timedelta(days=179)


def test_a_no_throws_it_away(member, world):
    before = in_force()
    renew(member, OTHER)

    answer = member.portal.post(RENEWAL, {"answer": "no"}, follow=True)
    sweeping.sweep()

    assert "stays as it was" in text_of(answer)
    assert in_force() == before
    assert enabled(world) == 1
    assert works()
    assert "There is no renewal to confirm" in text_of(member.portal.get(RENEWAL))
    assert "This renewal is over" in text_of(member.portal.post(RENEWAL, {"answer": "yes"}, follow=True))
    assert "stays as it was" in text_of(member.portal.post(RENEWAL, {"answer": "no"}, follow=True))
    assert AuditEvent.objects.filter(action="renewal.declined").count() == 1


def test_after_half_an_hour_it_is_too_late(member, world):
    before = in_force()
    renew(member, OTHER)

    with later(minutes=31):
        member.sign_in(SERVICE)
        member.confirm(SERVICE)
        answer = member.portal.post(RENEWAL, {"answer": "yes"}, follow=True)
        sweeping.sweep()

        assert "This renewal is over" in text_of(answer)
        assert (in_force(), enabled(world)) == (before, 1)
        assert works()


@pytest.mark.parametrize("how", [{"mfa": False}, {"accept": False}])
def test_a_bad_renewal_never_replaces_a_good_one(member, world, how):
    before = in_force()

    assert renew(member, OTHER, **how).status_code in (400, 403)

    assert in_force() == before
    assert not RefreshToken.objects.pending(timezone.now()).exists()
    assert works()


def test_a_lesser_role_is_refused_or_shown(member, settings):
    assert renew(member, SALES).status_code in (400, 403)
    settings.CPV_CONSENT_ROLES = ["admin_agent", "sales_agent"]

    words = text_of(renew(member, SALES))

    assert "Role changes Admin agent Sales agent" in words
    assert in_force().consent.upn == SERVICE


def test_the_second_renewal_takes_the_firsts_place(member, world):
    renew(member, OTHER)
    renew(member, SERVICE)
    pending = RefreshToken.objects.pending(timezone.now()).get()

    member.portal.post(RENEWAL, {"answer": "yes"})
    sweeping.sweep()

    assert in_force() == pending
    assert enabled(world) == 1


def test_a_reconnect_meanwhile_wins_over_a_renewal_that_waits(member, contoso):
    renew(member, OTHER)
    waiting = flow.renewal_of(Partner.objects.get())
    RefreshToken.objects.current().get().mark_refused("needs_consent", code="AADSTS50173")

    page = member.come_back(member.at_microsoft(member.leave("/connection/renew"), SERVICE))

    assert page.request["PATH_INFO"] == "/connect/connected", "what is dead is replaced at once"
    newest = in_force()
    assert "This renewal is over" in text_of(member.portal.post(RENEWAL, {"answer": "yes"}, follow=True))
    with pytest.raises(custody.NotOpen):
        custody.confirm(waiting.token, on_confirm=lambda token: None)
    assert in_force() == newest


def test_a_partner_that_was_stopped_meanwhile_confirms_nothing(member):
    renew(member, OTHER)
    Partner.objects.update(killed_at=timezone.now())

    assert "This renewal is over" in text_of(member.portal.post(RENEWAL, {"answer": "yes"}, follow=True))
    assert Consent.objects.count() == 2
    assert current_token(Partner.objects.get()).consent.upn == SERVICE


def test_what_waits_is_used_for_nothing(member, world):
    renew(member, OTHER)
    pending = RefreshToken.objects.pending(timezone.now()).get()

    assert not RefreshToken.objects.live(timezone.now()).filter(pk=pending.pk).exists()


# --- The period -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("days", [90, 365])
def test_an_owner_chooses_how_long_a_consent_opens_access(member, days):
    member.portal.post("/connection/period", {"days": str(days)})

    partner = Partner.objects.get()
    assert partner.access_days == days
    assert abs(partner.lapses_at - in_force().reserved_at - dt.timedelta(days=days)) < dt.timedelta(seconds=1)
    assert AuditEvent.objects.get(action="period.chosen").detail == {"days": days, "earlier": 180}


def test_a_longer_period_does_not_bring_back_what_is_over(member):
    over = timezone.now() - dt.timedelta(minutes=1)
    Partner.objects.update(lapses_at=over)

    member.portal.post("/connection/period", {"days": "365"})

    assert Partner.objects.get().lapses_at == over
    assert not works()
    member.come_back(member.at_microsoft(member.leave("/connection/renew"), SERVICE))
    assert Partner.objects.get().lapses_at > timezone.now() + dt.timedelta(days=364)


@pytest.mark.parametrize("days", ["", "91", "-1", "0", "x", "99999999999"])
def test_a_period_that_is_not_offered_is_not_there(member, days):
    assert member.portal.post("/connection/period", {"days": days}).status_code == 404
    assert Partner.objects.get().access_days == 180


def test_a_period_that_would_end_access_at_once_is_not_taken(member):
    RefreshToken.objects.update(reserved_at=timezone.now() - dt.timedelta(days=100))

    page = member.portal.post("/connection/period", {"days": "90"}, follow=True)

    assert "access would end now" in text_of(page)
    assert Partner.objects.get().access_days == 180
    assert works()


def test_a_lapsed_period_stops_work_and_a_reconnect_opens_a_new_one(member):
    Partner.objects.update(lapses_at=timezone.now() - dt.timedelta(minutes=1))
    assert not works()
    assert "Access period over" in text_of(member.portal.get(PAGE))

    member.come_back(member.at_microsoft(member.leave("/connection/renew"), SERVICE))

    assert works()


# --- The end --------------------------------------------------------------------------------------------------------
def test_ending_access_needs_a_yes_and_then_nothing_leaves(member, world):
    assert "tick the box" in text_of(member.portal.post("/connection/revoke", {"reason": "x"}, follow=True))
    assert works()

    answer = member.portal.post("/connection/revoke", {"reason": "we leave", "sure": "yes"}, follow=True)
    sweeping.close_stopped()

    words = text_of(answer)
    assert "Access is ended" in words
    assert "Access withdrawn" in words
    assert "Enterprise applications" in words
    assert not works()
    assert enabled(world) == 0
    event = AuditEvent.objects.get(action="partner.withdrawn")
    assert (event.detail, event.actor_kind) == ({"reason": "we leave"}, "member")


# --- renew ----------------------------------------------------------------------------------------------------------
def told(*words: str) -> dict:
    out = io.StringIO()
    call_command("renew", *words, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_renew_gives_a_link_whose_consent_waits_for_the_owner_who_gave_it(member, client, world):
    before = in_force()
    browser = Person(Client(), world)

    page = browser.connect(told(CONTOSO)["url"], SERVICE)

    assert "Confirm the renewal" in text_of(page)
    assert in_force() == before
    browser.portal.post(RENEWAL, {"answer": "yes"})
    assert in_force().generation == before.generation + 1
    assert works()


def test_a_renewal_by_link_of_somebody_else_waits_for_an_owner(member, world):
    browser = Person(Client(), world)

    page = browser.connect(told(CONTOSO)["url"], OTHER)

    assert "an owner of your organisation" in text_of(page)
    assert browser.portal.get(RENEWAL)["Location"].startswith("/signin")
    assert "Confirm the renewal" in text_of(member.portal.get(RENEWAL))
    member.portal.post(RENEWAL, {"answer": "yes"})
    assert in_force().upn == OTHER


def test_an_owner_who_uses_the_link_with_the_service_account_confirms_as_themselves(member):
    assert "Confirm the renewal" in text_of(member.connect(told(CONTOSO)["url"], OTHER))


def test_renew_gives_a_link_that_reconnects_at_once_what_does_not_work(member, client, world):
    in_force().mark_refused("needs_consent", code="AADSTS50173")

    assert Person(client, world).connect(told(CONTOSO)["url"], SERVICE).status_code == 200

    assert works()


def test_renew_of_a_stopped_partner_says_who_acts(member):
    Partner.objects.update(killed_at=timezone.now())

    with pytest.raises(CommandError, match="Security decides") as ended:
        told(CONTOSO)

    assert ended.value.returncode == 1


# --- Who a consent lets in ------------------------------------------------------------------------------------------
@pytest.fixture
def removed(member, contoso, world) -> Person:
    """Somebody who agreed for Contoso once, and whom an owner took out of the team."""
    other = Member.objects.create(
        user=User.objects.member(
            cloud="global", tenant_id=CONTOSO, object_id=contoso.account(OTHER).oid, upn=OTHER, name="Other"
        ),
        partner=Partner.objects.get(),
        role="operator",
    )
    member.portal.post(f"/team/{other.pk}/remove")
    return Person(Client(), world)


def test_whoever_was_removed_comes_back_by_no_consent(member, removed):
    in_force().mark_refused("needs_consent", code="AADSTS50173")

    page = removed.connect(told(CONTOSO)["url"], OTHER)

    assert "ask an owner for an invitation" in text_of(page)
    assert in_force().upn == OTHER, "the connection works again all the same"
    assert Member.objects.get().user.upn == SERVICE
    assert removed.portal.get("/")["Location"].startswith("/signin")
    assert not AuditEvent.objects.filter(action="member.joined", actor_label=OTHER).exists()


def test_the_first_consent_makes_an_owner_and_writes_down_that_they_joined(member):
    line = AuditEvent.objects.get(action="member.joined")

    assert (line.object, line.detail) == (SERVICE, {"role": "owner"})
    assert (line.actor_label, line.partner) == (SERVICE, Partner.objects.get())


@pytest.mark.parametrize("before", [None, "operator"])
def test_where_no_owner_can_sign_in_whoever_agrees_becomes_one(member, contoso, world, before):
    in_force().mark_refused("needs_consent", code="AADSTS50173")
    User.objects.filter(upn=SERVICE).update(is_active=False)
    if before:
        user = User.objects.member(
            cloud="global", tenant_id=CONTOSO, object_id=contoso.account(OTHER).oid, upn=OTHER, name="Other"
        )
        Member.objects.create(user=user, partner=Partner.objects.get(), role=before, limited_at=timezone.now())
    browser = Person(Client(), world)

    page = browser.connect(told(CONTOSO)["url"], OTHER)

    assert page.request["PATH_INFO"] == "/connect/connected"
    new = Member.objects.get(user__upn=OTHER)
    assert (new.role, new.limited_at) == ("owner", None)
    action = "member.role_changed" if before else "member.joined"
    assert AuditEvent.objects.filter(action=action, actor_label=OTHER).count() == 1


def test_whoever_the_vendor_switched_off_becomes_no_owner(member, removed):
    in_force().mark_refused("needs_consent", code="AADSTS50173")
    User.objects.update(is_active=False)

    removed.connect(told(CONTOSO)["url"], OTHER)

    assert not Member.objects.filter(user__upn=OTHER).exists()


@pytest.mark.parametrize("is_live", [True, False])
def test_a_link_made_for_an_owner_makes_one_beside_those_there_are_and_says_so(member, world, is_live):
    if not is_live:
        in_force().mark_refused("needs_consent", code="AADSTS50173")
    with pytest.raises(CommandError, match="--reason is empty"):
        told(CONTOSO, "--owner")
    browser = Person(Client(), world)

    browser.connect(told(CONTOSO, "--owner", "--reason", "the only owner left the firm")["url"], OTHER)

    assert Member.objects.get(user__upn=OTHER).role == "owner"
    assert browser.portal.get("/team/").status_code == 200
    made = AuditEvent.objects.filter(action="invitation.made").latest("pk")
    assert made.detail == {"reason": "the only owner left the firm", "makes_owner": True}
    assert AuditEvent.objects.filter(action="member.joined", actor_label=OTHER).count() == 1
    assert (in_force().upn == OTHER) is not is_live, "what works waits for a yes"
