"""Pages that were served once, kept as bytes within a bound: reading a list again costs next to nothing."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

Key = tuple[Hashable, Hashable]  # the state of a list, and which page of it
MOST_SHORTCUTS = 50_000
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
        self._pages: dict[Key, Page] = {}
        self._keys: list[Key] = []
        self._turn = 0
        self.shortcuts: dict[tuple[str, str, str], Key] = {}  # tenant, query and token → the page they lead to

    def get(self, key: Key) -> Page | None:
        return self._pages.get(key)

    def put(self, key: Key, page: Page) -> None:
        """Callers hold a lock."""
        if key in self._pages or len(page.body) > self.most:
            return
        while self.size + len(page.body) > self.most:
            self._drop()
        self._pages[key] = page
        self._keys.append(key)
        self.size += len(page.body)

    def shorten(self, asked: tuple[str, str, str], key: Key) -> None:
        """Remember where a question leads, so that it need not be read again."""
        if key not in self._pages:
            return
        if len(self.shortcuts) >= MOST_SHORTCUTS:
            self.shortcuts.clear()
        self.shortcuts[asked] = key

    def _drop(self) -> None:
        self._turn += 7919
        place = self._turn % len(self._keys)
        self._keys[place], self._keys[-1] = self._keys[-1], self._keys[place]
        self.size -= len(self._pages.pop(self._keys.pop()).body)
