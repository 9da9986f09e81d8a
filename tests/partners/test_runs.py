"""Who runs a job, and how it ends; through the stand-in."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from celery.signals import worker_shutting_down
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from partners import jobs
from partners.jobs import work
from partners.models import Job, Partner, Run
from partners.standing import current_token, standing
from sandbox.world import World
from tokens.models import AuditEvent, Halt

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
BATCH = 5_000  # customers, ten pages: what is written together


def a_partner(number: int) -> Partner:
    return Partner.objects.create(cloud="global", tenant_id=uuid.UUID(int=number), name=f"Partner {number}")


def a_job(partner: Partner, kind: str, *, minutes: float = 0, **fields: Any) -> Job:
    """A job that has been due for so many minutes."""
    due = timezone.now() - dt.timedelta(minutes=minutes)
    return Job.objects.create(partner=partner, kind=kind, next_run_at=due, **fields)


def customers_of(partner: Partner) -> Job:
    job = jobs.ensure(partner, "customers", due_now=True)
    assert job.next_run_at
    return job


def run(job: Job, **how: Any) -> Run:
    ended = jobs.run_job(job.pk, **how)
    assert ended is not None
    job.refresh_from_db()
    return Run.objects.get(pk=ended.pk)


def later(**by: float) -> Any:
    return time_machine.travel(timezone.now() + dt.timedelta(**by))


def during_the_next_call(world: World, act: Callable[[], Any]) -> None:
    """Let something happen while Partner Center is thinking."""
    world.sleep = lambda seconds: act()
    world.fail("partnercenter", "slow", times=1)


# --- Running --------------------------------------------------------------------------------------------------------
def test_a_good_run_ends_done_and_comes_again(connected_partner: Connect) -> None:
    job = customers_of(connected_partner())

    ended = run(job)

    assert ended.outcome == "done"
    assert ended.finished_at
    assert job.next_run_at
    assert dt.timedelta(hours=5) < job.next_run_at - timezone.now() < dt.timedelta(hours=7)
    assert (job.leased_until, job.claimed_until, job.cursor, job.failures) == (None, None, {}, 0)


def test_a_message_that_comes_twice_runs_once(connected_partner: Connect) -> None:
    job = customers_of(connected_partner())
    run(job, message="m1")

    assert jobs.run_job(job.pk, message="m1") is None
    assert jobs.run_job(job.pk, message="m1", redelivered=True) is None
    assert Run.objects.filter(job=job).count() == 1


def test_a_message_for_a_job_that_is_gone_does_nothing() -> None:
    assert jobs.run_job(12345) is None


def test_only_the_message_its_dead_reader_gave_back_takes_over_at_once(connected_partner: Connect) -> None:
    job = customers_of(connected_partner())
    assert job.lease(message="m1")
    left = Run.objects.create(partner=job.partner, job=job, fence=job.fence)

    assert jobs.run_job(job.pk, message="m2", redelivered=True) is None
    assert jobs.run_job(job.pk, message="m1") is None
    taken = run(job, message="m1", redelivered=True)

    left.refresh_from_db()
    assert (left.outcome, taken.outcome) == ("taken_over", "done")
    assert left.finished_at


def test_a_lease_that_ran_out_is_free_for_anybody(connected_partner: Connect) -> None:
    job = customers_of(connected_partner())
    assert job.lease(message="m1")

    with later(minutes=3):
        assert run(job, message="m2").outcome == "done"


def test_whoever_lost_the_lease_writes_nothing_any_more(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=600)
    job = customers_of(partner)
    inner: list[Run] = []

    def somebody_else_takes_over() -> None:
        world.sleep = lambda seconds: None
        Job.objects.filter(pk=job.pk).update(leased_until=timezone.now())
        inner.append(run(job))

    during_the_next_call(world, somebody_else_takes_over)
    outer = run(job)

    inner[0].refresh_from_db()
    assert (outer.outcome, outer.pages, outer.created) == ("taken_over", 0, 0)
    assert (inner[0].outcome, inner[0].created) == ("done", 600)
    assert job.next_run_at
    assert job.next_run_at > timezone.now()


def test_a_loser_that_fails_leaves_the_new_holders_lease_alone(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    job = customers_of(partner)

    def somebody_else_takes_over() -> None:
        Job.objects.filter(pk=job.pk).update(leased_until=timezone.now())
        assert Job.objects.get(pk=job.pk).lease(message="theirs")
        world.latency["entra"] = 0

    world.latency["entra"], world.sleep = 1, lambda seconds: somebody_else_takes_over()
    world.fail("partnercenter", "503")
    loser = run(job)

    job.refresh_from_db()
    assert loser.outcome == "taken_over"
    assert job.lease_message == "theirs"
    assert job.leased_until
    assert job.leased_until > timezone.now()


def test_a_job_made_due_while_it_runs_runs_once_more(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    job = customers_of(partner)
    during_the_next_call(world, lambda: jobs.make_due(partner))

    ended = run(job)

    assert ended.outcome == "done"
    assert jobs.claim_due() == [job.pk]


# --- Ending ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stop", ["killed_at", "suspended_at", "withdrawn_at", "lapses_at"])
def test_nothing_leaves_for_a_partner_that_is_stopped(connected_partner: Connect, world: World, stop: str) -> None:
    partner = connected_partner()
    job = customers_of(partner)
    Partner.objects.filter(pk=partner.pk).update(**{stop: timezone.now()})
    before = len(world.calls)

    ended = run(job)

    partner.refresh_from_db()
    assert ended.outcome == "refused"
    assert ended.error_code == standing(partner, current_token(partner)).state
    assert job.next_run_at is None
    assert len(world.calls) == before


def test_a_partner_that_never_connected_is_refused() -> None:
    assert run(a_job(a_partner(1), "customers")).error_code == "invited"


def test_after_an_all_stop_work_comes_again_by_itself(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner())
    Halt.objects.create(reason="drill", started_by="security")

    with later(seconds=1):
        ended = run(job)

    assert (ended.outcome, ended.error_code) == ("refused", "stopped")
    assert world.calls_to("partnercenter", "customers") == []
    assert job.next_run_at is not None


def test_missing_mfa_parks_the_partner_until_they_reconnect(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    job = customers_of(partner)
    world.fail("partnercenter", "mfa", times=1)

    ended = run(job)

    assert (ended.outcome, ended.error_code) == ("refused", "900421")
    assert job.next_run_at is None
    assert standing(partner, current_token(partner)).state == "mfa_missing"
    assert AuditEvent.objects.filter(partner=partner, action="connection.refused").count() == 1
    assert jobs.make_due(partner) >= 1
    assert job.pk in jobs.claim_due()


def test_a_revoked_sign_in_parks_the_partner(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    job = customers_of(partner)
    world.fail("entra", "AADSTS50173")

    ended = run(job)

    assert (ended.outcome, job.next_run_at) == ("refused", None)
    assert "50173" in ended.error_code
    assert standing(partner, current_token(partner)).state == "needs_consent"


def test_a_missing_role_is_refused_and_tried_again_because_no_reconnect_will_come(
    connected_partner: Connect, world: World
) -> None:
    job = customers_of(connected_partner())
    world.fail("partnercenter", "forbidden")

    ended = run(job)

    assert (ended.outcome, ended.error_code) == ("refused", "2032")
    assert job.next_run_at is not None


def test_a_page_that_is_refused_once_is_read_with_a_new_token(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner(customers=600))
    world.fail("partnercenter", "unauthorized", times=1)
    asked = len(world.calls_to("entra", "token"))

    ended = run(job)

    assert (ended.outcome, ended.seen) == ("done", 600)
    assert len(world.calls_to("entra", "token")) - asked <= 2


def test_a_sign_in_that_is_refused_keeps_the_place_and_comes_soon(
    connected_partner: Connect, world: World, settings: Any
) -> None:
    job = customers_of(connected_partner(customers=BATCH + 1))
    settings.CPV_TURN_SECONDS = -1
    run(job)
    kept, settings.CPV_TURN_SECONDS = job.cursor, 60
    world.fail("partnercenter", "unauthorized")

    ended = run(job)

    assert (ended.outcome, job.cursor) == ("refused", kept)
    assert kept["next"]
    assert job.next_run_at
    assert job.next_run_at - timezone.now() < dt.timedelta(minutes=1)


@pytest.mark.parametrize("service", ["entra", "vault", "partnercenter"])
def test_an_outage_is_waited_out(connected_partner: Connect, world: World, service: str) -> None:
    job = customers_of(connected_partner())
    world.fail(service, "503")

    ended = run(job)

    assert ended.outcome == "waiting"
    assert ended.error_code
    assert job.failures == 1
    assert job.next_run_at
    assert job.next_run_at > timezone.now()


def test_each_failure_in_a_row_waits_longer(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner())
    world.fail("partnercenter", "500")

    waits = []
    for _ in range(6):
        job.make_due()
        run(job)
        assert job.next_run_at
        waits.append((job.next_run_at - timezone.now()).total_seconds())

    assert 10 < waits[0] <= 30
    assert 400 < waits[-1] <= 960


def test_microsofts_retry_after_is_kept(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner())
    world.fail("partnercenter", "throttled", retry_after=3600)

    ended = jobs.run_job(job.pk)

    assert ended
    assert ended.retry_after == 3600
    job.refresh_from_db()
    assert job.next_run_at
    assert job.next_run_at - timezone.now() > dt.timedelta(minutes=59)


def test_a_vault_that_refuses_is_ours_to_repair(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner())
    world.fail("vault", "forbidden")

    ended = run(job)

    assert ended.outcome == "failed"
    assert job.next_run_at is not None


def test_our_own_mistake_ends_the_run_and_is_logged(
    connected_partner: Connect, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    job = customers_of(connected_partner())

    def break_down() -> None:
        raise RuntimeError("the bottom fell out")

    during_the_next_call(world, break_down)
    ended = run(job)

    assert (ended.outcome, ended.error_code) == ("failed", "unexpected")
    assert "bottom" not in ended.error
    assert any(record.levelname == "ERROR" and record.exc_info for record in caplog.records)


@pytest.mark.parametrize("lost", [OperationalError, InterfaceError])
def test_a_database_that_is_away_for_a_moment_is_waited_out(
    connected_partner: Connect, world: World, lost: type[Exception]
) -> None:
    job = customers_of(connected_partner())

    def fail_over() -> None:
        raise lost("the connection is lost")

    during_the_next_call(world, fail_over)
    ended = run(job)

    assert (ended.outcome, ended.error_code, job.failures) == ("waiting", "database", 1)
    assert job.next_run_at
    assert 10 < (job.next_run_at - timezone.now()).total_seconds() <= 30


def test_after_a_deadlock_the_run_goes_on_from_what_was_committed(connected_partner: Connect, settings: Any) -> None:
    job = customers_of(connected_partner(customers=BATCH + 1))
    settings.CPV_TURN_SECONDS = -1
    run(job)
    kept, settings.CPV_TURN_SECONDS = job.cursor, 60
    assert kept["next"]

    def deadlock(execute: Any, sql: str, *how: Any) -> Any:
        if "partners_job" in sql and '"cursor" =' in sql and "RETURNING" in sql:
            execute(sql, *how)
            raise OperationalError("deadlock detected")
        return execute(sql, *how)

    with connection.execute_wrapper(deadlock):
        ended = run(job)

    assert (ended.error_code, job.cursor) == ("database", kept)
    job.make_due()
    assert (run(job).outcome, job.partner.customers.present().count()) == ("done", BATCH + 1)


def test_a_kind_this_release_does_not_know_fails_by_name(connected_partner: Connect) -> None:
    job = a_job(connected_partner(), "from-the-future")

    ended = run(job)

    assert (ended.outcome, ended.error_code) == ("failed", "unknown_kind")
    assert job.next_run_at is not None


def test_a_worker_that_is_told_to_end_leaves_the_job_to_the_next(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner())

    def stop() -> None:
        raise KeyboardInterrupt

    during_the_next_call(world, stop)
    with pytest.raises(KeyboardInterrupt):
        jobs.run_job(job.pk)

    assert jobs.run_job(job.pk) is None
    with later(minutes=3):
        assert run(job).outcome == "done"
    assert set(Run.objects.values_list("outcome", flat=True)) == {"taken_over", "done"}


def test_a_run_that_had_its_time_keeps_what_it_read_and_goes_on_at_once(
    connected_partner: Connect, world: World, settings: Any
) -> None:
    job = customers_of(connected_partner(customers=BATCH + 1))
    settings.CPV_TURN_SECONDS = 1
    world.sleep = time.sleep
    world.fail("partnercenter", "slow", times=1, seconds=1.1)

    first = run(job)
    settings.CPV_TURN_SECONDS = 60
    second = run(job)

    assert (first.outcome, first.error_code, first.pages) == ("waiting", "turn_over", 1)
    assert job.failures == 0
    assert (second.outcome, second.pages, second.seen) == ("done", 10, BATCH + 1)
    assert job.partner.customers.present().count() == BATCH + 1


def test_a_job_that_made_room_is_due_again_without_a_pause(connected_partner: Connect, settings: Any) -> None:
    job = customers_of(connected_partner(customers=BATCH + 1))
    settings.CPV_TURN_SECONDS = -1

    run(job)

    assert job.pk in jobs.claim_due()


def test_a_worker_that_shuts_down_lets_its_runs_end_when_what_they_read_is_kept(connected_partner: Connect) -> None:
    job = customers_of(connected_partner(customers=BATCH + 1))

    worker_shutting_down.send(sender="a worker")
    try:
        ended = run(job)
    finally:
        work._closing.clear()  # a process has one end; this one is a test's

    assert (ended.outcome, ended.pages) == ("waiting", 1)
    assert "another one goes on" in ended.error
