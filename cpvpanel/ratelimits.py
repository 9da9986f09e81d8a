"""How often the ways to Microsoft and back, the desk's door and exports may be used: by one address, and by all."""

from __future__ import annotations

import functools
import logging
import math
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import limits
from django.conf import settings
from django.http import HttpRequest
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from cpvpanel import desk
from partners.client_address import address_of

logger = logging.getLogger(__name__)

POST, ANY = ("POST",), ("GET", "HEAD", "POST")
PATIENCE = 0.5  # seconds a server that counts may take


@dataclass(frozen=True)
class Counted:
    """What is counted together; a request counts for `cost`."""

    group: str
    methods: tuple[str, ...] = POST
    cost: int = 1


LEAVING, COMING_BACK, TAKING_ALONG = Counted("leaving"), Counted("coming back", ANY), Counted("taking along", POST, 6)
AT_THE_DESKS_DOOR = Counted("at the desk's door")
COUNTED = {
    "signin": LEAVING,
    "signin_again": LEAVING,
    "connect": LEAVING,
    "join": LEAVING,
    "admin_consent": LEAVING,
    "renew": LEAVING,
    "callback": COMING_BACK,
    "signin_callback": COMING_BACK,
    "admin_consent_callback": COMING_BACK,
    "export_activity": TAKING_ALONG,
    **{f"admin:{name}": AT_THE_DESKS_DOOR for name in sorted(desk.OPEN | {"again", "password_change"})},
    "admin:microsoft": LEAVING,
    "admin:microsoft_callback": COMING_BACK,
}
"""By name of the address."""


def refused_for(request: HttpRequest, name: str) -> int:
    """Seconds this request has to wait; 0 when it may go on, and is counted."""
    counted = COUNTED.get(name)
    if counted is None or request.method not in counted.methods:
        return 0
    try:
        return _refused_for(_limiter(), counted, address_of(request) or "unknown")
    except StorageError:
        # Nobody is locked out because the server that counts is away: this process counts alone meanwhile.
        logger.exception("the server that counts requests does not answer")
        return _refused_for(_alone(), counted, address_of(request) or "unknown")


def _refused_for(limiter: MovingWindowRateLimiter, counted: Counted, address: str) -> int:
    by_one = limits.parse(settings.CPV_RATE_PER_ADDRESS), (counted.group, address)
    by_all = limits.parse(settings.CPV_RATE_OVERALL), (counted.group, "everybody")
    for item, words in (by_one, by_all):  # who is over their own share takes nothing of everybody's
        if not limiter.hit(item, *words, cost=counted.cost):
            logger.warning("too many requests", extra={"counted": words[0], "by": words[1]})
            frees = limiter.get_window_stats(item, *words).reset_time - time.time()
            return max(0, math.floor(frees)) + 1  # the very second still counts
    return 0


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
