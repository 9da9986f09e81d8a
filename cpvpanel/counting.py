"""Where requests are counted, by all processes together; and from which networks somebody got in lately."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import limits
from django.conf import settings
from django.http import HttpRequest
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from partners.client_address import address_of, network_of

T = TypeVar("T")
logger = logging.getLogger(__name__)

PATIENCE = 0.5  # seconds a server that counts may take
KNOWN_FOR = 30 * 24 * 60 * 60  # seconds since the last sign-in
ONE_NAME = "20/hour"  # passwords for one name, from wherever whoever has it did not get in lately


def counted(ask: Callable[[MovingWindowRateLimiter], T]) -> T:
    """What the counter says. While its server is away this process counts alone: nobody is locked out by that."""
    try:
        return ask(_limiter())
    except StorageError:
        logger.exception("the server that counts requests does not answer")
        return ask(_alone())


@functools.cache
def _limiter() -> MovingWindowRateLimiter:
    url = shared_counter(settings.CPV_CACHE_URL)
    options = {"wrap_exceptions": True, "socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    return MovingWindowRateLimiter(storage_from_string(url, **options) if url else MemoryStorage())


@functools.cache
def _alone() -> MovingWindowRateLimiter:
    return MovingWindowRateLimiter(MemoryStorage())


def shared_counter(cache_url: str) -> str:
    """The address of a server where all processes count together; empty: each counts by itself."""
    scheme, _, rest = cache_url.partition("://")
    known = {"redis": "redis", "rediscache": "redis", "rediss": "rediss"}
    return f"{known[scheme]}://{rest}" if scheme in known and urlsplit(cache_url).hostname else ""


def forget() -> None:
    """Begin to count anew; for tests."""
    _limiter.cache_clear()
    _alone.cache_clear()


# --- Who got in from where ------------------------------------------------------------------------------------------
def whereabouts(request: HttpRequest) -> tuple[str, str]:
    """The visitor's address, and the network around it, of which one visitor may have the whole."""
    address = address_of(request)
    return (address, network_of(address)) if address else ("unknown", "unknown")


def note_sign_in(*, request: HttpRequest, user: Any, **_signal: Any) -> None:
    """Somebody got all the way in: their network is known from now on, to all and for this name."""
    network = whereabouts(request)[1]

    def note(limiter: MovingWindowRateLimiter) -> None:
        for key in (_known(network), _known(network, user.get_username())):
            limiter.storage.clear(key)  # or it would end with the first time's
            limiter.storage.incr(key, KNOWN_FOR)

    counted(note)


def guessed_too_often(request: HttpRequest, name: str) -> bool:
    """
    Whether strangers tried this name too often, from however many addresses; a try is counted.

    Whoever has the name is not shut out where they got in lately; elsewhere they wait an hour at most once it ends.
    """
    network = whereabouts(request)[1]

    def ask(limiter: MovingWindowRateLimiter) -> bool:
        if is_known(limiter, network, name):
            return False
        return not limiter.hit(limits.parse(ONE_NAME), "one name", hashed(name))

    too_often = counted(ask)
    if too_often:
        logger.warning("one name is tried from many places", extra={"last": network})
    return too_often


def is_known(limiter: MovingWindowRateLimiter, network: str, name: str = "") -> bool:
    """Whether somebody, or whoever has this name, got in from there lately."""
    return limiter.storage.get(_known(network, name)) > 0


def _known(network: str, name: str = "") -> str:
    return f"got-in/{network}/{hashed(name) if name else ''}"


def hashed(name: str) -> str:
    """A name as the counter has it: what is typed there may be a password by mistake."""
    return hashlib.sha256(f"{settings.SECRET_KEY}|{name.casefold()}".encode()).hexdigest()[:32]
