"""Mirroring Microsoft's lists: read ahead, written in batches, and gone on with where an earlier turn stopped."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, TypeVar

from django.db import transaction

from partners import jobs, removals, writing
from partners.ahead import fetched_ahead
from partners.mirrored_kinds import CUSTOMERS
from partners.mirrors import Known, Mirror, ReadPage, Unnamed
from partners.partnercenter import MAX_ITEMS, CursorRejected, PartnerCenter, Trail
from partners.reading import Cursor
from partners.writing import Pages, Progress

DIRTY_PAGES = 10  # with something to write, at most, before they are
SECONDS = 2.0  # and so long they wait at most
T = TypeVar("T")


def sync(work: jobs.Work, mirror: Mirror[Any]) -> None:
    """
    Mirror one list of the partner's own, from where an earlier turn stopped or from the first page.

    :raises Untrustworthy: the list cannot be followed, or is most likely somebody else's
    """
    client = PartnerCenter(work.session(), correlation_id=work.run.correlation_id)
    progress = Progress.of(work, mirror)
    if progress.next is not None:
        work.count(seen=progress.seen, expected=progress.expected)
        try:
            _read_on(work, mirror, client, progress)
        except CursorRejected:
            progress.next = None  # Microsoft forgot where we were
            work.count(seen=-work.run.seen)
        else:
            return
    work.job.cursor = {}
    _read_on(work, mirror, client, Progress.start(work, mirror))


def _read_on(work: jobs.Work, mirror: Mirror[Any], client: PartnerCenter, progress: Progress) -> None:
    known = writing.known_pages(work, mirror)
    pages = partial(
        read_list, client, mirror, mirror.path(None), place=progress.next, number=progress.number,
        known=known if progress.is_trusted else {},
    )  # fmt: skip
    with fetched_ahead(pages) as coming:
        for batch in batches(coming):
            _store(work, mirror, batch, progress, known)
            if progress.next is not None:
                work.pause()


@transaction.atomic
def _store(work: jobs.Work, mirror: Mirror[Any], batch: list[ReadPage], progress: Progress, known: Pages) -> None:
    """A batch, and after the last one what follows from the whole list."""
    for page in batch:
        progress.pages, progress.number, progress.next = progress.pages + 1, page.number, page.cursor
        progress.seen += page.count
        progress.expected = expected(page, progress.seen, progress.expected)
    writing.store(work, mirror, batch, progress, known)
    if progress.next is None:
        progress.is_whole &= progress.expected is None or progress.seen >= progress.expected
        if progress.is_whole and writing.drop_pages_after(work, mirror, 0, progress.number, known):
            progress.is_changed = True
        removals.conclude(work, mirror, progress)


def read_list(
    client: PartnerCenter,
    mirror: Mirror[Any],
    path: str,
    *,
    place: Cursor | None = None,
    number: int = 0,
    known: Pages,
    collection: int = 0,
) -> Iterator[ReadPage]:
    """The pages of one list, from a place on that has `number` pages before it; raises as `PartnerCenter.listed`."""
    trail = Trail(place)
    while True:
        number += 1
        page = _read(client, mirror, path, place, trail, number, collection, known.get((collection, number)))
        place = page.cursor
        yield page
        if place is None:
            return
        del page  # before the next one comes


def _read(
    client: PartnerCenter,
    mirror: Mirror[Any],
    path: str,
    place: Cursor | None,
    trail: Trail,
    number: int,
    collection: int,
    known: Known | None,
) -> ReadPage:
    listed = client.listed(path, place, is_paged=mirror.is_paged)
    try:
        page = client.understood(
            listed, lambda found: mirror.take(found, collection=collection, number=number, known=known)
        )
    except Unnamed as unnamed:
        raise client.untrustworthy("Something in it has no id.", "wrong_shape") from unnamed
    if mirror.is_paged and page.count > MAX_ITEMS:
        raise client.untrustworthy(f"It holds {page.count} entries.", "oversized_page")
    trail.follow(listed, page.digest)
    return page


def expected(page: ReadPage, seen: int, earlier: int | None) -> int | None:
    """How many there are in all; None while totalCount can as well mean this page only, as on some lists."""
    if page.total is None or page.total < seen or (page.cursor and page.total == seen):
        return earlier
    return page.total


def batches(coming: Iterator[T]) -> Iterator[list[T]]:
    """What comes, together until there is enough to write or it has waited long; at a failure what came before it."""
    batch: list[T] = []
    dirty, begun = 0, time.monotonic()
    try:
        for one in coming:
            batch.append(one)
            dirty += not getattr(one, "is_clean", True)
            if dirty >= DIRTY_PAGES or time.monotonic() - begun >= SECONDS:
                del one
                yield batch
                batch, dirty, begun = [], 0, time.monotonic()
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


KINDS = (
    jobs.Kind(
        name=CUSTOMERS.kind,
        title="Customers",
        run=partial(sync, mirror=CUSTOMERS),
        every=dt.timedelta(hours=6),
        fresh_for=dt.timedelta(hours=24),
        purpose="sync.customers",
    ),
)
