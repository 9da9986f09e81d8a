"""
Which rows of a page are as they were, where the page as a whole is not: one changed, or they came in another order.

Told from what is kept of the page, as that tells of a page whose bytes are as they were; so it is to be believed in the
same runs only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from partners import jobs
from partners.mirrors import SHORT, Mirror, ReadPage, Rows, Wanted
from partners.models import ListPage

HASH = 16  # bytes
FEW = 10  # of so many rows of a page one may be noted as written since: then the others' hashes are not written again


@dataclass(frozen=True)
class KeptPage:
    """What is kept of one page: its keys, and the hashes of their rows but for those written since."""

    keys: bytes
    hashes: bytes
    stale: bytes

    @property
    def written_since(self) -> set[bytes]:
        return {self.stale[begin : begin + SHORT] for begin in range(0, len(self.stale), SHORT)}

    def all_keys(self) -> set[bytes]:
        return {self.keys[begin : begin + SHORT] for begin in range(0, len(self.keys), SHORT)}

    def known(self) -> dict[bytes, bytes]:
        """The hash by its key, where it is right."""
        since = self.written_since
        return {key: found for key, found in _pairs(self.keys, self.hashes) if key not in since}

    def others(self, page: ReadPage) -> list[bytes] | None:
        """The keys whose rows are not as they were kept; None where the page does not list the same ones."""
        if self.keys != page.keys or not self.hashes or not page.hashes:
            return None
        if self.hashes == page.hashes:
            return []
        was, now = self.hashes, page.hashes
        places = [at for at in range(0, len(now), HASH) if was[at : at + HASH] != now[at : at + HASH]]
        return [page.keys[at // HASH * SHORT : (at // HASH + 1) * SHORT] for at in places]


class KeptRows:
    """What is kept of some pages that are no more as they were."""

    def __init__(self, work: jobs.Work, mirror: Mirror[Any], pages: Sequence[ReadPage]) -> None:
        """Asked in the transaction that writes: what somebody let go of meanwhile is not believed."""
        kept = ListPage.objects.filter(
            partner=work.partner, kind=mirror.kind, collection__in={page.collection for page in pages},
            number__in={page.number for page in pages},
        )  # fmt: skip
        found = kept.values_list("collection", "number", "digest", "hashed", "keys", "hashes", "stale")
        by_place = {(collection, number): _kept(*map(bytes, rest)) for collection, number, *rest in found}
        self._work, self._mirror = work, mirror
        self._each = [(page, by_place.get((page.collection, page.number))) for page in pages]
        self._others = [None if kept is None else kept.others(page) for page, kept in self._each]

    def differing(self) -> tuple[Rows, Wanted]:
        """The rows of which nothing is known, and those that are there and are to be written."""
        unknown: Rows = {}
        wanted: Wanted = {}
        for (page, kept), others in zip(self._each, self._others, strict=True):
            if others is None or kept is None:  # others stand there, or nothing is known
                known = kept.known() if kept and page.hashes else {}
                changed = {key for key, found in _pairs(page.keys, page.hashes) if known.get(key) != found}
                doubtful = changed - known.keys()
            else:
                known, doubtful = None, kept.written_since
                changed = doubtful.union(others)
                if not changed:
                    continue
            for key, row in page.rows.items():
                short = self._mirror.short(page.collection, key)
                keyed = (page.collection, key) if self._mirror.is_of_customers else key
                if short in doubtful or known == {}:  # as where two rows of the page look alike: none has a hash
                    unknown[keyed] = row
                elif short in changed:
                    wanted[keyed] = False
        return unknown, wanted

    def have_moved(self, wanted: Wanted) -> set[int]:
        """The lists of which a row that was there and is written now stands on a page that did not list it before."""
        if all(wanted.values()):
            return set()
        found = set()
        for page, kept in self._each:
            before = kept.all_keys() if kept else set()
            for key in page.rows:
                keyed = (page.collection, key) if self._mirror.is_of_customers else key
                if wanted.get(keyed) is False and self._mirror.short(page.collection, key) not in before:
                    found.add(page.collection)
        return found

    def believe_no_other(self, collections: set[int]) -> None:
        """
        Let nothing be told row by row of these lists' other pages.

        One of them may list a row that was written now, as it was before; and if it goes from this page before that one
        is read, nobody will know.
        """
        if not collections:
            return
        here = {(page.collection, page.number) for page, _ in self._each}
        kept = ListPage.objects.filter(partner=self._work.partner, kind=self._mirror.kind, collection__in=collections)
        found = kept.exclude(hashes=b"").values_list("pk", "collection", "number")
        if others := [pk for pk, *place in found if tuple(place) not in here]:
            ListPage.objects.filter(partner=self._work.partner, pk__in=others).update(hashes=b"")

    def now(self) -> tuple[list[ReadPage], list[tuple[ReadPage, bytes]]]:
        """
        How to keep the pages once their rows are in the mirror as they are listed.

        Anew; or only with the keys of the few rows that are not as they were kept.
        """
        anew: dict[tuple[int, int], ReadPage] = {}  # the last one counts: a list that begins anew has its pages twice
        as_before: dict[tuple[int, int], tuple[ReadPage, bytes]] = {}
        for (page, _), others in zip(self._each, self._others, strict=True):
            place = (page.collection, page.number)
            anew.pop(place, None)
            as_before.pop(place, None)
            if others is None or len(others) * FEW > page.count:
                anew[place] = page
            else:
                as_before[place] = (page, b"".join(others))
        return list(anew.values()), list(as_before.values())


def _kept(digest: bytes, hashed: bytes, keys: bytes, hashes: bytes, stale: bytes) -> KeptPage:
    return KeptPage(keys, hashes if digest == hashed else b"", stale)


def _pairs(keys: bytes, hashes: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each key with its hash; nothing where they are not known."""
    for place in range(len(hashes) // HASH):
        yield keys[place * SHORT : (place + 1) * SHORT], hashes[place * HASH : (place + 1) * HASH]
