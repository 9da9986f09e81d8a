"""The one door to the network: every byte to Microsoft passes the rules of this module."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from tokens.clouds import RETIRED_HOSTS, Cloud
from tokens.connections import PooledAdapter, asks_once_connected, ends_within, remaining
from tokens.errors import Permanent, Transient
from tokens.refused_requests import check_token_request

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 20.0  # seconds between two bytes
DEADLINE = 30.0  # seconds from the first byte sent to the last byte read
MAX_BYTES = 32 * 1024 * 1024
_CHUNK = 1024 * 1024


class HostRefused(Permanent):
    """The address is not one of the clouds this product serves; nothing was sent."""


class NotSendable(Permanent):
    """The request itself is malformed; nothing was sent."""


class TooLarge(Permanent):
    """The answer is larger than anything we ask for; the rest was not read."""


class Unreachable(Transient):
    """The other side did not answer in time, or not to the end."""


def _nothing() -> None:
    """Stand for `before_send` where nobody wants to know."""


class Network:
    """
    One pool of connections and the rules for what may leave through it.

    MSAL and azure-core take `session`; our own code calls `request`.
    Create it after a fork: its sockets must not be shared between processes.
    """

    def __init__(
        self,
        *,
        clouds: Iterable[Cloud],
        adapter: BaseAdapter | None = None,
        verify: str | bool = True,
        before_send: Callable[[], None] = _nothing,
        deadline: float = DEADLINE,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """`verify` is True or the path of a CA bundle; `before_send` may raise to stop any request."""
        rules = _Rules(tuple(clouds), verify, before_send, deadline, max_bytes)
        self.before_send = before_send
        self.session: requests.Session = _Session(rules, adapter or PooledAdapter())

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        data: bytes | Mapping[str, str] | None = None,
        timeout: float | tuple[float, float] | None = None,
    ) -> requests.Response:
        """
        Send one request and return the answer, whatever its status; timeouts are in seconds.

        :raises HostRefused: not an address of the clouds
        :raises Unreachable: no answer, or only a part of one
        """
        try:
            request = _prepared(method, url, headers or {}, params=params, json=json, data=data)
            return self.session.send(request, timeout=timeout)
        # "from None": the originals hold the address with its query, headers, and sometimes the header's value.
        except requests.Timeout:
            raise Unreachable("No answer in time.", code="timeout") from None
        except requests.exceptions.SSLError:
            raise Unreachable("The certificate of the other side was not accepted.", code="tls") from None
        except ValueError:
            raise NotSendable("The address, a header or the body cannot be sent.", code="not-sendable") from None
        except requests.RequestException:
            raise Unreachable("The connection failed.", code="unreachable") from None

    @contextmanager
    def fixed_deadline(self, seconds: float) -> Iterator[None]:
        """Let everything sent inside end within this many seconds in all; the sooner of nested deadlines counts."""
        with ends_within(seconds):
            yield

    @contextmanager
    def last_word(self, ask: Callable[[], None]) -> Iterator[None]:
        """
        Ask once more when a connection had to be opened, which may take seconds; what `ask` raises sends nothing.

        Over a connection that is open already a request leaves at once, and whoever sends has asked just before.
        """
        with asks_once_connected(ask):
            yield


class _Rules:
    """What `Network` was told, with the check every request passes."""

    def __init__(
        self,
        clouds: tuple[Cloud, ...],
        verify: str | bool,
        before_send: Callable[[], None],
        deadline: float,
        max_bytes: int,
    ) -> None:
        self.clouds, self.verify, self.before_send = clouds, verify, before_send
        self.deadline, self.max_bytes = deadline, max_bytes

    def check(self, url: str, body: Any = None) -> None:
        parsed = _parsed(url)
        host = parsed.host or ""
        if parsed.scheme != "https":
            raise HostRefused("Only https addresses are used.", code="host")
        if parsed.auth is not None:
            raise HostRefused("An address with a user name in it is not used.", code="host")
        if host in RETIRED_HOSTS:
            raise HostRefused(f"{host} is retired; ask Microsoft Graph instead.", code="host")
        if parsed.port not in (None, 443) or not any(cloud.allows(host) for cloud in self.clouds):
            raise HostRefused(f"{host[:80]} is not an address of the clouds in use.", code="host")
        for cloud in self.clouds:
            if host == cloud.login_host:
                check_token_request(cloud, body)


class _Session(requests.Session):
    """A session whose rules hold for callers that pass their own options, as MSAL and azure-core do."""

    def __init__(self, rules: _Rules, adapter: BaseAdapter) -> None:
        super().__init__()
        self._rules = rules
        self.trust_env = False  # no proxy, CA bundle or .netrc from the environment
        self.adapters.clear()
        self.mount("https://", adapter)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """
        Send it as it is, and read the answer to its end.

        What requests itself would do here is not for us: it follows redirects, and keeps one partner's cookies for the
        next one's request.
        """
        self._rules.before_send()
        self._rules.check(request.url or "", request.body)
        with ends_within(self._rules.deadline):
            timeout = _clipped(kwargs.get("timeout"))
            adapter = self.get_adapter(request.url or "")
            response = adapter.send(
                request, stream=True, timeout=timeout, verify=self._rules.verify, cert=None, proxies={}
            )
            try:
                response._content = b"".join(self._body(response))
            finally:
                response.close()
        return response

    def _body(self, response: requests.Response) -> Iterator[bytes]:
        size = 0
        told = getattr(response.raw, "length_remaining", None)  # a chunk of just that length is not copied once more
        for chunk in response.iter_content(min(told or _CHUNK, _CHUNK)):
            size += len(chunk)
            if size > self._rules.max_bytes:
                raise TooLarge("The answer is too large.", code="too-large")
            remaining()
            yield chunk


class StandInAdapter(PooledAdapter):
    """
    Send everything to a stand-in for Microsoft's cloud.

    Method, path, query, headers and body stay; the original host goes into the Host header.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url.rstrip("/")

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        moved = copy(request)
        moved.headers = request.headers.copy()
        moved.headers["Host"] = _parsed(request.url or "").netloc or ""
        moved.url = self._url + request.path_url
        response = super().send(moved, *args, **kwargs)
        response.request, response.url = request, request.url or ""
        return response


_USUAL = dict(requests.utils.default_headers())


def _prepared(
    method: str, url: str, headers: Mapping[str, str], *, params: Any, json: Any, data: Any
) -> requests.PreparedRequest:
    """
    As a session of requests would prepare it, which keeps nothing that is to be merged into it.

    What is only an address and headers is prepared at a third of the price.
    """
    request = requests.PreparedRequest()
    if params is None and json is None and data is None:
        request.prepare_method(method)
        request.url = _normal(url)
        for header in headers.items():
            requests.utils.check_header_validity(header)
        request.headers = CaseInsensitiveDict(_USUAL | dict(headers))
        request.prepare_content_length(None)
    else:
        request.prepare(method=method, url=url, headers=_USUAL | dict(headers), params=params, json=json, data=data)
    return request


@lru_cache(maxsize=256)  # a list is read from few addresses
def _normal(url: str) -> str:
    request = requests.PreparedRequest()
    request.prepare_url(url, None)
    return request.url or ""


def _clipped(timeout: Any) -> tuple[float, float]:
    """Turn what a caller may pass (None, seconds, or a pair) into a pair that ends before the deadline."""
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    left = remaining()
    return min(connect or CONNECT_TIMEOUT, left), min(read or READ_TIMEOUT, left)


@lru_cache(maxsize=256)  # a list is read from few addresses
def _parsed(url: str) -> Url:
    # urllib3's own parser, because it decides where the connection goes.
    try:
        return parse_url(url)
    except LocationParseError:
        raise HostRefused("Not a web address.", code="host") from None


@lru_cache(maxsize=256)
def same_origin(base_url: str, link: str) -> str:
    """
    Return a continuation link as an absolute address, when it stays where it came from.

    :raises HostRefused: it leads to another scheme, host or port
    """
    if re.search(r"[\x00-\x20\x7f\\]", link):  # parsers disagree about these
        raise HostRefused("The continuation link is malformed.", code="host")
    base = _parsed(base_url)
    try:
        joined = urljoin(base_url, link)
    except ValueError:
        raise HostRefused("The continuation link is malformed.", code="host") from None
    target = _parsed(joined)
    if target.auth is not None or _origin(target) != _origin(base):
        raise HostRefused("The continuation link leads elsewhere.", code="host")
    return joined


def _origin(url: Url) -> tuple[str | None, str | None, int | None]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme or "")


def retry_after(response: requests.Response) -> float | None:
    """
    Return how many seconds the other side asks us to wait; None when it does not say.

    https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
    """
    return retry_after_in(response.headers)


def retry_after_in(headers: Mapping[str, str]) -> float | None:
    """Return the same from headers alone."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return max(0.0, float(text))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


class _NoBodies(logging.Filter):
    """Takes the body out of MSAL's complaint about an answer that is not JSON: it may be made of tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args, record.exc_info, record.exc_text = "Token answer is not JSON.", (), None, None
        return True


# Here, because MSAL runs inside azure-identity too, and whoever talks to the network has imported this module.
logging.getLogger("msal.oauth2cli.oauth2").addFilter(_NoBodies())
logging.getLogger("msal").setLevel(logging.WARNING)
logging.getLogger("azure").setLevel(logging.WARNING)  # at INFO it writes a line with headers for every request
logging.getLogger("azure.identity").setLevel(logging.ERROR)  # its warnings quote bodies; our errors carry the code
