"""Connections that end with a deadline, and that ask once more for leave when opening them took its time."""

from __future__ import annotations

import http.client
import io
import math
import queue
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

CONNECTIONS = 128  # to one host, that are kept: more than a worker has threads

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)
_last_word: ContextVar[Callable[[], None] | None] = ContextVar("last_word", default=None)


# --- What is left of the time, and who has the last word --------------------------------------------------------------
def ask_for_the_last_word() -> None:
    """What whatever opens a connection calls before it writes the first byte."""
    ask = _last_word.get()
    if ask is not None:
        ask()


@contextmanager
def asks_once_connected(ask: Callable[[], None]) -> Iterator[None]:
    """Have `ask` called when a connection had to be opened, before the first byte; what it raises sends nothing."""
    token = _last_word.set(ask)
    try:
        yield
    finally:
        _last_word.reset(token)


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """Let everything sent inside end within this many seconds in all; the sooner of nested deadlines counts."""
    token = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining() -> float:
    """Seconds left; raises what requests itself would raise, because MSAL and azure-core know that."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise requests.exceptions.ReadTimeout("The deadline is over.")
    return left


# --- Connections ------------------------------------------------------------------------------------------------------
class PooledAdapter(HTTPAdapter):
    """Connections that are kept, tried twice to open, and held to the deadline byte by byte."""

    def __init__(self) -> None:
        # A read is never tried again: the other side may have acted on the first. `other=0`, or TLS errors would be.
        # Retry-After is the caller's to obey: urllib3 would sleep on it, or hide the answer behind an error of its own.
        retries = urllib3.Retry(
            total=1, connect=1, read=False, status=0, redirect=0, other=0, respect_retry_after_header=False
        )
        super().__init__(pool_maxsize=CONNECTIONS, max_retries=retries)
        self._pools: dict[tuple[str, str, bool | str], Any] = {}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """The pool of this origin, which is looked for once: whom to trust and how stays with it."""
        address = urlsplit(request.url or "")
        key = (address.scheme, address.netloc, verify)
        pool = self._pools.get(key)
        if pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies={}, cert=None)
            super().cert_verify(pool, request.url or "", verify, None)  # type: ignore[no-untyped-call]
            self._pools[key] = pool
        return pool

    def close(self) -> None:
        self._pools.clear()  # or what they have open would stay so
        super().close()

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing: the pool knows it from its beginning, and this looks for the file once more each time."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """The path and the query: there are no proxies."""
        return request.path_url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """An answer without cookies, which nobody here has a use for."""
        response = requests.Response()
        response.status_code, response.reason, response.raw = resp.status, resp.reason, resp
        response.headers = CaseInsensitiveDict(resp.headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.request, response.url = req, req.url or ""
        return response


class _DeadlineReader(io.RawIOBase):
    """
    Reads a socket with what is left of the deadline as its timeout.

    A socket's own timeout starts again with every byte, so a server that drips could hold a worker for hours.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._raw = sock, sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        usual = self._sock.gettimeout()
        left = max(_deadline.get() - time.monotonic(), 0.001)  # 0 would mean: do not wait at all, and fail otherwise
        if left >= (math.inf if usual is None else usual):  # to set a timeout takes as long as to read
            return self._raw.readinto(buffer)
        self._sock.settimeout(left)
        try:
            return self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(usual)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(cast(socket.socket, _Read(sock)), *args, **kwargs)


class _Read:
    """What the standard library's response takes of a socket: a file to read from, here one with a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._sock))


class _AsksOnceConnected:
    """Opening took its time: whoever sends is asked once more before the first byte."""

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]  # urllib3's, which this is mixed into
        ask_for_the_last_word()


class _HTTPConnection(_AsksOnceConnected, HTTPConnection):
    response_class = _DeadlineResponse


class _HTTPSConnection(_AsksOnceConnected, HTTPSConnection):
    response_class = _DeadlineResponse


class _Stack:
    """Connections that wait for use, the last one first; at `queue.LifoQueue` threads wait for each other as well."""

    def __init__(self, maxsize: int) -> None:
        self._most, self._waiting = maxsize, deque[Any]()

    def get(self, block: bool = False, timeout: float | None = None) -> Any:
        try:
            return self._waiting.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, one: Any, block: bool = False) -> None:
        if len(self._waiting) >= self._most:
            raise queue.Full
        self._waiting.append(one)

    def qsize(self) -> int:
        return len(self._waiting)


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection
    QueueCls = _Stack  # type: ignore[assignment]


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
    QueueCls = _Stack  # type: ignore[assignment]
