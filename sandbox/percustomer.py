"""What Partner Center tells about one customer: profiles, subscriptions, SKUs, users, licences, relationships."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from werkzeug import Response

from sandbox import changes, licences, users
from sandbox.asks import Ask, reply
from sandbox.customers import Customer
from sandbox.directory import Account, Tenant, guid
from sandbox.envelopes import JSON_TYPE, as_json, collection, link, refusal
from sandbox.listing import links_of, page_of, place_of, size_of
from sandbox.quirks import BOM

_ADDRESS = {"country": "DE", "city": "Berlin", "addressLine1": "Beispielstrasse 1", "postalCode": "10115"}


def serve(ask: Ask, tenant: Tenant, account: Account, parts: list[str]) -> Response:
    """Answer a request to `/v1/customers/<id>…`; `parts` begins with the id."""
    customer = tenant.customers.find(parts[0])
    if customer is None:
        return refusal(404, 3000, "The customer was not found.")
    match parts[1:]:
        case []:
            return reply(_details(customer))
        case ["profiles", "company"]:
            return reply(_company(customer))
        case ["profiles", "billing"]:
            return reply(_billing(customer))
        case ["relationships"]:
            return _whole([_reseller(customer)] if customer.index % 10 == 9 else [])
        case ["subscriptions"]:
            links = {"self": link(f"/customers/{customer.tenant_id}/subscriptions")}
            return _whole(changes.listed(ask.world, tenant, customer), links)
        case ["subscriptions", subscription_id]:
            return changes.serve_one(ask, tenant, customer, subscription_id)
        case ["subscribedskus"] | ["users"] | ["users", _] | ["users", _, "licenses"]:
            return _by_role(ask, tenant, account, customer, parts[1:])
        case _:
            return refusal(404, 1000, "Not found")


def _whole(found: list[dict[str, Any]], links: dict[str, Any] | None = None) -> Response:
    """A list that is not paged: all of it in one reply."""
    return Response(collection(len(found), as_json(found), links), content_type=JSON_TYPE)


def _by_role(ask: Ask, tenant: Tenant, account: Account, customer: Customer, parts: list[str]) -> Response:
    """What takes a role in the customer (GDAP)."""
    if tenant.gdap_missing or "AdminAgents" not in account.groups:
        return refusal(403, 900308, "Insufficient privileges to complete the operation.")
    if parts == ["users"]:
        return _with_bom(ask, _users(ask, tenant, customer))
    if parts == ["subscribedskus"]:
        return _with_bom(ask, _whole(licences.every(tenant, customer)))
    if len(parts) == 3:
        found = licences.of_user(tenant, customer, parts[1].lower())
        return refusal(404, 60002, "The user was not found.") if found is None else _with_bom(ask, _whole(found))
    return _one_user(tenant, customer, parts[1].lower())


def _with_bom(ask: Ask, response: Response) -> Response:
    if ask.world.bom_before_users:
        response.set_data(BOM + response.get_data())
    return response


def _one_user(tenant: Tenant, customer: Customer, user_id: str) -> Response:
    total = users.count(customer, tenant.customers.overrides.get(customer.index, {}))
    found = next((index for index in range(total) if users.user_id(customer, index) == user_id), None)
    return refusal(404, 60002, "The user was not found.") if found is None else reply(users.at(customer, found))


def _users(ask: Ask, tenant: Tenant, customer: Customer) -> Response:
    size, place = size_of(ask), place_of(ask, tenant, customer.tenant_id)
    total = users.count(customer, tenant.customers.overrides.get(customer.index, {}))
    start, end = min(place.start, total), min(place.start + size, total)
    ask.call.detail |= {"start": start, "items": end - start}
    following = replace(place, start=end) if end < total else None
    if ask.has_fault("cyclic-next"):
        following = place
    links = links_of(ask, tenant, f"/customers/{customer.tenant_id}/users", size, following)
    items = as_json([users.at(customer, index) for index in range(start, end)])
    return Response(page_of(total, items, links, tenant, following).body, content_type=JSON_TYPE)


def _details(customer: Customer) -> dict[str, Any]:
    """More than the list has; Microsoft's page "Get a customer by ID"."""
    base: dict[str, Any] = json.loads(customer.as_item())
    base["companyProfile"] |= {"address": _ADDRESS, "email": f"info@{customer.domain}"}
    extra = {"commerceId": guid(customer.tenant_id, "commerce"), "billingProfile": _billing(customer)}
    return base | extra | {"allowDelegatedAccess": True, "customDomains": [customer.domain]}


def _company(customer: Customer) -> dict[str, Any]:
    """Microsoft's page "Get a customer's company profile"."""
    profile: dict[str, Any] = json.loads(customer.as_item())["companyProfile"]
    return profile | {"address": _ADDRESS, "email": f"info@{customer.domain}"}


def _billing(customer: Customer) -> dict[str, Any]:
    return {
        "id": guid(customer.tenant_id, "billing"),
        "email": f"billing@{customer.domain}",
        "culture": "en-US",
        "language": "en",
        "companyName": customer.company_name,
        "defaultAddress": _ADDRESS | {"firstName": "Alex", "lastName": "Example"},
        "links": {"self": link(f"/customers/{customer.tenant_id}/profiles/billing")},
        "attributes": {"etag": str(-(customer.index + 1)), "objectType": "CustomerBillingProfile"},
    }


def _reseller(customer: Customer) -> dict[str, Any]:
    """Every tenth customer comes by an indirect reseller; "Get indirect resellers of a customer"."""
    return {
        "id": guid("reseller", customer.index % 7),
        "name": "First Up Consultants",
        "relationshipType": "is_indirect_cloud_solution_provider_of",
        "mpnId": str(4847383 + customer.index % 7),
        "attributes": {"objectType": "PartnerRelationship"},
    }
