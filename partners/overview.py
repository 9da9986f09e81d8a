"""What a partner's pages say about its syncs: how the newest is doing, how fresh the mirror is, how many it holds."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, IntegerField, QuerySet, Subquery
from django.utils import timezone

from partners.models import Job, Member, Partner, Run
from tokens.models import RefreshToken

RECENT = 5
KIND = "customers"  # the runs that are meant; what else is mirrored has runs of its own
COUNTED = 1_000  # customers; a page that counts more of them costs the more, the more there are
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
    with_numbers: bool = True  # they tell how many customers there are

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
    """
    The newest runs and what they add up to.

    `customer_count` is our own count up to 1,000. Beyond that it is how many Microsoft listed in the newest run that
    read all of them or, before there is one, in the newest run; `has_more` says that this number is too small.
    For somebody who may not see every customer it counts those they may, and the runs' own numbers are not for them.
    """

    runs: list[Run]
    is_due: bool
    times_done: int  # 2 stands for any number above
    as_of: dt.datetime | None
    customer_count: int
    has_more: bool
    with_numbers: bool
    lapsing: int = 0  # delegated admin relationships that end soon, where that was asked

    def progress(self, token: RefreshToken | None, *, is_live: bool) -> Progress:
        """The newest run of this consent; runs of an earlier one say nothing about what happens now."""
        newest = self.runs[0] if self.runs and token and self.runs[0].started_at >= token.reserved_at else None
        if self.is_due and is_live and newest and not newest.is_running:
            newest = None  # asked for, and about to begin
        done_before = self.times_done > (newest is not None and newest.outcome == Run.Outcome.DONE)
        return Progress(newest, not done_before, is_live, self.with_numbers)


class HowMany(Subquery):
    """How many rows a sliced query finds: its end is the end of what it costs, which COUNT's is not."""

    template = "COALESCE((SELECT SUM(1) FROM (%(subquery)s) AS counted), 0)"
    output_field = IntegerField()
    empty_result_set_value = 0


def _done(partner: Partner) -> QuerySet[Run]:
    done = Run.objects.filter(partner=partner.pk, job__kind=KIND, outcome=Run.Outcome.DONE)
    return done.order_by("-finished_at")


def as_of(partner: Partner) -> Subquery:
    """When the mirror was last read in whole, as an expression for a query that runs anyway."""
    return Subquery(_done(partner).values("finished_at")[:1])


def overview(member: Member, *, lapsing: HowMany | None = None) -> Overview:
    """The newest runs with freshness and counts of this member's customers and, where asked, of what ends."""
    partner, sees_all = member.partner, member.sees_every_customer
    due = Job.objects.filter(partner=partner.pk, kind=KIND, paused_at=None, next_run_at__lte=timezone.now())
    present = member.customers.present().order_by().values("pk")
    done = _done(partner)
    runs: list[Any] = list(
        partner.runs.annotate(
            is_due=Exists(due),
            as_of=as_of(partner),
            times_done=HowMany(done.order_by().values("pk")[:2]),
            listed=Subquery(done.values("seen")[:1]),
            counted=HowMany(present[: COUNTED + 1]),
            **({"lapsing": lapsing} if lapsing else {}),
        )
        .filter(job__kind=KIND)
        .order_by("-started_at", "-pk")[:RECENT]
    )
    if not runs:
        return Overview([], False, 0, None, 0, has_more=False, with_numbers=sees_all)
    newest = runs[0]
    is_whole = newest.counted <= COUNTED
    number, has_more = _customers(newest) if sees_all or is_whole else (COUNTED, True)
    ending = newest.lapsing if lapsing else 0
    return Overview(runs, newest.is_due, newest.times_done, newest.as_of, number, has_more, sees_all, ending)


def _customers(newest: Any) -> tuple[int, bool]:
    """How many customers there are, and whether even more."""
    if newest.counted <= COUNTED:
        return newest.counted, False
    number = newest.seen if newest.listed is None else newest.listed
    return max(number, COUNTED), number <= COUNTED
