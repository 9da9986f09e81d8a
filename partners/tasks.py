"""What workers are told: ids only. A task claims a row that is due, or ends; it never retries itself."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task

from partners import jobs


@shared_task(name="partners.dispatch", ignore_result=True)
def dispatch(**_future: Any) -> None:
    """The tick: send one message for each job that is due. Two ticks at once share the jobs."""
    for job_id in jobs.claim_due():
        run_job.delay(job_id=job_id)


@shared_task(name="partners.tidy", ignore_result=True)
def tidy(**_future: Any) -> None:
    """Let go of old runs."""
    jobs.forget_old()


@shared_task(name="partners.run_job", bind=True, acks_late=True, ignore_result=True)
def run_job(self: Task[..., None], *, job_id: int, **_future: Any) -> None:
    """Run one due job, if it is still due and nobody else has it."""
    delivery = self.request.delivery_info or {}
    jobs.run_job(job_id, message=self.request.id or "", redelivered=bool(delivery.get("redelivered")))
