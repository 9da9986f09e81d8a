"""Pages on which strangers stand in the place of those who are known: most likely they are another partner's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from partners import jobs
from partners.mirrors import SHORT, Known, Mirror, ReadPage, Wanted
from partners.models import ListPage
from partners.partnercenter import OTHER_TENANT, Untrustworthy

FEW = 10  # strangers: with fewer, a page inside a list that changed altogether proves nothing


def check(
    work: jobs.Work,
    mirror: Mirror[Any],
    pages: Sequence[ReadPage],
    wanted: Wanted,
    seen: int,
    known: Mapping[tuple[int, int], Known],
) -> None:
    """
    Refuse these pages where one of them is most likely another partner's. Call it before they are written.

    `seen` is how many the list has named up to the last of these pages.

    :raises Untrustworthy: it is
    """
    if mirror.is_of_customers or not any(wanted.values()):
        return  # such a list is asked for by its customer's own address
    new = {key for key, is_new in wanted.items() if is_new}
    reading = _Reading(work, mirror, pages, known)
    before = seen - sum(page.count for page in pages)
    for page in pages:
        strangers = len(page.rows.keys() & new)
        if strangers > page.count - strangers and reading.is_anothers(page, strangers, before):
            raise Untrustworthy(
                f"Hardly anybody on page {page.number} is known; is this another partner's list?", code=OTHER_TENANT
            )
        before += page.count


@dataclass(frozen=True)
class _Reading:
    """Some pages of a list that are about to be written, and what was known of it."""

    work: jobs.Work
    mirror: Mirror[Any]
    pages: Sequence[ReadPage]
    known: Mapping[tuple[int, int], Known]

    def is_anothers(self, page: ReadPage, strangers: int, before: int) -> bool:
        """
        Whether strangers took the place of those who stood on this page, and did not only come after them.

        A list grows at its end, and new ones come singly. On its first page somebody is always known; a list that is
        one page short may hold one customer whom two partners share. Who stood on the last page moves up when others
        go: then they were named before. Where it is not known who stood there, it is as many as the list has not named
        `before`.
        """
        number, there = page.number, page.count - strangers
        last = max((number for _, number in self.known), default=0)
        stood = self.known[0, number].count if (0, number) in self.known else 0
        if number == 1:
            stood = stood or self._present()
            is_whole = page.cursor is None and last <= 1
            is_replaced = stood and (there == 0 or there * 10 < stood or (is_whole and there * 2 < stood))
            return bool(is_replaced) and (self.mirror.is_guarded or (there == 0 and min(stood, strangers) >= FEW))
        if strangers < FEW:
            return False
        if stood:
            return there * 10 < stood and (number < last or self._are_gone(page))
        stood = self._present(missing_since=None) - before
        return there * 10 < stood and stood >= FEW

    def _are_gone(self, page: ReadPage) -> bool:
        """Whether of those who stood on this page hardly anybody is listed any more, be it on a page read before."""
        kept = ListPage.objects.filter(partner=self.work.partner, kind=self.mirror.kind, collection=page.collection)
        stood = set[bytes]().union(*map(_shorts, kept.filter(number=page.number).values_list("keys", flat=True)))
        anew = {one.number: one.keys for one in self.pages if not one.is_clean and one.number <= page.number}
        earlier = kept.filter(number__lt=page.number).exclude(number__in=anew).order_by("-number")
        found: set[bytes] = set()
        for keys in chain(anew.values(), earlier.values_list("keys", flat=True).iterator()):
            found |= stood & _shorts(keys)
            if len(found) * 10 >= max(len(stood), 1):
                return False
        return True

    def _present(self, **but: None) -> int:
        return int(self.mirror.rows(self.work.partner.pk).filter(removed_at=None, **but).count())


def _shorts(keys: bytes) -> set[bytes]:
    """What stands for the keys of a page, one by one."""
    content = bytes(keys)
    return {content[begin : begin + SHORT] for begin in range(0, len(content), SHORT)}
