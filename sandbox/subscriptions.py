"""
The subscriptions of a partner's customers, computed from (partner, customer, index).

Microsoft's pages "Get all of a customer's subscriptions" and "Get a subscription by ID", and the SDK's Subscription.
The property that chooses between renewal, extended service term and end was not found in any source: it is not here.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.customers import Customer
from sandbox.directory import guid

_YEAR_START = datetime(2026, 1, 1, tzinfo=UTC)
_BEGUN = datetime.now(UTC)  # this process: what renews while it runs would change under those who compare
# product, SKU, availability, title
_CATALOGUE = (
    ("CFQ7TTC0LH18", "0001", "CFQ7TTC0K971", "Microsoft 365 Business Basic"),
    ("CFQ7TTC0LDPB", "0001", "CFQ7TTC0JN4R", "Microsoft 365 Business Standard"),
    ("CFQ7TTC0LCHC", "0002", "CFQ7TTC0RM8K", "Microsoft 365 Business Premium"),
    ("CFQ7TTC0LFLX", "0001", "CFQ7TTC0QWZ3", "Microsoft 365 E3"),
    ("CFQ7TTC0HL8W", "0003", "CFQ7TTC0KHTV", "Power BI Pro"),
    ("CFQ7TTC0LHQ4", "0001", "CFQ7TTC0M4SD", "Microsoft Entra ID P1"),
)
_TERMS = (("P1Y", 365, "monthly"), ("P1Y", 365, "annual"), ("P1M", 30, "monthly"), ("P3Y", 1095, "annual"))


def count(customer: Customer, override: dict[str, Any]) -> int:
    """How many subscriptions a customer has: 1 to 5, or what the override says under "subscriptions"."""
    return int(override.get("subscriptions", 1 + _word(customer.tenant_id) % 5))


def at(customer: Customer, index: int) -> dict[str, Any]:
    """One subscription, in a list or alone; every eighth is an Azure plan, every third does not renew by itself."""
    word = _word(customer.tenant_id, index)
    subscription_id = guid(customer.tenant_id, "subscription", index)
    return _azure(customer, subscription_id, word) if word % 8 == 7 else _licences(customer, subscription_id, word)


def _licences(customer: Customer, subscription_id: str, word: int) -> dict[str, Any]:
    product, sku, availability, title = _CATALOGUE[word // 8 % len(_CATALOGUE)]
    term, days, cycle = _TERMS[word // 64 % len(_TERMS)]
    start, end = term_under_way(word // 256, days, _BEGUN)
    renews = word // 1024 % 3 != 0
    offer = f"{product}:{sku}:{availability}"
    more = {"cancellationAllowedUntilDate": _day(start + timedelta(days=7)), "billingCycleEndDate": _day(end)}
    return _common(customer, subscription_id, offer, title, start) | {
        "quantity": 1 + word // 4096 % 250,
        "unitType": "Licenses",
        "commitmentEndDate": _day(end),
        "autoRenewEnabled": renews,
        "billingType": "license",
        "billingCycle": cycle,
        "termDuration": term,
        "renewalTermDuration": "",
        "refundOptions": [{"type": "Full", "expiresAt": _day(start + timedelta(days=7))}],
        **more,
        **({"scheduledNextTermInstructions": _next_term(offer, word)} if renews and word % 5 == 0 else {}),
    }


def term_under_way(number: int, days: int, at: datetime) -> tuple[datetime, datetime]:
    """First and last day of a term of so many days, which began at `at` and has not ended; others for each number."""
    length, end = timedelta(days=days), _YEAR_START + timedelta(days=number % days)
    end += length * max(0, -((end - at) // length))
    start = end - timedelta(days=days - 1)
    early = timedelta(days=1 if start > at else 0)  # it is the last day of the term before, and midnight is over
    return start - early, end - early


def _azure(customer: Customer, subscription_id: str, word: int) -> dict[str, Any]:
    start = _YEAR_START - timedelta(days=word // 256 % 900)
    return _common(customer, subscription_id, "DZH318Z0BPS6:0001:DZH318Z0BNZ8", "Azure plan", start) | {
        "productType": {"id": "Azure", "displayName": "Azure"},
        "quantity": 1,
        "unitType": "Usage-based",
        "commitmentEndDate": "9999-12-14T00:00:00Z",
        "autoRenewEnabled": False,
        "billingType": "usage",
        "billingCycle": "monthly",
    }


def _common(customer: Customer, subscription_id: str, offer: str, title: str, start: datetime) -> dict[str, Any]:
    product, sku, availability = offer.split(":")
    base = f"/products/{product}"
    return {
        "id": subscription_id,
        "offerId": offer,
        "offerName": title,
        "friendlyName": title,
        "productType": {"id": "OnlineServicesNCE", "displayName": "OnlineServicesNCE"},
        "hasPurchasableAddons": False,
        "creationDate": start.strftime("%Y-%m-%dT16:57:15.0966728Z"),
        "effectiveStartDate": _day(start),
        "status": "active",
        "isTrial": False,
        "isMicrosoftProduct": True,
        "partnerId": "",
        "attentionNeeded": False,
        "actionTaken": False,
        "contractType": "subscription",
        "links": {
            "product": _link(f"{base}?country=DE"),
            "sku": _link(f"{base}/skus/{sku}?country=DE"),
            "availability": _link(f"{base}/skus/{sku}/availabilities/{availability}?country=DE"),
            "self": _link(f"/customers/{customer.tenant_id}/subscriptions/{subscription_id}"),
        },
        "publisherName": "Microsoft Corporation",
        "orderId": guid(subscription_id, "order").replace("-", "")[:12],
        "pretendedExtra": {"note": "a property that no document names; a PATCH must bring it back"},
        "attributes": {"etag": etag(subscription_id, 1), "objectType": "Subscription"},
    }


def etag(subscription_id: str, version: int) -> str:
    """What recorded ones hold: the id and a version, in base64."""
    return base64.b64encode(f'{{"id":"{subscription_id}","version":{version}}}'.encode()).decode()


def _next_term(offer: str, word: int) -> dict[str, Any]:
    product, sku, availability = offer.split(":")
    return {
        "product": {
            "productId": product,
            "skuId": sku,
            "availabilityId": availability,
            "billingCycle": "annual",
            "termDuration": "P1Y",
        },
        "quantity": 1 + word // 4096 % 250,
    }


def _link(uri: str) -> dict[str, Any]:
    return {"uri": uri, "method": "GET", "headers": []}


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT00:00:00Z")


def _word(*words: object) -> int:
    text = "/".join(str(word) for word in words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
