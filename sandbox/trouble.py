"""What goes wrong in a world: faults, delays and limits, with the words to bring them about."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

from sandbox.faults import SERVICES, Fault
from sandbox.state import Store
from sandbox.throttle import Limit, Throttle


@dataclass(frozen=True)
class Delay:
    """So many seconds more for each answer of a service to a tenant (or all), where the path contains `path`."""

    service: str
    seconds: float
    tenant: str | None = None
    path: str | None = None

    def fits(self, service: str, tenant: str | None, path: str) -> bool:
        return self.service == service and self.tenant in (None, tenant) and (self.path is None or self.path in path)


class Trouble:
    """The faults, delays and limits of a world; kept between two starts."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.RLock()
        self.faults: list[Fault] = []
        self.delays: list[Delay] = []
        self.throttle = Throttle()

    def fail(
        self,
        service: str,
        kind: str,
        *,
        tenant: str | None = None,
        times: int | None = None,
        after: int = 0,
        path: str | None = None,
        method: str | None = None,
        retry_after: int = 30,
        seconds: float = 5.0,
        size: int | None = None,
        operation: str | None = None,
        suberror: str | None = None,
    ) -> Fault:
        """
        Let a service fail for a tenant (or all), so many times (or until heal), where the path contains `path`.

        The first `after` requests that fit pass. `seconds` and `size` are what some kinds take (see their words);
        `suberror` is what an AADSTS fault comes with instead of what Entra usually sends.
        """
        fault = Fault(
            service, kind, tenant, times, path, method, retry_after, seconds, operation, suberror, after, size
        )
        with self.lock:
            self.faults.append(fault)
            self.save_trouble()
        return fault

    def vault_fault(self, operation: str | None, kind: str, *, secret: str | None = None, **options: Any) -> Fault:
        """
        Let "get", "set" or "update" of a secret (None: every request) fail, until `heal("vault")` or so many `times`.

        `secret` is a part of its name; the other options are those of `fail`.
        """
        return self.fail("vault", kind, operation=operation, path=secret, **options)

    def token_fault(self, kind: str, *, grant: str = "refresh_token", **options: Any) -> Fault:
        """Let token requests of one grant fail; the options are those of `fail`."""
        return self.fail("entra", kind, operation=grant, **options)

    def delay(self, service: str, seconds: float, *, tenant: str | None = None, path: str | None = None) -> None:
        """Let answers come so many seconds later, in the place of what was said about the same before; 0 ends it."""
        if service not in SERVICES:
            raise ValueError(f"no such service: {service}; there are {', '.join(SERVICES)}")
        new = Delay(service, seconds, tenant.lower() if tenant else None, path)
        with self.lock:
            same = (new.service, new.tenant, new.path)
            others = [delay for delay in self.delays if (delay.service, delay.tenant, delay.path) != same]
            self.delays = [*others, new] if seconds > 0 else others
            self.save_trouble()

    def delay_of(self, service: str, tenant: str | None, path: str) -> float:
        return sum(delay.seconds for delay in self.delays if delay.fits(service, tenant, path))

    def limit(
        self,
        requests: int,
        seconds: float,
        *,
        per: str = "partner",
        tenant: str | None = None,
        path: str | None = None,
        method: str | None = None,
    ) -> Limit:
        """Let Partner Center answer 429 past so many requests in so many seconds, per "partner" or per "customer"."""
        limit = Limit(requests, seconds, per, tenant.lower() if tenant else None, path, method)
        with self.lock:
            self.throttle.limits.append(limit)
            self.save_trouble()
        return limit

    def heal(self, service: str | None = None, *, tenant: str | None = None) -> None:
        """Take faults, delays and limits away: all, those of one service, or those of one tenant."""
        who = tenant.lower() if tenant else None

        def stays(service_of: str, tenant_of: str | None) -> bool:
            return bool((service and service_of != service) or (who and tenant_of != who))

        with self.lock:
            self.faults = [fault for fault in self.faults if stays(fault.service, fault.tenant)]
            self.delays = [delay for delay in self.delays if stays(delay.service, delay.tenant)]
            limits = self.throttle.limits
            self.throttle.limits = [limit for limit in limits if stays("partnercenter", limit.tenant)]
            self.save_trouble()

    def take_fault(
        self, service: str, tenant: str | None, path: str, method: str, operation: str | None = None
    ) -> Fault | None:
        """The first fault that fits, counted down."""
        if not self.faults:
            return None
        with self.lock:
            for fault in self.faults:
                if not fault.fits(service, tenant, path, method, operation):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    self.save_trouble()
                return fault
            return None

    def admit(self, tenant: str | None, path: str, method: str, now: float) -> int | None:
        """Count a call to Partner Center; the seconds to wait for when it is one too many."""
        if tenant is None:
            return None
        with self.lock:
            return self.throttle.admit(now, tenant, path, method)

    def save_trouble(self) -> None:
        lasting = {
            "faults": [fault.as_row() for fault in self.faults if fault.times != 0],
            "delays": [asdict(delay) for delay in self.delays],
            "limits": [limit.as_row() for limit in self.throttle.limits],
        }
        self.store.put("faults", "all", lasting)

    def restore_trouble(self) -> None:
        """Read back what an earlier process kept."""
        for _, row in self.store.rows("faults"):
            self.faults = [Fault(**fault) for fault in row["faults"]]
            self.delays = [Delay(**delay) for delay in row.get("delays", [])]
            self.throttle.limits = [Limit(**limit) for limit in row.get("limits", [])]

    def clear_trouble(self) -> None:
        """Nothing goes wrong, and nothing was counted."""
        self.faults.clear()
        self.delays.clear()
        self.throttle.clear()
