"""Does everything that is due, in this process and without a message broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from consent import notices
from consent.models import Notice
from partners import alarm_mails, change_steps, jobs, lookups
from partners.commands import PanelCommand
from partners.models import Change, Lookup, Run
from tokens import audit_chain, rotation, sweeping
from tokens.models import RefreshToken

NEEDS_A_PERSON = {Run.Outcome.REFUSED, Run.Outcome.FAILED}


class Command(PanelCommand):
    """Exit code 0: all went well or waits; 1: a job was refused or failed; 2: wrong use."""

    help = "Do everything that is due, in this process; ends when nothing is due now."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--until-idle", action="store_true", required=True, help="end when nothing is due now")

    def handle(self, *args: Any, **options: Any) -> None:
        self.needs_the_vault()
        sweeping.close_stopped()
        ran = [*_answer_questions(), *_make_changes(), *_run_jobs(), *_keep_sign_ins(), *_tell_people()]
        alarm_mails.tell()
        sweeping.sweep()
        audit_chain.seal()
        until = jobs.next_due_at()
        lines = [f"{row['kind']} of {row['tenant_id']}: {row['outcome']}" for row in ran] or ["Nothing was due."]
        fine = not any(row["outcome"] in NEEDS_A_PERSON for row in ran)
        self.answer({"ran": ran, "next_due_at": until}, lines, fine=fine)


def _answer_questions() -> Iterator[dict[str, Any]]:
    """What members asked to see comes first: they wait at their screens."""
    for lookup in Lookup.objects.filter(taken_at=None).select_related("partner"):
        if lookups.answer(lookup.pk):
            yield {"kind": "users", "tenant_id": lookup.partner.tenant_id, "outcome": "answered"}


def _make_changes() -> Iterator[dict[str, Any]]:
    for change in Change.objects.free(timezone.now()).select_related("partner"):
        if change_steps.work(change.pk):
            yield {"kind": "change", "tenant_id": change.partner.tenant_id, "outcome": "went on"}


def _run_jobs() -> Iterator[dict[str, Any]]:
    while claimed := jobs.claim_due():
        for job_id in claimed:
            run = jobs.run_job(job_id)
            if run is not None:
                yield {"kind": run.job.kind, "tenant_id": run.partner.tenant_id, "outcome": run.outcome}


def _keep_sign_ins() -> Iterator[dict[str, Any]]:
    while claimed := rotation.claim_due():
        for token in RefreshToken.objects.filter(pk__in=claimed).select_related("partner"):
            outcome = "kept" if rotation.rotate_claimed(token.pk) else Run.Outcome.WAITING
            yield {"kind": "sign-in", "tenant_id": token.partner.tenant_id, "outcome": outcome}


def _tell_people() -> Iterator[dict[str, Any]]:
    """Last, because a run just now may have found that a connection broke."""
    notices.find()
    for notice_id in notices.due():
        if notices.send(notice_id):
            partner = Notice.objects.select_related("partner").get(pk=notice_id).partner
            yield {"kind": "mail", "tenant_id": partner.tenant_id, "outcome": "sent"}
