"""
The stand-in of a bench: the first world and partners of chosen sizes.

A page of customers that was asked for once comes from memory the next time, so that a limit measures the wire and the
client and not the pretending. `X-Bench-Tenant` reads such a page without a token.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug import Request, Response

from sandbox import demo
from sandbox.app import handle
from sandbox.asks import peeked
from sandbox.directory import read_certificates
from sandbox.server import Server, serve
from sandbox.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PARTNER_CENTER = "api.partnercenter.microsoft.com"
AN_HOUR = 3599  # seconds
CERTIFICATE = "BENCH_CERTIFICATE"  # a PEM with its key, which the application may prove itself with
TLS = "BENCH_TLS"  # the path of a PEM with its key, to serve a second time over TLS
TLS_URL = "BENCH_TLS_URL"  # where that is; what TLS names is also whom to trust there


class Remembering:
    """The stand-in's application with a memory for pages of customers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pages: dict[tuple[str, str, str], bytes] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.host != PARTNER_CENTER or request.path != "/v1/customers":
            return handle(self._world, request)
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        tenant = request.headers.get("X-Bench-Tenant") or str(peeked(bearer).get("tid"))
        key = (tenant, request.query_string.decode(), request.headers.get("MS-ContinuationToken", ""))
        known = self._pages.get(key)
        if known is not None:
            return Response(known, content_type="application/json; charset=utf-8")
        answer = handle(self._world, request)
        if answer.status_code == 200:
            self._pages[key] = answer.get_data()
        return answer


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
    for tenant_id, customers in partners.items():
        tenant = world.add_tenant(tenant_id, f"Bench{customers}", customers=customers)
        tenant.add_account(f"svc-cpv@bench{customers}.onmicrosoft.test", groups={"AdminAgents"})
    app = Remembering(world)
    server = Server(("127.0.0.1", 0), app)
    ports = [server.server_address[1]]
    world.public_url = f"http://localhost:{ports[0]}"
    if os.environ.get(TLS):
        ports.append(_also_over_tls(app, os.environ[TLS]))
    serve(server, lambda: print(*ports, flush=True))  # noqa: T201 - whoever started it reads this line


def _also_over_tls(app: Remembering, certificate: str) -> int:
    """Serve in a thread of its own; the port."""
    server = Server(("127.0.0.1", 0), app)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # Each connection's own thread shakes hands: the one that accepts must not wait for a client.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
