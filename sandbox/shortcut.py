"""
The short way to a page that is kept: no request object, the same checks, the same answer.

Whoever measures a reader of long lists on the machine that serves them measures the serving too; so a page that was
served before costs little more than the copy of its bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from werkzeug.http import http_date

from sandbox import jose
from sandbox.calls import Call
from sandbox.directory import Tenant
from sandbox.envelopes import JSON_TYPE
from sandbox.listing import begun_elsewhere, state_of
from sandbox.partnercenter import AUDIENCES, OWN_HEADERS, standing
from sandbox.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Headers = list[tuple[str, str]]
ToNote = Callable[["WSGIEnvironment"], dict[str, str]]


def taken(world: World, environ: WSGIEnvironment, to_note: ToNote) -> tuple[Headers, bytes] | None:
    """
    The answer, if this is a request for a page of customers that is kept and nothing is to go wrong.

    `to_note` gives the request's headers as they may be noted.
    """
    if environ["PATH_INFO"] != "/v1/customers" or environ["REQUEST_METHOD"] != "GET":
        return None
    if not world.kept.shortcuts or world.faults or world.throttle.limits:
        return None
    token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
    claims = world.verified.get(token)
    tenant = _welcome(world, claims, environ.get("HTTP_HOST", "")) if claims else None
    if claims is None or tenant is None:
        return None
    drift, asked = tenant.customers.drift, environ.get("HTTP_MS_CONTINUATIONTOKEN", "")
    key = world.kept.shortcuts.get((tenant.id, environ["QUERY_STRING"], asked))
    page = world.kept.get(key) if key and key[0] == state_of(world, tenant) and not drift.fields else None
    if page is None:
        return None
    call = _noted(world, environ, claims, tenant, to_note(environ))
    call.detail["items"] = page.items
    seconds = world.waiting_time(call.service, tenant.id, call.path)
    if seconds:
        world.sleep(seconds)
    world.record(call)
    body = begun_elsewhere(page, drift.next_read()) if drift.order == "rotated" else page.body
    return _headers(world, environ, len(body)), body


def _welcome(world: World, claims: jose.Claims, host: str) -> Tenant | None:
    """Whose list it is, if nothing at all can be said against the caller."""
    if not claims.get("nbf", 0) - 300 <= world.now() < claims.get("exp", 0):
        return None
    tenant, account, has_mfa = standing(world, claims)
    if claims.get("aud") not in AUDIENCES.get(host, ()) or claims.get("idtyp") == "app":
        return None
    if tenant is None or account is None or tenant.quirks or not account.is_agent:
        return None
    return tenant if has_mfa else None


def _noted(world: World, environ: WSGIEnvironment, claims: jose.Claims, tenant: Tenant, noted: dict[str, str]) -> Call:
    now = world.now()
    world.admit(tenant.id, "/v1/customers", "GET", now)  # counted; there are no limits
    return Call(
        at=now,
        service="partnercenter",
        method="GET",
        host=environ["HTTP_HOST"],
        path="/v1/customers",
        query=environ["QUERY_STRING"],
        status=200,
        tenant=tenant.id,
        client=claims.get("appid"),
        headers=noted,
        has_bearer=True,
        audience=claims.get("aud"),
    )


def _headers(world: World, environ: WSGIEnvironment, length: int) -> Headers:
    found = [
        ("Content-Type", JSON_TYPE),
        ("Content-Length", str(length)),
        ("MS-RequestId", environ.get("HTTP_MS_REQUESTID") or str(uuid.uuid4())),
        ("MS-CorrelationId", environ.get("HTTP_MS_CORRELATIONID") or str(uuid.uuid4())),
        *OWN_HEADERS.items(),
        ("MS-CV", jose.b64(uuid.uuid4().bytes)[:16] + ".0"),
        ("Date", http_date(world.now())),
    ]
    if environ.get("HTTP_VALIDATEMFA", "").lower() == "true":
        found.append(("isMfaCompliant", "true"))  # as whoever comes this way has shown
    return found
