"""What people may do about a job: run now, pause, resume, cancel, release; and what is held for failing too often."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction
from django.utils import timezone

from partners import jobs, workboard
from partners.jobs import alone, claiming, running
from partners.jobs.running import TOO_OFTEN
from partners.models import Job, Partner, Run
from sandbox.world import World
from tests.live import until
from tests.partners.test_lifecycle import somebody_waits_for_a_turn
from tests.partners.test_runs import a_job, a_partner, customers_of, during_the_next_call, run
from tokens import broker
from tokens.actors import SYSTEM
from tokens.http import Unreachable
from tokens.models import AuditEvent

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
BATCH = 5_000  # customers, ten pages: what is written together


def said(partner: Partner) -> list[str]:
    written = AuditEvent.objects.filter(partner=partner, action__startswith="job.")
    return list(written.order_by("pk").values_list("action", flat=True))


def died_with(job: Job) -> bool:
    """Whether a worker got the job, and then was no more."""
    Job.objects.filter(pk=job.pk).update(leased_until=None)
    return running._take(job.pk, message="", redelivered=False, insists=False) is not None


def run_after_a_lost_worker(job: Job) -> Run:
    Job.objects.filter(pk=job.pk).update(leased_until=None)
    return run(job)


# --- Pause and resume -----------------------------------------------------------------------------------------------
def test_a_paused_job_waits_for_nobody_but_whoever_resumes_it(connected_partner: Connect) -> None:
    job = customers_of(connected_partner())

    assert jobs.pause(job, by=SYSTEM, reason="the books are closed")
    assert jobs.claim_due() == []
    assert jobs.run_job(job.pk) is None
    assert jobs.make_due(job.partner) == 0
    assert jobs.resume(job, by=SYSTEM)

    assert jobs.claim_due() == [job.pk]
    assert run(job).outcome == "done"
    assert said(job.partner) == ["job.paused", "job.resumed"]


def test_a_run_under_way_stops_when_what_it_read_is_kept_and_goes_on_from_there(
    connected_partner: Connect, world: World
) -> None:
    job = customers_of(connected_partner(customers=BATCH + 1))
    during_the_next_call(world, lambda: jobs.pause(job, by=SYSTEM))

    paused = run(job)

    assert (paused.outcome, paused.error_code, paused.pages, job.failures) == ("waiting", "paused", 1, 0)
    assert jobs.claim_due() == []
    jobs.resume(job, by=SYSTEM)
    went_on = run(job)
    assert (went_on.outcome, went_on.pages, went_on.seen) == ("done", 10, BATCH + 1)


def test_hearing_of_it_costs_a_page_no_query(
    connected_partner: Connect, world: World, django_assert_num_queries: Any
) -> None:
    job = customers_of(connected_partner(customers=1200))
    jobs.claim_due()
    taken = running._take(job.pk, message="", redelivered=False, insists=False)
    assert taken
    assert taken.token
    work = jobs.Work(taken.job, taken.run, taken.job.partner, taken.token)

    with django_assert_num_queries(1):
        work.keep({"next": 1})
        work.pause()


# --- Cancel ---------------------------------------------------------------------------------------------------------
def test_a_cancelled_run_ends_and_the_next_begins_at_the_beginning(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner(customers=BATCH + 1))
    during_the_next_call(world, lambda: jobs.cancel(job, by=SYSTEM))

    ended = run(job)

    assert (ended.outcome, ended.pages, job.cursor, job.cancelled_at) == ("cancelled", 1, {}, None)
    assert job.next_run_at
    assert job.next_run_at > timezone.now() + dt.timedelta(hours=5)
    jobs.try_again(job, by=SYSTEM)
    assert run(job).pages == 11


def test_cancelling_what_waits_forgets_where_it_stopped(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner(customers=1200))
    world.sleep = lambda seconds: world.fail("partnercenter", "503", times=1)
    world.fail("partnercenter", "slow", times=1)
    run(job)
    assert job.cursor

    assert jobs.cancel(job, by=SYSTEM)

    job.refresh_from_db()
    assert (job.cursor, job.failures) == ({}, 0)
    assert jobs.claim_due() == []


def stopped_on_the_way(partner: Partner, world: World) -> Job:
    """A job that stopped after a page; its next run cannot begin without a token of Entra's."""
    job = customers_of(partner)
    world.sleep = lambda seconds: world.fail("partnercenter", "503", times=1)
    world.fail("partnercenter", "slow", times=1)
    assert (run(job).outcome, run_pages(job)) == ("waiting", 1)
    jobs.try_again(job, by=SYSTEM)
    broker.forget()
    return job


def run_pages(job: Job) -> int:
    return Run.objects.filter(job=job).latest("pk").pages


def cancelled_before_a_page(job: Job, world: World, fault: str) -> Run:
    """Somebody cancels the run while it gets its token, and then its first call goes wrong."""
    world.sleep = lambda seconds: jobs.cancel(job, by=SYSTEM)
    world.fail("entra", "slow", times=1)
    world.fail("partnercenter", fault)
    ended = run(job, insists=True)
    assert said(job.partner)[-1] == "job.cancelled"
    world.heal()
    return ended


@pytest.mark.parametrize("fault", ["503", "throttled", "timeout-before", "unauthorized"])
def test_a_cancelled_run_ends_also_where_it_could_read_nothing_more(
    connected_partner: Connect, world: World, fault: str
) -> None:
    job = stopped_on_the_way(connected_partner(customers=1200), world)
    Job.objects.filter(pk=job.pk).update(failures=TOO_OFTEN[Run.Outcome.WAITING] - 1)

    ended = cancelled_before_a_page(job, world, fault)

    assert (ended.outcome, ended.error_code, ended.error) == (
        "cancelled", "cancelled", "Somebody cancelled it; the next run begins at the beginning."
    )  # fmt: skip
    assert (job.cursor, job.cancelled_at, job.failures, job.quarantined_at) == ({}, None, 0, None)
    assert job.next_run_at
    assert job.next_run_at > timezone.now() + dt.timedelta(hours=5)
    jobs.try_again(job, by=SYSTEM)
    assert run(job, insists=True).pages == 3


@pytest.mark.parametrize("fault", ["503", "throttled", "timeout-before", "unauthorized"])
def test_a_run_that_nobody_cancelled_goes_on_soon_from_where_it_stopped(
    connected_partner: Connect, world: World, fault: str
) -> None:
    job = stopped_on_the_way(connected_partner(customers=1200), world)
    world.fail("partnercenter", fault)

    ended = run(job, insists=True)

    assert ended.outcome == ("refused" if fault == "unauthorized" else "waiting")
    assert (bool(job.cursor), job.failures) == (True, 2)
    assert job.next_run_at
    assert job.next_run_at < timezone.now() + dt.timedelta(hours=1)


@pytest.mark.parametrize(("fault", "outcome"), [("foreign-next", "failed"), ("forbidden", "refused")])
def test_a_cancelled_run_that_failed_says_why_and_forgets_where_it_stopped(
    connected_partner: Connect, world: World, fault: str, outcome: str
) -> None:
    job = stopped_on_the_way(connected_partner(customers=1200), world)

    ended = cancelled_before_a_page(job, world, fault)

    assert (ended.outcome, job.cursor, job.cancelled_at) == (outcome, {}, None)
    assert job.next_run_at
    assert job.next_run_at > timezone.now() + dt.timedelta(hours=5)


def test_a_turn_that_ends_as_somebody_cancels_it_is_not_gone_on_with(connected_partner: Connect, settings: Any) -> None:
    job = customers_of(connected_partner(customers=BATCH + 1))
    settings.CPV_TURN_SECONDS = 0

    with cancelled_as_it_ends(job):
        ended = run(job)

    assert (ended.outcome, ended.pages > 0, job.cursor, job.cancelled_at) == ("cancelled", True, {}, None)


def test_what_is_put_off_as_somebody_cancels_it_forgets_where_it_stopped(
    connected_partner: Connect, world: World
) -> None:
    job = stopped_on_the_way(connected_partner(customers=1200), world)
    world.fail("partnercenter", "throttled", retry_after=120, times=1)
    run(job, insists=True)
    jobs.try_again(job, by=SYSTEM)
    assert job.cursor

    with cancelled_as_it_ends(job):
        put_off = jobs.run_job(job.pk)

    job.refresh_from_db()
    assert put_off
    assert put_off.pk is None
    assert (job.cursor, job.cancelled_at, job.leased_until) == ({}, None, None)
    assert job.next_run_at
    assert job.next_run_at > timezone.now() + dt.timedelta(hours=5)


@contextmanager
def cancelled_as_it_ends(job: Job) -> Iterator[None]:
    """Somebody cancels the run when it has heard for the last time what people say."""
    cancelled = False

    def execute(call: Any, sql: str, *how: Any) -> Any:
        nonlocal cancelled
        if not cancelled and sql.startswith("UPDATE") and '"leased_until" = NULL' in sql:
            cancelled = True
            assert jobs.cancel(job, by=SYSTEM)
        return call(sql, *how)

    with connection.execute_wrapper(execute):
        yield
    assert cancelled


def test_whoever_lost_the_lease_leaves_a_cancel_to_whoever_has_it(connected_partner: Connect, world: World) -> None:
    job = stopped_on_the_way(connected_partner(customers=1200), world)

    def taken_over_and_cancelled(seconds: float) -> None:
        Job.objects.filter(pk=job.pk).update(leased_until=timezone.now())
        assert Job.objects.get(pk=job.pk).lease()
        assert jobs.cancel(job, by=SYSTEM)

    world.sleep = taken_over_and_cancelled
    world.fail("entra", "slow", times=1)
    world.fail("partnercenter", "503")

    assert run(job, insists=True).outcome == "taken_over"
    assert (job.cancelled_at is not None, bool(job.cursor)) == (True, True)


@pytest.mark.parametrize("take", [lambda job: job.lease(), lambda job: jobs.claim_due() and claiming.take_next()])
def test_a_cancel_counts_even_when_the_runs_worker_died_of_it(take: Callable[[Job], Any]) -> None:
    job = a_job(a_partner(1), "customers", cursor={"next": 7})
    assert job.lease()
    assert jobs.cancel(job, by=SYSTEM)
    Job.objects.update(leased_until=timezone.now())

    assert take(job)

    job.refresh_from_db()
    assert (job.cursor, job.cancelled_at) == ({}, None)


@pytest.mark.parametrize("take", [lambda job: job.lease(), lambda job: jobs.claim_due() and claiming.take_next()])
def test_whoever_takes_over_goes_on_from_where_the_dead_one_was(take: Callable[[Job], Any]) -> None:
    job = a_job(a_partner(1), "customers", cursor={"next": 7})

    assert take(job)

    job.refresh_from_db()
    assert job.cursor == {"next": 7}


def test_a_cancel_that_comes_too_late_does_not_hit_the_next_run(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner(customers=3))
    during_the_next_call(world, lambda: jobs.cancel(job, by=SYSTEM))
    assert run(job).outcome == "done"

    jobs.try_again(job, by=SYSTEM)
    assert run(job).outcome == "done"


def test_what_changes_nothing_is_not_written_down(connected_partner: Connect) -> None:
    job = customers_of(connected_partner())
    run(job)

    assert not any(act(job, by=SYSTEM) for act in (jobs.resume, jobs.cancel, jobs.release))
    assert jobs.pause(job, by=SYSTEM)
    assert not jobs.pause(job, by=SYSTEM)
    assert said(job.partner) == ["job.paused"]


def test_a_job_of_many_lanes_is_paused_and_resumed_in_all_of_them(connected_partner: Connect) -> None:
    partner = connected_partner()
    job = customers_of(partner)
    a_job(partner, "customers", lane=1)

    jobs.pause(job, by=SYSTEM)
    assert jobs.claim_due() == []
    jobs.resume(job, by=SYSTEM)

    assert len(jobs.claim_due()) == 2
    assert said(partner) == ["job.paused", "job.resumed"]


# --- What fails too often -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "often"), [("500", 10), ("foreign-next", 5)], ids=["what waiting helps", "what it does not"]
)
def test_a_job_that_fails_too_often_is_held_until_somebody_releases_it(
    connected_partner: Connect, world: World, fault: str, often: int
) -> None:
    job = customers_of(connected_partner(customers=600))
    world.fail("partnercenter", fault)
    for _ in range(often - 1):
        job.make_due()
        run(job)
    assert job.quarantined_at is None

    job.make_due()
    run(job)

    assert job.quarantined_at
    assert job.next_run_at is None
    assert jobs.claim_due() == []
    world.heal()
    assert jobs.release(job, by=SYSTEM)
    assert run(job).outcome == "done"
    assert (job.failures, said(job.partner)) == (0, ["job.held", "job.released"])


def test_a_reconnect_releases_too_and_the_next_failure_holds_again(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner())
    Job.objects.filter(pk=job.pk).update(failures=9, quarantined_at=timezone.now(), next_run_at=None)

    assert jobs.make_due(job.partner) == 1
    world.fail("partnercenter", "500")
    run(job)

    assert job.quarantined_at


def test_a_job_that_somebody_asks_for_while_it_fails_is_not_held(connected_partner: Connect, world: World) -> None:
    job = customers_of(connected_partner())
    Job.objects.filter(pk=job.pk).update(failures=9)

    def ask_and_fail() -> None:
        jobs.make_due(job.partner)
        raise Unreachable("the line is cut", code="unreachable")

    during_the_next_call(world, ask_and_fail)
    ended = run(job)

    assert (ended.outcome, job.failures, job.quarantined_at) == ("waiting", 10, None)
    assert jobs.claim_due() == [job.pk]


def test_a_job_whose_worker_dies_each_time_is_held(connected_partner: Connect) -> None:
    job = customers_of(connected_partner())
    other = a_job(job.partner, "customers", lane=1)

    for _ in range(TOO_OFTEN[Run.Outcome.TAKEN_OVER]):
        assert died_with(job)
    assert not died_with(job)

    job.refresh_from_db()
    assert job.quarantined_at
    assert (job.next_run_at, job.leased_until) == (None, None)
    assert said(job.partner) == ["job.held"]
    assert set(Run.objects.values_list("outcome", "error_code")) == {("taken_over", "worker_lost")}
    assert jobs.work_off() == 1
    assert Run.objects.get(job=other).outcome == "done"
    assert jobs.release(job, by=SYSTEM)
    assert run(job).outcome == "done"


def die(*held: Job) -> None:
    """A worker is no more that held these jobs."""
    Job.objects.filter(pk__in=[job.pk for job in held]).update(leased_until=timezone.now())


def is_taken(job: Job) -> bool:
    return running._take(job.pk, message="", redelivered=False, insists=False) is not None


def test_who_only_stood_beside_a_job_that_kills_workers_is_not_held(connected_partner: Connect, world: World) -> None:
    killer = customers_of(connected_partner())
    beside = [a_job(killer.partner, "customers", lane=lane) for lane in (1, 2)]
    assert all(is_taken(job) for job in (killer, *beside))
    die(killer, *beside)  # and all three wrote nothing

    for _ in range(TOO_OFTEN[Run.Outcome.TAKEN_OVER] - 1):
        assert is_taken(killer)
        assert not any(is_taken(job) for job in beside), "they died together, and would again"
        die(killer)
    assert not is_taken(killer)
    with time_machine.travel(timezone.now() + alone.AGAIN_IN):
        ended = [run(job) for job in beside]

    killer.refresh_from_db()
    assert killer.quarantined_at
    assert [(one.outcome, job.failures, job.suspected_at) for one, job in zip(ended, beside, strict=True)] == [
        ("done", 0, None)
    ] * 2


def test_of_those_that_died_together_the_next_begins_when_one_has_written_a_page(connected_partner: Connect) -> None:
    first = customers_of(connected_partner())
    second = a_job(first.partner, "customers", lane=1)
    assert is_taken(first)
    assert is_taken(second)
    die(first, second)
    assert is_taken(first)
    assert not is_taken(second)
    second.refresh_from_db()
    assert (second.wait_code, second.leased_until) == ("alone", None)
    assert "one at a time" in workboard.WAITS[second.wait_code]

    Run.objects.filter(job=first, outcome="running").update(pages=1)
    with time_machine.travel(timezone.now() + alone.AGAIN_IN):
        assert is_taken(second)


def test_others_are_not_held_up_by_those_that_died(connected_partner: Connect) -> None:
    first = customers_of(connected_partner())
    assert is_taken(first)
    die(first)
    assert is_taken(first)

    assert is_taken(a_job(first.partner, "customers", lane=1))


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_two_that_died_together_and_are_taken_at_the_same_moment_do_not_both_run(connected_partner: Connect) -> None:
    first = customers_of(connected_partner())
    second = a_job(first.partner, "customers", lane=1)
    assert is_taken(first)
    assert is_taken(second)
    die(first, second)
    began: list[bool] = []

    def another_worker() -> None:
        try:
            began.append(is_taken(second))
        finally:
            connection.close()

    other = threading.Thread(target=another_worker)
    with transaction.atomic():
        assert is_taken(first)
        other.start()
        until(somebody_waits_for_a_turn, what="the other worker waits")
    other.join()

    assert began == [False]


def test_a_worker_that_dies_after_it_wrote_something_is_no_failure_of_the_job(connected_partner: Connect) -> None:
    job = customers_of(connected_partner())
    for _ in range(7):
        assert died_with(job)
        Run.objects.update(pages=1)

    assert run_after_a_lost_worker(job).outcome == "done"
