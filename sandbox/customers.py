"""
A partner's customers, computed one by one from (seed, tenant, index): a million cost nothing until asked for.

The tenant id of a customer hides its index, so the way back is a computation too and not a table.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox.drift import Drift
from sandbox.names import FIRST, FORM, SECOND

# The properties of one customer in a list, in each of the orders that they may come in.
_PARTS = (
    '"id":"%(id)s"',
    '"companyProfile":{"tenantId":"%(id)s","domain":%(domain)s,"companyName":%(name)s,"links":{"self":'
    '{"uri":"/customers/%(id)s/profiles/company","method":"GET","headers":[]}},"attributes":{"objectType":'
    '"CustomerCompanyProfile"}}',
    '"relationshipToPartner":%(relationship)s',
    '"links":{"self":{"uri":"/customers/%(id)s","method":"GET","headers":[]}}',
    '"attributes":{"objectType":"Customer"}',
)
FIELD_ORDERS = 3
_ITEMS = tuple("{" + ",".join(_PARTS[turn:] + _PARTS[:turn]) + "}" for turn in range(FIELD_ORDERS))
_PLAIN = tuple(
    item % {"id": "%(id)s", "name": '"%(name)s"', "domain": '"%(domain)s"', "relationship": '"reseller"'}
    for item in _ITEMS
)
BETWEEN = ",\n"  # stands between two customers of a list, and nowhere else: JSON text has no bare line feed


@dataclass(frozen=True)
class Customer:
    """What the list of customers tells about one of them."""

    index: int
    tenant_id: str
    company_name: str
    domain: str
    relationship: str

    def as_item(self, turn: int = 0) -> str:
        """The JSON text of this customer in a list; Microsoft's page "Get a list of customers"."""
        return _ITEMS[turn] % {
            "id": self.tenant_id,
            "domain": json.dumps(self.domain),
            "name": json.dumps(self.company_name),
            "relationship": json.dumps(self.relationship),
        }


@dataclass
class Customers:
    """
    All customers of one partner.

    `overrides` replaces fields of single ones; `removed` leaves them out; `drift` says what differs between reads.
    """

    seed: int
    owner: str
    count: int
    overrides: dict[int, dict[str, Any]] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    drift: Drift = field(default_factory=Drift)

    def __post_init__(self) -> None:
        self._key = hashlib.blake2b(f"{self.seed}/{self.owner.lower()}".encode(), digest_size=32).digest()
        self._begun = hashlib.blake2b(digest_size=16, key=self._key)
        self._mask = int.from_bytes(self._key[:4], "big")
        self._found: dict[tuple[object, ...], list[int]] = {}
        self._absent = (self.stamp(), 0)

    def __len__(self) -> int:
        return self.count - len(self.removed) - self._absent_count()

    def _absent_count(self) -> int:
        """Counted once for each state: a million take a second."""
        if not self.drift.absent:
            return 0
        stamp, found = self._absent
        if stamp != self.stamp():
            found = sum(self.drift.is_absent(index) and index not in self.removed for index in range(self.count))
            self._absent = (self.stamp(), found)
        return found

    def stamp(self) -> tuple[object, ...]:
        """Differs when any customer may; costs nothing for lists nobody touched."""
        single = repr(self.overrides) if self.overrides else ""
        return (self.count, len(self.removed), sum(self.removed), single, self.drift.stamp())

    def has(self, index: int) -> bool:
        """Whether this one is in the list today."""
        return index < self.count and index not in self.removed and not self.drift.is_absent(index)

    def change(self, share: float = 1.0) -> int:
        """Let this share of the customers have another name from now on; the revision it makes."""
        self.drift.changes.append(share)
        return len(self.drift.changes)

    def hide(self, share: float) -> None:
        """Let this share be missing, the same ones each time; 0 brings them back."""
        self.drift.absent = share

    def _digest(self, index: int) -> bytes:
        begun = self._begun.copy()
        begun.update(index.to_bytes(4, "big"))
        return begun.digest()

    def _id(self, index: int, digest: bytes) -> str:
        text = digest.hex()
        variant = "89ab"[digest[8] & 3]
        tail = f"{text[2:6]}{index ^ self._mask:08x}"
        return f"{text[:8]}-{text[8:12]}-4{text[12:15]}-{variant}{text[18:21]}-{tail}"

    def _plain(self, index: int) -> tuple[str, str, str]:
        """Id, name and domain, whatever the override says."""
        digest = self._digest(index)
        word = int.from_bytes(digest[11:], "big")
        first, word = FIRST[word % len(FIRST)], word // len(FIRST)
        second, word = SECOND[word % len(SECOND)], word // len(SECOND)
        name = f"{first} {second} {FORM[word % len(FORM)]}"
        version = self.drift.version(index) if self.drift.changes else 0
        name = f"{name} {version}" if version else name
        return self._id(index, digest), name, f"{_SLUGS[first]}{_SLUGS[second]}{index}.onmicrosoft.test"

    def at(self, index: int) -> Customer:
        """The customer with this index; any index works, also of one that was removed."""
        tenant_id, name, domain = self._plain(index)
        override = self.overrides.get(index, {})
        return Customer(
            index=index,
            tenant_id=str(override.get("tenantId") or tenant_id),
            company_name=str(override.get("companyName", name)),
            domain=str(override.get("domain", domain)),
            relationship=str(override.get("relationshipToPartner", "reseller")),
        )

    def item(self, index: int, turn: int = 0) -> str:
        """The JSON text of one customer, the short way for those that nothing was said about."""
        if index in self.overrides:
            return self.at(index).as_item(turn)
        tenant_id, name, domain = self._plain(index)
        return _PLAIN[turn] % {"id": tenant_id, "name": name, "domain": domain}  # no word of ours needs escaping

    def find(self, tenant_id: str) -> Customer | None:
        """The customer with this tenant id, if it is one of this partner's today."""
        try:
            index = int(uuid.UUID(tenant_id)) & 0xFFFFFFFF ^ self._mask
        except ValueError:
            return None
        for candidate in (index, *self.overrides):
            if self.has(candidate):
                customer = self.at(candidate)
                if customer.tenant_id == tenant_id.lower():
                    return customer
        return None

    def __iter__(self) -> Iterator[Customer]:
        return (self.at(index) for index in range(self.count) if self.has(index))

    def page(self, start: int, size: int, read: int = 0) -> tuple[list[int], int | None]:
        """
        Indexes of one page, and where the next page starts; None when there is none.

        `read` is the number of a read that has an order of its own.
        """
        picked: list[int] = []
        for position in range(start, self.count):
            index = self.drift.index(position, self.count, read)
            if not self.has(index):
                continue
            if len(picked) == size:
                return picked, position
            picked.append(index)
        return picked, None

    def matching(self, attribute: str, prefix: str) -> list[int]:
        """Indexes whose name or domain starts with the prefix; case does not matter. Remembered per question."""
        question = (attribute, prefix.lower(), self.stamp())
        if question not in self._found:
            self._found[question] = [c.index for c in self if _starts(c, attribute, prefix)]
        return self._found[question]


def _starts(customer: Customer, attribute: str, prefix: str) -> bool:
    return str(getattr(customer, attribute)).lower().startswith(prefix.lower())


_SLUGS = {word: "".join(filter(str.isalnum, word)).lower() for word in FIRST + SECOND}


def listed(texts: Iterable[str]) -> str:
    """The JSON text of a list, out of those of its customers."""
    return "[" + BETWEEN.join(texts) + "]"
