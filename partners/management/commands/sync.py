"""Runs one sync in the foreground."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandParser

from partners import jobs, wishes
from partners.commands import PanelCommand
from partners.models import Job, Run

LONGEST_WAIT = 10.0  # seconds of one Retry-After
WAITS_IN_ALL = 60.0  # seconds
COUNTS = ("pages", "created", "updated", "removed", "unchanged")


class Command(PanelCommand):
    """
    Exit code 0: done; 1: it waits, runs elsewhere, was refused or failed; 2: unknown tenant or job, or wrong role.

    `waiting` comes again by itself; calling this once more goes on at once, where it stopped.
    """

    help = "Sync one partner's customers now, in the foreground."
    stealth_options = ("sleep",)  # a test's own way of waiting

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant_id", metavar="TID", help="the partner's tenant id")
        parser.add_argument("--kind", default="customers", help="what to sync (default: customers)")

    def handle(self, *args: Any, tenant_id: str, kind: str, **options: Any) -> None:
        self.needs_the_vault()
        partner = self.partner(tenant_id)
        try:
            if not wishes.is_asked_for(partner, kind):
                self.wrong_use(f"{partner.name} did not ask for {kind}: one of its owners does, at /jobs/.")
            job = jobs.ensure(partner, kind)
        except jobs.UnknownKind as unknown:
            self.wrong_use(str(unknown))
        document = self._run(job, options.get("sleep") or time.sleep)
        done = document["state"] == Run.Outcome.DONE
        self.answer(document, _lines(document), fine=done)

    def _run(self, job: Job, sleep: Callable[[float], None]) -> dict[str, Any]:
        """Run, and wait out short Retry-Afters in between; counts are those of all runs together."""
        document: dict[str, Any] = {"state": Run.Outcome.ALREADY_RUNNING, **dict.fromkeys(COUNTS, 0), "error": None}
        left = WAITS_IN_ALL
        while True:
            run = jobs.run_job(job.pk, insists=True) if job.make_due() else None
            if run is None or run.outcome == Run.Outcome.TAKEN_OVER:
                return document | {"state": Run.Outcome.ALREADY_RUNNING}
            document |= {name: document[name] + getattr(run, name) for name in COUNTS}
            document |= {"state": run.outcome, "error": f"{run.error_code}: {run.error}" if run.error_code else None}
            if run.retry_after is None or run.retry_after > min(LONGEST_WAIT, left):
                return document
            self.stderr.write(f"Partner Center asks to wait {run.retry_after:.0f} seconds.")
            sleep(run.retry_after)
            left -= max(run.retry_after, 1.0)  # a wait of nothing must end too


def _lines(document: dict[str, Any]) -> list[str]:
    counts = ", ".join(f"{document[name]} {name}" for name in COUNTS)
    return [f"{document['state']}: {counts}"] + ([document["error"]] if document["error"] else [])
