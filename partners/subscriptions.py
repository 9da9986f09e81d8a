"""
One subscription at Partner Center: how it stands, and how to change it.

https://learn.microsoft.com/partner-center/developer/subscription-resources
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from partners.partnercenter import PartnerCenter

LONGEST = 400  # characters of a title
_SPACE = re.compile(r"[ \t\r\n]*")
_NAMES = {"quantity": "quantity", "auto_renew": "autoRenewEnabled"}
_FRACTION = re.compile(r"\.\d+")


@dataclass(frozen=True)
class Subscription:
    """
    A subscription as Microsoft tells it.

    `facts` is what a person decides by, as JSON: quantity, auto_renew, status, billing, term, cycle, term_ends (the
    last day of it), fewer_until (until when it may have fewer licences, "" for never), next_term (whether a change for
    the next term is scheduled), etag. `text` is the whole resource as it came.
    """

    id: str
    title: str
    facts: dict[str, Any]
    text: str = field(repr=False)

    def with_changed(self, what: str, value: int | bool) -> bytes:
        """
        The whole resource with one property changed, and every other byte for byte as it came, known to us or not.

        What a PATCH leaves out, Microsoft silently resets.
        https://learn.microsoft.com/partner-center/developer/change-the-quantity-of-a-subscription
        """
        parts = members(self.text)
        name = next((known for known in parts if known.lower() == _NAMES[what].lower()), _NAMES[what])
        parts[name] = json.dumps(value)
        return ("{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in parts.items()) + "}").encode()


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
    return Subscription(id=str(said.get("id") or ""), title=title, facts=facts, text=content.decode("utf-8-sig"))


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


def members(text: str) -> dict[str, str]:
    """
    The members of a JSON object, each value as the text that stands there: no digit of a number is lost.

    :raises ValueError: it is no JSON object
    """
    decoder, found = json.JSONDecoder(), {}
    at = _skip(text, 0, "{")
    while text[at : at + 1] != "}":
        name, at = decoder.raw_decode(text, at)
        begin = _skip(text, at, ":")
        _, at = decoder.raw_decode(text, begin)
        found[str(name)] = text[begin:at]
        at = _after(text, at)
        if text[at : at + 1] != "}":
            at = _skip(text, at, ",")
    return found


def _after(text: str, at: int) -> int:
    """Where the next character that is no space stands."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _skip(text: str, at: int, character: str) -> int:
    at = _after(text, at)
    if text[at : at + 1] != character:
        raise ValueError(f"{character} is missing")
    return _after(text, at + 1)
