"""What shows MFA at a sign-in, in which order, and what somebody is told who shows none."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.test import Client
from django.utils import timezone

from consent.models import ConsentAttempt
from consent.refusal_words import REASONS
from partners.models import Member, Partner, User
from sandbox.clouds import MSA_TENANT
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import Person, text_of
from tokens.models import AuditEvent, Halt, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
AUDITOR = "auditor@contoso.test"


@pytest.fixture
def back_again(member, world):
    """The same person in a browser that knows nothing of them."""
    return Person(Client(), world)


@pytest.fixture
def auditor(back_again, contoso):
    """A member who never agreed to anything at Microsoft."""
    return joins(contoso.add_account(AUDITOR, name="Ann Auditor"))


def joins(account, role: str = "auditor"):
    user = User.objects.member(
        cloud="global", tenant_id=account.tenant_id, object_id=account.oid, upn=account.upn, name=account.name
    )
    Member.objects.create(user=user, partner=Partner.objects.get(), role=role)
    return account


def evidence(person: Person) -> dict:
    """What the session keeps, and the audit's line says the same."""
    kept = person.portal.session["mfa"]
    assert AuditEvent.objects.filter(action="member.signed_in").latest("pk").detail["mfa"] == kept
    assert kept["at"]
    return {name: value for name, value in kept.items() if name != "at"}


def is_in(person: Person) -> bool:
    return person.portal.get("/").status_code == 200


def refused(person: Person, answer, reason: str) -> str:
    assert answer.status_code == 403
    words = text_of(answer)
    assert REASONS[reason].title.replace("{context}", "c1") in words
    assert "{" not in words
    assert not is_in(person)
    return words


def wanted(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


# --- An authentication context --------------------------------------------------------------------------------------
def test_a_configured_context_is_asked_for_and_shows_mfa(back_again, settings, world):
    settings.CPV_SIGN_IN_CONTEXT = "c1"
    address = back_again.leave("/signin", cloud="global")
    calls = len(world.calls)

    back_again.come_back(back_again.at_microsoft(address, SERVICE))

    assert json.loads(wanted(address)["claims"]) == {"id_token": {"acrs": {"essential": True, "value": "c1"}}}
    assert is_in(back_again)
    assert evidence(back_again) == {"source": "authentication context c1"}
    assert not any(call.query and "prompt=none" in call.query for call in world.calls[calls:])


def test_where_a_context_is_configured_nothing_else_counts(back_again, settings, world):
    settings.CPV_SIGN_IN_CONTEXT, world.amr_in_id_tokens = "c1", True
    query = wanted(address := back_again.leave("/signin", cloud="global"))
    query.pop("claims")  # as somebody may do on the way through the browser

    without = urlsplit(address)._replace(query=urlencode(query)).geturl()
    words = refused(back_again, back_again.come_back(back_again.at_microsoft(without, SERVICE)), "no_context")

    assert "authentication context c1" in words
    assert "Your administrator" in words


# --- amr of the id_token --------------------------------------------------------------------------------------------
def test_amr_of_the_id_token_shows_mfa_and_nothing_more_is_asked(back_again, world):
    world.amr_in_id_tokens = True

    back_again.bring_once(back_again.at_microsoft(back_again.leave("/signin", cloud="global"), SERVICE))

    assert is_in(back_again)
    assert evidence(back_again) == {"source": "amr of the id_token", "amr": ["mfa", "pwd"]}


def test_amr_of_the_id_token_without_mfa_is_a_no(back_again, world):
    world.amr_in_id_tokens = True

    words = refused(back_again, back_again.sign_in(SERVICE, mfa=False), "no_mfa_at_sign_in")

    assert "Conditional Access" in words


# --- amr of an access token -----------------------------------------------------------------------------------------
def test_else_a_partner_center_token_of_the_same_person_shows_it(back_again):
    back_again.sign_in(SERVICE)

    assert is_in(back_again)
    assert evidence(back_again) == {"source": "amr of a Partner Center token", "amr": ["mfa", "pwd"]}
    use = TokenUse.objects.latest("pk")
    assert (use.purpose, use.audience, use.outcome) == ("signin.mfa", "partnercenter", "granted")


def test_it_is_asked_for_in_silence_and_leaves_no_refresh_token(back_again, world):
    before = [secret for secret in world.issued if secret.kind == "refresh_token"]
    first = back_again.at_microsoft(back_again.leave("/signin", cloud="global"), SERVICE)

    second = back_again.bring_once(first)["Location"]
    back_again.bring_once(back_again.sent_back(back_again.microsoft.get(second, allow_redirects=False)))

    query = wanted(second)
    assert set(query["scope"].split()) == {
        "openid", "profile", "https://api.partnercenter.microsoft.com/user_impersonation"
    }  # fmt: skip
    assert query["prompt"] == "none"
    assert f"/{CONTOSO}/" in second
    assert is_in(back_again)
    assert [secret for secret in world.issued if secret.kind == "refresh_token"] == before


def test_an_access_token_without_mfa_is_a_no(back_again):
    refused(back_again, back_again.sign_in(SERVICE, mfa=False), "no_mfa_at_sign_in")


def test_who_never_agreed_is_asked_nothing_and_told_what_to_switch_on(back_again, auditor):
    words = refused(back_again, back_again.sign_in(AUDITOR), "mfa_unknown")

    assert "Conditional Access" in words
    assert "approve our application for the whole organisation" in words
    assert "AADSTS65001" in words


def test_an_approval_for_the_whole_organisation_lets_every_member_show_it(back_again, auditor, contoso, world):
    app = next(app for app in world.apps.values() if app.permissions)
    world.ledger.consent(contoso.id, "*", app.app_id, app.static_permissions(contoso.cloud))

    back_again.sign_in(AUDITOR)

    assert is_in(back_again)
    assert evidence(back_again)["amr"] == ["mfa", "pwd"]


@pytest.mark.parametrize(
    ("code", "reason"), [(50076, "no_mfa_at_sign_in"), (50058, "mfa_unknown"), (53003, "mfa_unknown")]
)
def test_what_microsoft_says_in_silence_is_told(back_again, world, code, reason):
    first = back_again.at_microsoft(back_again.leave("/signin", cloud="global"), SERVICE)
    second = back_again.bring_once(first)["Location"]
    world.fail("entra", f"AADSTS{code}", times=1)

    answer = back_again.bring_once(back_again.sent_back(back_again.microsoft.get(second, allow_redirects=False)))

    assert f"AADSTS{code}" in refused(back_again, answer, reason)


@pytest.mark.parametrize(("code", "reason"), [(65001, "mfa_unknown"), (50076, "no_mfa_at_sign_in")])
def test_a_refusal_of_the_second_code_is_told(back_again, world, code, reason):
    first = back_again.at_microsoft(back_again.leave("/signin", cloud="global"), SERVICE)
    second = back_again.bring_once(first)["Location"]
    last = back_again.sent_back(back_again.microsoft.get(second, allow_redirects=False))
    world.fail("entra", f"AADSTS{code}", operation="authorization_code", times=1)

    refused(back_again, back_again.bring_once(last), reason)


def test_microsoft_down_in_between_is_nobodys_fault(back_again, world):
    first = back_again.at_microsoft(back_again.leave("/signin", cloud="global"), SERVICE)
    second = back_again.bring_once(first)["Location"]
    last = back_again.sent_back(back_again.microsoft.get(second, allow_redirects=False))
    world.fail("entra", "503", operation="authorization_code")

    answer = back_again.bring_once(last)

    assert answer.status_code == 503
    assert not is_in(back_again)


def test_somebody_else_in_the_second_step_is_nobody(back_again, contoso, world):
    first = back_again.at_microsoft(back_again.leave("/signin", cloud="global"), SERVICE)
    second = back_again.bring_once(first)["Location"]
    contoso.add_account("other@contoso.test", groups={"AdminAgents"})

    loud = second.replace("prompt=none", "prompt=select_account")
    answer = back_again.bring_once(back_again.at_microsoft(loud, "other@contoso.test"))

    refused(back_again, answer, "another_person")


def test_a_member_who_was_removed_meanwhile_is_none(back_again):
    first = back_again.at_microsoft(back_again.leave("/signin", cloud="global"), SERVICE)
    second = back_again.bring_once(first)["Location"]
    Member.objects.all().delete()

    answer = back_again.bring_once(back_again.sent_back(back_again.microsoft.get(second, allow_redirects=False)))

    refused(back_again, answer, "not_a_member")


def test_an_access_token_that_says_nothing_leaves_it_unknown(back_again, world):
    world.amr_in_access_tokens = False

    refused(back_again, back_again.sign_in(SERVICE), "mfa_unknown")


@pytest.mark.parametrize("how", ["killed", "halted"])
def test_nothing_leaves_for_a_partner_that_is_stopped(back_again, world, how):
    if how == "killed":
        Partner.objects.update(killed_at=timezone.now())
    else:
        Halt.objects.create(reason="drill", started_by="security")
    redeemed = len([call for call in world.calls if call.path.endswith("/token")])

    refused(back_again, back_again.sign_in(SERVICE), "stopped")

    assert len([call for call in world.calls if call.path.endswith("/token")]) == redeemed + 1  # openid, and no more


# --- Who may not, whatever they show --------------------------------------------------------------------------------
def test_a_guest_is_refused_with_a_page_of_its_own(back_again, contoso):
    joins(contoso.add_account("guest@elsewhere.test", guest=True, groups={"AdminAgents"}))

    words = refused(back_again, back_again.sign_in("guest@elsewhere.test"), "guest_at_sign_in")

    assert "invitation" not in words


def test_a_personal_account_is_refused_with_a_page_of_its_own(back_again, contoso, world):
    account = contoso.add_account("somebody@outlook.test", personal=True)
    assert account.tenant_id == MSA_TENANT
    world.allow_foreign_accounts = True
    joins(account)

    words = refused(back_again, back_again.sign_in("somebody@outlook.test"), "personal_at_sign_in")

    assert "invitation" not in words


def test_an_attempt_of_an_earlier_release_still_ends(back_again, world):
    """What was under way when this release came has neither tenant nor marks in its flow."""
    world.amr_in_id_tokens = True
    address = back_again.leave("/signin", cloud="global")
    attempt = ConsentAttempt.objects.latest("pk")
    earlier = without(attempt, "tenant", "again")
    ConsentAttempt.objects.filter(pk=attempt.pk).update(sealed_flow=earlier)

    back_again.come_back(back_again.at_microsoft(address, SERVICE))

    assert is_in(back_again)


def without(attempt: ConsentAttempt, *names: str) -> str:
    from tokens import outside
    from tokens.secret import Secret

    aad = ["attempt", bytes(attempt.state_hash).hex()]
    flow = json.loads(outside.keyring().open(attempt.sealed_flow, aad=aad).reveal())
    kept = {name: value for name, value in flow.items() if name not in names}
    return outside.keyring().seal(Secret(json.dumps(kept)), aad=aad)
