"""
What a customer's users may use: subscribed SKUs and the licences that users have, computed.

Microsoft's pages "Get a list of available licenses" and "Check which licenses are assigned to a user".
"""

from __future__ import annotations

import hashlib
from typing import Any

from sandbox import users
from sandbox.customers import Customer
from sandbox.directory import Tenant, guid

# part number, name, service plans
_SKUS = (
    (
        "O365_BUSINESS_ESSENTIALS",
        "Microsoft 365 Business Basic",
        ("EXCHANGE_S_STANDARD", "SHAREPOINTSTANDARD", "TEAMS1"),
    ),
    ("O365_BUSINESS_PREMIUM", "Microsoft 365 Business Standard", ("EXCHANGE_S_STANDARD", "OFFICE_BUSINESS", "TEAMS1")),
    ("SPB", "Microsoft 365 Business Premium", ("EXCHANGE_S_STANDARD", "OFFICE_BUSINESS", "INTUNE_SMB", "AAD_PREMIUM")),
    ("SPE_E3", "Microsoft 365 E3", ("EXCHANGE_S_ENTERPRISE", "OFFICESUBSCRIPTION", "INTUNE_A", "AAD_PREMIUM")),
    ("POWER_BI_PRO", "Power BI Pro", ("BI_AZURE_P2",)),
    ("AAD_PREMIUM", "Microsoft Entra ID P1", ("AAD_PREMIUM", "MFA_PREMIUM")),
)


def count(customer: Customer, override: dict[str, Any]) -> int:
    """How many SKUs a customer has: 1 to 4, or what the override says under "skus"; at most six."""
    return min(int(override.get("skus", 1 + _word(customer.tenant_id, "skus") % 4)), len(_SKUS))


def at(customer: Customer, index: int) -> dict[str, Any]:
    """One subscribed SKU; every seventh has fewer units than it had, and some of those are in their last weeks."""
    word = _word(customer.tenant_id, "sku", index)
    active = 1 + word % 250
    warning = active // 4 if word % 7 == 0 else 0
    consumed = word // 256 % (active + warning + 1)
    return {
        "availableUnits": active + warning - consumed,
        "activeUnits": active,
        "consumedUnits": consumed,
        "suspendedUnits": word // 65536 % 5 if word % 11 == 0 else 0,
        "totalUnits": active + warning,
        "warningUnits": warning,
        "productSku": _product(customer, index) | {"targetType": "User"},
        "servicePlans": _plans(customer, index, "Enabled"),
        "capabilityStatus": "Warning" if warning else "Enabled",
        "attributes": {"objectType": "SubscribedSku"},
    }


def every(tenant: Tenant, customer: Customer) -> list[dict[str, Any]]:
    """All subscribed SKUs of one customer."""
    override = tenant.customers.overrides.get(customer.index, {})
    return [at(customer, index) for index in range(count(customer, override))]


def of_user(tenant: Tenant, customer: Customer, user_id: str) -> list[dict[str, Any]] | None:
    """The licences of one user, each third has none; None when there is no such user."""
    override = tenant.customers.overrides.get(customer.index, {})
    known = (index for index in range(users.count(customer, override)) if users.user_id(customer, index) == user_id)
    user = next(known, None)
    if user is None:
        return None
    if user % 3 == 2:
        return []
    return [_licence(customer, user % count(customer, override))]


def _licence(customer: Customer, index: int) -> dict[str, Any]:
    return {
        "servicePlans": _plans(customer, index, "Assigned"),
        "productSku": _product(customer, index),
        "attributes": {"objectType": "License"},
    }


def _sku(customer: Customer, index: int) -> tuple[str, str, tuple[str, ...]]:
    return _SKUS[(_word(customer.tenant_id) + index) % len(_SKUS)]


def _product(customer: Customer, index: int) -> dict[str, Any]:
    part, name, _ = _sku(customer, index)
    return {"id": guid("sku", part), "name": name, "skuPartNumber": part, "licenseGroupId": "group1"}


def _plans(customer: Customer, index: int, status: str) -> list[dict[str, Any]]:
    return [
        {
            "displayName": plan.replace("_", " ").title(),
            "serviceName": plan,
            "id": guid("plan", plan),
            "capabilityStatus": status,
            "targetType": "User",
        }
        for plan in _sku(customer, index)[2]
    ]


def _word(*words: object) -> int:
    text = "/".join(str(word) for word in words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
