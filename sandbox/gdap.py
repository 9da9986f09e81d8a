"""
What Graph tells about a partner's whole list of customers: GDAP relationships, GDAP customers, security insights.

Microsoft's pages "List delegatedAdminRelationships", "List delegatedAdminCustomers" and "List customerInsights". Paged
by `@odata.nextLink`, which is a whole address and is to be followed as it stands.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from urllib.parse import quote

from werkzeug import Response

from sandbox import jose, mfastanding
from sandbox.asks import Answer, Ask
from sandbox.customers import Customer
from sandbox.directory import Tenant, guid
from sandbox.envelopes import JSON_TYPE, as_json
from sandbox.listing import owner_of

READS = {"DelegatedAdminRelationship.Read.All", "DelegatedAdminRelationship.ReadWrite.All"}
READS_SECURITY = {"PartnerSecurity.Read.All"}
MOST = 300  # items of a page
_ROLES = (
    "88d8e3e3-8f55-4a1e-953a-9b9898b8876b",  # Directory Readers
    "f2ef992c-3afb-46b9-b7cf-a126ee74c451",  # Global Reader
    "9360feb5-f418-4baa-8175-e2a00bac4301",  # Directory Writers
    "4d6ac14f-3453-41d0-bef9-a3e0c569773a",  # License Administrator
    "fe930be7-5e62-47db-91af-98c3a49a38b1",  # User Administrator
)
_FIRST_DAY = datetime(2025, 6, 1, 11, 24, 42, tzinfo=UTC)
_STATUS = re.compile(r"status eq '(\w+)'")
Refuse = Callable[[Ask, int, str, str], Response]


def relationships(tenant: Tenant, customer: Customer) -> list[dict[str, Any]]:
    """
    The GDAP relationships with a customer: one, unless `overrides[index]["relationships"]` has others.

    There each is what differs from that one; `"endsInDays"` lets it end so many days after the real today.
    """
    usual = relationship(tenant, customer)
    others = tenant.customers.overrides.get(customer.index, {}).get("relationships")
    if others is None:
        return [usual]
    return [_like(usual, other, number) for number, other in enumerate(others)]


def _like(usual: dict[str, Any], other: dict[str, Any], number: int) -> dict[str, Any]:
    found = usual | other
    if number and "id" not in other:
        found["id"] = f"{guid(usual['id'], number)}{usual['id'][36:]}"
    if (days := found.pop("endsInDays", None)) is not None:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        found["endDateTime"] = _stamp(today + timedelta(days=days, hours=12))
    return found


def relationship(tenant: Tenant, customer: Customer) -> dict[str, Any]:
    """The usual one; every eleventh is terminated, every thirteenth not yet approved."""
    index = customer.index
    status = "terminated" if index % 11 == 10 else "approvalPending" if index % 13 == 12 else "active"
    created = _FIRST_DAY + timedelta(hours=index % 8000)
    pending = status == "approvalPending"
    changed = created if pending else created + timedelta(minutes=2)
    provided = index % 10 == 9
    kind = "resellerDelegatedAdminRelationship" if provided else "delegatedAdminRelationship"
    found = {
        "@odata.type": f"#microsoft.graph.{kind}",
        "@odata.etag": f'W/"{base64.b64encode(f"{index:08x}-{status}".encode()).decode()}"',
        "id": f"{guid(customer.tenant_id, 'gdap')}-{guid(tenant.id, 'gdap')}",
        "displayName": f"Relationship {index} {tenant.name}"[:50],
        "duration": "P730D",
        "customer": {"tenantId": customer.tenant_id, "displayName": customer.company_name},
        "accessDetails": {"unifiedRoles": [{"roleDefinitionId": role} for role in _ROLES[: 2 + index % 4]]},
        "status": status,
        "autoExtendDuration": "P180D" if index % 2 else "PT0S",
        "createdDateTime": _stamp(created),
        "lastModifiedDateTime": _stamp(changed),
        "activatedDateTime": None if pending else _stamp(changed),
        "endDateTime": None if pending else _stamp(changed + timedelta(days=730)),
    }
    more = {"isPartnerConsentPending": pending, "indirectProviderTenantId": guid(tenant.id, "provider")}
    return found | more if provided else found


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.3148266Z"


def _admin_customers(tenant: Tenant, customer: Customer) -> list[dict[str, Any]]:
    return [
        {
            "@odata.type": "#microsoft.graph.delegatedAdminCustomer",
            "@odata.etag": f'W/"{base64.b64encode(f"{customer.index:08x}".encode()).decode()}"',
            "id": customer.tenant_id,
            "tenantId": customer.tenant_id,
            "displayName": customer.company_name,
        }
    ]


# path → what a token must allow, and the items of each customer
LISTS: dict[str, tuple[set[str], Callable[[Tenant, Customer], list[dict[str, Any]]]]] = {
    "/v1.0/tenantRelationships/delegatedAdminRelationships": (READS, relationships),
    "/v1.0/tenantRelationships/delegatedAdminCustomers": (READS, _admin_customers),
    "/beta/security/partner/securityScore/customerInsights": (
        READS_SECURITY,
        lambda tenant, customer: [mfastanding.insight(customer)],
    ),
}


def page(ask: Ask, tenant: Tenant, refuse: Refuse) -> Response:
    """
    One page of a list of LISTS; `$top` up to 300, `$filter` by status for relationships.

    What is of one customer stands on one page, which may so be a little longer.

    :raises Answer: 400 for a filter or a `$skiptoken` that it does not know
    """
    path = ask.request.path.rstrip("/")
    items_of = LISTS[path][1]
    start, top, status = _asked(ask, tenant, path, refuse)
    owner = owner_of(ask, tenant)
    found: list[dict[str, Any]] = []
    following: int | None = start
    while following is not None and len(found) < top:
        picked, following = owner.customers.page(following, top - len(found))
        rows = chain.from_iterable(items_of(owner, owner.customers.at(index)) for index in picked)
        found += [row for row in rows if status in (None, row.get("status"))]
    following = start if ask.has_fault("cyclic-next") else following
    if ask.has_fault("circle-next") and following is None:
        following = 0
    if ask.has_fault("duplicates"):
        found += found[:10]
    if ask.has_fault("holes"):
        found[6::7] = [{"id": row["id"]} for row in found[6::7]]
    ask.call.detail |= {"start": start, "items": len(found)}
    value: object = {"code": 0} if ask.has_fault("no-items") else found
    body: dict[str, Any] = {"@odata.context": f"https://{ask.place.host}{_context(path)}", "value": value}
    if following is not None:
        body["@odata.nextLink"] = _next(ask, path, {"start": following, "top": top, "status": status, "of": tenant.id})
    return Response(as_json(body), content_type=JSON_TYPE)


def _context(path: str) -> str:
    area, _, name = path.rpartition("/")
    return f"{area}/$metadata#{name}"


def _next(ask: Ask, path: str, place: dict[str, Any]) -> str:
    host = "graph.evil.test" if ask.has_fault("foreign-next") else ask.place.host
    return f"https://{host}{path}?$skiptoken={quote(jose.b64(json.dumps(place).encode()))}"


def _asked(ask: Ask, tenant: Tenant, path: str, refuse: Refuse) -> tuple[int, int, str | None]:
    """Where to begin, how many, and which status."""
    args = ask.request.args
    token = args.get("$skiptoken") or args.get("$skipToken")
    try:
        if token:
            place = json.loads(jose.unb64(token))
            if place["of"] != tenant.id or ask.has_fault("cursor-rejected"):
                raise ValueError
            return int(place["start"]), int(place["top"]), place["status"]
        top = min(max(int(args.get("$top", MOST)), 1), MOST)
    except (ValueError, KeyError, TypeError) as error:
        raise Answer(refuse(ask, 400, "BadRequest", "The skip token or the size is not valid.")) from error
    wanted = args.get("$filter")
    status = _STATUS.fullmatch(wanted.strip()) if wanted else None
    if wanted and (status is None or not path.endswith("Relationships")):
        raise Answer(refuse(ask, 400, "BadRequest", "Invalid filter clause."))
    return 0, top, status[1] if status else None
