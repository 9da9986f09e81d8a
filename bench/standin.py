"""
The stand-in of a bench: the first world and partners of chosen sizes.

Pages of customers are made before a clock starts and sent as they are, so that a limit measures the wire and the client
and not the pretending. `X-Bench-Tenant` reads such a page without a token.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

from werkzeug import Request, Response

from sandbox import demo
from sandbox.app import handle
from sandbox.asks import peeked
from sandbox.customers import Customers
from sandbox.directory import read_certificates
from sandbox.server import Handler, Server, serve
from sandbox.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PARTNER_CENTER = "api.partnercenter.microsoft.com"
PAGE_SIZE = 500
AN_HOUR = 3599  # seconds
MOST_BYTES = 1 << 30  # of pages that are kept; older lists are made anew
CERTIFICATE = "BENCH_CERTIFICATE"  # a PEM with its key, which the application may prove itself with
TLS = "BENCH_TLS"  # the path of a PEM with its key, to serve a second time over TLS
TLS_URL = "BENCH_TLS_URL"  # where that is; what TLS names is also whom to trust there


@dataclass(frozen=True)
class Look:
    """
    How a partner's list looks now.

    One customer of `every` (0: none) has another name in each `revision`, and `shift` turns the list, so that no page
    holds what it held before.
    """

    revision: int = 0
    every: int = 0
    shift: int = 0


class Lists:
    """Every page of the partners' customers as the bytes of a whole answer."""

    def __init__(self) -> None:
        self._customers: dict[str, Customers] = {}
        self._looks: dict[str, Look] = {}
        self._made: dict[tuple[str, Look], dict[str, bytes]] = {}
        self.latency = 0.0  # seconds before a page is sent

    def add(self, tenant: str, customers: Customers) -> None:
        self._customers[tenant] = customers

    def show(self, tenant: str, look: Look) -> list[str]:
        """From now on the partner's list looks like this; the continuation tokens of its pages."""
        key = (tenant, look)
        if key not in self._made:
            self._make_room()
            self._made[key] = dict(_pages(self._customers[tenant], look))
        self._looks[tenant] = look
        return list(self._made[key])

    def _make_room(self) -> None:
        while self._made and sum(len(page) for pages in self._made.values() for page in pages.values()) > MOST_BYTES:
            del self._made[next(iter(self._made))]

    def page(self, tenant: str, token: str) -> bytes | None:
        """A whole answer; None where nobody asked for this list to be made."""
        look = self._looks.get(tenant)
        pages = self._made.get((tenant, look)) if look else None
        return pages.get(token) if pages else None


def _pages(customers: Customers, look: Look) -> Iterable[tuple[str, bytes]]:
    """Continuation token → answer."""
    count = customers.count
    tokens = {start: _token(start) if start else "" for start in range(0, count, PAGE_SIZE)}
    for start, token in tokens.items():
        items = [
            _item(customers, look, (place + look.shift) % count)
            for place in range(start, min(start + PAGE_SIZE, count))
        ]
        links: dict[str, Any] = {"self": {"uri": f"/customers?size={PAGE_SIZE}", "method": "GET", "headers": []}}
        if start + PAGE_SIZE in tokens:
            header = {"key": "MS-ContinuationToken", "value": tokens[start + PAGE_SIZE]}
            uri = f"/customers?size={PAGE_SIZE}&seekOperation=Next"
            links["next"] = {"uri": uri, "method": "GET", "headers": [header]}
        tail = json.dumps({"links": links, "attributes": {"objectType": "Collection"}})[1:]
        yield token, _answer(f'{{"totalCount":{count},"items":[{",".join(items)}],{tail}'.encode())


def _token(start: int) -> str:
    return base64.urlsafe_b64encode(json.dumps({"start": start}).encode()).decode()


def _item(customers: Customers, look: Look, index: int) -> str:
    text = customers.at(index).as_item()
    if look.every and index % look.every == 0:
        text = text.replace('"companyName":"', f'"companyName":"Now {look.revision} ', 1)
    return text


def _answer(body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "MS-RequestId: 00000000-0000-4000-8000-00000000be7c\r\n\r\n"
    )
    return head.encode() + body


class Prepared:
    """The stand-in's application, with what a bench sets: `POST /_bench/list` and `POST /_bench/latency`."""

    def __init__(self, world: World, lists: Lists) -> None:
        self._world, self.lists = world, lists

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        answer = self._bench(request) if request.path.startswith("/_bench/") else handle(self._world, request)
        return answer(environ, start_response)

    def _bench(self, request: Request) -> Response:
        given = json.loads(request.get_data())
        if request.path == "/_bench/latency":
            self.lists.latency = float(given["seconds"])
            return Response("{}", content_type="application/json")
        tokens = self.lists.show(given.pop("tenant"), Look(**given))
        return Response(json.dumps({"tokens": tokens}), content_type="application/json")


class Hot(Handler):
    """A connection on which a page that is ready is sent at once, headers and all."""

    def _serve(self) -> None:
        page = self._page()
        if page is None:
            super()._serve()
        else:
            self.wfile.write(page)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # http.server's names

    def _page(self) -> bytes | None:
        path, _, query = self.path.partition("?")
        if path != "/v1/customers" or "filter" in parse_qs(query) or self.headers.get("Host") != PARTNER_CENTER:
            return None
        lists = cast("Prepared", cast("Server", self.server).app).lists
        tenant = self.headers.get("X-Bench-Tenant")
        if not tenant:
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            tenant = str(peeked(bearer).get("tid"))
        page = lists.page(tenant, self.headers.get("MS-ContinuationToken", ""))
        if page is not None and lists.latency:
            time.sleep(lists.latency)
        return page


class HotServer(Server):
    """The stand-in's server with connections that know the pages."""

    def __init__(self, address: tuple[str, int], app: Prepared) -> None:
        super().__init__(address, app)
        self.RequestHandlerClass = Hot


def main(partners: dict[str, int]) -> None:
    """
    Serve on a free port of this machine, and say which; a second one, over TLS, where that is asked for.

    `partners` is tenant id → number of customers.
    """
    world = World(public_url="http://localhost")
    world.remember_secrets = False
    demo.build(world)
    world.access_token_seconds = AN_HOUR
    if os.environ.get(CERTIFICATE):
        world.apps[demo.APP_ID].certificates += read_certificates([os.environ[CERTIFICATE]])
    lists = Lists()
    for tenant_id, customers in partners.items():
        tenant = world.add_tenant(tenant_id, f"Bench{customers}", customers=customers)
        tenant.add_account(f"svc-cpv@bench{customers}.onmicrosoft.test", groups={"AdminAgents"})
        lists.add(tenant_id, tenant.customers)
    app = Prepared(world, lists)
    server = HotServer(("127.0.0.1", 0), app)
    ports = [server.server_address[1]]
    world.public_url = f"http://localhost:{ports[0]}"
    if os.environ.get(TLS):
        ports.append(_also_over_tls(app, os.environ[TLS]))
    serve(server, lambda: print(*ports, flush=True))  # noqa: T201 - whoever started it reads this line


def _also_over_tls(app: Prepared, certificate: str) -> int:
    """Serve in a thread of its own; the port."""
    server = HotServer(("127.0.0.1", 0), app)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # Each connection's own thread shakes hands: the one that accepts must not wait for a client.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
