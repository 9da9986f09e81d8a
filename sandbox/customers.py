"""
A partner's customers, computed one by one from (seed, tenant, index): a hundred thousand cost nothing until asked for.

The tenant id of a customer hides its index, so the way back is a computation too and not a table.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


_FIRST = _words(
    "Adventure, Alpine, Amber, Anchor, Arbor, Atlas, Aurora, Baldwin, Bayside, Beacon, Birch, Blue Yonder, Boulder, "
    "Bright, Cedar, Cobalt, Copper, Coral, Crescent, Delta, Eastgate, Echo, Elm Street, Ember, Evergreen, Falcon, "
    "First Up, Fourth Coffee, Garnet, Granite, Graphic, Harbour, Hazel, Heron, Highland, Humongous, Iris, Ivory, "
    "Juniper, Keystone, Lakeshore, Lamna, Lantern, Liberty, Lucerne, Maple, Margie's, Meadow, Meridian, Midtown, "
    "Munson's, Nordic, Northgate, Oak & Elm, Olive, Orchard, Osprey, Parnell, Pine Valley, Pioneer, Prism, "
    "Proseware, Quarry, Relecloud, Ridge, River, Sable, School of, Sierra, Silver, Southridge, Spruce, Sterling, "
    "Summit, Tailspin, Tamarack, Terra, Trey, Union, Valley, VanArsdel, Vertex, Vigor, Walnut, Westside, Wide "
    "World, Willow, Wingtip, Woodgrove, Zephyr"
)
_SECOND = _words(
    "Accounting, Analytics, Architects, Bakery, Bank, Biotech, Brewing, Builders, Capital, Catering, Chemicals, "
    "Clinics, Construction, Consulting, Couriers, Dental, Design, Dynamics, Education, Electric, Energy, "
    "Engineering, Events, Farms, Fashion, Finance, Fine Art, Foods, Freight, Furniture, Gardens, Glass, Health, "
    "Holdings, Hotels, Importers, Insurance, Interiors, Investments, Labs, Legal, Logistics, Machines, Marine, "
    "Media, Medical, Metals, Motors, Museum, Networks, Optics, Outfitters, Packaging, Partners, Pharma, Plastics, "
    "Press, Print, Properties, Publishing, Recruitment, Recycling, Research, Resorts, Retail, Robotics, Securities, "
    "Services, Shipping, Software, Solar, Sports, Studios, Supplies, Systems, Telecom, Textiles, Tools, Toys, "
    "Traders, Transport, Travel, Ventures, Water, Wines, Works"
)
_FORM = ("Ltd", "GmbH", "Inc.", "AB", "B.V.", "S.A.", "Group", "& Co.", "Oy", "LLC", "ApS", "plc")

_ITEM = (
    '{"id":"%(id)s","companyProfile":{"tenantId":"%(id)s","domain":%(domain)s,"companyName":%(name)s,"links":{"self":'
    '{"uri":"/customers/%(id)s/profiles/company","method":"GET","headers":[]}},"attributes":{"objectType":'
    '"CustomerCompanyProfile"}},"relationshipToPartner":%(relationship)s,"links":{"self":{"uri":"/customers/%(id)s",'
    '"method":"GET","headers":[]}},"attributes":{"objectType":"Customer"}}'
)


@dataclass(frozen=True)
class Customer:
    """What the list of customers tells about one of them."""

    index: int
    tenant_id: str
    company_name: str
    domain: str
    relationship: str

    def as_item(self) -> str:
        """The JSON text of this customer in a list; Microsoft's page "Get a list of customers"."""
        return _ITEM % {
            "id": self.tenant_id,
            "domain": json.dumps(self.domain),
            "name": json.dumps(self.company_name),
            "relationship": json.dumps(self.relationship),
        }


@dataclass
class Customers:
    """All customers of one partner. `overrides` replaces fields of single ones; `removed` leaves them out."""

    seed: int
    owner: str
    count: int
    overrides: dict[int, dict[str, Any]] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._key = hashlib.blake2b(f"{self.seed}/{self.owner.lower()}".encode(), digest_size=32).digest()
        self._mask = int.from_bytes(self._key[:4], "big")
        self._found: dict[tuple[object, ...], list[int]] = {}

    def __len__(self) -> int:
        return self.count - len(self.removed)

    def _digest(self, index: int) -> bytes:
        return hashlib.blake2b(index.to_bytes(4, "big"), digest_size=16, key=self._key).digest()

    def _id(self, index: int, digest: bytes) -> str:
        head = digest[:6].hex()
        tail = f"{index ^ self._mask:08x}"
        variant = "89ab"[digest[8] & 3]
        return f"{head[:8]}-{head[8:]}-4{digest[6:8].hex()[:3]}-{variant}{digest[9:11].hex()[:3]}-{head[2:6]}{tail}"

    def at(self, index: int) -> Customer:
        """The customer with this index; any index works, also of one that was removed."""
        digest = self._digest(index)
        word = int.from_bytes(digest[11:], "big")
        first, word = _FIRST[word % len(_FIRST)], word // len(_FIRST)
        second, word = _SECOND[word % len(_SECOND)], word // len(_SECOND)
        name = f"{first} {second} {_FORM[word % len(_FORM)]}"
        slug = "".join(filter(str.isalnum, first + second)).lower()
        override = self.overrides.get(index, {})
        return Customer(
            index=index,
            tenant_id=str(override.get("tenantId") or self._id(index, digest)),
            company_name=str(override.get("companyName", name)),
            domain=str(override.get("domain", f"{slug}{index}.onmicrosoft.test")),
            relationship=str(override.get("relationshipToPartner", "reseller")),
        )

    def find(self, tenant_id: str) -> Customer | None:
        """The customer with this tenant id, if it is one of this partner's today."""
        try:
            index = int(uuid.UUID(tenant_id)) & 0xFFFFFFFF ^ self._mask
        except ValueError:
            return None
        for candidate in (index, *self.overrides):
            if candidate < self.count and candidate not in self.removed:
                customer = self.at(candidate)
                if customer.tenant_id == tenant_id.lower():
                    return customer
        return None

    def __iter__(self) -> Iterator[Customer]:
        return (self.at(index) for index in range(self.count) if index not in self.removed)

    def page(self, start: int, size: int) -> tuple[list[int], int | None]:
        """Indexes of one page, and where the next page starts; None when there is none."""
        picked: list[int] = []
        for index in range(start, self.count):
            if index in self.removed:
                continue
            if len(picked) == size:
                return picked, index
            picked.append(index)
        return picked, None

    def matching(self, attribute: str, prefix: str) -> list[int]:
        """Indexes whose name or domain starts with the prefix; case does not matter. Remembered per question."""
        question = (attribute, prefix.lower(), self.count, len(self.removed), len(self.overrides))
        if question not in self._found:
            self._found[question] = [c.index for c in self if _starts(c, attribute, prefix)]
        return self._found[question]


def _starts(customer: Customer, attribute: str, prefix: str) -> bool:
    return str(getattr(customer, attribute)).lower().startswith(prefix.lower())


def items(customers: Iterable[Customer]) -> str:
    """The JSON text of a list of customers."""
    return "[" + ",".join(customer.as_item() for customer in customers) + "]"
