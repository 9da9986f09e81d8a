"""A list read page by page by key: any page costs the same, however deep it lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlencode

from django.core import signing
from django.db.models import Q

from partners.models import Customer, CustomerQuerySet

PAGE_SIZE = 50
SALT = "customers.after"


@dataclass(frozen=True)
class CustomerPage:
    """Up to 50 customers in the order of their names, and the addresses of what comes next and first."""

    customers: list[Customer]
    next_url: str | None
    first_url: str | None

    @property
    def shown(self) -> int:
        return len(self.customers)


def customer_page(customers: CustomerQuerySet, *, text: str, after: str, left_out: int | None = 0) -> CustomerPage:
    """
    One page; `after` is the opaque mark of the last row seen. A mark that isn't ours starts from the beginning.

    `customers` are all of a partner's but `left_out`; None says that they are few, which a search reads through.
    """
    mark = _read(after)
    found = customers.present()
    if text and left_out is not None:
        found = found.first_found(text, after=mark, most=PAGE_SIZE + 1 + left_out)
    else:
        found = found.matching(text)
    if mark:
        name, pk = mark
        found = found.filter(Q(name_key__gt=name) | Q(name_key=name, id__gt=pk), name_key__gte=name)
    rows = list(found.order_by("name_key", "id")[: PAGE_SIZE + 1])
    more = len(rows) > PAGE_SIZE
    rows = rows[:PAGE_SIZE]
    return CustomerPage(
        customers=rows,
        next_url=_address(text, _mark(rows[-1])) if more else None,
        first_url=_address(text, "") if mark else None,
    )


def _mark(customer: Customer) -> str:
    return signing.dumps([customer.name_key, customer.pk], salt=SALT, compress=True)


def _read(mark: str) -> tuple[str, int] | None:
    try:
        name, pk = signing.loads(mark, salt=SALT)
    except (signing.BadSignature, ValueError, json.JSONDecodeError):
        return None
    return name, pk


def _address(text: str, after: str) -> str:
    query = {key: value for key, value in (("q", text), ("after", after)) if value}
    return f"?{urlencode(query)}" if query else "?"
