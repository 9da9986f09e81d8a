"""The stand-in's own server, over real sockets."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from sandbox.app import create_app
from sandbox.server import Server
from sandbox.world import World
from tests.sandbox.conftest import Browser

pytestmark = pytest.mark.processes
HOST = "api.partnercenter.microsoft.com"


@pytest.fixture
def port(world: World) -> Iterator[int]:
    world.sleep = time.sleep
    with Server(("127.0.0.1", 0), create_app(world)) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # of its connections: no page fits in
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture
def wire(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    yield connection
    connection.close()


@pytest.fixture
def token(browser: Browser) -> str:
    return browser.bearer()


def ask(wire: http.client.HTTPConnection, token: str) -> http.client.HTTPResponse:
    wire.request("GET", "/v1/customers?size=500", headers={"Host": HOST, "Authorization": f"Bearer {token}"})
    return wire.getresponse()


def said(port: int, request: bytes) -> bytes:
    """Everything that comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(request)
        return b"".join(iter(lambda: raw.recv(65536), b""))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / SPDY/3\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"413"),
    ],
)
def test_what_is_no_request_gets_its_number_and_the_end(port: int, request_bytes: bytes, status: bytes) -> None:
    answer = said(port, request_bytes)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert said(port, b"GET /_sandbox/health HTTP/1.0\r\n\r\n").endswith(b'{"status": "ok"}')


def test_who_wants_the_connection_to_end_gets_that(port: int) -> None:
    closing = b"GET /_sandbox/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    assert said(port, closing).count(b"HTTP/1.1 200") == 1
    assert said(port, b"GET /_sandbox/health HTTP/1.1\r\nHost: x\r\n\r\n" + closing).count(b"HTTP/1.1 200") == 2


def test_a_page_arrives_whole_however_slowly_it_is_read(world: World, port: int, token: str, browser: Browser) -> None:
    whole = browser.get(f"https://{HOST}/v1/customers?size=500", token).content
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(5)
    with raw:
        raw.connect(("127.0.0.1", port))
        request = f"GET /v1/customers?size=500 HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n"
        raw.sendall(request.encode() + b"Connection: close\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(3000), b""))

    assert answer.partition(b"\r\n\r\n")[2] == whole


def test_a_page_in_drops_begins_long_before_it_ends(world: World, wire: http.client.HTTPConnection, token: str) -> None:
    world.fail("partnercenter", "drip", seconds=0.5)
    begun = time.monotonic()

    answer = ask(wire, token)
    answer.read(1)
    first = time.monotonic() - begun
    answer.read()

    assert first < 0.3 < time.monotonic() - begun


def test_a_page_that_is_cut_ends_early_and_the_next_one_is_whole(
    world: World, wire: http.client.HTTPConnection, token: str
) -> None:
    world.fail("partnercenter", "cut", times=1)

    with pytest.raises(http.client.IncompleteRead):
        ask(wire, token).read()
    wire.close()

    assert len(ask(wire, token).read()) > 200_000


def test_an_endless_answer_takes_no_memory_to_make(world: World, wire: http.client.HTTPConnection, token: str) -> None:
    world.fail("partnercenter", "too-many-bytes", size=30_000_000)
    tracemalloc.start()

    answer = ask(wire, token)
    size = sum(len(piece) for piece in iter(lambda: answer.read(65536), b""))

    assert size == 30_000_000
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()
