"""Partner Center's REST API, as far as it is read; Microsoft's pages "Get a list of customers" and its neighbours."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from werkzeug import Response

from sandbox import changes, jose, users
from sandbox.asks import Answer, Ask, reply, verified
from sandbox.clouds import CLOUDS
from sandbox.customers import Customer, items
from sandbox.directory import PARTNER_CENTER_GROUPS, Account, Tenant, guid
from sandbox.ledger import Session

PAGE_CAP = 500
DEFAULT_SIZE = 100
_FIELDS = {"companyname": "company_name", "domain": "domain"}


def serve(ask: Ask) -> Response:
    """Answer a request to Partner Center's host."""
    try:
        response = _answer(ask)
    except Answer as answer:
        response = answer.response
    return with_headers(ask, response)


def with_headers(ask: Ask, response: Response) -> Response:
    """The headers every recorded answer had; ids that were sent come back."""
    asked = ask.request.headers
    response.headers["MS-RequestId"] = asked.get("MS-RequestId") or str(uuid.uuid4())
    response.headers["MS-CorrelationId"] = asked.get("MS-CorrelationId") or str(uuid.uuid4())
    response.headers["MS-CV"] = jose.b64(uuid.uuid4().bytes)[:16] + ".0"
    response.headers["MS-ServerId"] = "000001"
    response.headers["Request-Context"] = f"appId=cid-v1:{guid('partner center')}"
    if "mfa" in ask.call.detail and asked.get("ValidateMfa", "").lower() == "true":
        response.headers["isMfaCompliant"] = "true" if ask.call.detail["mfa"] else "false"
    return response


def refusal(status: int, code: int | str, description: str) -> Response:
    """Microsoft's classic error body."""
    return reply({"code": code, "description": description, "data": [], "source": "PartnerFD"}, status)


def _answer(ask: Ask) -> Response:
    tenant, account = _caller(ask)
    parts = ask.request.path.strip("/").split("/")
    if parts[:1] == ["v1"] and parts[1:2] == ["customers"] and parts[3:4] == ["subscriptions"]:
        return _subscriptions(ask, tenant, account, parts)
    if parts[:1] != ["v1"] or ask.request.method != "GET":
        return refusal(404, 1000, "Not found")
    if parts[1:] == ["profiles", "organization"]:
        return reply(_organization(tenant, account))
    if parts[1:2] != ["customers"] or len(parts) > 4 or parts[3:] not in ([], ["users"]):
        return refusal(404, 1000, "Not found")
    if not account.groups & PARTNER_CENTER_GROUPS:
        return refusal(403, 2032, "Access denied")
    if len(parts) == 4:
        return _users(ask, tenant, account, parts[2])
    return _customer(tenant, parts[2]) if len(parts) == 3 else _customers(ask, tenant)


# who is calling


def _unauthorized(code: int | str, description: str) -> Answer:
    response = refusal(401, code, description)
    response.headers["WWW-Authenticate"] = f"OAuth realm=urn:cpsvc:cpid:{{{guid('partner center')}}}"
    return Answer(response)


def _caller(ask: Ask) -> tuple[Tenant, Account]:
    """
    The tenant and the user behind the bearer.

    :raises Answer: 401 for a bad, foreign (900420) or MFA-less (900421) token, 403 for an app without user
    """
    try:
        claims = ask.claims = verified(ask, ask.bearer or "")
    except jose.Invalid as error:
        raise _unauthorized(400, "Access denied") from error
    tenant = ask.world.tenants.get(str(claims.get("tid")))
    if claims.get("aud") not in _audiences(ask):
        raise _unauthorized("900420", "The token's audience is not Partner Center.")
    account = tenant.accounts.get(str(claims.get("oid"))) if tenant else None
    ask.call.detail["mfa"] = _has_mfa(ask.world.ledger.sessions.get(str(claims.get("sid"))), claims)
    if claims.get("idtyp") == "app" or tenant is None or account is None:
        raise Answer(refusal(403, 900329, "App-only access is not supported here."))
    if tenant.require_mfa and not ask.call.detail["mfa"]:
        raise _unauthorized("900421", "The token does not carry the multi-factor authentication claim.")
    return tenant, account


def _audiences(ask: Ask) -> set[str]:
    """US Government shares the global host, China does not."""
    here = [cloud for cloud in CLOUDS.values() if cloud.partner_center == ask.place.host]
    return {f"https://{cloud.partner_center}" for cloud in here}


def _has_mfa(session: Session | None, claims: jose.Claims) -> bool:
    return "mfa" in claims.get("amr", []) and (session is None or session.mfa)


# customers


def _link(uri: str, headers: list[dict[str, str]] | None = None) -> dict[str, Any]:
    return {"uri": uri, "method": "GET", "headers": headers or []}


def _size(ask: Ask) -> int:
    text = ask.request.args.get("size", "0")
    if not text.isdigit():
        raise Answer(refusal(400, 2000, "size must be a number."))
    return min(int(text) or DEFAULT_SIZE, PAGE_CAP)


def _filter(text: str | None) -> tuple[str, str] | None:
    """The one filter customers know: the beginning of the name or of the domain."""
    if not text:
        return None
    try:
        given = {name.lower(): value for name, value in json.loads(text).items()}
        if given["operator"].lower() != "starts_with":
            raise ValueError
        return _FIELDS[given["field"].lower()], str(given["value"])
    except (ValueError, KeyError, AttributeError) as error:
        raise Answer(refusal(400, 2000, "The filter is not valid.")) from error


def _continuation(ask: Ask, tenant: Tenant, customer: str | None = None) -> dict[str, Any]:
    """
    Where the caller is in the list (of customers, or of one's users); it stands in a header, never in the address.

    :raises Answer: 400 without the header on a seek, and for a token that is not of this list
    """
    token = ask.request.headers.get("MS-ContinuationToken")
    if not token:
        if ask.request.args.get("seekOperation"):
            raise Answer(refusal(400, 2000, "The continuation token is missing."))
        return {"start": 0, "filter": ask.request.args.get("filter"), "tenant": tenant.id, "customer": customer}
    try:
        place = json.loads(jose.unb64(token))
        if (place["tenant"], place["customer"]) != (tenant.id, customer):
            raise ValueError
        start = int(place["start"])
        return {"start": start, "filter": place["filter"], "tenant": tenant.id, "customer": customer}
    except (ValueError, KeyError, TypeError) as error:
        raise Answer(refusal(400, 2000, "The continuation token is not valid.")) from error


def _customers(ask: Ask, tenant: Tenant) -> Response:
    size, place = _size(ask), _continuation(ask, tenant)
    wanted = _filter(place["filter"])
    customers = tenant.customers
    if wanted:
        found = customers.matching(*wanted)
        picked, start = found[place["start"] : place["start"] + size], place["start"] + size
        total, following = len(found), start if start < len(found) else None
    else:
        picked, following = customers.page(place["start"], size)
        total = len(customers)
    following = place["start"] if ask.has_fault("cyclic-next") else following
    ask.call.detail |= {"start": place["start"], "items": len(picked)}
    links = {"self": _link(_self_uri(ask))}
    if following is not None:
        links["next"] = _next(ask, size, place | {"start": following})
    return _collection(total, items(_rendered(ask, tenant, picked)), links)


def _rendered(ask: Ask, tenant: Tenant, picked: list[int]) -> list[Customer]:
    """The page's customers, or what a fault makes of them."""
    if ask.has_fault("duplicates"):
        picked = picked + picked[:10]
    if ask.has_fault("other-tenant"):
        others = [other for other in ask.world.tenants.values() if other.id != tenant.id and other.customers.count]
        tenant = others[0] if others else tenant
    return [tenant.customers.at(index) for index in picked]


def _self_uri(ask: Ask, listed: str = "/customers") -> str:
    query = ask.request.query_string.decode()
    return listed + (f"?{query}" if query else "")


def _next(ask: Ask, size: int, place: dict[str, Any]) -> dict[str, Any]:
    token = jose.b64(json.dumps(place).encode())
    listed = f"/customers/{place['customer']}/users" if place["customer"] else "/customers"
    uri = f"{listed}?size={size}&seekOperation=Next"
    if ask.world.next_link_with_v1 or ask.has_fault("v1-next"):
        uri = "/v1" + uri
    if ask.has_fault("foreign-next"):
        uri = f"https://customers.evil.test/v1{uri}&from={quote(ask.place.host)}"
    return _link(uri, [{"key": "MS-ContinuationToken", "value": token}])


def _collection(total: int, listed: str, links: dict[str, Any]) -> Response:
    """Put together as text: five hundred customers as objects would cost ten times as much."""
    tail = json.dumps({"links": links, "attributes": {"objectType": "Collection"}})[1:]
    text = f'{{"totalCount":{total},"items":{listed},{tail}'
    return Response(text, content_type="application/json; charset=utf-8")


def _customer(tenant: Tenant, tenant_id: str) -> Response:
    found = tenant.customers.find(tenant_id)
    return reply(_details(found)) if found else refusal(404, 3000, "The customer was not found.")


def _details(customer: Customer) -> dict[str, Any]:
    """More than the list has; Microsoft's page "Get a customer by ID"."""
    base: dict[str, Any] = json.loads(customer.as_item())
    address = {"country": "DE", "city": "Berlin", "addressLine1": "Beispielstrasse 1", "postalCode": "10115"}
    billing = {
        "id": guid(customer.tenant_id, "billing"),
        "email": f"billing@{customer.domain}",
        "culture": "en-US",
        "language": "en",
        "companyName": customer.company_name,
        "defaultAddress": address | {"firstName": "Alex", "lastName": "Example"},
        "links": {"self": _link(f"/customers/{customer.tenant_id}/profiles/billing")},
        "attributes": {"etag": str(-(customer.index + 1)), "objectType": "CustomerBillingProfile"},
    }
    base["companyProfile"] |= {"address": address, "email": f"info@{customer.domain}"}
    extra = {"commerceId": guid(customer.tenant_id, "commerce"), "billingProfile": billing}
    return base | extra | {"allowDelegatedAccess": True, "customDomains": [customer.domain]}


def _users(ask: Ask, tenant: Tenant, account: Account, tenant_id: str) -> Response:
    """One customer's users, for accounts whose role in the customer (GDAP) lets them."""
    customer = tenant.customers.find(tenant_id)
    if customer is None:
        return refusal(404, 3000, "The customer was not found.")
    if tenant.gdap_missing or "AdminAgents" not in account.groups:
        return refusal(403, 900308, "Insufficient privileges to complete the operation.")
    size, place = _size(ask), _continuation(ask, tenant, customer.tenant_id)
    total = users.count(customer, tenant.customers.overrides.get(customer.index, {}))
    start, end = place["start"], min(place["start"] + size, total)
    start = min(start, end)
    ask.call.detail |= {"start": start, "items": end - start}
    links = {"self": _link(_self_uri(ask, f"/customers/{customer.tenant_id}/users"))}
    if end < total:
        links["next"] = _next(ask, size, place | {"start": end})
    listed = json.dumps([users.at(customer, index) for index in range(start, end)])
    response = _collection(total, listed, links)
    if ask.world.bom_before_users:
        response.set_data(b"\xef\xbb\xbf" + response.get_data())
    return response


def _subscriptions(ask: Ask, tenant: Tenant, account: Account, parts: list[str]) -> Response:
    """A customer's subscriptions, which come in one page; or one of them, to read and to change."""
    if len(parts) > 5 or ask.request.method not in (("GET", "PATCH") if len(parts) == 5 else ("GET",)):
        return refusal(404, 1000, "Not found")
    if not account.groups & PARTNER_CENTER_GROUPS:
        return refusal(403, 2032, "Access denied")
    customer = tenant.customers.find(parts[2])
    if customer is None:
        return refusal(404, 3000, "The customer was not found.")
    override = tenant.customers.overrides.get(customer.index, {})
    if len(parts) == 5:
        return changes.serve(ask, customer, override, parts[4], refusal)
    listed = changes.listed(ask.world.book, customer, override, ask.world.now())
    links = {"self": _link(_self_uri(ask, f"/customers/{customer.tenant_id}/subscriptions"))}
    return _collection(len(listed), json.dumps(listed), links)


def _organization(tenant: Tenant, account: Account) -> dict[str, Any]:
    """The partner's own profile; Microsoft's page "Get an organization profile" and the SDK's OrganizationProfile."""
    return {
        "id": tenant.id,
        "companyName": tenant.name,
        "defaultAddress": {
            "country": "DE",
            "city": "Berlin",
            "addressLine1": "Beispielstrasse 2",
            "postalCode": "10115",
        },
        "tenantId": tenant.id,
        "domain": tenant.domain,
        "email": account.upn,
        "language": "en",
        "culture": "en-US",
        "profileType": "organization_profile",
        "links": {"self": _link("/profiles/organization")},
        "attributes": {"objectType": "OrganizationProfile"},
    }


def _gateway_throttled(ask: Ask, retry_after: int) -> Response:
    body = {"statusCode": 429, "message": f"Rate limit is exceeded. Try again in {retry_after} seconds."}
    return reply(body, 429, {"Retry-After": str(retry_after)})


FAULTS: dict[str, Callable[[Ask, int], Response]] = {
    "throttled": _gateway_throttled,
    "mfa": lambda ask, _: refusal(401, "900421", "The token does not carry the multi-factor authentication claim."),
    "unauthorized": lambda ask, _: refusal(401, 400, "Access denied"),
    "forbidden": lambda ask, _: refusal(403, 2032, "Access denied"),
    "500": lambda ask, _: refusal(500, 900192, "Internal error"),
}
