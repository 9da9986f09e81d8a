"""J2 and J3: a worker syncs what is due, the partner sees it, and a partner that breaks is told why and reconnects."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.utils import timezone

from partners import jobs
from partners.models import Job, Member, Partner, Run
from partners.standing import current_token, standing
from sandbox.world import World
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import text_of
from tokens import broker
from tokens.models import AuditEvent, Halt, RefreshToken, TokenUse
from tokens.tenancy import owner_scope

pytestmark = pytest.mark.django_db(transaction=True)


def work() -> Run:
    run = jobs.run_job(Job.objects.get().pk)
    assert run is not None
    return run


def state() -> str:
    partner = Partner.objects.get(tenant_id=CONTOSO)
    return standing(partner, current_token(partner)).state


def partner_center(world: World) -> list:
    return [call for call in world.calls if call.service == "partnercenter"]


def test_a_second_call_within_the_hour_asks_entra_for_nothing(member, world):
    work()
    asked = TokenUse.objects.count()
    Job.objects.update(next_run_at=timezone.now())

    work()

    assert TokenUse.objects.count() == asked


def test_a_revoked_sign_in_turns_the_partner_red_with_cause_and_next_action(member, world, contoso):
    contoso.revoke()

    run = work()

    assert (run.outcome, run.error_code) == ("refused", "AADSTS50173")
    assert state() == "needs_consent"
    words = text_of(member.portal.get("/"))
    assert "Sign-in needed" in words
    assert "Reconnect" in words
    assert AuditEvent.objects.filter(action="connection.refused").count() == 1


def test_nothing_leaves_for_a_partner_whose_sign_in_was_refused(member, world, contoso):
    contoso.revoke()
    work()
    before = len(world.calls)
    Job.objects.update(next_run_at=timezone.now())

    assert work().outcome == "refused"
    assert len(world.calls) == before


def test_reconnecting_starts_a_new_generation_and_work_goes_on(member, world, contoso):
    contoso.revoke()
    work()

    answer = member.connect("/connection/renew", SERVICE)

    assert answer.request["PATH_INFO"] == "/connect/connected"
    old, new = RefreshToken.objects.order_by("generation")
    assert old.superseded_at
    assert new.superseded_at is None
    assert state() == "active"
    assert work().outcome == "done"


def test_a_reconnect_that_is_refused_leaves_things_as_they_were(member, world, contoso):
    contoso.revoke()
    work()
    broken = RefreshToken.objects.get()

    member.connect("/connection/renew", SERVICE, mfa=False)

    assert current_token(broken.partner) == broken
    assert state() == "needs_consent"


def test_a_connection_that_was_stopped_leads_nowhere(member):
    Partner.objects.update(suspended_at=timezone.now())

    answer = member.portal.post("/connection/renew")

    assert (answer.status_code, answer["Location"]) == (302, "/")


def test_only_an_owner_may_reconnect(member, contoso):
    contoso.revoke()
    work()
    Member.objects.update(role=Member.Role.READER)

    assert member.portal.post("/connection/renew").status_code == 404
    assert "Reconnect with Microsoft" not in text_of(member.portal.get("/"))


def test_missing_mfa_turns_the_partner_red_with_its_own_words(member, world):
    world.fail("partnercenter", "mfa")

    run = work()

    assert (run.outcome, run.error_code) == ("refused", "900421")
    assert state() == "mfa_missing"
    assert "MFA missing" in text_of(member.portal.get("/"))


def test_a_policy_that_blocks_us_is_the_partners_to_change(member, world):
    world.fail("entra", "AADSTS53003", path="/token", tenant=CONTOSO)

    work()

    assert state() == "blocked"


def test_our_own_bad_credential_never_marks_a_partner(member, world):
    world.fail("entra", "AADSTS7000215", path="/token", tenant=CONTOSO)

    run = work()

    assert run.outcome == "failed"
    assert state() == "active"


@pytest.mark.parametrize("service", ["entra", "vault"])
def test_what_is_down_makes_work_wait_and_marks_nobody(member, world, service):
    world.fail(service, "503")

    run = work()

    assert run.outcome == "waiting"
    assert Job.objects.get().next_run_at > timezone.now()
    assert state() == "active"


def test_an_old_refusal_never_touches_a_newer_consent(member, contoso):
    old = RefreshToken.objects.get()
    contoso.revoke()
    work()
    member.connect("/connection/renew", SERVICE)

    assert old.mark_refused("needs_consent", code="AADSTS50173") is False
    assert state() == "active"


# --- The gate -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stop", ["suspended_at", "killed_at", "withdrawn_at", "offboarded_at"])
def test_nothing_leaves_for_a_partner_that_is_stopped(member, world, stop):
    Partner.objects.update(**{stop: timezone.now()})
    before = len(world.calls)

    assert work().outcome == "refused"
    assert len(world.calls) == before


def test_nothing_leaves_once_the_access_period_is_over(member, world):
    Partner.objects.update(lapses_at=timezone.now() - dt.timedelta(seconds=1))
    before = len(world.calls)

    assert work().outcome == "refused"
    assert state() == "lapsed"
    assert len(world.calls) == before


def test_nothing_leaves_during_an_all_stop(member, world):
    Halt.objects.create(reason="drill", started_by="security")
    broker.forget()
    before = len(world.calls)

    assert work().error_code == "stopped"
    assert len(world.calls) == before


def test_an_all_stop_in_the_middle_of_a_sync_stops_the_next_page(member, world, contoso):
    contoso.customers.count = 1200
    seen = len(partner_center(world))

    @owner_scope()
    def stop_after_the_first_page(_seconds: float) -> None:
        Halt.objects.get_or_create(reason="drill", started_by="security")
        broker.forget()

    contoso.latency, world.sleep = 1, stop_after_the_first_page

    run = work()

    assert (run.outcome, run.error_code, run.pages) == ("refused", "stopped", 1)
    assert len(partner_center(world)) == seen + 1


# --- Rotation -------------------------------------------------------------------------------------------------------
def test_a_redeem_after_a_day_stores_the_successor_and_pins_it(member, world):
    first = RefreshToken.objects.get()
    work()

    with time_machine.travel(timezone.now() + dt.timedelta(hours=25), tick=True):
        broker.forget()
        Job.objects.update(next_run_at=timezone.now())
        world.clock = lambda: timezone.now().timestamp()
        assert work().outcome == "done"

    rotated = RefreshToken.objects.get()
    versions = world.vault("cpv-demo.vault.azure.net").secrets[first.secret_name]
    assert len(versions) == 2
    assert rotated.pinned_version != first.pinned_version
    assert rotated.fence == 1
    assert rotated.leased_until is None


def test_a_redeem_within_the_day_stores_nothing(member, world):
    name = RefreshToken.objects.get().secret_name

    work()

    assert len(world.vault("cpv-demo.vault.azure.net").secrets[name]) == 1


def test_asking_for_a_sync_makes_it_due_and_is_written_down(member):
    work()
    assert Job.objects.get().next_run_at > timezone.now()

    member.portal.post("/sync")

    assert Job.objects.get().next_run_at <= timezone.now()
    assert AuditEvent.objects.filter(action="sync.asked").count() == 1


def test_a_reader_cannot_ask_for_a_sync(member):
    Member.objects.update(role=Member.Role.READER)

    assert member.portal.post("/sync").status_code == 404


def test_the_progress_line_counts_up_and_leads_on_to_the_customers(member):
    queued = member.portal.get("/progress?then=customers")
    assert "queued" in text_of(queued)
    assert "HX-Redirect" not in queued

    work()

    assert member.portal.get("/progress?then=customers")["HX-Redirect"] == "/customers/"
    assert "HX-Redirect" not in member.portal.get("/progress")


def test_a_sync_that_was_asked_for_shows_as_queued_before_a_worker_takes_it(member):
    work()
    home = text_of(member.portal.get("/"))
    assert "Sync now" in home

    answer = member.portal.post("/sync", follow=True)

    assert "Sync queued" in text_of(answer)
    assert answer.context["progress"].is_active


def test_home_may_lead_to_microsoft_because_reconnect_starts_there(member):
    assert "form-action 'self' http://localhost:8400;" in member.portal.get("/")["Content-Security-Policy"] + ";"
    assert "localhost:8400" not in member.portal.get("/customers/")["Content-Security-Policy"]


def test_a_runs_error_reads_as_a_sentence_without_codes(member, world):
    world.fail("partnercenter", "mfa")

    run = work()

    assert run.error == "Partner Center requires MFA, and the partner's sign-in lacks it."
    assert run.error_code == "900421"


def test_a_search_with_a_nul_finds_what_it_can(member):
    work()

    assert member.portal.get("/customers/?q=%00").status_code == 200


def test_five_failures_do_not_make_a_sync_the_first_again(member):
    job = Job.objects.get()
    for outcome in ("done", *["waiting"] * 5, "done"):
        Run.objects.create(
            partner=job.partner,
            job=job,
            fence=1,
            outcome=outcome,
            started_at=timezone.now(),
            finished_at=timezone.now(),
        )
    Job.objects.update(next_run_at=None)

    assert "Sync done" in text_of(member.portal.get("/progress"))
    assert "First" not in text_of(member.portal.get("/progress"))


def test_a_stopped_partner_still_shows_its_last_sync_while_its_job_is_due(member):
    work()
    Job.objects.update(next_run_at=timezone.now())
    Partner.objects.update(suspended_at=timezone.now())

    assert "sync done" in text_of(member.portal.get("/progress")).lower()
