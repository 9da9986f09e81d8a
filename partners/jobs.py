"""
Jobs: what is done again and again for a partner, when it is due, who does it, and how it ended.

The row is the truth. A message only hints that a row may be due; lost, doubled or replayed ones do no harm. A job is
claimed (so that one message goes out), leased (so that one process works), and ended by whoever holds its fence.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, DateTimeField, F, OuterRef, Q, Subquery, Value, When
from django.utils import timezone

from partners import messages
from partners.models import LEASE, Job, Partner, Run
from partners.partnercenter import AccessRefused, MfaMissing
from partners.standing import current_token, standing
from tokens import audit, broker
from tokens.actors import Actor, ActorKind
from tokens.challenges import ChallengedAgain
from tokens.clouds import Audience
from tokens.entra import BlockedByPartner, ConsentRequired, NoSuchTenant
from tokens.errors import Failure, Permanent, Transient
from tokens.gate import Stopped
from tokens.models import Halt, RefreshToken
from tokens.sessions import ApiSession
from tokens.tenancy import partner_scope, system_scope

logger = logging.getLogger(__name__)

KIND_MODULES = ("partners.sync",)  # each declares its kinds in KINDS
CLAIM = dt.timedelta(seconds=60)  # a claimed job that nobody took is offered again after this
KEEP_RUNS = dt.timedelta(days=90)
AT_ONCE = 2  # jobs of one partner under way at the same time
SHORTEST_WAIT, LONGEST_WAIT = 30.0, 6 * 3600.0  # seconds between tries, before jitter
LONGEST_RETRY_AFTER = 24 * 3600.0  # seconds; what Microsoft asks beyond that is asked again
NEEDS_A_PERSON = (Stopped, ConsentRequired, BlockedByPartner, NoSuchTenant, ChallengedAgain, MfaMissing, AccessRefused)

_dice = secrets.SystemRandom()
_closing = threading.Event()  # this process is about to end


# --- Kinds ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Kind:
    """
    One kind of work: its name in the rows, its title for people, what to do, and what it promises.

    It is done `every` so often, and what it brought is old news after `fresh_for`. `purpose` is its dotted word in the
    ledger, `audience` the API it talks to. A kind that asks about each customer by itself has several `lanes`, each
    with its share of the customers. One that is `opt_in` is done for partners who asked for it.
    """

    name: str
    title: str
    run: Callable[[Work], None]
    every: dt.timedelta
    fresh_for: dt.timedelta
    purpose: str
    audience: Audience = Audience.PARTNER_CENTER
    lanes: int = 1
    opt_in: bool = False


class UnknownKind(Permanent):
    """No module of this release declares this kind of job."""


@cache
def kinds() -> dict[str, Kind]:
    """Every kind by name."""
    modules = [import_module(name) for name in KIND_MODULES]
    return {kind.name: kind for module in modules for kind in module.KINDS}


def kind_named(name: str) -> Kind:
    """:raises UnknownKind: there is no such kind"""
    try:
        return kinds()[name]
    except KeyError:
        text = f"There is no job {name!r}; there are: {', '.join(kinds())}."
        raise UnknownKind(text, code="unknown_kind") from None


# --- Making due and claiming ----------------------------------------------------------------------------------------
def ensure(partner: Partner, kind: str, *, due_now: bool = False) -> Job:
    """The partner's job of this kind, the first of its lanes; new ones are due at once."""
    wanted = range(kind_named(kind).lanes)
    known = set(partner.jobs.filter(kind=kind).values_list("lane", flat=True))
    missing = [Job(partner=partner, kind=kind, lane=lane, next_run_at=timezone.now()) for lane in wanted]
    Job.objects.bulk_create([job for job in missing if job.lane not in known], ignore_conflicts=True)
    if due_now and known:
        make_due(partner, kind=kind)
    return partner.jobs.get(kind=kind, lane=0)


def make_due(partner: Partner, *, kind: str | None = None) -> int:
    """
    Let the partner's jobs (or one kind) run as soon as possible, as after a reconnect; returns how many.

    A run under way that ends after this does not postpone its job again.
    """
    rows = partner.jobs.filter(kind=kind) if kind else partner.jobs.all()
    return rows.filter(paused_at=None).update(next_run_at=timezone.now(), claimed_until=None)


def queue_now(job: Job) -> None:
    """Make the job due and tell a worker when this transaction commits; without a message broker the tick finds it."""
    make_due(job.partner, kind=job.kind)
    transaction.on_commit(partial(messages.send, "partners.run_job", job_id=job.pk))


@transaction.atomic
def try_again(job: Job, *, by: Actor, reason: str) -> bool:
    """What somebody at the desk asks for; False while it runs already."""
    if not job.make_due():
        return False
    queue_now(job)
    audit.record("sync.asked", actor=by, partner=job.partner, object=job.kind, reason=reason[:200])
    return True


# Round-robin: every partner's first job before anybody's second. The outer conditions repeat the inner ones because
# PostgreSQL checks only those again on a row that another claim changed meanwhile.
CLAIM_DUE = """
UPDATE partners_job SET claimed_until = %(until)s
WHERE id IN (
    SELECT id FROM (
        SELECT j.id, j.next_run_at,
            ROW_NUMBER() OVER (PARTITION BY j.partner_id ORDER BY j.next_run_at, j.id) + (
                SELECT COUNT(*) FROM partners_job busy
                WHERE busy.partner_id = j.partner_id AND (busy.leased_until > %(now)s OR busy.claimed_until > %(now)s)
            ) AS turn
        FROM partners_job j
        WHERE j.paused_at IS NULL AND j.next_run_at <= %(now)s
            AND (j.claimed_until IS NULL OR j.claimed_until <= %(now)s)
            AND (j.leased_until IS NULL OR j.leased_until <= %(now)s)
    ) due WHERE turn <= %(at_once)s ORDER BY turn, next_run_at, id LIMIT %(limit)s
)
AND paused_at IS NULL AND next_run_at <= %(now)s
AND (claimed_until IS NULL OR claimed_until <= %(now)s)
AND (leased_until IS NULL OR leased_until <= %(now)s)
RETURNING id
"""


@system_scope("work that is due")
def claim_due(limit: int = 50) -> list[int]:
    """
    Claim due jobs for a minute, in one statement; each id goes to one caller only.

    The caller sends a message for each, or runs it.
    """
    now = timezone.now()
    asked = {
        "now": connection.ops.adapt_datetimefield_value(now),
        "until": connection.ops.adapt_datetimefield_value(now + CLAIM),
        "at_once": AT_ONCE,
        "limit": limit,
    }
    with connection.cursor() as cursor:
        cursor.execute(CLAIM_DUE, asked)
        return [row[0] for row in cursor.fetchall()]


@system_scope("when work is due")
def next_due_at() -> dt.datetime | None:
    """When the next job that is not paused is due; None when there is none."""
    waiting = Job.objects.filter(paused_at=None, next_run_at__isnull=False).order_by("next_run_at")
    return waiting.values_list("next_run_at", flat=True).first()


@system_scope("tidying runs")
def forget_old() -> int:
    """Let go of runs that ended more than 90 days ago, but for each job's newest and its newest that was done."""
    of_job = Run.objects.filter(job=OuterRef("job")).order_by("-pk").values("pk")
    newest, done = Subquery(of_job[:1]), Subquery(of_job.filter(outcome=Run.Outcome.DONE)[:1])
    old = Run.objects.filter(finished_at__lt=timezone.now() - KEEP_RUNS)
    kept = old.filter(Q(pk=newest) | Q(pk=done))
    return old.exclude(pk__in=list(kept.values_list("pk", flat=True))).delete()[0]


# --- Running --------------------------------------------------------------------------------------------------------
class LeaseLost(Permanent):
    """Somebody else works on this job now; nothing of ours may be written any more."""


class TurnOver(Transient):
    """The run had its time, or this process is about to end; what was read is kept, and the job goes on at once."""


def end_turns() -> None:
    """Let every run of this process end at its next pause; others go on where it stopped. There is no way back."""
    _closing.set()


@dataclass
class Work:
    """What a kind gets to work with: the job under our lease, this run, the partner and its refresh token's row."""

    job: Job
    run: Run
    partner: Partner
    token: RefreshToken
    begun: float = field(default_factory=time.monotonic)

    @property
    def actor(self) -> Actor:
        return Actor(ActorKind.RUN, id=str(self.run.pk), label=f"{self.job.kind} run {self.run.pk}")

    @property
    def share(self) -> tuple[int, int]:
        """Which lane this is, counted from 0, and of how many; a kind of one lane has all customers in (0, 1)."""
        return self.job.lane, kind_named(self.job.kind).lanes

    def session(self) -> ApiSession:
        """Requests in the partner's name, to the kind's audience and for its purpose."""
        kind = kind_named(self.job.kind)
        return broker.session(self.token, kind.audience, purpose=kind.purpose, actor=self.actor)

    def keep(self, cursor: dict[str, Any]) -> None:
        """
        Renew the lease and note where to go on; first thing in the transaction that writes what was read.

        :raises LeaseLost: the lease is over or somebody else's; nothing may be written
        """
        now = timezone.now()
        mine = Job.objects.holding(fence=self.job.fence, now=now).filter(pk=self.job.pk)
        if not mine.update(leased_until=now + LEASE, cursor=cursor):
            raise LeaseLost(f"run {self.run.pk} lost its lease", code="lease_lost")
        self.job.cursor = cursor

    def pause(self) -> None:
        """
        Call this between two pages, when everything read is kept.

        :raises TurnOver: it is somebody else's turn
        """
        if _closing.is_set():
            raise TurnOver("This worker ends; another one goes on from here.", code="turn_over", retry_after=0)
        if time.monotonic() - self.begun > settings.CPV_TURN_SECONDS:
            raise TurnOver("Others had to wait for long; it goes on from here.", code="turn_over", retry_after=0)

    def count(self, *, expected: int | None = None, **more: int) -> None:
        """Add to the run's counts, such as pages=1, and note how many there are to be in all."""
        for name, number in more.items():
            setattr(self.run, name, getattr(self.run, name) + number)
        self.run.expected = expected
        self.run.save(update_fields=[*more, "expected"])


def run_job(job_id: int, *, message: str = "", redelivered: bool = False) -> Run | None:
    """
    Run a job if it is due and nobody else has it; None otherwise. Never raises for what goes wrong at Microsoft.

    `message` and `redelivered` are the message broker's: a message that its dead reader gave back takes over at once.
    The run's `retry_after` (seconds or None) is set when Microsoft named a time.
    """
    started = _start(job_id, message=message, redelivered=redelivered)
    if started is None:
        return None
    job, run = started
    with partner_scope(job.partner_id):
        ending = _perform(job, run)
        _finish(job, run, ending)
    return run


@system_scope("a job is claimed")
def _start(job_id: int, *, message: str, redelivered: bool) -> tuple[Job, Run] | None:
    job = Job.objects.select_related("partner").filter(pk=job_id).first()
    with transaction.atomic():
        if job is None or not job.lease(message=message, redelivered=redelivered):
            return None
        left = Run.objects.filter(job=job, outcome=Run.Outcome.RUNNING)
        left.update(outcome=Run.Outcome.TAKEN_OVER, finished_at=timezone.now())
        return job, Run.objects.create(partner_id=job.partner_id, job=job, fence=job.fence)


@dataclass(frozen=True)
class Ending:
    """
    How a run ended. `wait` is the seconds Microsoft asked for; `parked` says that only a reconnect makes it due;
    `goes_on` that nothing went wrong and it is due again at once.
    """

    outcome: Run.Outcome
    code: str = ""
    error: str = ""
    correlation_id: str = ""
    wait: float | None = None
    parked: bool = False
    goes_on: bool = False


def _perform(job: Job, run: Run) -> Ending:
    partner = job.partner
    token = current_token(partner)
    state = standing(partner, token)
    if token is None or not state.is_live:
        return Ending(Run.Outcome.REFUSED, state.state, f"{state.reason} {state.action}", parked=True)
    try:
        kind_named(job.kind).run(Work(job, run, partner, token))
    except LeaseLost:
        return Ending(Run.Outcome.TAKEN_OVER)
    except TurnOver as over:
        return Ending(Run.Outcome.WAITING, over.code, str(over), wait=over.retry_after, goes_on=True)
    except Transient as failure:
        return _ending(Run.Outcome.WAITING, failure, wait=failure.retry_after)
    except MfaMissing as failure:
        note_missing_mfa(token, failure)
        return _ending(Run.Outcome.REFUSED, failure, parked=True)
    except NEEDS_A_PERSON as failure:
        return _ending(Run.Outcome.REFUSED, failure, parked=_waits_for_a_person(token))
    except Failure as failure:
        logger.error("a job failed", extra={"run": run.pk, "code": failure.code}, exc_info=failure)
        return _ending(Run.Outcome.FAILED, failure)
    except Exception:  # the outermost frame of a run: whatever it was, the row must say that it ended
        logger.exception("a job broke", extra={"run": run.pk})
        return Ending(Run.Outcome.FAILED, "unexpected", f"Our own mistake; the log of run {run.pk} tells more.")
    return Ending(Run.Outcome.DONE)


def _ending(outcome: Run.Outcome, failure: Failure, *, wait: float | None = None, parked: bool = False) -> Ending:
    code = failure.code or type(failure).__name__.lower()
    return Ending(outcome, code, str(failure), failure.correlation_id, wait=wait, parked=parked)


def _waits_for_a_person(token: RefreshToken) -> bool:
    """Whether only a new consent brings this work back; after an all-stop it looks again by itself."""
    live = RefreshToken.objects.live(timezone.now()).filter(pk=token.pk)
    return not live.exists() and not Halt.objects.in_force().exists()


def note_missing_mfa(token: RefreshToken, failure: MfaMissing) -> None:
    """Partner Center's own word that this generation lacks MFA: mark it, and write it down."""
    with transaction.atomic():
        if token.mark_refused("mfa_missing", code=failure.code):
            audit.connection_refused(token, "mfa_missing", code=failure.code)


def _finish(job: Job, run: Run, ending: Ending) -> None:
    """Write how it ended, unless somebody took over meanwhile."""
    now = timezone.now()
    failures = _failures(job, run, ending)
    planned = Value(_next_run_at(job, ending, now, failures), output_field=DateTimeField())
    with transaction.atomic():
        ours = ending.outcome != Run.Outcome.TAKEN_OVER and Job.objects.filter(pk=job.pk, fence=job.fence).update(
            # Whoever made the job due while it ran (a reconnect, a person) wins over our own plan.
            next_run_at=Case(When(next_run_at=job.next_run_at, then=planned), default=F("next_run_at")),
            claimed_until=None,
            leased_until=None,
            lease_message="",
            failures=failures,
            cursor=job.cursor if ending.outcome == Run.Outcome.WAITING else {},
        )
        if not ours:
            ending = Ending(Run.Outcome.TAKEN_OVER)
        _close(run, ending, now)
    run.retry_after = ending.wait
    logger.info("a run ended", extra={"run": run.pk, "outcome": str(run.outcome), "code": run.error_code})


def _close(run: Run, ending: Ending, now: dt.datetime) -> None:
    run.outcome, run.finished_at = ending.outcome, now
    run.error_code, run.error = ending.code[:40], ending.error[:500]
    Run.objects.filter(pk=run.pk, outcome=Run.Outcome.RUNNING).update(
        outcome=run.outcome, finished_at=now, error_code=run.error_code, error=run.error
    )


def _failures(job: Job, run: Run, ending: Ending) -> int:
    """How often in a row it went wrong; a run that came further starts the count anew."""
    if ending.outcome == Run.Outcome.DONE or ending.goes_on:
        return 0
    return 1 if run.pages else job.failures + 1


def _next_run_at(job: Job, ending: Ending, now: dt.datetime, failures: int) -> dt.datetime | None:
    """When the job is due again; None when only a person can make it so."""
    if ending.parked:
        return None
    if ending.goes_on:
        return now
    if ending.outcome == Run.Outcome.WAITING:
        pause = min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** min(failures - 1, 20)) * _dice.uniform(0.5, 1)
        asked = min(ending.wait or 0, LONGEST_RETRY_AFTER)
        return now + dt.timedelta(seconds=max(pause, asked))
    known = kinds().get(job.kind)
    every = known.every if known else dt.timedelta(seconds=LONGEST_WAIT)
    return now + every * _dice.uniform(0.9, 1.1)
