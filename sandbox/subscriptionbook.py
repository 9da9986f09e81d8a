"""What became of the subscriptions since the world began; it is forgotten with the world."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from werkzeug import Response

from sandbox import subscriptions
from sandbox.customers import Customer

Resource = dict[str, Any]


@dataclass
class _Slow:
    """A change that was accepted and takes effect at this time, in seconds since 1970."""

    at: float
    resource: Resource


@dataclass
class Book:
    """What changed since the world began. Ids of subscriptions are in lower case."""

    effects: Counter[str] = field(default_factory=Counter)  # how often each was really changed
    forgets_requests: bool = False  # an MS-RequestId that comes again is a new request
    enforces_etag: bool = True  # whether a stale If-Match is refused: for NCE no document says
    _now: dict[str, Resource] = field(default_factory=dict)
    _slow: dict[str, _Slow] = field(default_factory=dict)
    _answers: dict[tuple[str, str], tuple[int, str, dict[str, str]]] = field(default_factory=dict)

    def standing(self, customer: Customer, index: int, override: Resource, now: float) -> Resource:
        """One subscription as it is now; `override` is the customer's, its "subscription" replaces properties."""
        resource: Resource = subscriptions.at(customer, index) | override.get("subscription", {})
        key = str(resource["id"]).lower()
        slow = self._slow.get(key)
        if slow and slow.at <= now:
            self._take_effect(self._slow.pop(key).resource)
        return self._now.get(key, resource)

    def change(self, resource: Resource) -> Resource:
        """Change one as if somebody else did; it gets a new etag."""
        return self._take_effect(resource)

    def later(self, resource: Resource, at: float) -> None:
        self._slow[str(resource["id"]).lower()] = _Slow(at, resource)

    def is_pending(self, resource: Resource) -> bool:
        return str(resource["id"]).lower() in self._slow

    def _take_effect(self, resource: Resource) -> Resource:
        key = str(resource["id"]).lower()
        self.effects[key] += 1
        etag = subscriptions.etag(key, 1 + self.effects[key])
        self._now[key] = resource | {"attributes": {"etag": etag, "objectType": "Subscription"}}
        return self._now[key]

    # requests that come again

    def answered(self, tenant: str, request_id: str) -> Response | None:
        """The first answer to this MS-RequestId, once more."""
        told = None if self.forgets_requests else self._answers.get((tenant, request_id.lower()))
        return Response(told[1], told[0], told[2], content_type="application/json; charset=utf-8") if told else None

    def note(self, tenant: str, request_id: str, response: Response) -> None:
        kept = {"Location": response.headers["Location"]} if "Location" in response.headers else {}
        self._answers[tenant, request_id.lower()] = response.status_code, response.get_data(as_text=True), kept
