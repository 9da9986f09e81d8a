"""
Jobs: what is done again and again for a partner, when it is due, who does it, and how it ended.

The row is the truth. A message only hints that something may be due; lost, doubled or replayed ones do no harm. A job
is claimed (so that it has its turn), leased (so that one process works), and ended by whoever holds its fence.
"""

from partners.jobs.catalogue import Kind, UnknownKind, kind_named, kinds
from partners.jobs.claiming import AT_ONCE, MOST_AT_ONCE, PER_CLAIM, claim_due, is_any_claimed, next_due_at, works_as
from partners.jobs.running import SIGN_IN_REFUSED, note_missing_mfa, run_first, run_job, work_off
from partners.jobs.schedule import (
    cancel,
    ensure,
    forget_old,
    make_due,
    pause,
    plan,
    queue_now,
    release,
    resume,
    try_again,
)
from partners.jobs.work import Cancelled, LeaseLost, Paused, TurnOver, Work, end_turns, rest

__all__ = [
    "AT_ONCE",
    "MOST_AT_ONCE",
    "PER_CLAIM",
    "SIGN_IN_REFUSED",
    "Cancelled",
    "Kind",
    "LeaseLost",
    "Paused",
    "TurnOver",
    "UnknownKind",
    "Work",
    "cancel",
    "claim_due",
    "end_turns",
    "ensure",
    "forget_old",
    "is_any_claimed",
    "kind_named",
    "kinds",
    "make_due",
    "next_due_at",
    "note_missing_mfa",
    "pause",
    "plan",
    "queue_now",
    "release",
    "rest",
    "resume",
    "run_first",
    "run_job",
    "try_again",
    "work_off",
    "works_as",
]
