"""How often the ways to Microsoft and back, the desk's door and exports may be used: by one address, and by all."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

import limits
from django.conf import settings
from django.http import HttpRequest
from limits.strategies import MovingWindowRateLimiter

from cpvpanel import counting, desk

logger = logging.getLogger(__name__)

POST, ANY = ("POST",), ("GET", "HEAD", "POST")
AROUND = 4  # times one address: what the network around it may, whatever address of it is used
STRANGERS = 3, 4  # of all: the rest is kept for networks from which somebody got in lately


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
    "export_evidence": TAKING_ALONG,
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
    address, network = counting.whereabouts(request)
    return counting.counted(lambda limiter: _refused_for(limiter, counted, address, network))


def _refused_for(limiter: MovingWindowRateLimiter, counted: Counted, address: str, network: str) -> int:
    one, everybody = limits.parse(settings.CPV_RATE_PER_ADDRESS), limits.parse(settings.CPV_RATE_OVERALL)
    counts = [
        (one, address),
        (_scaled(one, AROUND), f"around {network}"),
        *([] if counting.is_known(limiter, network) else [(_scaled(everybody, *STRANGERS), "strangers")]),
        (everybody, "everybody"),
    ]
    for item, whose in counts:  # who is over their own share takes nothing of everybody's
        if not limiter.hit(item, counted.group, whose, cost=counted.cost):
            logger.warning("too many requests", extra={"counted": counted.group, "by": whose})
            frees = limiter.get_window_stats(item, counted.group, whose).reset_time - time.time()
            return max(0, math.floor(frees)) + 1  # the very second still counts
    return 0


def _scaled(item: limits.RateLimitItem, times: int, of: int = 1) -> limits.RateLimitItem:
    return type(item)(max(1, item.amount * times // of), item.multiples, item.namespace)
