"""Who waits for whom, when one partner has much to do and many have little; slots and steps are the test's own."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

import pytest
from django.utils import timezone

from partners import jobs
from partners.jobs import claiming, running
from partners.jobs.running import Ending
from partners.models import Job, Pulse, Run
from tests.partners.test_runs import a_job, a_partner

pytestmark = pytest.mark.django_db
DONE, OVER = Ending(Run.Outcome.DONE), Ending(Run.Outcome.WAITING, "turn_over", goes_on=True)


@dataclass
class Slot:
    """A thread of a worker: it takes the job whose turn it is, and works it off page by page."""

    left: dict[int, int]  # pages by job
    taken: running.Taken | None = None
    work: jobs.Work | None = None

    def step(self) -> int | None:
        """Read one page; the job that is done with it, if any."""
        if self.work is None:
            self.taken = taken = running._take_next("", redelivered=False)
            if taken is None:
                return None
            nobody: Any = None  # no token: nothing is sent
            self.work = jobs.Work(taken.job, taken.run, taken.job.partner, nobody)
        work = self.work
        self.left[work.job.pk] -= 1
        work.keep({"left": self.left[work.job.pk]})
        claiming.forget()
        if not self.left[work.job.pk]:
            return self.end(DONE)
        try:
            work.pause()
        except jobs.TurnOver:
            self.end(OVER)
        return None

    def end(self, ending: Ending) -> int:
        assert self.taken
        running._finish(self.taken, ending)
        self.work = None
        return self.taken.job.pk


def played(left: dict[int, int], *, slots: int) -> dict[int, int]:
    """In which step each job was done."""
    ended: dict[int, int] = {}
    threads = [Slot(left) for _ in range(slots)]
    for step in range(1, sum(left.values()) + 1):
        for slot in threads:
            if (done := slot.step()) is not None:
                ended[done] = step
        if len(ended) == len(left):
            return ended
    pytest.fail(f"not done: {left}")


def test_many_small_partners_do_not_wait_for_one_big_one_which_then_has_all_slots() -> None:
    big, lanes, small, slots, pages = a_partner(1), 8, 24, 4, 48
    lots = {a_job(big, "a", lane=lane, minutes=9).pk: pages // lanes for lane in range(lanes)}
    few = {a_job(a_partner(2 + number), "a", minutes=5).pk: 1 for number in range(small)}

    ended = played(lots | few, slots=slots)

    ideal, limit = math.ceil((small + 1) / slots), math.ceil((small + pages) / slots)
    assert max(ended[job] for job in few) <= 1.5 * ideal
    assert max(ended.values()) <= 1.2 * limit


def test_a_big_partner_that_has_every_slot_makes_room_when_others_come() -> None:
    big, slots = a_partner(1), 4
    left = {a_job(big, "a", lane=lane, minutes=9).pk: 20 for lane in range(slots)}
    threads = [Slot(left) for _ in range(slots)]
    for _ in range(3):
        assert [slot.step() for slot in threads] == [None] * slots
    assert [slot.work and slot.work.job.turn for slot in threads] == [1, 2, 3, 4]

    late = a_job(a_partner(2), "a")
    left[late.pk] = 1
    ended = [done for _ in range(2) for slot in threads if (done := slot.step())]

    assert ended == [late.pk]


def test_a_job_that_always_waited_its_turn_is_not_left_behind_for_ever() -> None:
    busy = a_partner(1)
    assert a_job(busy, "a", minutes=9).lease()
    second = a_job(busy, "b", minutes=8)
    jobs.claim_due()

    Job.objects.filter(partner=busy, kind="a").update(next_run_at=timezone.now() + dt.timedelta(hours=6))
    Job.objects.filter(partner=busy, kind="a").update(leased_until=None)
    Job.objects.filter(pk=second.pk).update(claimed_until=timezone.now())  # a minute later
    jobs.claim_due()

    second.refresh_from_db()
    assert second.turn == 1


def test_a_worker_whose_threads_are_all_taken_for_long_shows_that_it_lives(monkeypatch: Any) -> None:
    monkeypatch.setattr(claiming, "_worker", "")  # and what is noted here is this test's
    monkeypatch.setattr(claiming, "_alive_at", float("-inf"))
    a_job(a_partner(1), "a")
    jobs.works_as("worker-1@here")
    Pulse.objects.all().delete()
    slot = Slot({Job.objects.get().pk: 3})
    slot.step()
    assert slot.work
    slot.work.begun -= 11
    monkeypatch.setattr(claiming, "_alive_at", claiming._alive_at - claiming.ALIVE_EVERY)

    slot.step()

    assert Pulse.objects.get().worker == "worker-1@here"
