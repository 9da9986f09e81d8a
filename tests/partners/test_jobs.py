"""When jobs are due, and who claims them."""

from __future__ import annotations

import datetime as dt
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import celery
import pytest
import time_machine
from django.db import connections
from django.utils import timezone
from kombu.exceptions import OperationalError

from partners import jobs
from partners.jobs import claiming
from partners.models import Job, Partner, Run

pytestmark = pytest.mark.django_db


def a_partner(number: int) -> Partner:
    return Partner.objects.create(cloud="global", tenant_id=uuid.UUID(int=number), name=f"Partner {number}")


def a_job(partner: Partner, kind: str, *, minutes: float = 0, **fields: Any) -> Job:
    """A job that has been due for so many minutes."""
    due = timezone.now() - dt.timedelta(minutes=minutes)
    return Job.objects.create(partner=partner, kind=kind, next_run_at=due, **fields)


def later(**by: float) -> Any:
    return time_machine.travel(timezone.now() + dt.timedelta(**by))


# --- Claiming -------------------------------------------------------------------------------------------------------
def test_every_partners_first_job_comes_before_anybodys_second() -> None:
    busy, quiet, other = a_partner(1), a_partner(2), a_partner(3)
    first = a_job(busy, "a", minutes=9)
    a_job(busy, "b", minutes=8)
    a_job(busy, "c", minutes=7)
    second, third = a_job(quiet, "a", minutes=2), a_job(other, "a", minutes=1)

    assert set(jobs.claim_due(limit=3)) == {first.pk, second.pk, third.pk}


def test_a_partner_alone_has_many_jobs_under_way_and_never_too_many() -> None:
    busy = a_partner(1)
    for lane in range(jobs.MOST_AT_ONCE + 5):
        a_job(busy, "a", lane=lane)

    assert len(jobs.claim_due(limit=1000)) == jobs.MOST_AT_ONCE
    assert jobs.claim_due() == []


def test_what_a_partner_has_under_way_counts_for_the_turn_of_its_next_job() -> None:
    busy, quiet = a_partner(1), a_partner(2)
    first = a_job(busy, "a", minutes=9)
    assert first.lease()
    second, other = a_job(busy, "b", minutes=8), a_job(quiet, "a", minutes=1)

    assert jobs.claim_due() == [other.pk, second.pk]
    second.refresh_from_db()
    assert second.turn == 2


def test_workers_take_what_is_claimed_in_the_order_of_turns() -> None:
    busy, quiet = a_partner(1), a_partner(2)
    first, second = a_job(busy, "a", minutes=9), a_job(busy, "b", minutes=8)
    other = a_job(quiet, "a", minutes=1)
    jobs.claim_due()

    assert [claiming.take_next() for _ in range(4)] == [first.pk, other.pk, second.pk, None]


def test_workers_claim_more_when_nothing_is_left_and_do_not_wait_for_the_tick() -> None:
    first, second = a_job(a_partner(1), "a"), a_job(a_partner(2), "a")

    assert jobs.work_off() == 2
    assert {run.job_id for run in Run.objects.all()} == {first.pk, second.pk}
    assert jobs.work_off() == 0


def test_a_message_that_was_given_back_begins_with_the_job_its_dead_reader_held() -> None:
    left, other = a_job(a_partner(1), "a"), a_job(a_partner(2), "a", minutes=5)
    assert left.lease(message="m1")
    jobs.claim_due()

    assert claiming.take_next(message="m1", redelivered=True) == left.pk
    assert claiming.take_next(message="m1", redelivered=False) == other.pk
    left.refresh_from_db()
    assert left.fence == 2


def test_a_job_is_claimed_once_and_again_only_when_nobody_took_it_for_a_minute() -> None:
    job = a_job(a_partner(1), "a")

    assert jobs.claim_due() == [job.pk]
    assert jobs.claim_due() == []
    with later(seconds=61):
        assert jobs.claim_due() == [job.pk]


@pytest.mark.parametrize(
    "fields",
    [
        {"minutes": -1},
        {"paused_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)},
        {"leased_until": dt.datetime(2999, 1, 1, tzinfo=dt.UTC)},
    ],
    ids=["not due", "paused", "leased"],
)
def test_what_must_not_run_is_not_claimed(fields: dict[str, Any]) -> None:
    job = a_job(a_partner(1), "customers", **fields)

    assert jobs.claim_due() == []
    assert jobs.run_job(job.pk) is None


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_claims_at_the_same_time_share_the_jobs() -> None:
    expected = {a_job(a_partner(number), "a").pk for number in range(1, 201)}

    def claim(_: int) -> list[int]:
        try:
            return [job_id for _ in range(10) for job_id in jobs.claim_due(limit=5)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        claimed = [job_id for ids in pool.map(claim, range(8)) for job_id in ids]

    assert len(claimed) == len(set(claimed))
    assert set(claimed) <= expected


def test_the_next_job_says_when_it_is_due() -> None:
    assert jobs.next_due_at() is None
    a_job(a_partner(1), "a", minutes=-5)
    sooner = a_job(a_partner(2), "a", minutes=-1)

    assert jobs.next_due_at() == sooner.next_run_at


# --- Making due -----------------------------------------------------------------------------------------------------
def test_a_new_job_is_due_at_once_and_asked_for_again_it_is_the_same() -> None:
    partner = a_partner(1)

    job = jobs.ensure(partner, "customers")

    assert job.next_run_at
    assert job.next_run_at <= timezone.now()
    assert jobs.ensure(partner, "customers") == job


def test_a_kind_nobody_declared_is_refused() -> None:
    with pytest.raises(jobs.UnknownKind, match="customers"):
        jobs.ensure(a_partner(1), "nonsense")


def test_queue_now_tells_a_worker_after_the_commit(
    django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(celery.current_app, "send_task", lambda name, **how: sent.append((name, how["kwargs"])))
    job = a_job(a_partner(1), "customers", minutes=-60)

    with django_capture_on_commit_callbacks(execute=True):
        jobs.queue_now(job)
        assert sent == []

    assert sent == [("partners.run_job", {"job_id": job.pk})]


def test_without_a_message_broker_queue_now_leaves_it_to_the_tick(
    django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*args: Any, **how: Any) -> None:
        raise OperationalError

    monkeypatch.setattr(celery.current_app, "send_task", down)
    job = a_job(a_partner(1), "customers", minutes=-60)

    with django_capture_on_commit_callbacks(execute=True):
        jobs.queue_now(job)

    assert jobs.claim_due() == [job.pk]


# --- Planning -------------------------------------------------------------------------------------------------------
def test_once_its_customers_were_read_a_partner_has_jobs_of_all_kinds_but_those_it_must_ask_for() -> None:
    ready, new = a_job(a_partner(1), "customers"), a_job(a_partner(2), "customers")
    Run.objects.create(partner=ready.partner, job=ready, fence=1, outcome=Run.Outcome.DONE)
    kinds = [kind for kind in jobs.kinds().values() if kind.name != "customers" and not kind.opt_in]

    assert jobs.plan() == sum(kind.lanes for kind in kinds)
    assert jobs.plan() == 0
    assert set(ready.partner.jobs.values_list("kind", flat=True)) == {"customers", *(kind.name for kind in kinds)}
    assert new.partner.jobs.count() == 1


def test_a_new_kind_does_not_make_everything_due_at_once() -> None:
    for number in range(1, 5):
        job = a_job(a_partner(number), "customers")
        Run.objects.create(partner=job.partner, job=job, fence=1, outcome=Run.Outcome.DONE)
    lanes = sum(kind.lanes for kind in jobs.kinds().values() if kind.name != "customers" and not kind.opt_in)

    assert [jobs.plan(limit=3) for _ in range(3)] == [3 * lanes, lanes, 0]
