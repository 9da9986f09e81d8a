"""A `requests` transport that hands requests to a WSGI application in this process: no sockets, same bytes."""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.cookies import extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import ProtocolError

from tokens.connections import ask_for_the_last_word

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HANGS = "X-Sandbox-Hangs"
BREAKS = "X-Sandbox-Breaks"
IN_PROCESS = "sandbox.in_process"


class _Original:
    """What http.client would have left behind; requests and urllib3 read cookies and headers from it."""

    def __init__(self, headers: HTTPHeaderDict) -> None:
        self.msg = self
        self._headers = headers

    def get_all(self, name: str, default: Any = None) -> Any:
        return self._headers.getlist(name) or default

    def isclosed(self) -> bool:
        return True

    def close(self) -> None:
        pass


class InProcessAdapter(BaseAdapter):
    """
    Mount it on `https://` and `http://` of a session; the application sees the host of the address in `Host`.

    A faulty world that lets a request hang makes this raise ReadTimeout at once; one that breaks the connection makes
    it raise ConnectionError: refused ("down"), or gone before the answer ("lost"). `sent` counts the requests.
    """

    def __init__(self, app: WSGIApplication) -> None:
        super().__init__()
        self.app = app
        self.sent = 0
        self.while_opening: Callable[[], None] | None = None  # what happens while a connection is being opened

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        self.sent += 1
        if self.while_opening is not None:
            self.while_opening()
            ask_for_the_last_word()
        status, headers, body = self._run(_environ(request))
        if HANGS in headers:
            raise requests.exceptions.ReadTimeout(f"{headers[HANGS]}: no answer came", request=request)
        if headers.get(BREAKS) == "down":
            raise requests.exceptions.ConnectionError(ConnectionRefusedError("Connection refused"), request=request)
        if BREAKS in headers:
            gone = http.client.RemoteDisconnected("Remote end closed connection without response")
            raise requests.exceptions.ConnectionError(ProtocolError("Connection aborted.", gone), request=request)
        response = self._response(request, status, headers, body)
        if not stream:
            _ = response.content
        return response

    def _run(self, environ: dict[str, Any]) -> tuple[str, HTTPHeaderDict, bytes]:
        said: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            said.append((status, headers))
            return lambda data: None

        chunks: Iterable[bytes] = self.app(environ, start_response)
        body = b"".join(chunks)
        close = getattr(chunks, "close", None)
        if close:
            close()
        return said[-1][0], HTTPHeaderDict(said[-1][1]), body

    def _response(
        self, request: requests.PreparedRequest, status: str, headers: HTTPHeaderDict, body: bytes
    ) -> requests.Response:
        code, _, reason = status.partition(" ")
        raw = HTTPResponse(
            body=io.BytesIO(body),
            headers=headers,
            status=int(code),
            reason=reason,
            preload_content=False,
            original_response=_Original(headers),  # type: ignore[arg-type]
            request_method=request.method,
            request_url=request.url,
        )
        response = requests.Response()
        response.status_code = int(code)
        response.reason = reason
        response.headers = CaseInsensitiveDict(headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = raw
        response.url = request.url or ""
        response.request = request
        response.connection = self  # type: ignore[attr-defined]
        extract_cookies_to_jar(response.cookies, request, raw)
        return response

    def close(self) -> None:
        pass


def _body(request: requests.PreparedRequest) -> bytes:
    body: Any = request.body
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    return body.read() if hasattr(body, "read") else b"".join(body)


def _environ(request: requests.PreparedRequest) -> dict[str, Any]:
    url = urlsplit(request.url or "")
    body = _body(request)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(url.path or "/").decode("latin-1"),
        "QUERY_STRING": url.query,
        "SERVER_NAME": url.hostname or "",
        "SERVER_PORT": str(url.port or {"https": 443, "http": 80}[url.scheme]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        IN_PROCESS: True,
    }
    headers = {name: _text(value) for name, value in request.headers.items()}
    headers.setdefault("Host", url.netloc.rpartition("@")[2])
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            environ["CONTENT_TYPE"] = value
        elif key != "CONTENT_LENGTH":
            environ[f"HTTP_{key}"] = value
    return environ


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
