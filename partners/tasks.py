"""What workers are told: ids or nothing. A task claims a row that is due, or ends; it never retries itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import Task, shared_task
from django.utils import timezone

from partners import (
    alarm_mails,
    borrowed,
    change_steps,
    changes,
    jobs,
    lookups,
    messages,
    pacing,
    removals,
    search_index,
)
from partners.models import Pulse

HINTS = 16  # messages for one tick; workers that find more than they can do tell others


@shared_task(name="partners.dispatch", ignore_result=True)
def dispatch(**_future: Any) -> None:
    """The tick: claim what is due and tell workers that something waits. Two ticks at once share it."""
    claimed = len(jobs.claim_due(limit=jobs.PER_CLAIM))
    for _ in range(min(claimed, HINTS) or jobs.is_any_claimed()):
        messages.work_waits()
    for lookup_id in lookups.offer_waiting():
        look_up.delay(lookup_id=str(lookup_id))
    for change_id in changes.offer_waiting():
        make_change.delay(change_id=str(change_id))


@shared_task(name="partners.plan", ignore_result=True)
def plan(**_future: Any) -> None:
    """Have jobs for partners and kinds that are new."""
    jobs.plan()


@shared_task(name="partners.pulse", bind=True, ignore_result=True)
def pulse(self: Task[..., None], **_future: Any) -> None:
    """Note that a message of the clock came to this worker; one goes to each queue."""
    Pulse.beat(self.request.hostname or "")


@shared_task(name="partners.work_off", bind=True, acks_late=True, ignore_result=True)
def work_off(self: Task[..., None], *, good_until: float | None = None, **_future: Any) -> None:
    """Run what is due until nothing is, or until this worker should listen to other messages."""
    jobs.works_as(self.request.hostname or "")
    if _was_given_back(self) or not messages.is_too_old(good_until):
        jobs.work_off(message=self.request.id or "", redelivered=_was_given_back(self))


@shared_task(name="partners.tell_alarms", ignore_result=True)
def tell_alarms(**_future: Any) -> None:
    """Mail the alarms that cannot wait, each once."""
    alarm_mails.tell()


@shared_task(name="partners.tidy", ignore_result=True)
def tidy(**_future: Any) -> None:
    """Let go of old runs, changes, waits and mirrored rows, and of workers that are gone."""
    jobs.forget_old()
    pacing.forget_old()
    changes.forget_old()
    removals.erase_old(hour=timezone.now().hour)
    Pulse.forget_old()


@shared_task(name="partners.end_access", ignore_result=True)
def end_access(**_future: Any) -> None:
    """Write down which looks of the vendor's staff are over; what is over opens nothing even before."""
    borrowed.end_what_is_over()


@shared_task(name="partners.index_customers", ignore_result=True)
def index_customers(**_future: Any) -> None:
    """Put customers of large partners into the index that their searches ask; two at once share the work."""
    search_index.catch_up()


@shared_task(name="partners.run_job", bind=True, acks_late=True, ignore_result=True)
def run_job(self: Task[..., None], *, job_id: int, **_future: Any) -> None:
    """Begin a job that somebody waits for, if it is due and nobody else has it."""
    jobs.works_as(self.request.hostname or "")
    jobs.run_first(job_id, message=self.request.id or "", redelivered=_was_given_back(self))


def _was_given_back(task: Task[..., None]) -> bool:
    """Whether the message broker had given this message to a reader who died."""
    return bool((task.request.delivery_info or {}).get("redelivered"))


@shared_task(name="partners.look_up", acks_late=True, ignore_result=True)
def look_up(*, lookup_id: str, **_future: Any) -> None:
    """Ask Microsoft what a member wants to see, if nobody did yet."""
    lookups.answer(UUID(lookup_id))


@shared_task(name="partners.make_change", acks_late=True, ignore_result=True)
def make_change(*, change_id: str, **_future: Any) -> None:
    """Take the next step of a change that somebody wants, if nobody else has it."""
    change_steps.work(UUID(change_id))
