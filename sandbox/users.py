"""
The users of a partner's customers, computed from (partner, customer, index); nothing is kept.

Microsoft's page "Get a list of all user accounts for a customer" and the SDK's CustomerUser.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sandbox.customers import Customer
from sandbox.directory import guid
from sandbox.envelopes import link

_GIVEN = ("Adele", "Åsa", "Diego", "Emily", "Grady", "Isaiah", "Joni", "Lee", "Megan", "Nestor", "Pradeep", "Zoë")
_FAMILY = ("Vance", "O'Neill", "Siciliani", "Braun", "Archie", "Langer", "Sherman", "Gu", "Bowen", "Wilke", "Gupta")


def count(customer: Customer, override: dict[str, Any]) -> int:
    """How many users a customer has: 3 to 42, or what the override says under "users"."""
    return int(override.get("users", 3 + _digest(customer.tenant_id) % 40))


def user_id(customer: Customer, index: int) -> str:
    return guid(customer.tenant_id, "user", index)


def at(customer: Customer, index: int) -> dict[str, Any]:
    """One user, as a list has it; every seventh is synchronised."""
    word = _digest(customer.tenant_id, index)
    given, family = _GIVEN[word % len(_GIVEN)], _FAMILY[word // 16 % len(_FAMILY)]
    own_id = user_id(customer, index)
    user = {
        "usageLocation": "DE",
        "id": own_id,
        "userPrincipalName": f"user{index}@{customer.domain}",
        "firstName": given,
        "lastName": family,
        "displayName": f"{given} {family}",
        "userDomainType": "managed",
        "state": "active",
        "links": {"self": link(f"/customers/{customer.tenant_id}/users/{own_id}")},
        "attributes": {"objectType": "CustomerUser"},
    }
    return user | ({"lastDirectorySyncTime": "2026-03-02T07:41:12.1234567Z"} if index % 7 == 6 else {})


def _digest(*words: object) -> int:
    text = "/".join(str(word) for word in words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
