"""What comes from Microsoft is fetched ahead of whoever writes it, in a thread of its own, and put together for it."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from django.db import connection, connections

from partners.mirrors import ReadPage
from tokens import outside

HEAVY = 5_000  # rows to look at together, at most: ten pages of customers
A_PAGE = 25  # rows: what a page weighs beside them
SECONDS = 0.3  # and so long they wait at most: what came last is written when nothing else is left to wait for
SECONDS_OF_SHORT = 5.0  # and so long what comes of many short lists: each write has its price, whatever it holds
PAGES = 12  # as many wait for the writer at most: what is written together, and a bit; or so often as many light ones
BREATH = 0.05  # seconds for which these wait for each other: each handing over costs both threads a turn
T = TypeVar("T")
_END = object()


@contextmanager
def fetched_ahead(pages: Callable[[], Iterator[T]]) -> Iterator[Iterator[T]]:
    """
    The same pages, read while the last ones are written; what reading raises is raised here, in its turn.

    Reading ends when the block does, and nothing of it runs on. The gate is asked in that thread, over a connection of
    its own; where it would not see what this one sees (a transaction is open, or the database is a file with a single
    writer), pages are read one by one as they are asked for.
    """
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        yield pages()
        return
    reading = _Reading(pages)
    try:
        yield iter(reading)
    finally:
        reading.stop()


class _Reading(Generic[T]):
    def __init__(self, pages: Callable[[], Iterator[T]]) -> None:
        self._pages = pages
        self._waiting: queue.Queue[tuple[list[T], object]] = queue.Queue(PAGES)
        self._stopped = threading.Event()
        # In the context of whoever asks: the scope that is open here is open there.
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=[self._read], name="ahead")
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            if self._waiting.empty():
                outside.give_back_connections()  # it may take a while
            some, ending = self._waiting.get()
            while some:
                yield some.pop(0)
            if isinstance(ending, BaseException):
                raise ending
            if ending is _END:
                return

    def stop(self) -> None:
        self._stopped.set()
        while self._thread.is_alive():  # it may be about to leave something, for which there must be room
            self._drain()
            self._thread.join(0.01)

    def _drain(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()

    def _read(self) -> None:
        ending: object = _END
        some: list[T] = []
        handed, all_light = time.monotonic(), True  # then no row waits with the writer for whatever comes next
        try:
            for page in self._pages():
                some.append(page)
                all_light = all_light and _is_light(page)
                outside.give_back_connections()
                if self._stopped.is_set():
                    return
                if not all_light or len(some) >= PAGES or time.monotonic() - handed >= BREATH:
                    self._waiting.put((some, None))
                    some, handed = [], time.monotonic()
                del page  # before the next one comes
        except BaseException as failure:  # it is raised where the pages are taken
            ending = failure
        finally:
            self._waiting.put((some, ending))
            connections.close_all()


def _is_light(one: object) -> bool:
    """Whether there is nothing of it to write."""
    return isinstance(one, ReadPage) and one.is_clean


def batches(coming: Iterator[T], *, is_watched: bool = False, seconds: float = SECONDS) -> Iterator[list[T]]:
    """
    What comes, together until there is enough to write or it has waited long; at a failure what came before it.

    Where somebody watches for the first number, what comes first is written at once.
    """
    batch: list[T] = []
    enough = 1 if is_watched else HEAVY
    weight, begun = 0, time.monotonic()
    try:
        for one in coming:
            batch.append(one)
            if isinstance(one, ReadPage) and not _is_light(one):
                weight += A_PAGE + one.count
            if weight >= enough or time.monotonic() - begun >= seconds:
                del one
                yield batch
                batch, weight, begun, enough = [], 0, time.monotonic(), HEAVY
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
