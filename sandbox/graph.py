"""
Microsoft Graph as far as it is read: who somebody is, and the lists of gdap.py.

Microsoft's pages "Get user", "List transitiveMemberOf".
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any

from werkzeug import Response

from sandbox import gdap, jose, mfastanding
from sandbox.asks import Answer, Ask, reply, verified
from sandbox.directory import Account, Tenant

_READS_NAMES = {"GroupMember.Read.All", "Group.Read.All", "Directory.Read.All", "Directory.AccessAsUser.All"}
_READS_ME = _READS_NAMES | {"User.Read", "User.Read.All", "User.ReadWrite.All"}
_NAME_IS = re.compile(r"displayName eq '((?:[^']|'')*)'")
SCORE = "/beta/security/partner/securityScore"
_GROUP = "microsoft.graph.group"


def serve(ask: Ask) -> Response:
    """Answer a request to Graph's host."""
    path = ask.request.path.rstrip("/")
    reads, _ = gdap.LISTS.get(path, (gdap.READS_SECURITY if path == SCORE else _READS_ME, None))
    tenant, account = _caller(ask, reads)
    if ask.request.method != "GET":
        return refusal(ask, 405, "Request_BadRequest", "Specified HTTP method is not allowed.")
    if path == "/v1.0/me":
        return _me(ask, account)
    if path == f"/v1.0/me/transitiveMemberOf/{_GROUP}":
        return _groups(ask, tenant, account, cast=True)
    if path in ("/v1.0/me/transitiveMemberOf", "/v1.0/me/memberOf"):
        return _groups(ask, tenant, account, cast=False)
    if path == SCORE:
        return mfastanding.score(ask, tenant)
    if path in gdap.LISTS:
        return gdap.page(ask, tenant, refusal)
    return refusal(ask, 404, "Request_ResourceNotFound", "Resource not found for the segment.")


def refusal(ask: Ask, status: int, code: str, message: str) -> Response:
    """Microsoft's page "Microsoft Graph error responses"."""
    request_id = str(uuid.uuid4())
    inner = {
        "date": f"{datetime.fromtimestamp(ask.world.now(), UTC):%Y-%m-%dT%H:%M:%S}",
        "request-id": request_id,
        "client-request-id": ask.request.headers.get("client-request-id", request_id),
    }
    headers = {"request-id": request_id}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common"'
    return reply({"error": {"code": code, "message": message, "innerError": inner}}, status, headers)


def _caller(ask: Ask, reads: set[str]) -> tuple[Tenant, Account]:
    """:raises Answer: 401 for a token that is not for Graph, 403 for one that may not read"""
    try:
        claims = ask.claims = verified(ask, ask.bearer or "")
    except jose.Invalid as error:
        message = "Access token is empty." if not ask.bearer else "Access token validation failure."
        raise Answer(refusal(ask, 401, "InvalidAuthenticationToken", message)) from error
    if claims.get("aud") != ask.place.cloud.resource("graph"):
        message = "Access token validation failure. Invalid audience."
        raise Answer(refusal(ask, 401, "InvalidAuthenticationToken", message))
    tenant = ask.world.tenants.get(str(claims.get("tid")))
    account = ask.world.account_of(str(claims.get("tid")), str(claims.get("oid")))
    if tenant is None or account is None or not _scopes(ask) & reads:
        raise Answer(refusal(ask, 403, "Authorization_RequestDenied", "Insufficient privileges."))
    return tenant, account


def _scopes(ask: Ask) -> set[str]:
    return set(str(ask.claims.get("scp", "")).split())


def _me(ask: Ask, account: Account) -> Response:
    return reply(
        {
            "@odata.context": f"https://{ask.place.host}/v1.0/$metadata#users/$entity",
            "businessPhones": [],
            "displayName": account.name,
            "givenName": account.name.split()[0],
            "jobTitle": None,
            "mail": account.upn,
            "mobilePhone": None,
            "officeLocation": None,
            "preferredLanguage": None,
            "surname": account.name.split()[-1],
            "userPrincipalName": account.upn,
            "id": account.oid,
        }
    )


def _groups(ask: Ask, tenant: Tenant, account: Account, *, cast: bool) -> Response:
    args = ask.request.args
    counts = args.get("$count", "").lower() == "true"
    eventual = ask.request.headers.get("ConsistencyLevel", "").lower() == "eventual"
    if (counts or args.get("$filter")) and not (eventual and counts):
        message = "$count and $filter need $count=true and the header ConsistencyLevel: eventual here."
        return refusal(ask, 400, "Request_UnsupportedQuery", message)
    found = _filtered(ask, [_group(ask, tenant, group) for group in sorted(account.groups)])
    kind = "groups" if cast else "directoryObjects"
    body: dict[str, Any] = {"@odata.context": f"https://{ask.place.host}/v1.0/$metadata#{kind}"}
    if counts:
        body["@odata.count"] = len(found)
    mark = {} if cast else {"@odata.type": f"#{_GROUP}"}
    return reply(body | {"value": [mark | _selected(ask, group) for group in found]})


def _group(ask: Ask, tenant: Tenant, group: str) -> dict[str, Any]:
    """Names are hidden, not refused, from whoever may not read groups."""
    visible = bool(_scopes(ask) & _READS_NAMES)
    return {
        "id": tenant.group_id(group),
        "displayName": group if visible else None,
        "description": None,
        "mailEnabled": False if visible else None,
        "securityEnabled": True if visible else None,
    }


def _filtered(ask: Ask, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    text = ask.request.args.get("$filter")
    if not text:
        return groups
    words = [_NAME_IS.fullmatch(part.strip()) for part in text.split(" or ")]
    if not all(words):
        raise Answer(refusal(ask, 400, "BadRequest", "Invalid filter clause."))
    names = {word[1].replace("''", "'").lower() for word in words if word}
    return [group for group in groups if str(group["displayName"]).lower() in names]


def _selected(ask: Ask, group: dict[str, Any]) -> dict[str, Any]:
    wanted = [word.strip() for word in ask.request.args.get("$select", "").split(",") if word.strip()]
    return {name: value for name, value in group.items() if name in wanted} if wanted else group
