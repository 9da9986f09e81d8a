"""Mirroring Microsoft's lists: read ahead, written in batches, and gone on with where an earlier turn stopped."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from django.db import transaction

from partners import jobs, removals, writing
from partners.ahead import batches, fetched_ahead
from partners.following import Source, Start, expected, read_list
from partners.graph import GraphLists
from partners.mirrored_kinds import CUSTOMERS, LICENCES, MFA, RELATIONSHIPS, SUBSCRIPTIONS, USERS
from partners.mirrors import Mirror, ReadPage
from partners.models import Run
from partners.partnercenter import (
    CursorRejected,
    PartnerCenter,
    Untrustworthy,
)
from partners.taking_back import DOUBTFUL, take_back
from partners.walking import walk
from partners.writing import Pages, Progress
from tokens.clouds import Audience
from tokens.errors import Transient

logger = logging.getLogger(__name__)

AGAIN_IN, SELDOM_IN = 3600.0, 6 * 3600.0  # seconds until a list that came short is read again; when it often did
OFTEN = 5  # times since a list was whole
T = TypeVar("T")


class Incomplete(Transient):
    """A list ended before it had as many entries as Microsoft says; what came is kept, and nobody counts as gone."""


def sync(work: jobs.Work, mirror: Mirror[Any]) -> None:
    """
    Mirror one list of the partner's own, from where an earlier turn stopped or from the first page.

    :raises Untrustworthy: the list cannot be followed, or is most likely somebody else's
    """
    follow(work, mirror, source_of(work, mirror))


def follow(work: jobs.Work, mirror: Mirror[Any], source: Source) -> None:
    """To the end of the list, or until it shows that it is not to be believed; then what it added is taken back."""
    progress = Progress.of(work, mirror)
    if progress.seen:
        work.count(seen=progress.seen, expected=progress.expected)
    begun = progress.begun
    try:
        try:
            read_on(work, mirror, source, progress)
        except CursorRejected:  # Microsoft forgot where we were
            work.count(seen=-work.run.seen)
            read_on(work, mirror, source, replace(Progress.start(work, mirror), begun=begun))
    except Untrustworthy as failure:
        if failure.code not in DOUBTFUL or not (taken := take_back(work, mirror, begun)):
            raise
        words = f"{failure} The {taken:,} that it had added are taken back."
        raise Untrustworthy(words, code=failure.code, correlation_id=failure.correlation_id) from failure


def sync_of_customers(work: jobs.Work, mirror: Mirror[Any]) -> None:
    """The list of each of this lane's customers, from where an earlier turn stopped."""
    walk(work, mirror, source_of(work, mirror))


def source_of(work: jobs.Work, mirror: Mirror[Any]) -> Source:
    """Where the lists of this kind come from."""
    is_graphs = mirror.audience == Audience.GRAPH
    of_service: type[GraphLists | PartnerCenter] = GraphLists if is_graphs else PartnerCenter
    return of_service(work.session(), correlation_id=work.run.correlation_id)


def read_on(work: jobs.Work, mirror: Mirror[Any], source: Source, progress: Progress) -> None:
    known = writing.known_pages(work, mirror)
    start = Start(progress.next, progress.number, progress.seen, tuple(progress.mark), progress.most)
    trusted, is_accepted = known if progress.is_trusted else {}, progress.are_strangers_accepted
    pages = partial(read_list, source, mirror, mirror.path(None), start, known=trusted, is_accepted=is_accepted)
    if progress.is_first:
        pages = partial(writing.made_ready, mirror, pages)
    with fetched_ahead(pages) as coming:
        for batch in batches(coming, is_watched=progress.is_first and not progress.seen):
            _store(work, mirror, batch, progress, known)
            del batch  # before the next one comes
            if progress.next is not None:
                work.pause()
    if progress.expected is not None and progress.seen < progress.expected:
        work.keep({})  # it begins anew
        raise _incomplete(work, progress.seen, progress.expected)


def _incomplete(work: jobs.Work, seen: int, told: int) -> Incomplete:
    runs = Run.objects.filter(job=work.job)
    whole = runs.filter(outcome=Run.Outcome.DONE).order_by("-pk").values_list("pk", flat=True).first() or 0
    times = runs.filter(pk__gt=whole, error_code="incomplete").count() + 1
    words = f"Microsoft listed {seen:,} and says that there are {told:,}. What came is kept, and nothing is taken away."
    if times < OFTEN:
        return Incomplete(words, code="incomplete", retry_after=AGAIN_IN)
    logger.error("a list comes short again and again", extra={"run": work.run.pk, "times": times})
    words += f" That was so {times} times in a row: support has to look into it."
    return Incomplete(words, code="incomplete", retry_after=SELDOM_IN)


@transaction.atomic
def _store(work: jobs.Work, mirror: Mirror[Any], batch: list[ReadPage], progress: Progress, known: Pages) -> None:
    """A batch, and after the last one what follows from the whole list."""
    for page in batch:
        progress.pages, progress.number, progress.next = progress.pages + 1, page.number, page.cursor
        progress.seen, progress.mark, progress.most = progress.seen + page.count, page.mark, page.most
        progress.expected = expected(page, progress.seen, progress.expected)
    writing.store(work, mirror, batch, progress, known)
    if progress.next is None:
        progress.is_whole &= progress.expected is None or progress.seen >= progress.expected
        if progress.is_whole and writing.drop_pages_after(work, mirror, 0, progress.number, known):
            progress.is_changed = True
        removals.conclude(work, mirror, progress)


# --- Any list --------------------------------------------------------------------------------------------------------
def _kind(mirror: Mirror[Any], title: str, **how: Any) -> jobs.Kind:
    run = sync_of_customers if mirror.is_of_customers else sync
    how |= {
        "purpose": f"sync.{mirror.kind}",
        "audience": mirror.audience,
        "of_customers": mirror.is_of_customers,
    }
    return jobs.Kind(name=mirror.kind, title=title, run=partial(run, mirror=mirror), **how)


A_DAY = dt.timedelta(hours=24)
KINDS = (
    _kind(CUSTOMERS, "Customers", every=dt.timedelta(hours=6), fresh_for=A_DAY),
    _kind(SUBSCRIPTIONS, "Subscriptions", every=A_DAY / 2, fresh_for=A_DAY, lanes=4),
    _kind(LICENCES, "Licences", every=A_DAY, fresh_for=2 * A_DAY, lanes=4),
    _kind(USERS, "Users", every=A_DAY, fresh_for=2 * A_DAY, lanes=4, opt_in=True),
    _kind(MFA, "Sign-ins without MFA", every=A_DAY, fresh_for=2 * A_DAY),
    _kind(RELATIONSHIPS, "GDAP relationships", every=A_DAY / 2, fresh_for=A_DAY),
)
