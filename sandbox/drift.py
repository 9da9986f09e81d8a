"""How a list differs from one read to the next: what changed, who is absent, in which order it comes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import gcd
from typing import Any

ORDERS = ("stable", "rotated", "shuffled")
_SPAN = 1 << 32
# Multiples of the golden ratio spread evenly: one in a hundred is one in every hundred, and so in every page.
_STRIDE, _STEP, _ABSENT = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35


def _share(number: int, salt: int) -> float:
    return ((number * _STRIDE + salt) % _SPAN) / _SPAN


@dataclass
class Drift:
    """
    `changes` are the shares of customers whose content changed, oldest first: its length is the revision.

    `absent` is the share that is missing for now, always the same ones. `order` "rotated" lets each page begin
    somewhere else at each read (cheap), "shuffled" deals the whole list anew for each read of it. `fields` lets the
    properties come in another order each time.
    """

    changes: list[float] = field(default_factory=list)
    absent: float = 0.0
    order: str = "stable"
    fields: bool = False

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"there is no order {self.order!r}; there are {', '.join(ORDERS)}")
        self._reads: Iterator[int] = itertools.count(1)

    def version(self, index: int) -> int:
        """The revision that changed this customer last; 0 is as it always was."""
        for revision in range(len(self.changes), 0, -1):
            if _share(index, revision * _STEP) < self.changes[revision - 1]:
                return revision
        return 0

    def is_absent(self, index: int) -> bool:
        return self.absent > 0 and _share(index, _ABSENT) < self.absent

    def next_read(self) -> int:
        """A number for a read that is not to be like the one before."""
        return next(self._reads)

    def index(self, position: int, count: int, read: int) -> int:
        """Which customer stands at a position of a shuffled list; each read has its own order."""
        if not read or count < 3:
            return position
        factor = (read * _STRIDE) % count or 1
        while gcd(factor, count) != 1:
            factor += 1
        return (position * factor + read * _STEP) % count

    def stamp(self) -> tuple[object, ...]:
        """Differs when the content may."""
        return (*self.changes, self.absent)

    def as_row(self) -> dict[str, Any]:
        return {"changes": self.changes, "absent": self.absent, "order": self.order, "fields": self.fields}
