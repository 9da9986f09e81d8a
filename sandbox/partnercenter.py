"""Partner Center's REST API as far as it is read: who is calling, and what is asked for."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from werkzeug import Response

from sandbox import jose, listing, mfastanding, percustomer, quirks
from sandbox.asks import Answer, Ask, reply, verified
from sandbox.clouds import CLOUDS
from sandbox.directory import PARTNER_CENTER_GROUPS, Account, Tenant, guid
from sandbox.envelopes import JSON_TYPE, link, refusal
from sandbox.world import World

OWN_HEADERS = {"MS-ServerId": "000001", "Request-Context": f"appId=cid-v1:{guid('partner center')}"}

# US Government shares the global host, China does not.
AUDIENCES = {cloud.partner_center: {f"https://{cloud.partner_center}"} for cloud in CLOUDS.values()}


def serve(ask: Ask) -> Response:
    """Answer a request to Partner Center's host."""
    try:
        response = _answer(ask)
    except Answer as answer:
        response = answer.response
    if odd := quirks_of(ask):
        response.set_data(quirks.spoil(response.get_data(), odd))
    return with_headers(ask, response)


def quirks_of(ask: Ask) -> list[str]:
    """How the answers of whoever is calling look."""
    tenant = ask.world.tenants.get(ask.call.tenant or "")
    return tenant.quirks if tenant else []


def with_headers(ask: Ask, response: Response) -> Response:
    """The headers every recorded answer had; ids that were sent come back."""
    asked = ask.request.headers
    ids = {name: asked.get(name) or str(uuid.uuid4()) for name in ("MS-RequestId", "MS-CorrelationId")}
    if "doubled-headers" in quirks_of(ask):
        ids = {name: f"{value},{value}" for name, value in ids.items()}
    response.headers.extend(ids | OWN_HEADERS | {"MS-CV": jose.b64(uuid.uuid4().bytes)[:16] + ".0"})
    if "mfa" in ask.call.detail and asked.get("ValidateMfa", "").lower() == "true":
        response.headers["isMfaCompliant"] = "true" if ask.call.detail["mfa"] else "false"
    return response


def _answer(ask: Ask) -> Response:
    tenant, account = _caller(ask)
    parts = ask.request.path.strip("/").split("/")
    if parts[:1] != ["v1"] or (ask.request.method != "GET" and not _is_subscription(parts)):
        return refusal(404, 1000, "Not found")
    if parts[1:] == ["profiles", "organization"]:
        return reply(_organization(tenant, account))
    if len(parts) == 2 and parts[1].lower() in mfastanding.NAMES:
        return mfastanding.serve(ask, tenant, parts[1].lower())
    if parts[1:2] != ["customers"]:
        return refusal(404, 1000, "Not found")
    if not account.groups & PARTNER_CENTER_GROUPS:
        return refusal(403, 2032, "Access denied")
    if len(parts) > 2:
        return percustomer.serve(ask, tenant, account, parts[2:])
    return Response(listing.customers(ask, tenant), content_type=JSON_TYPE)


def _is_subscription(parts: list[str]) -> bool:
    """The one kind of resource that can be changed."""
    return len(parts) == 5 and parts[3] == "subscriptions"


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
    if claims.get("aud") not in AUDIENCES[ask.place.host]:
        raise _unauthorized("900420", "The token's audience is not Partner Center.")
    tenant, account, has_mfa = standing(ask.world, claims)
    ask.call.detail |= {"oid": str(claims.get("oid", "")), "upn": account.upn if account else "", "mfa": has_mfa}
    if claims.get("idtyp") == "app" or tenant is None or account is None:
        raise Answer(refusal(403, 900329, "App-only access is not supported here."))
    if tenant.require_mfa and not has_mfa:
        raise _unauthorized("900421", "The token does not carry the multi-factor authentication claim.")
    return tenant, account


def standing(world: World, claims: jose.Claims) -> tuple[Tenant | None, Account | None, bool]:
    """The tenant and the user that a token is of, and whether it came about with MFA."""
    tenant = world.tenants.get(str(claims.get("tid")))
    account = tenant.accounts.get(str(claims.get("oid"))) if tenant else None
    session = world.ledger.sessions.get(str(claims.get("sid")))
    return tenant, account, "mfa" in claims.get("amr", []) and (session is None or session.mfa)


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
        "links": {"self": link("/profiles/organization")},
        "attributes": {"objectType": "OrganizationProfile"},
    }


def gateway_throttled(ask: Ask, retry_after: int) -> Response:
    """The gateway's shape, and the note of who was told to wait."""
    with ask.world.lock:
        ask.world.throttle.told(ask.world.now(), retry_after, (ask.call.tenant or "",))
    body = {"statusCode": 429, "message": f"Rate limit is exceeded. Try again in {retry_after} seconds."}
    return reply(body, 429, {"Retry-After": str(retry_after)})


def _throttled_silent(ask: Ask, _: int) -> Response:
    return reply({"statusCode": 429, "message": "Rate limit is exceeded."}, 429)


FAULTS: dict[str, Callable[[Ask, int], Response]] = {
    "throttled": gateway_throttled,
    "throttled-silent": _throttled_silent,
    "mfa": lambda ask, _: refusal(401, "900421", "The token does not carry the multi-factor authentication claim."),
    "unauthorized": lambda ask, _: refusal(401, 400, "Access denied"),
    "forbidden": lambda ask, _: refusal(403, 2032, "Access denied"),
    "400": lambda ask, _: refusal(400, 2000, "The input is not valid."),
    "404": lambda ask, _: refusal(404, 1000, "Not found"),
    "500": lambda ask, _: refusal(500, 900192, "Internal error"),
}
