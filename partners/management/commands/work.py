"""Runs everything that is due, in this process and without a message broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandParser

from partners import jobs
from partners.commands import PanelCommand
from partners.models import Run

NEEDS_A_PERSON = {Run.Outcome.REFUSED, Run.Outcome.FAILED}


class Command(PanelCommand):
    """Exit code 0: all went well or waits; 1: a job was refused or failed; 2: wrong use."""

    help = "Run every job that is due, in this process; ends when nothing is due now."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--until-idle", action="store_true", required=True, help="end when nothing is due now")

    def handle(self, *args: Any, **options: Any) -> None:
        self.needs_the_vault()
        ran = list(_run_everything())
        until = jobs.next_due_at()
        lines = [f"{row['kind']} of {row['tenant_id']}: {row['outcome']}" for row in ran] or ["Nothing was due."]
        fine = not any(row["outcome"] in NEEDS_A_PERSON for row in ran)
        self.answer({"ran": ran, "next_due_at": until}, lines, fine=fine)


def _run_everything() -> Iterator[dict[str, Any]]:
    while claimed := jobs.claim_due():
        for job_id in claimed:
            run = jobs.run_job(job_id)
            if run is not None:
                tenant_id = run.partner.tenant_id
                yield {"kind": run.job.kind, "tenant_id": tenant_id, "outcome": run.outcome}
