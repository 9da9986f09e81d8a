"""The stand-in as one WSGI application: the Host header picks the service, everything else is as it was sent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from werkzeug import Request, Response
from werkzeug.http import http_date

from sandbox import challenges, control, entra, graph, jose, pages, partnercenter, shortcut, vaultservice
from sandbox.asks import Answer, Ask, peeked, reply
from sandbox.authorize import admin_consent, authorize, refused, sign_out
from sandbox.calls import SECRET_HEADERS, Call
from sandbox.clouds import CLOUDS, Place, place_of
from sandbox.entraerrors import EntraError
from sandbox.faults import Fault
from sandbox.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HANGS = "X-Sandbox-Hangs"  # tells the in-process adapter of tests to raise a timeout instead of waiting for one
BREAKS = "X-Sandbox-Breaks"  # tells whoever carries the answer to break the connection instead
DROPS = 100
TOO_MANY_BYTES = 64 * 1024 * 1024
MOST_HEADERS = 500  # names of headers that are told apart
IN_PROCESS = "sandbox.in_process"
_SERVICES: dict[str, Callable[[Ask], Response]] = {
    "entra": entra.serve,
    "vault": vaultservice.serve,
    "partnercenter": partnercenter.serve,
    "graph": graph.serve,
}
# What a browser may ask for; the machine-facing addresses are never served under the stand-in's own name.
_PAGES: dict[str, Callable[[Ask, str], Response]] = {
    "oauth2/v2.0/authorize": authorize,
    "v2.0/adminconsent": admin_consent,
    "adminconsent": admin_consent,
    "oauth2/v2.0/logout": lambda ask, segment: sign_out(ask),
}


def create_app(world: World) -> WSGIApplication:
    """The application for one world."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        short = shortcut.taken(world, environ, _headers)
        if short:
            start_response("200 OK", short[0])
            return [short[1]]
        request = Request(environ)
        request.max_content_length = 1_000_000
        return handle(world, request)(environ, start_response)

    return app


def handle(world: World, request: Request) -> Response:
    """One request: note it, let go wrong what shall, answer it."""
    place = place_of(request.environ.get("HTTP_HOST", ""))
    if place.service == "public" and request.path.startswith("/_sandbox"):
        return control.serve(world, request)
    call = _note(world, request, place)
    ask = Ask(world, request, place, call)
    wait = world.admit(call.tenant, call.path, call.method, call.at) if place.service == "partnercenter" else None
    if wait is None and world.faults:
        service, operation = _fault_service(request, place), _operation(request, place)
        ask.fault = world.take_fault(service, _fault_tenant(ask), request.path, request.method, operation)
    call.fault = "limit" if wait else ask.fault.kind if ask.fault else None
    _wait(ask)
    response = _over_limit(ask, wait) if wait else _answer(ask)
    call.status = response.status_code
    response.headers["Date"] = http_date(world.now())
    world.record(call)
    return response


def _over_limit(ask: Ask, wait: int) -> Response:
    return partnercenter.with_headers(ask, partnercenter.gateway_throttled(ask, wait))


def _note(world: World, request: Request, place: Place) -> Call:
    environ = request.environ
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    claims = peeked(token) if scheme.lower() == "bearer" else {}
    if token:
        world.remember("bearer", token)
    return Call(
        at=world.now(),
        service=place.service,
        method=request.method,
        host=place.host,
        path=request.path,
        query=request.query_string.decode("latin-1"),
        tenant=_word(claims, "tid"),
        client=_word(claims, "appid"),
        headers=_headers(environ),
        has_bearer=bool(token),
        audience=_word(claims, "aud"),
    )


def _headers(environ: WSGIEnvironment) -> dict[str, str]:
    """What may be noted of them, by their usual names."""
    return {_TITLES[key]: value for key, value in environ.items() if value and (key in _TITLES or _titled(key))}


_TITLES: dict[str, str] = {}  # the environment's name of a header → its own


def _titled(key: str) -> bool:
    """Whether this is a header that may be noted; its name is remembered, as there are not many."""
    if not key.startswith("HTTP_") and key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        return False
    name = key.removeprefix("HTTP_").replace("_", "-").title()
    if name.lower() in SECRET_HEADERS:
        return False
    if len(_TITLES) < MOST_HEADERS:
        _TITLES[key] = name
    return key in _TITLES


def _word(claims: jose.Claims, name: str) -> str | None:
    """A claim nobody has checked yet, if it is at least a word."""
    value = claims.get(name)
    return value if isinstance(value, str) else None


def _fault_service(request: Request, place: Place) -> str:
    """The sign-in pages fail with the rest of Entra; strange addresses never fail."""
    is_page = _segment(request.path)[1].partition("/")[2] in _PAGES
    return "entra" if place.service == "public" and is_page else place.service


def _operation(request: Request, place: Place) -> str | None:
    """What faults call this request; see OPERATIONS."""
    if place.service == "vault" and request.authorization:
        return vaultservice.RIGHTS.get(request.method)
    if place.service == "partnercenter":
        return "next" if request.environ.get("HTTP_MS_CONTINUATIONTOKEN") else "first"
    return request.form.get("grant_type") if place.service == "entra" else None


def _fault_tenant(ask: Ask) -> str | None:
    """Whose request this is, as far as a look at it tells; a shared address belongs to whoever's grant it brings."""
    if ask.place.service not in ("entra", "public"):
        return ask.call.tenant
    form, ledger = ask.request.form, ask.world.ledger
    refresh = ledger.refreshes.get(form.get("refresh_token", ""))
    if refresh:
        return ledger.sessions[refresh.sid].tenant_id
    code = ledger.codes.get(form.get("code", ""))
    if form.get("account"):
        return next((t.id for t in ask.world.tenants.values() if t.account(form["account"])), None)
    return code.session.tenant_id if code else _segment(ask.request.path)[1].partition("/")[0].lower()


def _wait(ask: Ask) -> None:
    """Latency; no lock is held here."""
    world, call = ask.world, ask.call
    seconds = world.waiting_time(call.service, call.tenant, call.path)
    if ask.fault and ask.fault.kind == "slow":
        seconds += ask.fault.seconds
    if seconds:
        world.sleep(seconds)


def _answer(ask: Ask) -> Response:
    fault = ask.fault
    if fault is None:
        return _serve(ask)
    if fault.kind in _UNANSWERED:
        return _unanswered(ask, fault)
    if fault.aadsts:
        return _refused(
            ask, EntraError(fault.aadsts, ask.call.client or "", ask.call.tenant or "", suberror=fault.suberror)
        )
    early = _failed(ask, fault)
    if early:
        return partnercenter.with_headers(ask, early) if ask.place.service == "partnercenter" else early
    return _spoiled(_serve(ask), fault, ask)


def _refused(ask: Ask, error: EntraError) -> Response:
    """Machines get a document; people are led back to the app, or told on the page."""
    ask.call.detail["aadsts"] = error.code
    if ask.place.service != "public":
        return error.response(ask)
    cloud, rest = _segment(ask.request.path)
    ask.place = Place("public", CLOUDS[cloud], ask.place.host)
    return refused(ask, rest.partition("/")[0].lower(), error)


def _serve(ask: Ask) -> Response:
    try:
        if ask.place.service == "public":
            return _page(ask)
        return _SERVICES[ask.place.service](ask)
    except Answer as answer:
        return answer.response


def _segment(path: str) -> tuple[str, str]:
    """The cloud named in a public address, and the rest of it."""
    parts = path.strip("/").split("/")
    if parts[0] == "cloud" and len(parts) > 2 and parts[1] in CLOUDS:
        return parts[1], "/".join(parts[2:])
    return "global", "/".join(parts)


def _page(ask: Ask) -> Response:
    cloud, rest = _segment(ask.request.path)
    ask.place = Place("public", CLOUDS[cloud], ask.place.host)
    segment, _, name = rest.partition("/")
    if name in _PAGES and ask.request.method in ("GET", "POST"):
        return _PAGES[name](ask, segment.lower())
    if ask.request.path == "/":
        return control.home(ask.world)
    return pages.page("Nothing here", "<p>This address has no page.</p>", 404)


# faults that any service can have


_UNANSWERED = ("timeout-before", "timeout-after", "down", "lost", "504-after")


def _unanswered(ask: Ask, fault: Fault) -> Response:
    """The service's own answer never arrives, whether there was one or not."""
    if fault.kind in ("timeout-after", "lost", "504-after"):
        _serve(ask)
    if fault.kind == "504-after":
        return _plain(ask.place.service, 504)
    if fault.kind in ("down", "lost"):
        return Response("", 502, {BREAKS: fault.kind})
    if not ask.request.environ.get(IN_PROCESS):
        ask.world.sleep(ask.world.hang_seconds)
    return Response("", 504, {HANGS: fault.kind})


def _failed(ask: Ask, fault: Fault) -> Response | None:
    """An answer instead of the service's own, in the service's own shape where it has one."""
    service = ask.place.service
    if fault.kind == "html":
        body = "<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
        return Response(body, 200, content_type="text/html; charset=utf-8")
    if service == "vault" and fault.kind in vaultservice.FAULTS:
        return vaultservice.FAULTS[fault.kind](ask, fault.retry_after)
    if service == "partnercenter" and fault.kind in partnercenter.FAULTS:
        return partnercenter.FAULTS[fault.kind](ask, fault.retry_after)
    if fault.kind in challenges.FAULTS:
        return challenges.challenged(ask, again=fault.kind == "claims-again")
    if fault.kind == "throttled":
        return _throttled(ask, fault.retry_after)
    if fault.kind == "throttled-silent":
        silent = _throttled(ask, fault.retry_after)
        del silent.headers["Retry-After"]
        return silent
    plain = {"unauthorized": 401, "forbidden": 403}.get(fault.kind)
    plain = plain or (int(fault.kind) if fault.kind.isdigit() else None)
    return _plain(service, plain) if plain else None


def _throttled(ask: Ask, retry_after: int) -> Response:
    if ask.place.service in ("entra", "public"):
        response = EntraError(90055).response(ask)
        response.headers["Retry-After"] = str(retry_after)
        return response
    body = {"error": {"code": "TooManyRequests", "message": "Too many requests. Please try again later."}}
    return reply(body, 429, {"Retry-After": str(retry_after)})


_WORDS = {
    400: "BadRequest",
    404: "NotFound",
    500: "InternalServerError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
    401: "Unauthorized",
    403: "Forbidden",
}


def _plain(service: str, status: int) -> Response:
    """A front end's own page for Entra and Partner Center, an error document for the others."""
    if service in ("vault", "graph"):
        return reply({"error": {"code": _WORDS[status], "message": "The request was not served."}}, status)
    return Response(f"<html><body>{_WORDS[status]}</body></html>", status, content_type="text/html")


def _spoiled(response: Response, fault: Fault, ask: Ask) -> Response:
    data = response.get_data()
    if fault.kind == "truncated":
        response.set_data(data[: len(data) // 2])
    if fault.kind == "bom":
        response.set_data(b"\xef\xbb\xbf" + data)
    pieces: Iterable[bytes] | None = None
    if fault.kind == "cut":
        pieces = [data[: len(data) // 2]]  # of what Content-Length says
    if fault.kind == "drip":
        if fault.seconds > ask.world.hang_seconds and ask.request.environ.get(IN_PROCESS):
            return Response("", 504, {HANGS: fault.kind})  # nobody waits for that, and no test does
        pieces = _drops(ask.world, data, fault.seconds)
    if fault.kind == "too-many-bytes":
        size = max(fault.size or TOO_MANY_BYTES, len(data))
        response.headers["Content-Length"] = str(size)
        pieces = itertools.chain([data], _blanks(size - len(data)))
    if pieces is not None:
        response.headers.setdefault("Content-Length", str(len(data)))
        response.response, response.automatically_set_content_length = pieces, False
    return response


def _drops(world: World, data: bytes, seconds: float) -> Iterator[bytes]:
    """A hundred pieces; the last byte comes when the time is over."""
    size = max(1, math.ceil(len(data) / DROPS))
    for start in range(0, len(data), size):
        world.sleep(seconds / DROPS)
        yield data[start : start + size]


def _blanks(size: int) -> Iterator[bytes]:
    piece = b" " * 65536
    for start in range(0, size, len(piece)):
        yield piece[: size - start]
