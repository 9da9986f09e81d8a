"""
How a partner stands with MFA: its people's requests at Partner Center, its security score at Graph.

Microsoft's pages "Get a list of API requests" (with and without MFA), "Get partnerSecurityScore", "List
customerInsights"; the last two are beta and of the global cloud only.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from werkzeug import Response

from sandbox.asks import Ask, reply
from sandbox.customers import Customer
from sandbox.directory import Account, Tenant, guid
from sandbox.envelopes import JSON_TYPE, as_json, collection

_LAST_REQUESTS = 10_000


def serve(ask: Ask, tenant: Tenant, name: str) -> Response:
    """Answer `/v1/partnerRequests` and its neighbours; all are small lists in one reply."""
    now = datetime.fromtimestamp(ask.world.now(), UTC)
    if name == "applicationmfaadoptionstatus":
        return Response(as_json(_adoption(ask, tenant)), content_type=JSON_TYPE)
    found = _requests(ask, tenant) if name == "partnerrequests" else _without_mfa(tenant, now)
    return Response(collection(len(found), as_json(found), None), content_type=JSON_TYPE)


NAMES = ("partnerrequests", "nonmfacompliantpartnerprincipals", "applicationmfaadoptionstatus")


def _stamp(moment: datetime) -> str:
    """As recorded: three decimals and no zone."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}"


def _requests(ask: Ask, tenant: Tenant) -> list[dict[str, Any]]:
    """What this tenant's people asked Partner Center for, newest first, as far as the calls are still known."""
    calls = [call for call in ask.world.calls_to("partnercenter") if call.tenant == tenant.id and "mfa" in call.detail]
    return [
        {
            "requestId": guid("request", call.number),
            "correlationId": call.headers.get("Ms-Correlationid", ""),
            "operationName": f"{call.method.title()} {call.path}",
            "requestDateTime": _stamp(datetime.fromtimestamp(call.at, UTC)),
            "sourceIpAddress": "203.0.113.10",
            "objectId": call.detail.get("oid", ""),
            "tenantId": tenant.id,
            "upn": call.detail.get("upn", ""),
            "applicationId": call.client or "",
            "mfaCompliant": bool(call.detail["mfa"]),
        }
        for call in reversed(calls[-_LAST_REQUESTS:])
    ]


def _without_mfa(tenant: Tenant, now: datetime) -> list[dict[str, Any]]:
    """Who of the partner signed in without MFA in the last seven days: whoever cannot do it."""

    def one(account: Account) -> dict[str, Any]:
        last = _stamp(now - timedelta(days=2))
        return {
            "objectId": account.oid,
            "tenantId": tenant.id,
            "upn": account.upn,
            "lastNonMfaCompliantRequestDateTime": last,
        }

    return [one(account) for account in tenant.accounts.values() if not account.mfa_possible and not account.personal]


def _adoption(ask: Ask, tenant: Tenant) -> list[dict[str, Any]]:
    """By day and application; a bare array."""
    days: dict[tuple[str, str], list[bool]] = {}
    for call in ask.world.calls_to("partnercenter"):
        if call.tenant == tenant.id and "mfa" in call.detail:
            day = f"{datetime.fromtimestamp(call.at, UTC):%Y-%m-%d}"
            days.setdefault((day, call.client or ""), []).append(bool(call.detail["mfa"]))
    return [
        {
            "loginDate": day,
            "mfaCompliantRequestCount": sum(seen),
            "totalRequestCount": len(seen),
            "applicationId": client,
            "applicationName": "",
        }
        for (day, client), seen in sorted(days.items(), reverse=True)
    ]


# Graph


def score(ask: Ask, tenant: Tenant) -> Response:
    """The partner's security score: worse for each account without MFA."""
    weak = sum(not account.mfa_possible for account in tenant.accounts.values())
    refreshed = f"{datetime.fromtimestamp(ask.world.now(), UTC):%Y-%m-%dT00:00:00Z}"
    return reply(
        {
            "@odata.context": f"https://{ask.place.host}/beta/$metadata#security/partner/securityScore/$entity",
            "id": guid(tenant.id, "score"),
            "currentScore": max(0.0, 100.0 - 12.5 * weak),
            "maxScore": 100.0,
            "lastRefreshDateTime": refreshed,
            "updatedDateTime": refreshed,
        }
    )


def insight(customer: Customer) -> dict[str, Any]:
    """How one customer stands; every ninth has no policy at all."""
    total = 5 + customer.index % 40
    bare = customer.index % 9 == 8
    return {
        "@odata.type": "#microsoft.graph.partner.security.customerInsight",
        "tenantId": customer.tenant_id,
        "mfa": {
            "@odata.type": "microsoft.graph.partner.security.customerMfaInsight",
            "compliantAdminsCount": 0 if bare else 1 + customer.index % 3,
            "compliantNonAdminsCount": 0 if bare else total // 2,
            "totalUsersCount": total,
            "securityDefaultsStatus": "disabled" if bare else "enabled",
            "mfaConditionalAccessPolicyStatus": "disabled",
            "legacyPerUserMfaStatus": "disabled",
        },
    }
