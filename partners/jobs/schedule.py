"""When jobs are due, and what people may do about it: run now, pause, resume, cancel, release."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable
from functools import partial

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, Subquery
from django.utils import timezone

from partners import messages
from partners.jobs.catalogue import kind_named, kinds
from partners.models import Job, Partner, Run
from partners.models.work import AT_LIBERTY
from tokens import audit
from tokens.actors import Actor
from tokens.tenancy import system_scope

FIRST = "customers"  # the kind that all others need
KEEP_RUNS = dt.timedelta(days=90)
A_WHILE = dt.timedelta(hours=6)  # until a job of a kind that this release does not know is looked at again

dice = secrets.SystemRandom()


def ensure(partner: Partner, kind: str, *, due_now: bool = False) -> Job:
    """The partner's job of this kind, the first of its lanes; new ones are due at once."""
    wanted = range(kind_named(kind).lanes)
    known = set(partner.jobs.filter(kind=kind).values_list("lane", flat=True))
    missing = [
        Job(partner=partner, kind=kind, lane=lane, next_run_at=timezone.now()) for lane in wanted if lane not in known
    ]
    Job.objects.bulk_create(missing, ignore_conflicts=True)
    if due_now and known:
        make_due(partner, kind=kind)
    return partner.jobs.get(kind=kind, lane=0)


@system_scope("what is to be done for whom")
def plan(limit: int = 1_000) -> int:
    """
    Have a job for each kind and partner whose customers were read once; returns how many lanes are new.

    At most `limit` of each are new at a time, so that a release with a new kind does not make everything due at once.
    """
    read = Run.objects.filter(job=OuterRef("pk"), outcome=Run.Outcome.DONE)
    ready = Job.objects.filter(Exists(read), kind=FIRST, lane=0, partner__offboarded_at=None)
    new = 0
    for kind in kinds().values():
        if kind.opt_in or kind.name == FIRST:
            continue
        for lane in range(kind.lanes):
            there = Job.objects.filter(partner=OuterRef("partner"), kind=kind.name, lane=lane)
            lacking = ready.exclude(Exists(there)).values_list("partner", flat=True)[:limit]
            rows = [Job(partner_id=pk, kind=kind.name, lane=lane, next_run_at=timezone.now()) for pk in lacking]
            new += len(Job.objects.bulk_create(rows, ignore_conflicts=True))
    return new


def make_due(partner: Partner, *, kind: str | None = None) -> int:
    """
    Let the partner's jobs (or one kind) run as soon as possible, as after a reconnect; returns how many.

    A run under way that ends after this does not postpone its job again.
    """
    rows = partner.jobs.filter(kind=kind) if kind else partner.jobs.all()
    return rows.filter(paused_at=None).update(next_run_at=timezone.now(), **AT_LIBERTY)


def queue_now(job: Job) -> None:
    """
    Make the job due in all its lanes, and tell a worker when this transaction commits.

    Somebody waits for it, so the message goes where no flood of other work delays it; without a message broker the
    tick finds it.
    """
    make_due(job.partner, kind=job.kind)
    transaction.on_commit(partial(messages.send, "partners.run_job", job_id=job.pk))


def regular_time(kind: str) -> dt.datetime:
    """When a job of this kind is due next, when nothing went wrong; jobs that began together drift apart."""
    known = kinds().get(kind)
    return timezone.now() + (known.every if known else A_WHILE) * dice.uniform(0.9, 1.1)


# --- What people ask for; it counts for all lanes of the kind --------------------------------------------------------
@transaction.atomic
def try_again(job: Job, *, by: Actor, reason: str = "") -> bool:
    """Run it now; False while it runs already, or is paused."""
    return _asked(job, Job.make_due, "sync.asked", by, reason, tell=True)


@transaction.atomic
def pause(job: Job, *, by: Actor, reason: str = "") -> bool:
    """Stop it until somebody resumes it, where it is; False when it is paused already."""
    return _asked(job, Job.mark_paused, "job.paused", by, reason)


@transaction.atomic
def resume(job: Job, *, by: Actor, reason: str = "") -> bool:
    """Let it go on from where it stopped; False when it is not paused."""
    return _asked(job, Job.mark_resumed, "job.resumed", by, reason, tell=True)


@transaction.atomic
def cancel(job: Job, *, by: Actor, reason: str = "") -> bool:
    """End the run under way, or forget the place where one stopped; False when nothing was begun."""
    planned = regular_time(job.kind)
    return _asked(job, lambda lane: lane.mark_cancelled(next_run_at=planned), "job.cancelled", by, reason)


@transaction.atomic
def release(job: Job, *, by: Actor, reason: str = "") -> bool:
    """Let a job that failed too often try again; False when it was not held."""
    return _asked(job, Job.mark_released, "job.released", by, reason, tell=True)


def _asked(job: Job, act: Callable[[Job], bool], action: str, by: Actor, reason: str, *, tell: bool = False) -> bool:
    """Do it to each lane; where it changed one, write down who asked, and tell a worker of work there is now."""
    changed = [lane for lane in Job.objects.filter(partner=job.partner_id, kind=job.kind) if act(lane)]
    if not changed:
        return False
    said = {"reason": reason[:200]} if reason else {}
    audit.record(action, actor=by, partner=job.partner, object=job.kind, **said)
    if tell:
        transaction.on_commit(partial(messages.send, "partners.run_job", job_id=changed[0].pk))
    return True


@system_scope("tidying runs")
def forget_old() -> int:
    """Let go of runs that ended more than 90 days ago, but for each job's newest and its newest that was done."""
    of_job = Run.objects.filter(job=OuterRef("job")).order_by("-pk").values("pk")
    newest, done = Subquery(of_job[:1]), Subquery(of_job.filter(outcome=Run.Outcome.DONE)[:1])
    old = Run.objects.filter(finished_at__lt=timezone.now() - KEEP_RUNS)
    kept = old.filter(Q(pk=newest) | Q(pk=done))
    return old.exclude(pk__in=list(kept.values_list("pk", flat=True))).delete()[0]
