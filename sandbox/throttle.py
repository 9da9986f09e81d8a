"""
Throttling as Partner Center does it: per partner, or per partner and customer, and rejected calls count too.

Microsoft's page "API throttling guidance". How its windows run is not documented: ours begin with the first call, and
what comes after the first refusal is charged to the next one, so that whoever does not wait does not get through.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

PER = ("partner", "customer")


@dataclass(frozen=True)
class Limit:
    """So many `requests` in so many `seconds` for each partner (or each of its customers); None is for every tenant."""

    requests: int
    seconds: float
    per: str = "partner"
    tenant: str | None = None
    path: str | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        if self.per not in PER or self.requests < 1 or self.seconds <= 0:
            raise ValueError(f"a limit is some requests in some seconds, per {' or '.join(PER)}")

    def key(self, tenant: str, path: str, method: str) -> tuple[str, ...] | None:
        """Whose window a call is counted in; None when the limit is not about it."""
        fits = self.tenant in (None, tenant) and (self.path is None or self.path in path)
        if not fits or self.method not in (None, method):
            return None
        if self.per == "partner":
            return (tenant,)
        customer = customer_of(path)
        return (tenant, customer) if customer else None

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def customer_of(path: str) -> str | None:
    """The customer in `/v1/customers/<id>…`."""
    parts = path.split("/", 4)
    return parts[3].lower() if len(parts) > 3 and parts[2] == "customers" else None


@dataclass
class _Window:
    ends: float
    used: int = 0
    full_since: float | None = None
    in_vain: int = 0  # rejected after the first one was


@dataclass
class Count:
    """What became of one partner's calls; `early` came while a `Retry-After` was running."""

    passed: int = 0
    rejected: int = 0
    early: int = 0


class Throttle:
    """All limits with their windows, and who was told to wait until when. Callers hold a lock."""

    def __init__(self) -> None:
        self.limits: list[Limit] = []
        self.counts: dict[str, Count] = {}
        self._windows: dict[tuple[Limit, tuple[str, ...]], _Window] = {}
        self._waits: dict[tuple[str, ...], tuple[float, float]] = {}

    def clear(self) -> None:
        """No limits, and nothing counted."""
        self.limits.clear()
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        for kept in (self.counts, self._windows, self._waits):
            kept.clear()

    def admit(self, now: float, tenant: str, path: str, method: str) -> int | None:
        """Count a call; the seconds to wait for when it is rejected."""
        count = self.counts.setdefault(tenant, Count())
        count.early += self._is_early(now, tenant, path)
        for limit in self.limits:
            key = limit.key(tenant, path, method)
            wait = self._charge(limit, key, now) if key else None
            if wait and key:
                self.told(now, wait, key)
                count.rejected += 1
                return wait
        count.passed += 1
        return None

    def _charge(self, limit: Limit, key: tuple[str, ...], now: float) -> int | None:
        window = self._windows.get((limit, key))
        if window is None or now >= window.ends:
            carried = min(window.in_vain, limit.requests) if window else 0
            window = self._windows[(limit, key)] = _Window(now + limit.seconds, carried)
        if window.used < limit.requests:
            window.used += 1
            return None
        window.full_since = now if window.full_since is None else window.full_since
        window.in_vain += now > window.full_since
        return max(1, math.ceil(window.ends - now))

    def told(self, now: float, seconds: float, key: tuple[str, ...]) -> None:
        """Note that somebody was told to wait, by a limit or by a fault."""
        self._waits[key] = (now, now + seconds)

    def _is_early(self, now: float, tenant: str, path: str) -> bool:
        """Calls of the very moment of the refusal were under way already."""
        if not self._waits:
            return False
        found = (self._waits.get(key) for key in ((tenant,), (tenant, customer_of(path) or "")))
        return any(wait is not None and wait[0] < now < wait[1] for wait in found)

    def as_rows(self) -> dict[str, Any]:
        counts = {tenant: asdict(count) for tenant, count in self.counts.items()}
        return {"limits": [limit.as_row() for limit in self.limits], "tenants": counts}
