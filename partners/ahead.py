"""What comes from Microsoft is fetched ahead of whoever writes it, in a thread of its own."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from django.db import connection, connections

from tokens import outside

PAGES = 12  # as many wait for the writer at most: what is written together, and a bit
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
        self._waiting: queue.Queue[Any] = queue.Queue(PAGES)
        self._stopped = threading.Event()
        # In the context of whoever asks: the scope that is open here is open there.
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=[self._read], name="ahead")
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            if self._waiting.empty():
                outside.give_back_connections()  # it may take a while
            found, failure = self._waiting.get()
            if failure is not None:
                raise failure
            if found is _END:
                return
            yield found
            del found  # before the next one comes

    def stop(self) -> None:
        self._stopped.set()
        while self._thread.is_alive():  # it may be about to leave something, for which there must be room
            self._drain()
            self._thread.join(0.01)

    def _drain(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()

    def _read(self) -> None:
        pages = self._pages()
        try:
            for page in pages:
                self._waiting.put((page, None))
                del page
                outside.give_back_connections()
                if self._stopped.is_set():
                    return
            self._waiting.put((_END, None))
        except BaseException as failure:  # it is raised where the pages are taken
            self._waiting.put((None, failure))
        finally:
            connections.close_all()
