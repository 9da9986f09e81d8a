"""
What a kind of mirrored row is: where Microsoft lists it, how an item is read, and which row becomes of it.

A new kind is one class like those in `mirrored_kinds`; docs/house.md tells how.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic
from uuid import UUID

from partners import reading
from partners.models.mirrored import Mirrored
from partners.reading import Cursor, Item, ListedPage, Reader, content_hasher
from tokens.clouds import Audience

Keyed = Any  # a row's key within its list; where each customer has one, a pair: the customer's row and the key
Rows = dict[Keyed, tuple[bytes, Any]]  # hash and item
Wanted = dict[Keyed, bool]  # what is to be written; True for what is not there at all

MOST = 1_000  # items on a page, of which Microsoft gives 500
SHORT = 6  # bytes of a digest that stands for a key on a page
SHORT_MASK = (1 << 8 * SHORT) - 1


@dataclass(frozen=True)
class Known:
    """A page as it was: the digest of its bytes, and how many it lists."""

    digest: bytes
    count: int


@dataclass
class ReadPage:
    """
    A page after reading. Where `is_clean` it is as it was, and its items were not read.

    `collection` is the customer's row whose list it is, 0 for the partner's own; `number` counts from 1. `count` is of
    different keys: what is listed twice hides that something else is not listed at all.
    """

    collection: int
    number: int
    digest: bytes
    cursor: Cursor | None
    total: int | None
    count: int
    is_clean: bool
    keys: bytes = b""
    hashes: bytes = b""  # of the rows, in the order of the keys; empty where two keys look alike
    rows: Rows = field(default_factory=dict)  # by the key alone
    words: str | None = None  # the rows in the words of `copying`, as all of them are new; then there are no `rows`
    mark: tuple[Any, ...] = ()  # of the list up to here, by which a circle is known: `following.Trail`
    most: int = 0  # there are, by what was told up to here: `following.told`


class Unfit(Exception):
    """A page that must not be written; the code says why."""

    def __init__(self, why: str, code: str) -> None:
        super().__init__(why)
        self.code = code


class Mirror(ABC, Generic[Item]):
    """
    One kind of mirrored row. `columns` are what `values` gives, in that order, without the key; where all of them are
    strings, `is_text` has them written faster. A row of which one of
    the `indexed_by` changes leaves the index of parts until the next `search_index.catch_up`.

    `version` rises when the same item becomes another row, and then every row is written anew; other changes of the
    class are noticed. Rows that went are erased after `keeps_removed`, where there is a reason not to keep them.
    """

    kind: ClassVar[str]
    audience: ClassVar[Audience] = Audience.PARTNER_CENTER  # the API that has its lists
    model: ClassVar[type[Mirrored]]
    shape: ClassVar[type[Any]]
    columns: ClassVar[tuple[str, ...]]
    indexed_by: ClassVar[tuple[str, ...]] = ()
    key_column: ClassVar[str] = "key"
    is_text: ClassVar[bool] = False
    is_paged: ClassVar[bool] = True
    is_of_customers: ClassVar[bool] = False
    is_guarded: ClassVar[bool] = True  # much missing at once waits for a person
    keeps_removed: ClassVar[dt.timedelta | None] = None
    version: ClassVar[int] = 1

    def __init__(self) -> None:
        self.reader: Reader[Item] = Reader(self.shape)
        form = (self.kind, self.version, self.columns, self.reader.form())
        self.salt = hashlib.sha256(repr(form).encode()).digest()
        row_form = hashlib.sha256(repr((self.kind, self.version, self.columns)).encode()).digest()
        self.content_hash = content_hasher(row_form[:16])

    @abstractmethod
    def path(self, customer: UUID | None) -> str:
        """Where the list is, below /v1, or Graph's /v1.0."""

    @abstractmethod
    def key(self, item: Item) -> int | str | None:
        """
        What Microsoft knows the item by, as it is compared; None where it has nothing.

        A UUID is given as its number: as such it is found and written three times as fast.
        """

    @abstractmethod
    def values(self, item: Item) -> tuple[Any, ...]:
        """The row's values, each one that its column takes."""

    def rows_of(self, pages: Sequence[ReadPage]) -> Rows:
        """What these pages list; of what they list twice, the last one."""
        if self.is_of_customers:
            return {(page.collection, key): row for page in pages for key, row in page.rows.items()}
        found: Rows = {}
        for page in pages:
            found |= page.rows
        return found

    def rows(self, partner_id: int) -> Any:
        """The partner's rows, as a queryset."""
        objects: Any = self.model._default_manager
        return objects.filter(partner=partner_id)

    def short(self, collection: int, key: int | str) -> bytes:
        """
        What stands for a key on a page, which `removals` computes in SQL as well.

        Two that share it only make one that is gone look listed.
        """
        if isinstance(key, int):
            return (key & SHORT_MASK).to_bytes(SHORT, "big")
        return hashlib.md5(f"{collection}/{key}".encode(), usedforsecurity=False).digest()[:SHORT]

    def take(self, page: ListedPage, *, collection: int, number: int, known: Known | None) -> ReadPage:
        """
        Read a page's items, unless it is as it was; of an item that is listed twice the last one counts.

        :raises ValueError: it is no JSON
        :raises Unfit: an item has no key, or there are too many
        """
        digest = page.digest or reading.digest(page.items, self.salt)
        if known is not None and known.digest == digest:
            return ReadPage(collection, number, digest, page.cursor, page.total, known.count, is_clean=True)
        items = self.reader.items(page.items)
        if self.is_paged and len(items) > MOST:
            raise Unfit(f"It holds {len(items)} entries.", "oversized_page")
        rows = dict(zip(map(self.key, items), zip(map(self.content_hash, items), items, strict=True), strict=True))
        if None in rows or "" in rows:
            raise Unfit("Something in it has no id.", "wrong_shape")
        shorts = [self.short(collection, key) for key in rows if key is not None]
        hashed = dict(zip(shorts, (found for found, _ in rows.values()), strict=True))
        shorts.sort()
        return ReadPage(
            collection, number, digest, page.cursor, page.total, len(rows), is_clean=False, keys=b"".join(shorts),
            hashes=b"".join([hashed[short] for short in shorts]) if len(hashed) == len(rows) else b"", rows=rows,
        )  # fmt: skip


class OfEachCustomer(Mirror[Item]):
    """A kind whose lists are one for each customer."""

    is_of_customers = True
    is_paged = False


def customer_path(customer: UUID | None, what: str) -> str:
    return f"customers/{customer}/{what}"


def lane_bounds(index: int, of: int) -> tuple[UUID, UUID]:
    """The first and the last tenant id of one lane's share of all customers."""
    width = (1 << 128) // of
    last = (1 << 128) - 1 if index == of - 1 else (index + 1) * width - 1
    return UUID(int=index * width), UUID(int=last)


def lane_name(index: int, of: int) -> str:
    return "" if of == 1 else f"{index}/{of}"


def lane_of(customer: UUID, of: int) -> int:
    """Which lane's share this customer is in."""
    return min(customer.int // ((1 << 128) // of), of - 1)
