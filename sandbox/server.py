"""
A small HTTP/1.1 server with keep-alive; werkzeug's closes every connection, which costs clients a socket a call.

It reads headers by itself: the standard library's takes them for mail, which costs more than a kept page does.
"""

from __future__ import annotations

import io
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import FrameType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

from sandbox.app import BREAKS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_BODY = 1_000_000
MAX_LINE = 65_536
MAX_HEADERS = 100


class _Refused(Exception):
    """Not a request that is read to its end; the connection ends with this status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Handler(StreamRequestHandler):
    """One connection; each of its requests is read to the end before the application sees it."""

    disable_nagle_algorithm = True
    timeout = 60

    def handle(self) -> None:
        """Requests, one after the other, until somebody hangs up."""
        try:
            while self._serve():
                pass
        except _Refused as refused:
            self._write(_head(f"{refused.status.value} {refused.status.phrase}", [("Connection", "close")], 0), b"")

    def _serve(self) -> bool:
        """One request; whether the connection may serve another."""
        line = self.rfile.readline(MAX_LINE)
        if line in (b"\r\n", b"\n"):  # some clients end a body with one too many
            line = self.rfile.readline(MAX_LINE)
        if not line:
            return False
        words = line.decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise _Refused(HTTPStatus.BAD_REQUEST)
        environ = self._environ(words[0], words[1], words[2])
        stays = environ.get("HTTP_CONNECTION", "").lower() != "close" and words[2] == "HTTP/1.1"
        return self._answer(environ, words[0] == "HEAD") and stays

    def _environ(self, method: str, target: str, protocol: str) -> WSGIEnvironment:
        path, _, query = target.partition("?")
        host, port = cast("tuple[str, int]", self.server.server_address)[:2]
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": _unquoted(path) if "%" in path else path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": "",
            "SERVER_NAME": str(host),
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": protocol,
            "REMOTE_ADDR": self.client_address[0],
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        self._read_headers(environ)
        body = self._body(environ)
        return environ | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}

    def _read_headers(self, environ: WSGIEnvironment) -> None:
        for _ in range(MAX_HEADERS):
            line = self.rfile.readline(MAX_LINE).decode("latin-1")
            if line in ("\r\n", "\n", ""):
                return
            name, colon, value = line.partition(":")
            if not colon or name.strip() != name:
                raise _Refused(HTTPStatus.BAD_REQUEST)
            key = name.upper().replace("-", "_")
            if key == "CONTENT_TYPE":
                environ[key] = value.strip()
            else:
                environ.setdefault("HTTP_" + key, value.strip())
        raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _body(self, environ: WSGIEnvironment) -> bytes:
        length = environ.pop("HTTP_CONTENT_LENGTH", "0")
        if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", ""):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED)
        if not length.isdigit() or int(length) > MAX_BODY:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if environ.get("HTTP_EXPECT", "").lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        return self.rfile.read(int(length)) if length != "0" else b""

    def _answer(self, environ: WSGIEnvironment, head_only: bool) -> bool:
        """Send what the application says; whether all of it was sent."""
        status, headers, chunks = _run(cast("Server", self.server).app, environ)
        if any(name == BREAKS for name, _ in headers):
            return False  # and not one byte is sent
        pieces, length = iter(chunks), _length_of(headers)
        try:
            if length is None or head_only:
                body = b"".join(pieces)
                self._write(_head(status, headers, len(body) if length is None else length), b"" if head_only else body)
                return True
            first = next(pieces, b"")
            self._write(_head(status, headers, length), first)
            return self._rest(pieces, length - len(first))
        finally:
            getattr(chunks, "close", lambda: None)()

    def _rest(self, pieces: Iterator[bytes], missing: int) -> bool:
        """Piece by piece, each as soon as it is there."""
        for piece in pieces:
            self.connection.sendall(piece)
            missing -= len(piece)
        return missing == 0

    def _write(self, head: bytes, body: bytes) -> None:
        """In one go where the socket can: a client that wakes for the head alone wakes twice."""
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.sendall(head + body)
            return
        sent = self.connection.sendmsg([head, body])
        if sent < len(head) + len(body):
            rest = memoryview(body)[sent - len(head) :] if sent >= len(head) else head[sent:] + body
            self.connection.sendall(rest)


def _head(status: str, headers: list[tuple[str, str]], length: int) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Server: pretended"]
    if all(name != "Date" for name, _ in headers):
        lines.append(f"Date: {formatdate(usegmt=True)}")
    lines += [f"{name}: {value}" for name, value in headers if name != "Content-Length"]
    lines.append(f"Content-Length: {length}\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1")


def _length_of(headers: list[tuple[str, str]]) -> int | None:
    return next((int(value) for name, value in headers if name == "Content-Length"), None)


def _unquoted(path: str) -> str:
    """WSGI wants the path decoded, as latin-1 text."""
    return unquote_to_bytes(path).decode("latin-1")


def _run(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], Iterable[bytes]]:
    said: list[tuple[str, list[tuple[str, str]]]] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        said.append((status, headers))
        return lambda data: None

    chunks = app(environ, cast("StartResponse", start))
    return *said[-1], chunks


class Server(ThreadingTCPServer):
    """A thread for each connection; none of them keeps the process alive."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], app: WSGIApplication) -> None:
        self.app = app
        super().__init__(address, Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are daily life; anything else is worth a traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(server: Server, announce: Callable[[], None]) -> None:
    """Run until SIGTERM or SIGINT; `announce` is called once both are heard."""

    def stop(number: int, frame: FrameType | None) -> None:
        # shutdown() waits for the loop that this very thread runs
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with server:
        announce()
        server.serve_forever(poll_interval=0.1)
