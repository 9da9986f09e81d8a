"""The identity endpoint that Azure gives a web app: plain http on the machine itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

Asked = dict[str, list[str]]


@contextmanager
def identity_endpoint(monkeypatch: pytest.MonkeyPatch, token: Callable[[], str]) -> Iterator[list[Asked]]:
    """Let this machine have identities whose token is what `token` returns; gives the list of what it is asked for."""
    asked_for: list[Asked] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked_for.append(parse_qs(urlsplit(self.path).query))
            body = json.dumps(
                {"access_token": token(), "expires_on": "9999999999", "resource": "r", "token_type": "Bearer"}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Endpoint) as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{endpoint.server_port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "x")
        yield asked_for
        endpoint.shutdown()
        thread.join(5)
