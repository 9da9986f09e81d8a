"""
Who comes next: the dispatcher claims what is due, round-robin over partners, and workers take it in that order.

A claim gives each job its turn: the partner's first job has turn 1, its second turn 2, and what it has under way
counts. Workers take the lowest turn first; so nobody's second job begins before everybody's first, and a partner has
many at once as long as nobody else waits. A claim lapses after a minute, and the next one counts anew.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

from django.db import connection
from django.utils import timezone

from partners.models import LEASE, Job, Pulse
from tokens.tenancy import system_scope

CLAIM = dt.timedelta(seconds=60)  # a claimed job that nobody took is offered again after this
AT_ONCE = 2  # jobs of one partner that go on while others wait
MOST_AT_ONCE = 64  # jobs of one partner under way at the same time, when nobody else waits
PER_CLAIM = 10_000  # jobs
LOOK_EVERY = 0.1  # seconds between two looks of one process at who waits
ALIVE_EVERY = 15.0  # seconds between two signs of life of a worker whose threads are all taken
LOOKED_AT = 200  # due jobs: enough to see whether they are all of one partner

# Of two dispatchers at the same moment the second passes over the rows that the first has locked, and what the first
# has changed meanwhile no longer fits the second set of conditions, which PostgreSQL checks again on such a row.
CLAIM_DUE = """
WITH busy AS (
    SELECT partner_id, COUNT(*) AS n FROM partners_job
    WHERE leased_until > %(now)s OR claimed_until > %(now)s GROUP BY partner_id
), ranked AS (
    SELECT j.id AS job_id, COALESCE(busy.n, 0)
        + ROW_NUMBER() OVER (PARTITION BY j.partner_id ORDER BY j.next_run_at, j.id) AS turn
    FROM partners_job j LEFT JOIN busy ON busy.partner_id = j.partner_id
    WHERE j.paused_at IS NULL AND j.next_run_at <= %(now)s
        AND (j.claimed_until IS NULL OR j.claimed_until <= %(now)s)
        AND (j.leased_until IS NULL OR j.leased_until <= %(now)s)
), mine AS (
    SELECT due.id AS job_id, ranked.turn AS turn FROM ranked JOIN partners_job due ON due.id = ranked.job_id
    WHERE ranked.turn <= %(most)s AND due.paused_at IS NULL AND due.next_run_at <= %(now)s
        AND (due.claimed_until IS NULL OR due.claimed_until <= %(now)s)
        AND (due.leased_until IS NULL OR due.leased_until <= %(now)s)
    ORDER BY ranked.turn, due.next_run_at, due.id LIMIT %(limit)s {lock_due}
)
UPDATE partners_job SET claimed_until = %(until)s, turn = mine.turn FROM mine
WHERE partners_job.id = mine.job_id RETURNING id, partners_job.turn
"""

# A run that was cancelled and died before it heard of it leaves no place to go on from.
FORGET = """"cursor" = CASE WHEN cancelled_at IS NULL THEN "cursor" ELSE '{}' END, cancelled_at = NULL,"""
TAKE = """
UPDATE partners_job SET leased_until = %(until)s, lease_message = %(message)s, claimed_until = NULL,
    {forget} fence = fence + 1
WHERE id = (
    SELECT id FROM partners_job
    WHERE claimed_until > %(now)s AND paused_at IS NULL AND next_run_at <= %(now)s
        AND (leased_until IS NULL OR leased_until <= %(now)s)
    ORDER BY turn, next_run_at, id LIMIT 1 {lock}
)
RETURNING id
"""

# The message's own job, which a dead reader left behind.
TAKE_BACK = """
UPDATE partners_job SET leased_until = %(until)s, claimed_until = NULL, {forget} fence = fence + 1
WHERE lease_message = %(message)s AND leased_until IS NOT NULL AND paused_at IS NULL AND next_run_at <= %(now)s
RETURNING id
"""


def _times(**moments: dt.datetime) -> dict[str, Any]:
    return {name: connection.ops.adapt_datetimefield_value(moment) for name, moment in moments.items()}


def _locked(rows: str = "") -> str:
    return f"FOR UPDATE {rows} SKIP LOCKED" if connection.vendor == "postgresql" else ""


@system_scope("work that is due")
def claim_due(limit: int = 50) -> list[int]:
    """
    Claim due jobs for a minute, in one statement; each id goes to one caller only. They come in the order of turns.

    The caller tells workers that something waits, or runs them.
    """
    now = timezone.now()
    asked = _times(now=now, until=now + CLAIM) | {"limit": limit, "most": MOST_AT_ONCE}
    with connection.cursor() as cursor:
        cursor.execute(CLAIM_DUE.format(lock_due=_locked("OF due")), asked)
        return [job_id for job_id, _ in sorted(cursor.fetchall(), key=lambda row: row[1])]


@system_scope("a job is leased")
def take_next(*, message: str = "", redelivered: bool = False) -> int | None:
    """
    Lease the claimed job whose turn it is; None when none is claimed.

    A message that its dead reader gave back begins with the job which that one held.
    """
    now = timezone.now()
    asked = _times(now=now, until=now + LEASE) | {"message": message[:64]}
    with connection.cursor() as cursor:
        if redelivered and message:
            cursor.execute(TAKE_BACK.format(forget=FORGET), asked)
            if left := cursor.fetchone():
                return int(left[0])
        cursor.execute(TAKE.format(forget=FORGET, lock=_locked()), asked)
        found = cursor.fetchone()
    return found[0] if found else None


@system_scope("whether work waits")
def is_any_claimed() -> bool:
    """Whether a claimed job still waits for a worker."""
    now = timezone.now()
    return Job.objects.idle(now).filter(claimed_until__gt=now, paused_at=None).exists()


@system_scope("when work is due")
def next_due_at() -> dt.datetime | None:
    """When the next job that is not paused is due; None when there is none."""
    waiting = Job.objects.filter(paused_at=None, next_run_at__isnull=False).order_by("next_run_at")
    return waiting.values_list("next_run_at", flat=True).first()


# --- Who else waits -------------------------------------------------------------------------------------------------
_look = threading.Lock()
_seen: tuple[float, frozenset[int]] = (float("-inf"), frozenset())


def others_wait(partner_id: int) -> bool:
    """Whether a job of another partner is due and has no worker; as this process saw it within the last 100 ms."""
    global _seen
    if time.monotonic() - _seen[0] > LOOK_EVERY and _look.acquire(blocking=False):
        try:
            _seen = (time.monotonic(), _who_waits())
        finally:
            _look.release()
    return bool(_seen[1] - {partner_id})


def forget() -> None:
    """Let the next look be a new one."""
    global _seen
    _seen = (float("-inf"), frozenset())


_worker, _alive_at = "", float("-inf")


def works_as(worker: str) -> None:
    """Note the name under which this process shows that it lives: ticks do not reach a worker without a free thread."""
    global _worker
    _worker = worker
    _show_life()


def _show_life() -> None:
    global _alive_at
    if _worker and time.monotonic() - _alive_at > ALIVE_EVERY:
        _alive_at = time.monotonic()
        Pulse.beat(_worker)


@system_scope("who else waits")
def _who_waits() -> frozenset[int]:
    _show_life()
    now = timezone.now()
    due = Job.objects.idle(now).filter(paused_at=None, next_run_at__lte=now).order_by("next_run_at")
    return frozenset(due.values_list("partner", flat=True)[:LOOKED_AT])
