"""
One subscription at Partner Center: how it stands, and how to change it.

https://learn.microsoft.com/partner-center/developer/subscription-resources
"""

from __future__ import annotations

import re
import uuid
from codecs import BOM_UTF8
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from partners.partnercenter import PartnerCenter

LONGEST = 400  # characters of a title
_NAMES = {"quantity": "quantity", "auto_renew": "autoRenewEnabled"}
_FRACTION = re.compile(r"\.\d+")


@dataclass(frozen=True)
class Subscription:
    """
    A subscription as Microsoft tells it.

    `facts` is what a person decides by, as JSON: quantity, auto_renew, status, billing, term, cycle, term_ends (the
    last day of it), fewer_until (until when it may have fewer licences, "" for never), next_term (whether a change for
    the next term is scheduled), etag. `content` is the whole resource as it came.
    """

    id: str
    title: str
    facts: dict[str, Any]
    content: bytes = field(repr=False)

    def with_changed(self, what: str, value: int | bool) -> bytes:
        """
        The whole resource with one property changed, and every other byte for byte as it came, known to us or not.

        What a PATCH leaves out, Microsoft silently resets.
        https://learn.microsoft.com/partner-center/developer/change-the-quantity-of-a-subscription
        """
        parts = msgspec.json.decode(self.content, type=dict[str, msgspec.Raw])
        name = next((known for known in parts if known.lower() == _NAMES[what].lower()), _NAMES[what])
        parts[name] = msgspec.Raw(msgspec.json.encode(value))
        return msgspec.json.encode(parts)


def read(client: PartnerCenter, customer: uuid.UUID, subscription_id: str) -> Subscription:
    """
    How it stands right now.

    https://learn.microsoft.com/partner-center/developer/get-a-subscription-by-id
    :raises NotThere: Partner Center knows no such customer or subscription of this partner's
    :raises Unavailable, Garbled: try again later; `retry_after` is in seconds
    :raises MfaMissing, AccessRefused: the partner must act
    """
    response = client.send("GET", _path(customer, subscription_id), headers={})
    return _subscription(client.object_in(response), response.content)


def change(
    client: PartnerCenter,
    customer: uuid.UUID,
    subscription_id: str,
    *,
    request: bytes,
    etag: str,
    request_id: uuid.UUID,
) -> Subscription | None:
    """
    Send what `with_changed` made; how it stands then, or None where Microsoft took it and still works on it.

    With the same `request_id` it is the same request to Microsoft, however often it comes.
    https://learn.microsoft.com/partner-center/developer/headers

    :raises CallRejected, AccessRefused: nothing was changed by it
    :raises Throttled: nothing was changed by it; `retry_after` is in seconds
    :raises Unavailable, Garbled, Untrustworthy: it may have been changed
    """
    headers = {"Content-Type": "application/json", "MS-RequestId": str(request_id)}
    headers |= {"If-Match": f'"{etag}"'} if etag else {}
    response = client.send("PATCH", _path(customer, subscription_id), headers=headers, data=request, good=202)
    if response.status_code == 202:
        return None
    return _subscription(client.object_in(response), response.content)


def _path(customer: uuid.UUID, subscription_id: str) -> str:
    return f"customers/{customer}/subscriptions/{subscription_id}"


def _subscription(body: dict[str, Any], content: bytes) -> Subscription:
    said = {name.lower(): value for name, value in body.items()}
    attributes = said.get("attributes")
    known = {name.lower(): value for name, value in attributes.items()} if isinstance(attributes, dict) else {}
    quantity, renews = said.get("quantity"), said.get("autorenewenabled")
    facts = {
        "quantity": quantity if isinstance(quantity, int) and not isinstance(quantity, bool) else None,
        "auto_renew": renews if isinstance(renews, bool) else None,
        "status": _word(said.get("status")),
        "billing": _word(said.get("billingtype")),
        "term": _word(said.get("termduration")),
        "cycle": _word(said.get("billingcycle")),
        "term_ends": _moment(said.get("commitmentenddate")),
        "fewer_until": _moment(said.get("cancellationalloweduntildate")),
        "next_term": bool(said.get("schedulednextterminstructions")),
        "etag": known["etag"] if isinstance(known.get("etag"), str) else "",
    }
    title = str(said.get("friendlyname") or said.get("offername") or "")[:LONGEST]
    return Subscription(id=str(said.get("id") or ""), title=title, facts=facts, content=content.removeprefix(BOM_UTF8))


def _word(value: object) -> str:
    return value[:40] if isinstance(value, str) else ""


def _moment(value: object) -> str:
    """A time of Microsoft's in ISO 8601 with UTC; "" for none, and for what stands for "never" or "no end"."""
    try:
        moment = datetime.fromisoformat(_FRACTION.sub("", str(value)).replace("Z", "+00:00"))
    except ValueError:
        return ""
    if not 1970 < moment.year < 9000:
        return ""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
