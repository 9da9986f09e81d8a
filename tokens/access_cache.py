"""A bounded, process-local cache of access tokens with single flight: one mint per key, however many ask at once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from tokens.errors import Failure
from tokens.secret import Secret

SIZE = 5_000


class Key(NamedTuple):
    token: int
    generation: int
    audience: str
    tenant: UUID | None


class _Flight:
    """One mint under way, and what came of it for those who wait."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.token: Secret | None = None
        self.failure: Failure | None = None


class AccessCache:
    """Holds access tokens in this process's memory only, the least recently used leaving first."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._entries: OrderedDict[Key, tuple[Secret, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._flights: dict[Key, _Flight] = {}

    def get_or_mint(self, key: Key, mint: Callable[[], tuple[Secret, float]]) -> Secret:
        """
        The cached token, or a new one; those who ask for the same key meanwhile get that very one, or its failure.

        :raises Failure: as `mint` does; nothing is left behind, and the next who asks tries anew
        """
        return self._get(key) or self._share(key, mint)

    def replace(self, key: Key, refused: Secret, mint: Callable[[], tuple[Secret, float]]) -> Secret:
        """
        Another token in place of one that was refused; all who were refused with that one get the same new one.

        A mint that fails leaves nothing behind.
        """
        found = self._get(key)
        if found is not None and found != refused:
            return found
        return self._share(key, mint, instead_of=refused)

    def _share(self, key: Key, mint: Callable[[], tuple[Secret, float]], *, instead_of: Secret | None = None) -> Secret:
        while True:
            with self._lock:
                flight = self._flights.get(key)
                is_mine = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight()
            if is_mine:
                return self._fly(key, flight, mint, instead_of)
            flight.over.wait()
            if flight.failure is not None:
                raise flight.failure
            if flight.token is not None and flight.token != instead_of:
                return flight.token  # else whoever minted broke off without a word, or found the very one refused

    def _fly(
        self, key: Key, flight: _Flight, mint: Callable[[], tuple[Secret, float]], instead_of: Secret | None
    ) -> Secret:
        try:
            found = self._get(key)  # somebody may have landed just before
            if found is None or found == instead_of:
                self.drop(key)
                found, until = mint()
                self._put(key, found, until)
            flight.token = found
            return found
        except Failure as failure:
            flight.failure = failure
            raise
        finally:
            with self._lock:
                del self._flights[key]
            flight.over.set()

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
        found = self._entries.get(key)
        if found and found[1] > time.monotonic() and 2 * len(self._entries) <= self._size:
            return found[0]  # far from full, nothing has to leave: who was asked for last does not matter, nor a lock
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
