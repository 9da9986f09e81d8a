"""Pages that were served once, kept as bytes within a bound: reading a list again costs next to nothing."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

KEEP_BYTES = 96_000_000  # a hundred thousand customers are 55 MB


class Page(NamedTuple):
    """`body[begin:end]` are the items."""

    body: bytes
    begin: int
    end: int
    items: int


class Kept:
    """
    Not the least recently used but any one makes room: a list longer than the bound is read in circles, and what was
    read last would never be there when it is wanted.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self._pages: dict[Hashable, Page] = {}
        self._keys: list[Hashable] = []
        self._turn = 0

    def get(self, key: Hashable) -> Page | None:
        return self._pages.get(key)

    def put(self, key: Hashable, page: Page) -> None:
        """Callers hold a lock."""
        if key in self._pages or len(page.body) > self.most:
            return
        while self.size + len(page.body) > self.most:
            self._drop()
        self._pages[key] = page
        self._keys.append(key)
        self.size += len(page.body)

    def _drop(self) -> None:
        self._turn += 7919
        place = self._turn % len(self._keys)
        self._keys[place], self._keys[-1] = self._keys[-1], self._keys[place]
        self.size -= len(self._pages.pop(self._keys.pop()).body)
