"""A refusal is a feature: whatever is wrong, the vault stays untouched and the visitor reads why and what to do."""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest
import time_machine
from django.db import connections, transaction
from django.test import Client
from django.utils import timezone

from consent import checks_at_consent, invitations
from consent.models import Consent, ConsentAttempt, Invitation
from consent.refusal_words import REASONS
from consent.refusals import of_failure
from partners import jobs
from partners.models import Job, Member, Partner, Run, User
from sandbox.world import ID_TOKEN_FAULTS
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import Person, text_of
from tokens import custody, outside, tenancy
from tokens.aadsts import Kind, unknown
from tokens.actors import SYSTEM
from tokens.entra import Refused as EntraRefused
from tokens.http import Unreachable
from tokens.models import AuditEvent, Halt, RefreshToken

pytestmark = pytest.mark.django_db(transaction=True)


def assert_refused(answer, world, reason, *, invitation_kept=True):
    words = text_of(answer)
    assert answer.status_code == REASONS[reason].status, words
    assert REASONS[reason].title in words
    assert REASONS[reason].steps[0] in words
    assert_nothing_stored(world)
    if invitation_kept:
        assert Invitation.objects.filter(used_at=None).exists()


def assert_nothing_stored(world):
    assert not any(call.service == "vault" and call.method == "PUT" and call.status == 200 for call in world.calls)
    assert not RefreshToken.objects.filter(stored_at__isnull=False).exists()
    assert not Consent.objects.exists()
    assert not Member.objects.exists()
    assert not User.objects.exists()


def changed(address: str, **query: str | None) -> str:
    parts = urlsplit(address)
    pairs = dict(parse_qsl(parts.query)) | {k: v for k, v in query.items() if v is not None}
    return urlunsplit(parts._replace(query=urlencode({k: v for k, v in pairs.items() if query.get(k, "") is not None})))


# --- Who came -------------------------------------------------------------------------------------------------------
def test_an_account_of_another_tenant_is_refused(person, invited, world):
    other = world.add_tenant("aaaa0000-0000-4000-8000-000000000001", "Other", customers=1)
    stranger = other.add_account("svc@other.test", groups={"AdminAgents"})
    world.allow_foreign_accounts = True

    assert_refused(person.connect(invited[1], stranger), world, "wrong_tenant")


def test_a_personal_account_is_refused(person, invited, contoso, world):
    world.allow_foreign_accounts = True
    pat = contoso.add_account("pat@outlook.test", personal=True)

    assert_refused(person.connect(invited[1], pat), world, "personal")


def test_a_guest_is_refused(person, invited, contoso, world):
    guest = contoso.add_account("gill@elsewhere.test", groups={"AdminAgents"}, guest=True)

    assert_refused(person.connect(invited[1], guest), world, "guest")


def test_a_sign_in_without_mfa_is_refused_because_partner_center_says_so(person, invited, contoso, world):
    contoso.require_mfa = False  # Partner Center answers, and reports isMfaCompliant: false

    answer = person.connect(invited[1], SERVICE, mfa=False)

    assert_refused(answer, world, "no_mfa")
    assert "isMfaCompliant: false" in text_of(answer)


def test_a_sign_in_without_mfa_is_refused_because_partner_center_takes_no_call(person, invited, world):
    answer = person.connect(invited[1], SERVICE, mfa=False)

    assert_refused(answer, world, "no_mfa")
    assert "900421" in text_of(answer)


def test_with_partner_center_down_the_tokens_own_evidence_refuses_a_sign_in_without_mfa(person, invited, world):
    world.fail("partnercenter", "503")

    assert_refused(person.connect(invited[1], SERVICE, mfa=False), world, "no_mfa")


def test_with_partner_center_down_the_tokens_own_evidence_admits_a_sign_in_with_mfa(person, invited, world):
    world.fail("partnercenter", "503")

    person.connect(invited[1], SERVICE)

    assert Consent.objects.get().mfa_evidence["source"] == "amr of the access token"


# --- What Microsoft says --------------------------------------------------------------------------------------------
def test_declining_is_taken_as_a_no(person, invited, world):
    assert_refused(person.connect(invited[1], SERVICE, accept=False), world, "declined")


def test_a_tenant_that_wants_an_administrators_approval_is_told_so(person, invited, contoso, world):
    contoso.admin_approval_required = True

    assert_refused(person.connect(invited[1], SERVICE), world, "admin_approval")


def test_a_tenant_without_partner_centers_service_principal_is_shown_the_command(person, invited, contoso, world):
    contoso.partner_center_principal = False

    answer = person.connect(invited[1], SERVICE)

    assert_refused(answer, world, "no_service_principal")
    assert "New-MgServicePrincipal -AppId fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd" in text_of(answer)


@pytest.mark.parametrize("code", [650052, 500011])
def test_a_missing_service_principal_that_shows_only_at_redemption_is_named_too(person, invited, world, code):
    world.fail("entra", f"AADSTS{code}", path="/token")

    assert_refused(person.connect(invited[1], SERVICE), world, "no_service_principal")


@pytest.mark.parametrize("code", [53003, 50105])
def test_a_policy_of_the_tenant_is_named_with_its_code(person, invited, world, code):
    world.fail("entra", f"AADSTS{code}", path="/token")

    answer = person.connect(invited[1], SERVICE)

    assert_refused(answer, world, "blocked")
    assert f"AADSTS{code}" in text_of(answer)


def test_our_own_bad_credential_is_our_fault_and_not_the_visitors(person, invited, world):
    world.fail("entra", "AADSTS7000215", path="/token")

    assert_refused(person.connect(invited[1], SERVICE), world, "our_fault")


def test_a_code_that_somebody_redeemed_before_us_is_refused(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    for code in world.ledger.codes.values():
        code.redeemed = True

    answer = person.come_back(back)

    assert_refused(answer, world, "microsoft_refused")
    assert "AADSTS54005" in text_of(answer)


@pytest.mark.parametrize("code", [700054, 50011])
def test_a_mistake_in_our_registration_is_our_fault(person, invited, world, code):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    error = {"error": "invalid_request", "error_description": f"AADSTS{code}: no"}

    answer = person.come_back(changed(back, code=None, **error))

    assert_refused(answer, world, "our_fault")
    assert f"AADSTS{code}" in text_of(answer)


def test_an_error_that_nobody_knows_is_still_a_page(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    unknown = changed(back, code=None, error="invalid_thing", error_description="AADSTS99999999: <b>odd</b>")

    answer = person.come_back(unknown)

    assert answer.status_code in (403, 502)
    assert "<b>odd</b>" not in answer.content.decode()
    assert_nothing_stored(world)


# --- The attempt ----------------------------------------------------------------------------------------------------
def test_a_state_that_comes_back_twice_is_refused_and_redeemed_once(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE, accept=False)
    person.come_back(back)

    assert_refused(person.come_back(back), world, "replayed")


def test_a_successful_answer_that_is_opened_again_says_already_connected(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    person.come_back(back)
    redeemed = len(world.calls)

    answer = person.come_back(back)

    assert f"Already connected as {SERVICE}" in text_of(answer)
    assert len(world.calls) == redeemed


def test_a_state_from_another_browser_is_refused_and_the_attempt_stays_good(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    elsewhere = Person(Client(), world)

    assert_refused(elsewhere.come_back(back), world, "other_browser")
    assert person.come_back(back).status_code == 200


def test_another_browser_with_an_attempt_of_its_own_cannot_end_this_one(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    elsewhere = Person(Client(), world)
    elsewhere.leave(invited[1])

    assert_refused(elsewhere.come_back(back), world, "other_browser")


def test_an_unknown_state_is_refused_before_anything_leaves(person, invited, world):
    answer = person.bring("/connect/callback?code=abc&state=never-seen")

    assert_refused(answer, world, "unknown_attempt")
    assert not world.calls


@pytest.mark.parametrize("query", ["state=", "code=abc", "error=access_denied", "state=x&state=y", "state=%00%ff"])
def test_a_mangled_answer_is_refused_before_anything_leaves(person, invited, world, query):
    answer = person.bring(f"/connect/callback?{query}")

    assert_refused(answer, world, "unknown_attempt")
    assert not world.calls


def test_an_attempt_older_than_ten_minutes_is_refused(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)

    with time_machine.travel(timezone.now() + dt.timedelta(minutes=10, seconds=1)):
        answer = person.come_back(back)

    assert_refused(answer, world, "too_late")


def test_a_consents_answer_is_no_sign_in(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)

    answer = person.come_back(back.replace("/connect/callback", "/signin/callback"))

    assert REASONS["unknown_attempt"].title in text_of(answer)
    assert_nothing_stored(world)


# --- The invitation -------------------------------------------------------------------------------------------------
def test_an_expired_invitation_is_refused(person, invited, world):
    with time_machine.travel(timezone.now() + dt.timedelta(days=7, seconds=1)):
        assert_refused(person.portal.get(invited[1]), world, "expired_invitation")
        assert_refused(person.portal.post(invited[1]), world, "expired_invitation")


def test_a_used_invitation_is_refused_and_shows_nothing(person, invited, world):
    person.connect(invited[1], SERVICE)

    answer = Client().get(invited[1])

    assert answer.status_code == 410
    assert SERVICE not in text_of(answer)
    assert "Contoso" not in text_of(answer)


def test_an_unknown_invitation_is_refused(person, world, db):
    answer = person.portal.get("/connect/never-made")

    assert answer.status_code == 404
    assert REASONS["unknown_invitation"].title in text_of(answer)


def test_of_two_tabs_the_first_success_wins(person, invited, world):
    first = person.at_microsoft(person.leave(invited[1]), SERVICE)
    second = person.at_microsoft(person.leave(invited[1]), SERVICE)
    person.come_back(first)

    answer = person.come_back(second)

    assert answer.status_code == 409
    assert f"Already connected as {SERVICE}" in text_of(answer)
    assert RefreshToken.objects.count() == 1


def test_a_stranger_with_a_used_invitation_is_not_told_who_connected(person, invited, world, contoso):
    contoso.add_account("second@contoso.test", groups={"AdminAgents"})
    elsewhere = Person(Client(), world)
    late = elsewhere.at_microsoft(elsewhere.leave(invited[1]), "second@contoso.test")
    person.connect(invited[1], SERVICE)

    answer = elsewhere.come_back(late)

    assert answer.status_code == 409
    assert SERVICE not in text_of(answer)


# --- The proof of who signed in -------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", ID_TOKEN_FAULTS)
def test_an_id_token_that_does_not_hold_is_refused(person, invited, world, fault):
    world.id_token_fault = fault

    answer = person.connect(invited[1], SERVICE)

    reason = {"personal": "personal", "wrong_tenant": "wrong_tenant"}.get(fault, "unverified")
    assert_refused(answer, world, reason)


# --- What is down ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["forbidden", "throttled", "503", "timeout-before"])
def test_with_the_vault_down_nothing_is_half_saved_and_the_visitor_may_try_again(person, invited, world, kind):
    world.fail("vault", kind)

    assert_refused(person.connect(invited[1], SERVICE), world, "vault_down")

    world.heal()
    assert person.connect(invited[1], SERVICE).status_code == 200
    assert RefreshToken.objects.current().count() == 1


def test_a_vault_that_stores_and_does_not_answer_leaves_no_pointer(person, invited, world, known_vault):
    world.fail("vault", "timeout-after", method="PUT")

    answer = person.connect(invited[1], SERVICE)

    assert answer.status_code == 503
    assert world.vault("cpv-demo.vault.azure.net").secrets
    assert not RefreshToken.objects.filter(stored_at__isnull=False).exists()
    assert not Consent.objects.exists()


@pytest.mark.parametrize("service", ["entra", "graph"])
def test_with_microsoft_down_the_visitor_may_try_again(person, invited, world, service):
    address = person.leave(invited[1])
    back = person.at_microsoft(address, SERVICE)
    world.fail(service, "503")

    assert_refused(person.come_back(back), world, "microsoft_down")


def test_with_entra_down_at_the_start_the_invitation_says_so(person, invited, world):
    world.fail("entra", "503")

    assert_refused(person.portal.post(invited[1]), world, "microsoft_down")


def test_a_stop_while_a_consent_is_checked_lets_no_further_token_request_leave(person, invited, world):
    def killed(_seconds: float) -> None:
        Partner.objects.update(killed_at=timezone.now())

    world.sleep = killed
    world.fail("partnercenter", "slow", seconds=1)
    before = len(world.calls_to("entra", f"{CONTOSO}/oauth2/v2.0/token"))

    assert_refused(person.connect(invited[1], SERVICE), world, "stopped")

    assert len(world.calls_to("entra", f"{CONTOSO}/oauth2/v2.0/token")) == before + 1, "the code, and nothing after"


def test_a_stopped_partner_cannot_connect(person, invited, world):
    partner = invited[0]
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    type(partner).objects.update(killed_at=timezone.now())

    assert_refused(person.come_back(back), world, "stopped")
    assert_refused(person.portal.post(invited[1]), world, "stopped")


def test_every_refusal_is_in_the_audit_with_its_reason_and_without_the_state(person, invited, world):
    person.connect(invited[1], SERVICE, accept=False)

    event = AuditEvent.objects.get(action="consent.refused")
    assert event.detail["reason"] == "declined"
    attempt = ConsentAttempt.objects.get()
    assert (attempt.outcome, attempt.sealed_flow) == ("declined", "")


# --- Rare turns -----------------------------------------------------------------------------------------------------
def test_a_consent_that_loses_the_race_at_the_very_end_is_thrown_away(person, invited, world, known_vault):
    world.latency["vault"] = 1
    world.sleep = lambda _seconds: Invitation.objects.update(used_at=timezone.now())

    answer = person.connect(invited[1], SERVICE)

    assert answer.status_code == 409
    assert not RefreshToken.objects.filter(stored_at__isnull=False).exists()
    assert not Consent.objects.exists()


def test_a_partner_killed_while_it_connects_is_not_connected(person, invited, world, known_vault):
    world.latency["vault"] = 1
    world.sleep = lambda _seconds: type(invited[0]).objects.update(killed_at=timezone.now())

    assert_nothing_pinned(person.connect(invited[1], SERVICE), "stopped")


def assert_nothing_pinned(answer, reason):
    assert REASONS[reason].title in text_of(answer)
    assert not RefreshToken.objects.filter(stored_at__isnull=False).exists()
    assert Invitation.objects.get().used_at is None


@pytest.mark.parametrize(("kept_back", "reason"), [("openid", "unverified"), ("offline_access", "missing_scope")])
def test_a_grant_that_lacks_a_part_is_refused(person, invited, contoso, world, kept_back, reason):
    contoso.withheld.add(kept_back)

    assert_refused(person.connect(invited[1], SERVICE), world, reason)


def test_an_all_stop_refuses_new_consents(person, invited, world):
    Halt.objects.create(reason="drill", started_by="security")

    assert_refused(person.portal.post(invited[1]), world, "stopped")


def test_a_partner_killed_during_the_checks_makes_no_further_call(person, invited, world):
    world.latency["partnercenter"] = 1
    world.sleep = lambda _seconds: type(invited[0]).objects.update(killed_at=timezone.now())

    answer = person.connect(invited[1], SERVICE)

    assert_refused(answer, world, "stopped")
    assert not world.calls_to("graph")


def test_with_partner_center_down_and_no_evidence_in_the_token_nothing_is_decided():
    class Silent:
        authentication_methods = None
        root = "https://api.partnercenter.microsoft.com"

        def get(self, *_args, **_options):
            raise Unreachable("No answer in time.", code="timeout")

    with pytest.raises(Unreachable):
        checks_at_consent._mfa(Silent())


def test_of_two_reconnects_the_second_says_already_connected(member, contoso, world):
    contoso.revoke()
    jobs.run_job(Job.objects.get().pk)
    first = member.at_microsoft(member.leave("/connection/renew"), SERVICE)
    second = member.at_microsoft(member.leave("/connection/renew"), SERVICE)
    member.come_back(first)

    answer = member.come_back(second)

    assert f"Already connected as {SERVICE}" in text_of(answer)
    assert RefreshToken.objects.count() == 2


def test_a_plain_access_denied_is_a_no(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)

    answer = person.come_back(changed(back, code=None, error="access_denied"))

    assert_refused(answer, world, "declined")


def test_an_answer_without_code_and_without_error_is_refused(person, invited, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)

    assert_refused(person.come_back(changed(back, code=None)), world, "unverified")


@pytest.mark.parametrize("kind", ["403", "401"])
def test_partner_center_that_lets_the_account_see_nothing_leaves_the_word_to_the_token(person, invited, world, kind):
    world.fail("partnercenter", {"403": "forbidden", "401": "unauthorized"}[kind])

    person.connect(invited[1], SERVICE)

    assert Consent.objects.get().mfa_evidence["source"] == "amr of the access token"


def test_declining_at_sign_in_says_sign_in_again_and_not_invitation(member, world):
    elsewhere = Person(Client(), world)
    address = elsewhere.leave("/signin", cloud="global")
    state = dict(parse_qsl(urlsplit(address).query))["state"]

    answer = elsewhere.bring(f"/signin/callback?error=access_denied&state={state}")

    words = text_of(answer)
    assert "Sign in again" in words
    assert "invitation" not in words.lower()


@pytest.mark.parametrize("path", ["/connect/callback", "/signin/callback"])
def test_the_way_back_without_any_answer_is_no_page(person, db, path):
    assert person.portal.get(path).status_code == 404


def test_a_member_whose_partner_never_connected_is_sent_home_from_connected(person, invited, world):
    user = User.objects.create_user("early")
    Member.objects.create(user=user, partner=invited[0], role="owner")
    person.portal.force_login(user)
    session = person.portal.session
    session["partner_id"] = invited[0].pk
    session.save()

    answer = person.portal.get("/connect/connected")

    assert answer["Location"] == "/"
    assert "Invited" in text_of(person.portal.get("/"))


def test_outside_development_forms_may_lead_to_microsofts_login_hosts_only(person, invited, world, settings):
    settings.CPV_SANDBOX_URL = ""

    policy = person.portal.get(invited[1])["Content-Security-Policy"]

    assert "form-action 'self' https://login.microsoftonline.com;" in policy + ";"


def test_a_second_invitation_does_not_replace_a_connection_that_works(member, invited, world, contoso):
    _, second = invitations.invite(partner=invited[0], by=SYSTEM)
    pins = RefreshToken.objects.count()

    answer = member.portal.post(second)

    assert f"Already connected as {SERVICE}" in text_of(answer)
    assert RefreshToken.objects.count() == pins


def test_a_second_invitation_that_was_on_its_way_is_thrown_away_too(person, invited, world):
    _, second = invitations.invite(partner=invited[0], by=SYSTEM)
    back = person.at_microsoft(person.leave(second), SERVICE)
    person.connect(invited[1], SERVICE)

    assert person.come_back(back).status_code == 409
    assert RefreshToken.objects.count() == 1


@pytest.mark.parametrize("path", ["/connect/callback", "/signin/callback"])
def test_a_look_ahead_without_a_body_spends_nothing(person, invited, world, path):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    query = urlsplit(back).query

    assert person.portal.head(f"{path}?{query}").status_code == 405
    assert ConsentAttempt.objects.get().claimed_at is None


def test_of_two_reconnects_that_overlap_the_one_that_pins_first_wins(member, contoso, world):
    contoso.revoke()
    jobs.run_job(Job.objects.get().pk)
    slow = member.at_microsoft(member.leave("/connection/renew"), SERVICE)
    quick = member.at_microsoft(member.leave("/connection/renew"), SERVICE)

    def meanwhile(_seconds):
        world.latency["vault"] = 0
        assert member.come_back(quick).status_code == 200

    world.latency["vault"], world.sleep = 1, meanwhile
    answer = member.come_back(slow)

    assert answer.status_code == 409
    in_force = RefreshToken.objects.current().get()
    assert in_force.consent
    assert RefreshToken.objects.filter(stored_at__isnull=False).count() == 2


@pytest.mark.postgresql
def test_of_two_tabs_at_the_very_same_moment_one_wins_and_the_other_is_told(invited, world, contoso):
    people = [Person(Client(), world) for _ in range(2)]
    backs = [person.at_microsoft(person.leave(invited[1]), SERVICE) for person in people]
    together = threading.Barrier(2)
    put, world.sleep = world.latency, lambda _seconds: together.wait(5)

    def come_back(number: int) -> int:
        try:
            return people[number].come_back(backs[number]).status_code
        finally:
            connections.close_all()

    outside.vault("global").put("known", "nothing", tags={})
    put["vault"] = 1
    with ThreadPoolExecutor(2) as pool:
        ends = sorted(pool.map(come_back, range(2)))

    assert ends == [200, 409]
    assert RefreshToken.objects.current().count() == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("mfa", "no_mfa"), ("reauth", "microsoft_refused"), ("partner_admin", "blocked"), ("config", "our_fault")],
)
def test_a_code_nobody_knows_is_explained_by_its_kind(kind, reason):
    failure = EntraRefused("no", meaning=unknown(Kind(kind), 59999), code="AADSTS59999")

    assert of_failure(failure).reason == reason


@pytest.mark.parametrize("path", ["/signin/callback?state=x", "/signin/callback?code=1&state=y"])
def test_a_sign_in_that_went_astray_leads_back_to_sign_in(person, db, world, path):
    answer = person.portal.get(path)

    assert 'href="/signin"' in answer.content.decode()
    assert "invitation" not in text_of(answer).lower()


def test_a_sign_in_that_took_too_long_leads_back_to_sign_in(person, db, world):
    address = person.leave("/signin", cloud="global")
    state = dict(parse_qsl(urlsplit(address).query))["state"]

    with time_machine.travel(timezone.now() + dt.timedelta(minutes=11)):
        answer = person.bring(f"/signin/callback?code=1&state={state}")

    assert REASONS["too_late"].title in text_of(answer)
    assert 'href="/signin"' in answer.content.decode()


def test_a_reconnect_that_was_used_twice_leads_home(member, contoso):
    contoso.revoke()
    jobs.run_job(Job.objects.get().pk)
    back = member.at_microsoft(member.leave("/connection/renew"), SERVICE, accept=False)
    member.come_back(back)

    answer = member.come_back(back)

    assert 'href="/"' in answer.content.decode()
    assert "Open the invitation" not in text_of(answer)


@pytest.mark.parametrize("ended", ["withdrawn_at", "lapses_at"])
def test_after_a_withdrawal_too_the_first_of_two_reconnects_wins(member, world, ended):
    type(RefreshToken.objects.get().partner).objects.update(**{ended: timezone.now()})
    slow = member.at_microsoft(member.leave("/connection/renew"), SERVICE)
    quick = member.at_microsoft(member.leave("/connection/renew"), SERVICE)

    def meanwhile(_seconds):
        world.latency["graph"] = 0
        assert member.come_back(quick).status_code == 200

    world.latency["graph"], world.sleep = 1, meanwhile

    assert member.come_back(slow).status_code == 409
    assert RefreshToken.objects.current().get().generation == 2


@pytest.mark.postgresql
def test_a_consent_and_a_run_that_begin_together_do_not_block_each_other(member):
    job = Job.objects.get()
    token = custody._reserve(job.partner, oid=RefreshToken.objects.get().oid, upn="", limits="")
    held, pinned = threading.Event(), threading.Event()

    @tenancy.owner_scope()
    def begin_a_run():
        try:
            with transaction.atomic():
                Job.objects.filter(pk=job.pk).update(fence=2)
                held.set()
                pinned.wait(1)
                Run.objects.create(partner=job.partner, job=job, fence=2)
        finally:
            connections.close_all()

    def on_pin(_token):
        pinned.set()
        jobs.make_due(job.partner)

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(begin_a_run)
        assert held.wait(5)
        custody._pin(token, "version", RefreshToken.objects.current().get(), on_pin)
        run.result(5)

    assert RefreshToken.objects.current().get() == token
