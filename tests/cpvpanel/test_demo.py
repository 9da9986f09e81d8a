"""The first look's partners are only for the stand-in that knows them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cpvpanel import demo
from partners.models import Partner

pytestmark = pytest.mark.django_db


class SomebodyElse(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"tenants": [{"id": "another"}]}')

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def another_stand_in() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), SomebodyElse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_stand_in_with_other_people_gets_no_partners_of_ours(another_stand_in):
    said: list[str] = []

    [line] = demo.seed(base_url="http://localhost", sandbox_url=another_stand_in, say=said.append)

    assert another_stand_in in line
    assert not Partner.objects.exists()
    assert not said
