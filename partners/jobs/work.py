"""What a kind of work gets to work with, and how it hears that it is to stop."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import connection
from django.utils import timezone

from partners import pacing
from partners.jobs.catalogue import kind_named
from partners.jobs.claiming import AT_ONCE, others_wait
from partners.models import LEASE, Job, Partner, Run
from tokens.actors import Actor, ActorKind
from tokens.errors import Permanent, Transient
from tokens.models import RefreshToken
from tokens.sessions import ApiSession

SHORT_TURN = 10.0  # seconds that a job works on when others wait for a worker

_closing = threading.Event()  # this process is about to end


class LeaseLost(Permanent):
    """Somebody else works on this job now; nothing of ours may be written any more."""


class TurnOver(Transient):
    """The run had its time, or this process is about to end; what was read is kept, and the job goes on at once."""


class Paused(Transient):
    """Somebody paused the job; what was read is kept, and it goes on from here when they let it."""


class Cancelled(Permanent):
    """Somebody cancelled the run; what was written stays, and the next one begins at the beginning."""

    def __init__(self) -> None:
        super().__init__("Somebody cancelled it; the next run begins at the beginning.", code="cancelled")


def end_turns() -> None:
    """Let every run of this process end at its next pause; others go on where it stopped. There is no way back."""
    _closing.set()


def is_closing() -> bool:
    return _closing.is_set()


def rest(seconds: float) -> bool:
    """Wait, unless this process is about to end: then True."""
    return _closing.wait(seconds)


KEEP = """
UPDATE partners_job SET leased_until = %(until)s, "cursor" = %(cursor)s
WHERE id = %(job)s AND fence = %(fence)s AND leased_until > %(now)s
RETURNING paused_at, cancelled_at
"""


@dataclass
class Work:
    """
    What a kind gets to work with: the job under our lease, this run, the partner and its refresh token's row.

    `until` is the monotonic second at which the turn is over, whoever waits. Whoever `insists` does not wait because
    Microsoft asked for patience earlier.
    """

    job: Job
    run: Run
    partner: Partner
    token: RefreshToken
    until: float = field(default_factory=lambda: time.monotonic() + settings.CPV_TURN_SECONDS)
    insists: bool = False
    begun: float = field(default_factory=time.monotonic)
    told: type[Paused] | type[Cancelled] | None = None

    @property
    def actor(self) -> Actor:
        return Actor(ActorKind.RUN, id=str(self.run.pk), label=f"{self.job.kind} run {self.run.pk}")

    @property
    def share(self) -> tuple[int, int]:
        """Which lane this is, counted from 0, and of how many; a kind of one lane has all customers in (0, 1)."""
        return self.job.lane, kind_named(self.job.kind).lanes

    def session(self) -> ApiSession:
        """Requests in the partner's name, to the kind's audience and for its purpose, no faster than is allowed."""
        kind = kind_named(self.job.kind)
        return pacing.session(self.token, kind.audience, purpose=kind.purpose, actor=self.actor, insists=self.insists)

    def keep(self, cursor: dict[str, Any]) -> None:
        """
        Renew the lease and note where to go on; first thing in the transaction that writes what was read.

        The same statement says whether somebody paused or cancelled the job; `pause` acts upon it.

        :raises LeaseLost: the lease is over or somebody else's; nothing may be written
        """
        now = timezone.now()
        given = {
            "until": connection.ops.adapt_datetimefield_value(now + LEASE),
            "now": connection.ops.adapt_datetimefield_value(now),
            "cursor": Job._meta.get_field("cursor").get_db_prep_value(cursor, connection),
            "job": self.job.pk,
            "fence": self.job.fence,
        }
        with connection.cursor() as executed:
            executed.execute(KEEP, given)
            told = executed.fetchone()
        if told is None:
            raise LeaseLost(f"run {self.run.pk} lost its lease", code="lease_lost")
        self.job.cursor = cursor
        self.told = Cancelled if told[1] else Paused if told[0] else None

    def pause(self) -> None:
        """
        Call this between two pages, when everything read is kept.

        :raises Paused, Cancelled: somebody said so, as the last `keep` found out
        :raises TurnOver: it is somebody else's turn
        """
        if self.told is Cancelled:
            raise Cancelled
        if self.told is Paused:
            raise Paused("Somebody paused it; it goes on from here when they let it.", code="paused")
        if _closing.is_set():
            raise TurnOver("This worker ends; another one goes on from here.", code="turn_over", retry_after=0)
        if self._is_over():
            raise TurnOver("Others have their turn; it goes on from here.", code="turn_over", retry_after=0)

    def _is_over(self) -> bool:
        """A turn ends early where others wait: that of a partner's third job at once, all others' after 10 s."""
        now = time.monotonic()
        if now > self.until:
            return True
        has_more_than_others = self.job.turn > AT_ONCE
        return (has_more_than_others or now - self.begun > SHORT_TURN) and others_wait(self.partner.pk)

    def count(self, *, expected: int | None = None, **more: int) -> None:
        """Add to the run's counts, such as pages=1, and note how many there are to be in all."""
        for name, number in more.items():
            setattr(self.run, name, getattr(self.run, name) + number)
        self.run.expected = expected
        self.run.save(update_fields=[*more, "expected"])
