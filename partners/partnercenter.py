"""
What we ask Partner Center, and what its answers mean.

https://learn.microsoft.com/partner-center/developer/partner-center-rest-api-reference
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests

from partners import reading
from partners.reading import AsBefore, Cursor, Envelope, ListedPage, guid, parse, read, text
from tokens.errors import Permanent, Transient
from tokens.http import HostRefused, retry_after, same_origin

logger = logging.getLogger(__name__)

PAGE_SIZE = 500  # the most Microsoft gives
MAX_BYTES = 8 * 1024 * 1024
MAX_TOKEN = 8_000  # characters of a continuation token: it travels in a header
CUSTOMERS = "customers"
SIZE = f"size={PAGE_SIZE}"
OTHER_TENANT = "other_tenant"

Result = TypeVar("Result")


class Unavailable(Transient):
    """Partner Center is throttling us or down."""


class Throttled(Unavailable):
    """Partner Center asks us to come less often (429); what was asked was not done."""


class Garbled(Transient):
    """What came is not an answer of Partner Center's: a web page, or JSON that ends in the middle."""


class Untrustworthy(Permanent):
    """The answer is JSON, but following it would be wrong; the code says why."""


class MfaMissing(Permanent):
    """The partner's sign-in did not carry MFA; they connect again and complete it."""


class AudienceRefused(Permanent):
    """The access token is for another API: our own mistake."""


class AccessRefused(Permanent):
    """The account that agreed may not do this at Partner Center; the partner's administrator grants the role."""


class SessionRefused(AccessRefused):
    """Partner Center does not accept the sign-in (401), for another reason than MFA or audience."""


class CallRejected(Permanent):
    """Partner Center does not accept the request as we made it."""


class NotThere(CallRejected):
    """Partner Center knows nothing of this partner's under that address (404)."""


class CursorRejected(CallRejected):
    """The place where we stopped is no longer known: start from the first page."""


class Session(Protocol):
    """What this module needs of `tokens.sessions.ApiSession`."""

    root: str

    def get(self, url: str, *, headers: dict[str, str] | None = None) -> requests.Response: ...

    def request(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> requests.Response: ...


@dataclass(frozen=True)
class UserInfo:
    """A user of a customer; `state` is Microsoft's word, such as "active" or "inactive"."""

    name: str
    sign_in_name: str
    state: str


@dataclass(frozen=True)
class UserPage:
    """Some users of one customer and where the next ones are; `cursor` is None on the last page."""

    items: list[UserInfo]
    cursor: Cursor | None


@dataclass(frozen=True)
class Organization:
    name: str
    domain: str
    tenant_id: uuid.UUID | None


@dataclass(frozen=True)
class MfaReport:
    """`is_compliant` is None when Partner Center did not say."""

    is_compliant: bool | None
    organization: Organization


class PartnerCenter:
    """One partner's Partner Center; `correlation_id` is what Microsoft's support asks for."""

    def __init__(self, session: Session, *, correlation_id: uuid.UUID | None = None) -> None:
        self._session = session
        self._correlation_id = str(correlation_id or uuid.uuid4())

    def first(self, path: str, *, is_paged: bool = True) -> Cursor:
        """Where a list begins; of one that is paged the largest pages are asked for."""
        return {"uri": f"{path}?{SIZE}" if is_paged else path, "token": ""}

    def listed(
        self, path: str, cursor: Cursor | None = None, *, is_paged: bool = True, before: AsBefore | None = None
    ) -> ListedPage:
        """
        Fetch one page of the list at this path: the first, or the one an earlier page's cursor names.

        A list that is not paged comes whole. Of a page that is as it was `before` the items need no reading.
        https://learn.microsoft.com/partner-center/developer/get-a-list-of-customers
        :raises CursorRejected: the cursor is no longer known; start from the first page
        :raises NotThere: Partner Center knows nothing of this partner's there
        :raises Unavailable, Garbled: try again later; `retry_after` is in seconds
        :raises MfaMissing, AccessRefused: the partner must act
        :raises Untrustworthy: the answer has the wrong shape or leads elsewhere
        """
        uri, token = self.first(path, is_paged=is_paged)["uri"], ""
        if cursor is not None:
            uri, token = self._uri(str(cursor.get("uri", "")), path), str(cursor.get("token", ""))
        try:
            content = self._get(uri, {"MS-ContinuationToken": token} if token else {})[0]
        except CallRejected as failure:
            if cursor is None:
                raise
            raise CursorRejected(
                "The list can't be continued here.", code="cursor", correlation_id=failure.correlation_id
            ) from failure
        found = self._understood(content, lambda content: reading.envelope(content, before))
        if found is None or found.items is None:
            raise self.untrustworthy("It has no list.", "wrong_shape")
        self._check_whose(found, path)
        return ListedPage(found.items, found.total, self._next(found, path), found.digest)

    def understood(self, page: ListedPage, how: Callable[[ListedPage], Result]) -> Result:
        """
        What the reader makes of a page.

        :raises Garbled: nothing, for its items are no JSON
        """
        return self._understood(page.items, lambda _items: how(page))

    def users_page(self, customer: uuid.UUID, cursor: Cursor | None = None) -> UserPage:
        """
        Fetch one page of a customer's users; raises as `listed` does.

        https://learn.microsoft.com/partner-center/developer/get-a-list-of-all-user-accounts-for-a-customer
        """
        page = self.listed(f"{CUSTOMERS}/{customer}/users", cursor)
        return UserPage(items=[_user(item) for item in self._understood(page.items, parse)], cursor=page.cursor)

    def organization(self) -> MfaReport:
        """
        The partner's own organisation, and whether the sign-in behind this session carries MFA.

        https://learn.microsoft.com/partner-center/developer/get-an-organization-profile
        :raises MfaMissing: Partner Center refuses already (900421)
        """
        content, headers = self._get("profiles/organization", {"ValidateMfa": "true"})
        body = self._understood(content, parse)
        said = headers.get("isMfaCompliant", "").split(",")[0].strip().lower()
        tenant_id = read(body, "tenantId")
        return MfaReport(
            is_compliant={"true": True, "false": False}.get(said),
            organization=Organization(
                name=text(read(body, "companyName")),
                domain=text(read(body, "domain")),
                tenant_id=guid(tenant_id),
            ),
        )

    def _check_whose(self, found: Envelope, path: str) -> None:
        """A list about one customer may say in links.self whose it is, as that of users and subscriptions does."""
        asked, told = (_CUSTOMER.match(one) for one in (path, str(read(read(found.links, "self"), "uri") or "")))
        if asked and told and asked[1].lower() != told[1].lower():
            raise self.untrustworthy("It is about another customer.", OTHER_TENANT)

    def _next(self, found: Envelope, path: str) -> Cursor | None:
        """Where the next page of a list is: in links.next, or on some lists only a continuationToken in the body."""
        link = read(found.links, "next")
        uri, token = read(link, "uri"), found.continuation_token
        headers = read(link, "headers")
        for header in headers if isinstance(headers, list) else []:
            if str(read(header, "key")).lower() == "ms-continuationtoken":
                token = read(header, "value")
        token = token if isinstance(token, str) else ""
        if len(token) > MAX_TOKEN or not re.fullmatch(r"[\x21-\x7e]*", token):
            raise self.untrustworthy("Its continuation token can't be sent back.", "wrong_shape")
        if not uri:
            return {"uri": f"{path}?{SIZE}&seekOperation=Next", "token": token} if token else None
        return {"uri": self._uri(str(uri), path), "token": token}

    def _uri(self, link: str, path: str) -> str:
        """
        The link as we send it: below /v1, with or without which Microsoft writes it, and with only one "?" in it.

        https://github.com/microsoft/Partner-Center-PowerShell/issues/379
        """
        try:
            absolute = same_origin(f"{self._session.root}/v1/", link)
        except HostRefused as refused:
            raise self.untrustworthy("Its next link leads to another host.", "foreign_link") from refused
        parts = urlsplit(absolute)
        if re.sub(r"^/+(v1/+)*", "", parts.path).lower() != path.lower():  # Microsoft writes ids in either case
            raise self.untrustworthy("Its next link leads out of the list.", "foreign_link")
        return f"{path}?" + parts.query.replace("?", "&")

    def _get(self, path: str, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        """Bytes and headers of a good answer; everything else is raised as what somebody can do about it."""
        sent = self._with_ids(headers)
        response = self._session.get(f"{self._session.root}/v1/{path}", headers=sent)
        if response.status_code != 200:
            raise self._failure(response, sent["MS-RequestId"])
        return self._content(response), response.headers

    def send(
        self, method: str, path: str, *, headers: Mapping[str, str], data: bytes | None = None, good: int = 200
    ) -> requests.Response:
        """
        Send one request below /v1; an answer with another status than 200 or `good` is raised as a failure.

        MS-RequestId is a new one, unless it stands in the headers.
        """
        sent = self._with_ids(headers)
        options: dict[str, Any] = {} if data is None else {"data": data}
        response = self._session.request(method, f"{self._session.root}/v1/{path}", headers=sent, **options)
        if response.status_code not in (200, good):
            raise self._failure(response, sent["MS-RequestId"])
        return response

    def _with_ids(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {
            "Accept": "application/json",
            "X-Locale": "en-US",
            "MS-RequestId": str(uuid.uuid4()),
            "MS-CorrelationId": self._correlation_id,
            **headers,
        }

    def object_in(self, response: requests.Response) -> dict[str, Any]:
        """
        The JSON object of a good answer.

        :raises Garbled, Untrustworthy: it is none, or too large
        """
        body = self._understood(self._content(response), parse)
        if not isinstance(body, dict):
            raise self.untrustworthy("It is no object.", "wrong_shape")
        return body

    def _content(self, response: requests.Response) -> bytes:
        if len(response.content) > MAX_BYTES:
            raise self.untrustworthy(f"It is {len(response.content)} bytes long.", "oversized_page")
        return response.content

    def _understood(self, content: bytes, how: Callable[[bytes], Result]) -> Result:
        """
        What the reader makes of an answer's bytes.

        :raises Garbled: nothing, for it is no JSON
        """
        try:
            return how(content)
        except ValueError as garbled:
            code = "html" if content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<" else "not_json"
            logger.warning("Partner Center's answer is garbled", extra={"code": code})
            raise Garbled(
                "Partner Center's answer can't be read.", code=code, correlation_id=self._correlation_id
            ) from garbled

    def _failure(self, response: requests.Response, request_id: str) -> Transient | Permanent:
        """The error behind an answer that is not 200; Partner Center has several shapes for the same thing."""
        status, body = response.status_code, _error_body(response.content)
        code = _code(body) or f"http_{status}"
        logger.info("Partner Center refused", extra={"status": status, "code": code, "ms_request_id": request_id})
        known: dict[str, Any] = {"code": code, "correlation_id": self._correlation_id}
        if status in (408, 429) or status >= 500 or status in (202, 204):
            wait = retry_after(response)
            if wait is None:
                wait = _seconds_in_words(body)
            kind = Throttled if status == 429 else Unavailable
            return kind("Partner Center asks to wait or is down.", retry_after=wait, **known)
        if 200 <= status < 400:
            return Garbled("Something else answered for Partner Center.", **known)
        if status == 401 and code == "900421":
            return MfaMissing("Partner Center requires MFA, and the partner's sign-in lacks it.", **known)
        if status == 401 and code == "900420":
            return AudienceRefused("Partner Center says the access token is for another API.", **known)
        if status == 401:
            return SessionRefused("Partner Center does not accept the partner's sign-in.", **known)
        if status == 403:
            return AccessRefused("The account that agreed lacks the role or permission.", **known)
        if status == 404:
            return NotThere("Partner Center does not know what we asked for.", **known)
        return CallRejected("Partner Center rejects our request.", **known)

    def untrustworthy(self, why: str, code: str) -> Untrustworthy:
        """The error for an answer that must not be used."""
        text = f"Partner Center's answer is not used. {why}"
        return Untrustworthy(text, code=code, correlation_id=self._correlation_id)


_CUSTOMER = re.compile(r"/*(?:v1/+)*customers/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:[/?]|$)", re.I)


def _user(item: Any) -> UserInfo:
    parts = (text(read(item, "firstName")), text(read(item, "lastName")))
    return UserInfo(
        name=text(read(item, "displayName")) or " ".join(filter(None, parts)),
        sign_in_name=text(read(item, "userPrincipalName")),
        state=text(read(item, "state")).lower(),
    )


def _error_body(content: bytes) -> Any:
    try:
        return parse(content[:MAX_BYTES])
    except ValueError:
        return None


def _code(body: Any) -> str:
    found = str(read(body, "code") or "")
    return found if re.fullmatch(r"[\w.-]{1,30}", found, re.ASCII) else ""


def _seconds_in_words(body: Any) -> float | None:
    """The wait in the gateway's sentence "Rate limit is exceeded. Try again in 57 seconds."."""
    found = re.search(r"in (\d{1,6}) second", str(read(body, "message") or ""))
    return float(found[1]) if found else None
