"""What workers are told: ids only. A task claims a row that is due, or ends; it never retries itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import Task, shared_task

from partners import alarm_mails, borrowed, change_steps, changes, jobs, lookups
from partners.models import Pulse


@shared_task(name="partners.dispatch", bind=True, ignore_result=True)
def dispatch(self: Task[..., None], **_future: Any) -> None:
    """The tick: send one message for each job, look or change that waits. Two ticks at once share them."""
    Pulse.beat(self.request.hostname or "")
    for job_id in jobs.claim_due():
        run_job.delay(job_id=job_id)
    for lookup_id in lookups.offer_waiting():
        look_up.delay(lookup_id=str(lookup_id))
    for change_id in changes.offer_waiting():
        make_change.delay(change_id=str(change_id))


@shared_task(name="partners.tell_alarms", ignore_result=True)
def tell_alarms(**_future: Any) -> None:
    """Mail the alarms that cannot wait, each once."""
    alarm_mails.tell()


@shared_task(name="partners.tidy", ignore_result=True)
def tidy(**_future: Any) -> None:
    """Let go of old runs and changes, and of workers that are gone."""
    jobs.forget_old()
    changes.forget_old()
    Pulse.forget_old()


@shared_task(name="partners.end_access", ignore_result=True)
def end_access(**_future: Any) -> None:
    """Write down which looks of the vendor's staff are over; what is over opens nothing even before."""
    borrowed.end_what_is_over()


@shared_task(name="partners.run_job", bind=True, acks_late=True, ignore_result=True)
def run_job(self: Task[..., None], *, job_id: int, **_future: Any) -> None:
    """Run one due job, if it is still due and nobody else has it."""
    delivery = self.request.delivery_info or {}
    jobs.run_job(job_id, message=self.request.id or "", redelivered=bool(delivery.get("redelivered")))


@shared_task(name="partners.look_up", acks_late=True, ignore_result=True)
def look_up(*, lookup_id: str, **_future: Any) -> None:
    """Ask Microsoft what a member wants to see, if nobody did yet."""
    lookups.answer(UUID(lookup_id))


@shared_task(name="partners.make_change", acks_late=True, ignore_result=True)
def make_change(*, change_id: str, **_future: Any) -> None:
    """Take the next step of a change that somebody wants, if nobody else has it."""
    change_steps.work(UUID(change_id))
