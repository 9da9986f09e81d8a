"""Following one of Microsoft's lists from page to page, to its end or to what shows that there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from django.conf import settings

from partners.mirrors import Known, Mirror, ReadPage, Unfit
from partners.partnercenter import PAGE_SIZE, Untrustworthy
from partners.reading import AsBefore, Cursor, ListedPage
from partners.writing import Pages

MAX_PAGES = 50_000  # 25 million customers
UNTOLD = 2_000 * PAGE_SIZE  # rows: a million, and no more in a list of which nothing is known
ENDLESS = "endless_list"
Result = TypeVar("Result")


class Source(Protocol):
    """Where lists come from; `partnercenter.PartnerCenter` says what each means and raises."""

    def first(self, path: str, *, is_paged: bool = True) -> Cursor: ...

    def listed(
        self, path: str, cursor: Cursor | None = None, *, is_paged: bool = True, before: AsBefore | None = None
    ) -> ListedPage: ...

    def understood(self, page: ListedPage, how: Callable[[ListedPage], Result]) -> Result: ...

    def untrustworthy(self, why: str, code: str) -> Untrustworthy: ...


@dataclass(frozen=True)
class Start:
    """
    Where reading begins: after `number` pages and `seen` rows of this list; the default is its first page.

    `mark` and `most` are what the last page's were; of a list that begins, `most` is how many it had before.
    """

    place: Cursor | None = None
    number: int = 0
    seen: int = 0
    mark: tuple[Any, ...] = ()
    most: int = 0


class Trail:
    """
    The pages of one list as short digests; notices when it leads back to where it has been.

    A turn remembers each of its pages. `mark` goes on over turns: the number, the next place and the items of one page,
    which is replaced whenever the number doubled; so a circle of any length is noticed within three times around.
    https://maths-people.anu.edu.au/~brent/pub/pub051.html
    """

    def __init__(self, place: Cursor, mark: tuple[Any, ...] = ()) -> None:
        self._seen = {_digest(place)}
        self.mark = mark

    def follow(self, page: ListedPage, number: int, digest: bytes) -> None:
        """
        Note the page; call it before the page is stored.

        :raises Untrustworthy: this page, or the next one, was already read
        """
        if page.cursor is None:
            return
        place, items = _digest(page.cursor), digest[:8] if len(page.items) > len(b"[]") else b""
        marks = {place, items} - {b""}
        if marks & self._seen or {one.hex() for one in marks} & set(self.mark[1:]):
            raise Untrustworthy("The list leads in a circle.", code="cyclic_link")
        if number > MAX_PAGES:
            raise Untrustworthy(f"The list does not end after {MAX_PAGES} pages.", code=ENDLESS)
        self._seen |= marks
        if not self.mark or number >= 2 * self.mark[0]:
            self.mark = (number, place.hex(), items.hex())


def read_list(
    source: Source, mirror: Mirror[Any], path: str, start: Start | None = None, *, known: Pages,
    collection: int = 0, is_accepted: bool = False,
) -> Iterator[ReadPage]:  # fmt: skip
    """
    The pages of one list; raises as `partnercenter.PartnerCenter.listed`.

    Where it `is_accepted`, somebody says that it may be far longer than what is known of it.

    :raises Untrustworthy: it leads in a circle, or is far longer than Microsoft says or any can be
    """
    start = start or Start()
    place, number, seen, most = start.place, start.number, start.seen, start.most
    trail = Trail(place or source.first(path, is_paged=mirror.is_paged), start.mark)
    while True:
        number += 1
        page = _read(source, mirror, path, place, trail, number, collection, known.get((collection, number)))
        place, seen = page.cursor, seen + page.count
        page.most = most = told(page, most)
        if place is not None and seen > _longest(most, is_accepted=is_accepted):
            raise source.untrustworthy(f"It lists {seen} of {most or 'unknown'} and does not end.", ENDLESS)
        yield page
        if place is None:
            return
        del page  # before the next one comes


def _read(
    source: Source,
    mirror: Mirror[Any],
    path: str,
    place: Cursor | None,
    trail: Trail,
    number: int,
    collection: int,
    known: Known | None,
) -> ReadPage:
    before = None if known is None else AsBefore(known.digest, mirror.salt)
    listed = source.listed(path, place, is_paged=mirror.is_paged, before=before)
    try:
        page = source.understood(
            listed, lambda found: mirror.take(found, collection=collection, number=number, known=known)
        )
    except Unfit as unfit:
        raise source.untrustworthy(str(unfit), unfit.code) from unfit
    trail.follow(listed, number, page.digest)
    page.mark = trail.mark
    return page


def expected(page: ReadPage, seen: int, earlier: int | None) -> int | None:
    """How many there are in all; None while totalCount can as well mean this page only, as on some lists."""
    if page.total is None or page.total < seen or (page.cursor and page.total == seen):
        return earlier
    return page.total


def told(page: ReadPage, most: int) -> int:
    """
    The largest number of all that a page told, where it can't mean the page only; also when more came since.

    Where it told fewer than it lists and goes on, nothing it tells is to be relied on, and it counts for what it lists.
    """
    if page.total is None or page.total == page.count or (page.total < page.count and page.cursor is None):
        return most
    return max(most, page.total, page.count)


def _longest(most: int, *, is_accepted: bool) -> int:
    """How many rows a list may have that is to go on, where it is known to have had so many at most; 0: unknown."""
    due = 2 * most + int(settings.CPV_LIST_GROWTH)
    return due if most and not is_accepted else max(due, UNTOLD)


def _digest(cursor: Cursor) -> bytes:
    return hashlib.blake2b(json.dumps(cursor, sort_keys=True).encode(), digest_size=8).digest()
