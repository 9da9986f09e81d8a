"""
One run of a job: taken under a lease, done, and ended by whoever holds its fence.

How it ended decides when it comes again: what is transient soon and then ever later, what a person must mend when that
person did, and what failed too often when somebody lets it.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Case, DateTimeField, F, Value, When
from django.utils import timezone

from partners import messages, pacing
from partners.jobs import alone
from partners.jobs.catalogue import kind_named, kinds
from partners.jobs.claiming import PER_CLAIM, claim_due, is_any_claimed, take_next
from partners.jobs.schedule import dice, regular_time
from partners.jobs.work import SHORT_TURN, Cancelled, LeaseLost, Paused, TurnOver, Work, is_closing
from partners.models import Job, Run
from partners.partnercenter import AccessRefused, MfaMissing, SessionRefused
from partners.standing import current_token, standing
from tokens import audit
from tokens.actors import SYSTEM
from tokens.challenges import ChallengedAgain
from tokens.entra import BlockedByPartner, ConsentRequired, NoSuchTenant
from tokens.errors import Failure, Transient
from tokens.gate import Stopped
from tokens.models import Halt, RefreshToken
from tokens.tenancy import partner_scope, system_scope

logger = logging.getLogger(__name__)

SHORTEST_WAIT, LONGEST_WAIT = 30.0, 6 * 3600.0  # seconds between tries, before jitter
LONGEST_RETRY_AFTER = 24 * 3600.0  # seconds; what Microsoft asks beyond that is asked again
TOO_OFTEN = {
    Run.Outcome.WAITING: 10,
    Run.Outcome.FAILED: 5,
    Run.Outcome.TAKEN_OVER: 5,
}  # in a row: then somebody has to look
TURN_OVER, DATABASE = "turn_over", "database"
SIGN_IN_REFUSED = "401"  # before Microsoft's own code, if it gave one: that alone says nothing ("400")
LISTENS_AFTER = 30.0  # seconds after which a worker takes no next job, so that it hears other messages
NEEDS_A_PERSON = (Stopped, ConsentRequired, BlockedByPartner, NoSuchTenant, ChallengedAgain, MfaMissing, AccessRefused)


@dataclass(frozen=True)
class Taken:
    """A job under our lease, with what it needs: a run that began, or why no call of it may leave now."""

    job: Job
    token: RefreshToken | None
    run: Run
    held_up: pacing.HeldUp | None
    place: dict[str, Any]  # the cursor from which the run went on


def work_off(*, message: str = "", redelivered: bool = False) -> int:
    """
    Run what is due, one after the other and in the order of turns, until nothing is; returns how many.

    `message` and `redelivered` are the message broker's: one that its dead reader gave back goes on with what that one
    left. Whoever finds more than it can do tells one other worker, once.
    """
    begun, ran = time.monotonic(), 0
    until = begun + settings.CPV_TURN_SECONDS
    while not is_closing() and time.monotonic() - begun < min(LISTENS_AFTER, settings.CPV_TURN_SECONDS / 2):
        taken = _take_next(message, redelivered=redelivered and not ran)
        if taken is None:
            break
        ran += 1
        if ran == 1 and is_any_claimed():
            messages.work_waits()
        _run(taken, until=until)
    return ran


def run_job(
    job_id: int,
    *,
    message: str = "",
    redelivered: bool = False,
    turn: float | None = None,
    insists: bool = False,
) -> Run | None:
    """
    Run a job if it is due and nobody else has it; None otherwise. Never raises for what goes wrong at Microsoft.

    `message` and `redelivered` are the message broker's: a message that its dead reader gave back takes over at once.
    The run's `retry_after` (seconds or None) is set when Microsoft named a time. It is not in the database when no
    call could leave. `turn` is in seconds, when it is to be shorter than usual. Whoever `insists` asks Microsoft even
    where it asked for patience before.
    """
    taken = _take(job_id, message=message, redelivered=redelivered, insists=insists)
    if taken is None:
        return None
    until = time.monotonic() + (settings.CPV_TURN_SECONDS if turn is None else turn)
    return _run(taken, until=until, insists=insists)


def run_first(job_id: int, *, message: str = "", redelivered: bool = False) -> None:
    """Run a job that somebody waits for, for a short turn; what is left of it then queues like everybody's."""
    turn = min(SHORT_TURN, settings.CPV_TURN_SECONDS)
    run = run_job(job_id, message=message, redelivered=redelivered, turn=turn)
    if run is not None and run.error_code == TURN_OVER:
        messages.work_waits()


# --- Taking one: all of it in one transaction -----------------------------------------------------------------------
@system_scope("a job is taken")
def _take_next(message: str, *, redelivered: bool) -> Taken | None:
    """The job whose turn it is; more are claimed when none is left."""
    while True:
        with transaction.atomic():
            job_id = take_next(message=message, redelivered=redelivered)
            if job_id is not None:
                taken = _taken(Job.objects.select_related("partner").get(pk=job_id))
                if taken is None:
                    continue
                return taken
        if not claim_due(limit=PER_CLAIM):
            return None


@system_scope("a job is claimed")
def _take(job_id: int, *, message: str, redelivered: bool, insists: bool) -> Taken | None:
    job = Job.objects.select_related("partner").filter(pk=job_id).first()
    with transaction.atomic():
        if job is None or not job.lease(message=message, redelivered=redelivered):
            return None
        return _taken(job, insists=insists)


def _taken(job: Job, *, insists: bool = False) -> Taken | None:
    """The job with what it needs; None when it is held instead, because nobody who took it came far, or has to wait."""
    known, now = kinds().get(job.kind), timezone.now()
    if not _is_left_well(job, now) or alone.has_to_wait(job):
        return None
    token = current_token(job.partner)
    held_up = pacing.hold_up(job.partner, known.audience) if known and not insists else None
    run = Run(partner=job.partner, job=job, fence=job.fence, started_at=now)
    if held_up is None:
        run.save(force_insert=True)
    return Taken(job, token, run, held_up, job.cursor)


def _is_left_well(job: Job, now: dt.datetime) -> bool:
    """
    End the run that a worker left behind, if one did; a job whose worker dies each time before a page is written ends
    up held, as it may well be the reason. False when it is now. From the first time on it runs apart from others
    whose worker died (`alone`): what only was beside it ends well then, and its count begins anew.
    """
    left = Run.objects.filter(job=job, outcome=Run.Outcome.RUNNING)
    pages = list(left.values_list("pages", flat=True))
    if not pages:
        return True
    lost = {"error_code": "worker_lost", "error": "Its worker ended before it did."}
    left.update(outcome=Run.Outcome.TAKEN_OVER, finished_at=now, **lost)
    if any(pages):
        return True
    job.failures, job.suspected_at = job.failures + 1, now
    Job.objects.filter(pk=job.pk).update(failures=job.failures, suspected_at=now)
    if job.failures < TOO_OFTEN[Run.Outcome.TAKEN_OVER]:
        return True
    Job.objects.filter(pk=job.pk).update(
        next_run_at=None, quarantined_at=now, claimed_until=None, leased_until=None, lease_message="", wait_code=""
    )
    audit.record("job.held", actor=SYSTEM, partner=job.partner, object=job.kind, code=lost["error_code"])
    return False


def _run(taken: Taken, *, until: float, insists: bool = False) -> Run:
    with partner_scope(taken.job.partner_id):
        if taken.held_up is not None:
            _put_off(taken, taken.held_up)
        else:
            _finish(taken, _perform(taken, until, insists))
    return taken.run


def _put_off(taken: Taken, held_up: pacing.HeldUp) -> None:
    """Let the job wait without a run that anybody would have to read."""
    job, run, now = taken.job, taken.run, timezone.now()
    due_at = now + dt.timedelta(seconds=min(held_up.back_in, LONGEST_RETRY_AFTER))
    planned = Value(due_at, output_field=DateTimeField())
    waits = Job.objects.filter(pk=job.pk, fence=job.fence, cancelled_at=None).update(
        next_run_at=Case(When(next_run_at=job.next_run_at, then=planned), default=F("next_run_at")),
        leased_until=None,
        lease_message="",
        wait_code=held_up.code,
    )
    if not waits:
        _give_back(taken, _ending(Run.Outcome.CANCELLED, Cancelled()), now)
    run.outcome, run.finished_at = Run.Outcome.WAITING, now
    run.error_code, run.error, run.retry_after = held_up.code, held_up.words, held_up.back_in


@dataclass(frozen=True)
class Ending:
    """
    How a run ended. `wait` is the seconds Microsoft asked for; `parked` says that only a reconnect makes it due;
    `goes_on` that nothing went wrong and it is due again at once, or after the wait; `keeps` that its place is kept
    though it does not wait, and `is_soon` that the next one comes as soon as after an outage.
    """

    outcome: Run.Outcome
    code: str = ""
    error: str = ""
    correlation_id: str = ""
    wait: float | None = None
    parked: bool = False
    goes_on: bool = False
    keeps: bool = False
    is_soon: bool = False

    @property
    def has_a_place(self) -> bool:
        """Whether the next run goes on from where this one stopped."""
        return self.outcome == Run.Outcome.WAITING or self.keeps


def _perform(taken: Taken, until: float, insists: bool) -> Ending:
    job, run, token, partner = taken.job, taken.run, taken.token, taken.job.partner
    state = standing(partner, token)
    if token is None or not state.is_live:
        return Ending(Run.Outcome.REFUSED, state.state, f"{state.reason} {state.action}", parked=True)
    try:
        kind_named(job.kind).run(Work(job, run, partner, token, until, insists))
    except LeaseLost:
        return Ending(Run.Outcome.TAKEN_OVER)
    except (TurnOver, Paused, pacing.Paced) as over:
        return Ending(Run.Outcome.WAITING, over.code, str(over), wait=over.retry_after, goes_on=True)
    except Cancelled as cancelled:
        return _ending(Run.Outcome.CANCELLED, cancelled)
    except Transient as failure:
        return _ending(Run.Outcome.WAITING, failure, wait=failure.retry_after)
    except MfaMissing as failure:
        note_missing_mfa(token, failure)
        return _ending(Run.Outcome.REFUSED, failure, parked=True)
    except SessionRefused as failure:  # of a new token too: a moment of Microsoft's, as a rule
        ending = _ending(Run.Outcome.REFUSED, failure, parked=_waits_for_a_person(token))
        code = SIGN_IN_REFUSED if failure.code == "http_401" else f"{SIGN_IN_REFUSED}/{failure.code}"
        return replace(ending, code=code, keeps=True, is_soon=True)
    except NEEDS_A_PERSON as failure:
        return _ending(Run.Outcome.REFUSED, failure, parked=_waits_for_a_person(token))
    except Failure as failure:
        logger.error("a job failed", extra={"run": run.pk, "code": failure.code}, exc_info=failure)
        return _ending(Run.Outcome.FAILED, failure)
    except (OperationalError, InterfaceError):  # a failover, a deadlock, no connection to be had: none lasts
        logger.warning("a job lost its database", extra={"run": run.pk}, exc_info=True)
        if not connection.in_atomic_block:  # as within a test's own transaction
            connection.close_if_unusable_or_obsolete()
        return Ending(Run.Outcome.WAITING, DATABASE, "Our database did not answer; it goes on from here soon.")
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


def _finish(taken: Taken, ending: Ending) -> None:
    """Write how it ended, unless somebody took over meanwhile; one that is to go on ends if somebody cancelled it."""
    run, now = taken.run, timezone.now()
    with transaction.atomic():
        ours = ending.outcome != Run.Outcome.TAKEN_OVER and _give_back(taken, ending, now)
        if not ours and ending.has_a_place:
            ending = _ending(Run.Outcome.CANCELLED, Cancelled())
            ours = _give_back(taken, ending, now)
        if not ours:
            ending = Ending(Run.Outcome.TAKEN_OVER)
        _close(run, ending, now)
    run.retry_after = ending.wait
    logger.info("a run ended", extra={"run": run.pk, "outcome": str(run.outcome), "code": run.error_code})


def _give_back(taken: Taken, ending: Ending, now: dt.datetime) -> bool:
    """Give the lease back; False when it is not ours, or a place is to be kept though somebody cancelled the run."""
    job = taken.job
    failures = _failures(taken, ending)
    is_poison = failures >= TOO_OFTEN.get(ending.outcome, failures + 1)
    next_run_at = None if is_poison else _next_run_at(job, ending, now, failures)
    planned = Value(next_run_at, output_field=DateTimeField())
    unless_asked = When(next_run_at=job.next_run_at, then=Value(now, output_field=DateTimeField()))
    held = Job.objects.filter(pk=job.pk, fence=job.fence)
    # In the statement itself, so that no cancel comes between a look and the writing.
    held = held.filter(cancelled_at=None) if ending.has_a_place else held
    ours = held.update(
        # Whoever made the job due while it ran (a reconnect, a person) wins over our own plan.
        next_run_at=Case(When(next_run_at=job.next_run_at, then=planned), default=F("next_run_at")),
        quarantined_at=Case(unless_asked, default=None) if is_poison else None,
        claimed_until=None,
        leased_until=None,
        lease_message="",
        cancelled_at=None,
        suspected_at=None,
        wait_code="",
        failures=failures,
        # The row's own: what `Work.keep` noted in memory may have been rolled back since.
        cursor=F("cursor") if ending.has_a_place else {},
    )
    if ours and is_poison:
        audit.record("job.held", actor=SYSTEM, partner=job.partner, object=job.kind, code=ending.code)
    return ours == 1


def _close(run: Run, ending: Ending, now: dt.datetime) -> None:
    run.outcome, run.finished_at = ending.outcome, now
    run.error_code, run.error = ending.code[:40], ending.error[:500]
    Run.objects.filter(pk=run.pk, outcome=Run.Outcome.RUNNING).update(
        outcome=run.outcome, finished_at=now, error_code=run.error_code, error=run.error
    )


def _failures(taken: Taken, ending: Ending) -> int:
    """How often in a row it went wrong; a run that came further before it had to wait starts the count anew."""
    failures = taken.job.failures
    if ending.outcome in (Run.Outcome.DONE, Run.Outcome.CANCELLED) or ending.code == TURN_OVER:
        return 0
    if ending.goes_on:
        return failures
    return 1 if ending.outcome == Run.Outcome.WAITING and _came_further(taken, ending) else failures + 1


def _came_further(taken: Taken, ending: Ending) -> bool:
    """Whether pages were written, or at least some customers' lists were done with."""
    job, run = taken.job, taken.run
    if ending.code == DATABASE:  # what we remember may have been rolled back
        job.refresh_from_db(fields=["cursor"])
        run.refresh_from_db(fields=["pages"])
    before, after = ([cursor.get(name) or None for name in ("at", "lists")] for cursor in (taken.place, job.cursor))
    return run.pages > 0 or before != after


def _next_run_at(job: Job, ending: Ending, now: dt.datetime, failures: int) -> dt.datetime | None:
    """When the job is due again; None when only a person can make it so."""
    if ending.parked:
        return None
    asked = min(ending.wait or 0, LONGEST_RETRY_AFTER)
    if ending.goes_on:
        return now + dt.timedelta(seconds=asked)
    if ending.outcome == Run.Outcome.WAITING or ending.is_soon:
        pause = min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** min(failures - 1, 20)) * dice.uniform(0.5, 1)
        return now + dt.timedelta(seconds=max(pause, asked))
    return regular_time(job.kind)
