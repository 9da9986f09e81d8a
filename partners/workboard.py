"""
The work for a partner as its people read it: each kind of job in words, how far it is, who acts, and what they may do.

Derived from the rows of the jobs, their newest runs and where the partner stands; nothing is stored.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import F, OuterRef, Q, Subquery, Sum
from django.utils import timezone

from partners import bringing_back, jobs
from partners.models import Job, ListState, Member, Partner, Run
from partners.standing import Standing
from partners.taking_back import DOUBTFUL
from tokens.actors import Actor
from tokens.clouds import Audience

RECENT = 10
FIRST = "customers"  # the kind whose rows the others ask about
MINE = "partner"  # who acts, as `partners.standing` names them
LASTING = 8  # refusals of a sign-in in a row, an hour's worth: then somebody had better look


@dataclass(frozen=True)
class Button:
    """What somebody may do: its name in the form, and what the button says."""

    act: str
    words: str


RUN, PAUSE, RESUME = Button("run", "Run now"), Button("pause", "Pause"), Button("resume", "Resume")
CANCEL, RELEASE = Button("cancel", "Cancel this run"), Button("release", "Let it try again")
ACTS: dict[str, Callable[..., bool]] = {
    "run": jobs.try_again,
    "pause": jobs.pause,
    "resume": jobs.resume,
    "cancel": jobs.cancel,
    "release": jobs.release,
}
WAITS = {
    "asked_to_wait": "Microsoft asked us to wait with calls for your organisation.",
    "service_down": "Microsoft does not answer just now. One call at a time tries; the others wait.",
    "too_fast": "More calls are due than may leave in a second.",
    "alone": "Its worker died. Such work runs one at a time, and it is its turn in a moment.",
}


@dataclass(frozen=True)
class State:
    """In words, with a tone that is only ever shown beside them, why, who acts, and the button that fits; maybe two."""

    title: str
    tone: str  # ok, attention, stopped
    reason: str = ""
    owner: str = "nobody"
    action: str = ""
    button: Button | None = RUN
    code: str = ""
    other: Button | None = None

    @property
    def asks_whose_it_is(self) -> bool:
        """Whether the newest list was refused for what somebody may say of it: `removals.accept_strangers`."""
        return self.code in DOUBTFUL

    @property
    def buttons(self) -> list[Button]:
        return [button for button in (self.button, self.other) if button]


@dataclass(frozen=True)
class Taken:
    """What whole lists took away in the last month: the newest of them, and all together."""

    rows: int
    at: dt.datetime
    in_all: int

    @property
    def before(self) -> int:
        return self.in_all - self.rows


@dataclass(frozen=True)
class Line:
    """One kind of work for one partner; of a kind that is `of_customers` customers are counted, else rows."""

    kind: jobs.Kind
    state: State
    is_active: bool
    pages: int
    seen: int
    expected: int | None
    next_at: dt.datetime | None
    as_of: dt.datetime | None
    is_stale: bool
    missing: int  # rows whose removal waits for a person
    taken: Taken | None = None


@dataclass(frozen=True)
class Board:
    lines: list[Line]
    runs: list[Any]
    with_numbers: bool  # they tell how many customers there are
    offered: list[jobs.Kind]  # what an owner may ask for
    coming: list[jobs.Kind]  # what begins by itself once the customers were read

    @property
    def is_active(self) -> bool:
        """Whether it is worth asking again in a moment."""
        return any(line.is_active for line in self.lines)


def board(member: Member, stands: Standing) -> Board:
    """Everything the page shows, in a handful of queries however much there is."""
    partner, now = member.partner, timezone.now()
    by_kind: dict[str, list[Job]] = {}
    for job in partner.jobs.annotate(**_newest()).order_by("kind", "lane"):
        by_kind.setdefault(job.kind, []).append(job)
    newest, recent = _runs(partner, by_kind)
    lines = [_line(kind, by_kind[name], newest, stands, now) for name, kind in jobs.kinds().items() if name in by_kind]
    others = [kind for kind in jobs.kinds().values() if kind.name not in by_kind] if by_kind else []
    offered, coming = [one for one in others if one.opt_in], [one for one in others if not one.opt_in]
    return Board(lines, recent, member.sees_every_customer, offered, coming)


def state_at_the_desk(job: Any) -> State:
    """The same of one lane, whose newest run the desk's query brought along; where the partner stands is told there."""
    run = Run(outcome=job.run_outcome, error=job.run_error, error_code=job.run_error_code) if job.run_outcome else None
    now = timezone.now()
    return _state([job], [run] if run else [], Standing("active", since=now), now)


def act(partner: Partner, kind: str, what: str, *, by: Actor, reason: str = "") -> bool:
    """Do what a button says; False when there is no such job, or it changes nothing any more."""
    job = partner.jobs.filter(kind=kind).select_related("partner").order_by("lane").first()
    return job is not None and ACTS[what](job, by=by, reason=reason)


def _newest() -> dict[str, Any]:
    of_job = Run.objects.filter(job=OuterRef("pk")).order_by("-pk")
    done = of_job.filter(outcome=Run.Outcome.DONE)
    since = timezone.now() - bringing_back.FOR
    taken = of_job.filter(removed__gt=0, finished_at__gte=since, brought_back_at=None)
    customers = ListState.objects.filter(partner=OuterRef("partner"), kind=FIRST, lane="", completed_at__isnull=False)
    in_all = taken.order_by().values("job").annotate(n=Sum("removed")).values("n")
    return {
        "newest": Subquery(of_job.values("pk")[:1]),
        "done_at": Subquery(done.values("finished_at")[:1]),
        "missing": missing(),
        "taken_at": Subquery(taken.values("finished_at")[:1]),
        "taken": Subquery(taken.values("removed")[:1]),
        "taken_in_all": Subquery(in_all),
        "customers": Subquery(customers.values("present")[:1]),
    }


def missing() -> Subquery:
    """Of a job's kind how many rows' removal waits for a person, as an expression for a query of jobs."""
    held = ListState.objects.filter(partner=OuterRef("partner"), kind=OuterRef("kind"), held_at__isnull=False)
    waits = held.exclude(accepted_missing__gte=F("missing"))
    return Subquery(waits.values("kind").annotate(n=Sum("missing")).values("n"))


def _runs(partner: Partner, by_kind: dict[str, list[Any]]) -> tuple[dict[int, Run], list[Any]]:
    """The newest run of each lane by its job, and those that began last, in one query."""
    wanted = {job.newest for lanes in by_kind.values() for job in lanes if job.newest}
    last = partner.runs.order_by("-started_at", "-pk").values("pk")[:RECENT]
    found: list[Any] = list(
        partner.runs.filter(Q(pk__in=wanted) | Q(pk__in=last)).select_related("job").order_by("-started_at", "-pk")
    )
    for run in found:
        kind = jobs.kinds().get(run.job.kind)
        run.title = kind.title if kind else run.job.kind
        run.of = None if kind and kind.of_customers else run.expected  # rows of so many rows, not of so many customers
    return {run.job_id: run for run in found if run.pk in wanted}, found[:RECENT]


def _line(kind: jobs.Kind, lanes: list[Any], newest: dict[int, Run], stands: Standing, now: dt.datetime) -> Line:
    runs = [newest[job.pk] for job in lanes if job.pk in newest]
    done = [job.done_at for job in lanes]
    as_of = min(done) if all(done) else None
    seen, expected = _lists_done(lanes, newest, now) if kind.of_customers else _rows_read(lanes, newest)
    return Line(
        kind=kind,
        state=_state(lanes, runs, stands, now),
        is_active=stands.is_live and any(job.is_running or _is_due(job, now) for job in lanes),
        pages=sum(run.pages for run in runs),
        seen=seen,
        expected=expected,
        next_at=min((job.next_run_at for job in lanes if job.next_run_at and not job.paused_at), default=None),
        as_of=as_of,
        is_stale=as_of is None or now - as_of > kind.fresh_for,
        missing=lanes[0].missing or 0,
        taken=_taken(kind, lanes),
    )


def _taken(kind: jobs.Kind, lanes: list[Any]) -> Taken | None:
    some = [job for job in lanes if job.taken_at]
    if not some or not bringing_back.is_offered(kind.name):
        return None
    newest = max(some, key=lambda job: job.taken_at)
    return Taken(newest.taken, newest.taken_at, sum(job.taken_in_all for job in some))


def _rows_read(lanes: list[Any], newest: dict[int, Run]) -> tuple[int, int | None]:
    runs = [newest[job.pk] for job in lanes if job.pk in newest]
    return sum(run.seen for run in runs), _sum(run.expected for run in runs)


def _lists_done(lanes: list[Any], newest: dict[int, Run], now: dt.datetime) -> tuple[int, int | None]:
    """Of all lanes together for how many customers this round is done, and of how many; None where nobody knows."""
    each = [lists_done(job, newest.get(job.pk), is_due=_is_due(job, now)) for job in lanes]
    done, expected = sum(one for one, _ in each), _sum(of for _, of in each)
    if expected is None:  # not every lane has begun yet
        expected = lanes[0].customers
    return done, None if expected is None else max(done, expected)


def lists_done(job: Job, run: Run | None, *, is_due: bool) -> tuple[int, int | None]:
    """The same of one lane: the place to go on from tells; without one it is at the beginning, or at the end."""
    if job.cursor:
        return job.cursor.get("lists", 0), job.cursor.get("expected")
    is_at_the_end = run is not None and run.outcome == Run.Outcome.DONE and not is_due and not job.is_running
    of = run.expected if run else None
    return (of or 0) if is_at_the_end else 0, of


def progress_at_the_desk(job: Any) -> str:
    """How far one lane's newest run came, which the desk's query brought along; "" before there was one."""
    if not job.run_outcome:
        return ""
    seen, of, unit = job.run_seen, job.run_expected, ""
    if job.kind in jobs.kinds() and jobs.kinds()[job.kind].of_customers:
        run = Run(outcome=job.run_outcome, expected=job.run_expected)
        (seen, of), unit = lists_done(job, run, is_due=_is_due(job, timezone.now())), " customers"
    how_far = f"{seen:,}" if of is None else f"{seen:,} of {of:,}"
    return f"{how_far}{unit}, {job.run_pages:,} page{'' if job.run_pages == 1 else 's'}"


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = list(numbers)
    return None if None in known or not known else sum(number or 0 for number in known)


def _is_due(job: Job, now: dt.datetime) -> bool:
    return job.paused_at is None and job.next_run_at is not None and job.next_run_at <= now


def _state(lanes: list[Any], runs: list[Run], stands: Standing, now: dt.datetime) -> State:
    """The worst that is true of any lane, first what a person decided and then what happened."""
    is_running = any(job.is_running for job in lanes)
    paused = [job for job in lanes if job.paused_at]
    if paused and is_running:
        return State("Pausing", "attention", "It stops as soon as what it read is kept.", button=CANCEL)
    if paused:
        other = CANCEL if any(job.cursor or job.failures for job in lanes) else None  # else nothing was begun
        why = "Somebody paused it. It goes on from where it was."
        return State("Paused", "attention", why, MINE, "Resume it.", RESUME, other=other)
    if not stands.is_live:
        return State("Stopped", "stopped", stands.reason, stands.owner, stands.action, button=None, code=stands.code)
    if any(job.cancelled_at for job in lanes if job.is_running):
        return State("Being cancelled", "attention", "It ends as soon as what it read is kept.", button=None)
    if is_running:
        return State("Running", "ok", button=PAUSE, other=CANCEL)
    held = [job for job in lanes if job.quarantined_at]
    worst = max(runs, key=lambda run: (_WORSE.get(str(run.outcome), 0), run.pk or 0), default=None)
    if held:
        why = f"It failed {held[0].failures} times in a row, and is held so that it disturbs nobody."
        said = f" The last time: {worst.error}" if worst and worst.error else ""
        code = worst.error_code if worst else ""
        return State("Held", "stopped", why + said, "support", "Support looks into it.", RELEASE, code)
    if any(_is_due(job, now) for job in lanes):
        return State("Queued", "ok", "It begins as soon as a worker is free.", button=PAUSE)
    waits = next((job.wait_code for job in lanes if job.wait_code), "")
    if waits:
        return State("Waiting", "attention", WAITS.get(waits, ""), code=waits)
    known = jobs.kinds().get(lanes[0].kind) if lanes else None
    is_graphs = known is not None and known.audience == Audience.GRAPH
    return _after(worst, max((job.failures for job in lanes), default=0), is_graphs=is_graphs)


_WORSE = {"cancelled": 1, "taken_over": 2, "waiting": 3, "failed": 4, "refused": 5}


def _sign_in_refused(run: Run, failures: int, *, is_graphs: bool) -> State:
    """A 401 that is neither about MFA nor about a role: a moment of Microsoft's, unless it lasts."""
    service = "Microsoft Graph" if is_graphs else "Partner Center"
    why = (
        f"{service} does not accept the sign-in of the account that agreed (401), though Microsoft goes on issuing"
        " it. It is neither about MFA nor about a role, and passes by itself as a rule."
    )
    again = (
        "It is tried again by itself, ever more seldom and at least every six hours, until it is accepted; it goes on"
        " where it was."
    )
    if failures < LASTING:
        return State("Sign-in not accepted", "attention", f"{why} {again}", code=run.error_code)
    where = "sign in to the Microsoft Entra admin centre" if is_graphs else "open Partner Center"
    action = f"See that this account may {where} itself. Then an owner renews the connection with it."
    reason = f"{why} This time it lasts: it was so {failures} times in a row. {again}"
    return State("Sign-in not accepted", "stopped", reason, MINE, action, code=run.error_code)


def _after(run: Run | None, failures: int, *, is_graphs: bool) -> State:
    """What the newest run says, when nothing is under way."""
    if run is None:
        return State("Not run yet", "attention")
    match run.outcome:
        case Run.Outcome.REFUSED if run.error_code.partition("/")[0] == jobs.SIGN_IN_REFUSED:
            return _sign_in_refused(run, failures, is_graphs=is_graphs)
        case Run.Outcome.REFUSED:
            action = "Give the account that agreed what is missing, then run it now."
            return State("Refused by Microsoft", "stopped", run.error, MINE, action, code=run.error_code)
        case Run.Outcome.FAILED:
            return State(
                "Failed", "stopped", run.error, "support", "Support sees it and looks into it.", code=run.error_code
            )
        case Run.Outcome.WAITING | Run.Outcome.TAKEN_OVER:
            return State("Waiting", "attention", run.error, code=run.error_code)
        case Run.Outcome.CANCELLED:
            return State("Cancelled", "attention", run.error)
    return State("Done", "ok")
