"""What a partner's pages say about its syncs: how the newest is doing, how fresh the mirror is, how many it holds."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from partners.models import Customer, Job, Partner, Run
from tokens.models import RefreshToken

RECENT = 5
WORDS = {
    "done": "done",
    "waiting": "waiting; it comes again by itself",
    "refused": "stopped; somebody has to act",
    "failed": "failed; our support sees it",
    "taken_over": "handed over to another worker",
}


@dataclass(frozen=True)
class Progress:
    """How the newest run is doing, in numbers and in one sentence."""

    run: Run | None
    is_first: bool
    is_live: bool

    @property
    def is_active(self) -> bool:
        """Whether it is worth asking again in a second."""
        if self.run is None:
            return self.is_live
        return self.run.is_running or (self.run.outcome in {"waiting", "taken_over"} and self.is_live)

    @property
    def label(self) -> str:
        return "First sync" if self.is_first else "Sync"

    @property
    def words(self) -> str:
        if self.run is None:
            return f"{self.label} queued" if self.is_live else "No sync yet"
        return f"{self.label} {'running' if self.run.is_running else WORDS.get(self.run.outcome, self.run.outcome)}"


@dataclass(frozen=True)
class Overview:
    """The newest runs and what they add up to."""

    runs: list[Run]
    is_due: bool
    as_of: dt.datetime | None
    customer_count: int

    def progress(self, token: RefreshToken | None, *, is_live: bool) -> Progress:
        """The newest run of this consent; runs of an earlier one say nothing about what happens now."""
        newest = self.runs[0] if self.runs and token and self.runs[0].started_at >= token.reserved_at else None
        if self.is_due and newest and not newest.is_running:
            newest = None  # asked for, and about to begin
        is_done = newest is not None and newest.outcome == Run.Outcome.DONE
        done_before = any(run.outcome == Run.Outcome.DONE for run in self.runs if run is not newest)
        done_before = done_before or (self.as_of is not None and not is_done)
        return Progress(newest, is_first=not done_before, is_live=is_live)


def as_of(partner: Partner) -> Subquery:
    """When the mirror was last read in whole, as an expression for a query that runs anyway."""
    done = Run.objects.filter(partner=partner.pk, outcome=Run.Outcome.DONE).order_by("-finished_at")
    return Subquery(done.values("finished_at")[:1])


def overview(partner: Partner) -> Overview:
    """The newest runs with freshness and customer count, in one query."""
    due = Job.objects.filter(partner=partner.pk, paused_at=None, next_run_at__lte=timezone.now())
    present = Customer.objects.filter(partner=partner.pk).present().order_by().values("partner")
    runs: list[Any] = list(
        partner.runs.annotate(
            is_due=Exists(due),
            as_of=as_of(partner),
            customer_count=Coalesce(Subquery(present.annotate(n=Count("pk")).values("n")), 0),
        ).order_by("-started_at", "-pk")[:RECENT]
    )
    if not runs:
        return Overview([], False, None, 0)
    return Overview(runs, runs[0].is_due, runs[0].as_of, runs[0].customer_count)
