"""Writing the mirror on SQLite, which one process writes at a time: through Django, in batches."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Q

from partners.mirrors import SHORT, Keyed, Known, Mirror, ReadPage, Rows, Wanted
from partners.models import ListPage
from partners.models.mirrored import Mirrored

AT_ONCE = 500  # keys in one question

_BOOKKEEPING = ("content_hash", "changed_at", "missing_since", "removed_at", "removed_reason")


def compare(mirror: Mirror[Any], partner_id: int, rows: Rows) -> Wanted:
    """The keys of rows that are not in the mirror as they should be; True for those that are not there at all."""
    known = _known(mirror, partner_id, list(rows))
    wrong = (keyed for keyed, (digest, _) in rows.items() if known.get(keyed) != (digest, None, None))
    return {keyed: keyed not in known for keyed in wrong}


def _there(mirror: Mirror[Any], key: Any) -> Any:
    return UUID(int=key) if mirror.key_column == "tenant_id" else key


def _here(key: Any) -> Any:
    return key.int if isinstance(key, UUID) else key


def _known(mirror: Mirror[Any], partner_id: int, keyed: Sequence[Keyed]) -> dict[Keyed, tuple[Any, ...]]:
    """The rows of these keys, and maybe more: some that have another one's customer and key."""
    found: dict[Keyed, tuple[Any, ...]] = {}
    columns = ["content_hash", "missing_since", "removed_at", mirror.key_column]
    columns += ["customer_id"] if mirror.is_of_customers else []
    for begin in range(0, len(keyed), AT_ONCE):
        pairs = [one if mirror.is_of_customers else (0, one) for one in keyed[begin : begin + AT_ONCE]]
        some = Q(**{f"{mirror.key_column}__in": [_there(mirror, key) for key in {key for _, key in pairs}]})
        if mirror.is_of_customers:
            some &= Q(customer__in={customer for customer, _ in pairs})
        for digest, missing, removed, key, *customer in mirror.rows(partner_id).filter(some).values_list(*columns):
            here = (customer[0], _here(key)) if customer else _here(key)
            found[here] = (bytes(digest), missing, removed)
    return found


def need_not_be_on_disk_at_once() -> None:
    """SQLite is told once how it writes."""


def make_ready(_mirror: Mirror[Any], _page: ReadPage) -> None:
    """Nothing is done ahead."""


def add(mirror: Mirror[Any], partner_id: int, pages: Sequence[ReadPage], now: dt.datetime) -> int:
    """Write the rows of pages, all of them new; how many were added."""
    rows = mirror.rows_of(pages)
    return write(mirror, partner_id, rows, dict.fromkeys(rows, True), now)[0]


def write(mirror: Mirror[Any], partner_id: int, rows: Rows, wanted: Wanted, now: dt.datetime) -> tuple[int, int]:
    """Write those of the rows that are wanted; how many were added and changed."""
    model: Any = mirror.model
    new: list[Mirrored] = []
    changed: list[Mirrored] = []
    for keyed, is_new in wanted.items():
        (customer, key), (digest, item) = keyed if mirror.is_of_customers else (0, keyed), rows[keyed]
        values = dict(zip(mirror.columns, mirror.values(item), strict=True))
        of = {"customer_id": customer} if mirror.is_of_customers else {}
        row = model(
            partner_id=partner_id, **of, **{mirror.key_column: _there(mirror, key)}, **values, content_hash=digest,
            first_seen_at=now, changed_at=now,
        )  # fmt: skip
        (new if is_new else changed).append(row)
    unique = ["partner", *(["customer"] if mirror.is_of_customers else []), mirror.key_column]
    before = mirror.rows(partner_id).count() if new else 0
    if new:
        model.objects.bulk_create(new, batch_size=AT_ONCE, ignore_conflicts=True)
    added = mirror.rows(partner_id).count() - before if new else 0
    if changed:
        written = [*mirror.columns, *_BOOKKEEPING]
        model.objects.bulk_create(
            changed, batch_size=AT_ONCE, update_conflicts=True, unique_fields=unique, update_fields=written
        )
    return added, len(changed)


# --- Pages ----------------------------------------------------------------------------------------------------------
def known_pages(mirror: Mirror[Any], partner_id: int, collections: list[int]) -> dict[tuple[int, int], Known]:
    pages = ListPage.objects.filter(partner=partner_id, kind=mirror.kind, collection__in=collections)
    return {
        (collection, number): Known(bytes(digest), len(keys) // SHORT)
        for collection, number, digest, keys in pages.values_list("collection", "number", "digest", "keys").iterator()
    }


def keep_pages(
    mirror: Mirror[Any], partner_id: int, anew: Sequence[ReadPage], as_before: Sequence[tuple[ReadPage, bytes]]
) -> None:
    """Note how pages are now; of those that list the same rows as before only which of these were written since."""
    for page, stale in as_before:
        one = ListPage.objects.filter(partner=partner_id, kind=mirror.kind, collection=page.collection)
        one.filter(number=page.number).update(digest=page.digest, hashed=page.digest, stale=stale)
    ListPage.objects.bulk_create(
        [
            ListPage(
                partner_id=partner_id, kind=mirror.kind, collection=page.collection, number=page.number,
                digest=page.digest, keys=page.keys, hashes=page.hashes, stale=b"", hashed=page.digest,
            )
            for page in anew
        ],
        update_conflicts=True, unique_fields=["partner", "kind", "collection", "number"],
        update_fields=["digest", "keys", "hashes", "stale", "hashed"],
    )  # fmt: skip
