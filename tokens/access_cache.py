"""A bounded, process-local cache of access tokens with single flight: one mint per key, however many ask at once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from tokens.secret import Secret

SIZE = 5_000
STRIPES = 64


class Key(NamedTuple):
    token: int
    generation: int
    audience: str
    tenant: UUID | None


class AccessCache:
    """Holds access tokens in this process's memory only, the least recently used leaving first."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._entries: OrderedDict[Key, tuple[Secret, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._flights = [threading.Lock() for _ in range(STRIPES)]

    def get_or_mint(self, key: Key, mint: Callable[[], tuple[Secret, float]]) -> Secret:
        """The cached token, or a new one; those who ask for the same key meanwhile wait for that very one."""
        found = self._get(key)
        if found is not None:
            return found
        with self._flights[hash(key) % STRIPES]:
            found = self._get(key)
            if found is not None:
                return found
            token, until = mint()
            self._put(key, token, until)
            return token

    def replace(self, key: Key, refused: Secret, mint: Callable[[], tuple[Secret, float]]) -> Secret:
        """
        Another token in place of one that was refused; all who were refused with that one get the same new one.

        A mint that fails leaves nothing behind.
        """
        with self._flights[hash(key) % STRIPES]:
            found = self._get(key)
            if found is not None and found != refused:
                return found
            self.drop(key)
            token, until = mint()
            self._put(key, token, until)
            return token

    def drop(self, key: Key) -> None:
        with self._lock:
            self._entries.pop(key, None)

    def drop_token(self, token: int) -> None:
        """Drop every audience of one refresh token."""
        with self._lock:
            for key in [key for key in self._entries if key.token == token]:
                del self._entries[key]

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def _get(self, key: Key) -> Secret | None:
        with self._lock:
            token, until = self._entries.get(key, (None, 0.0))
            if token is None or until <= time.monotonic():
                self._entries.pop(key, None)
                return None
            self._entries.move_to_end(key)
            return token

    def _put(self, key: Key, token: Secret, until: float) -> None:
        with self._lock:
            self._entries[key] = (token, until)
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


held = AccessCache()
"""What this process holds."""
