"""
The stand-in of a bench: the first world and partners of chosen sizes.

Pages of customers are made before a clock starts and kept, so that a limit measures the wire and the client and not the
pretending.
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

from bench.names import name_of
from sandbox import demo
from sandbox.app import create_app
from sandbox.directory import read_certificates
from sandbox.server import Server, serve
from sandbox.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

AN_HOUR = 3599  # seconds
MOST_KEPT = 1 << 30  # bytes of pages: a million customers
CERTIFICATE = "BENCH_CERTIFICATE"  # a PEM with its key, which the application may prove itself with
TLS = "BENCH_TLS"  # the path of a PEM with its key, to serve a second time over TLS
TLS_URL = "BENCH_TLS_URL"  # where that is; what TLS names is also whom to trust there


class Prepared:
    """The stand-in's application, and what a bench sets: how a list looks, and how long an answer takes."""

    def __init__(self, world: World) -> None:
        self._world, self._app = world, create_app(world)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/_bench/"):
            return self._app(environ, start_response)
        request = Request(environ)
        self._set(request.path, json.loads(request.get_data()))
        return Response("{}", content_type="application/json")(environ, start_response)

    def _set(self, path: str, given: dict[str, object]) -> None:
        if path == "/_bench/list":
            self._world.tenants[str(given.pop("tenant"))].drift = given
        else:
            self._world.latency["partnercenter"] = float(str(given["seconds"]))


def main(partners: dict[str, int]) -> None:
    """
    Serve on a free port of this machine, and say which; a second one, over TLS, where that is asked for.

    `partners` is tenant id → number of customers.
    """
    world = World(public_url="http://localhost")
    world.remember_secrets = False
    world.kept.most = MOST_KEPT
    demo.build(world)
    world.access_token_seconds = AN_HOUR
    if os.environ.get(CERTIFICATE):
        world.apps[demo.APP_ID].certificates += read_certificates([os.environ[CERTIFICATE]])
    for tenant_id, customers in partners.items():
        name = name_of(tenant_id)
        world.add_tenant(tenant_id, name, customers=customers).add_account(
            f"svc-cpv@{name.lower()}.onmicrosoft.test", groups={"AdminAgents"}
        )
    app = Prepared(world)
    server = Server(("127.0.0.1", 0), app)
    ports = [server.server_address[1]]
    world.public_url = f"http://localhost:{ports[0]}"
    if os.environ.get(TLS):
        ports.append(_also_over_tls(app, os.environ[TLS]))
    serve(server, lambda: print(*ports, flush=True))  # noqa: T201 - whoever started it reads this line


def _also_over_tls(app: WSGIApplication, certificate: str) -> int:
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
