"""
What we ask Microsoft Graph: about the person who agreed, and for its lists of what is the partner's.

https://learn.microsoft.com/graph/api/overview
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests

from partners.partnercenter import (
    MAX_BYTES,
    AccessRefused,
    CallRejected,
    CursorRejected,
    Garbled,
    NotThere,
    SessionRefused,
    Throttled,
    Unavailable,
    Untrustworthy,
)
from partners.reading import AsBefore, Cursor, ListedPage, count, parse
from tokens.errors import Permanent, Transient
from tokens.http import HostRefused, retry_after, same_origin

AGENT_GROUPS = frozenset({"AdminAgents", "SalesAgents", "HelpdeskAgents"})
ME = "/v1.0/me?$select=id,userPrincipalName,displayName"
GROUPS = "/v1.0/me/transitiveMemberOf/microsoft.graph.group"
MAX_PAGES = 50  # of 999 groups each
PAGE_SIZE = 300  # items of a list of delegated admin relationships: the most Microsoft gives
MAX_LINK = 8_000  # characters of a next link: it is kept with the job

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class GraphUnavailable(Transient):
    """Graph is throttling us, down, or something else answered in its place."""


class GraphRefused(Permanent):
    """Graph does not answer this for the account that agreed; the code is Graph's own."""


class Session(Protocol):
    """What this module needs of `tokens.sessions.ApiSession`."""

    root: str

    def get(self, url: str, *, headers: dict[str, str] | None = None) -> requests.Response: ...


@dataclass(frozen=True)
class Person:
    object_id: uuid.UUID
    upn: str
    name: str


@dataclass(frozen=True)
class AgentGroups:
    """
    Which of Partner Center's agent groups somebody is in; the names are Microsoft's, such as "AdminAgents".

    With `names_hidden`, groups came without a name (GroupMember.Read.All is missing): an absent name proves nothing.
    """

    names: frozenset[str]
    names_hidden: bool


class Graph:
    """Microsoft Graph in the name of the person who agreed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def me(self) -> Person:
        """
        Who this session speaks for.

        https://learn.microsoft.com/graph/api/user-get
        :raises GraphUnavailable: try again later
        :raises GraphRefused: the account may not read its own profile
        """
        body = self._get(ME)
        try:
            object_id = uuid.UUID(str(body.get("id")))
        except ValueError as error:
            raise GraphRefused("Graph names no person.", code="wrong_shape") from error
        return Person(object_id, str(body.get("userPrincipalName") or ""), str(body.get("displayName") or ""))

    def agent_groups(self) -> AgentGroups:
        """
        The agent groups of this person, direct or through other groups.

        https://learn.microsoft.com/graph/api/user-list-transitivememberof
        :raises GraphUnavailable: try again later
        :raises GraphRefused: the account may not read its groups
        """
        names: set[str] = set()
        hidden = False
        link = f"{GROUPS}?$select=id,displayName&$count=true&$top=999"
        for _ in range(MAX_PAGES):
            body = self._get(link)
            found = [group.get("displayName") for group in _objects(body.get("value"))]
            hidden = hidden or None in found
            names |= AGENT_GROUPS & {name for name in found if isinstance(name, str)}
            following = self._next(body)
            if following is None:
                return AgentGroups(frozenset(names), names_hidden=hidden)
            link = following
        raise GraphRefused("Graph's list of groups does not end.", code="cyclic_link")

    def _next(self, body: dict[str, Any]) -> str | None:
        link = body.get("@odata.nextLink")
        if not link:
            return None
        try:
            absolute = same_origin(self._session.root, str(link))
        except HostRefused as refused:
            raise GraphRefused("Graph's next link leads to another host.", code="foreign_link") from refused
        if not urlsplit(absolute).path.startswith("/v1.0/"):
            raise GraphRefused("Graph's next link leads elsewhere.", code="foreign_link")
        return absolute

    def _get(self, link: str) -> dict[str, Any]:
        """The body of a good answer; everything else is raised as what somebody can do about it."""
        request_id = str(uuid.uuid4())
        headers = {"Accept": "application/json", "ConsistencyLevel": "eventual", "client-request-id": request_id}
        url = link if link.startswith("https://") else f"{self._session.root}{link}"
        response = self._session.get(url, headers=headers)
        body = _parse(response.content)
        if response.status_code == 200 and isinstance(body, dict):
            return body
        raise _failure(response, body, request_id)


class GraphLists:
    """Graph's lists of what is the partner's, as `following.Source`; `correlation_id` is what Microsoft asks for."""

    def __init__(self, session: Session, *, correlation_id: uuid.UUID | None = None) -> None:
        self._session = session
        self._correlation_id = str(correlation_id or uuid.uuid4())

    def first(self, path: str, *, is_paged: bool = True) -> Cursor:
        """Where a list begins; of one that is paged the largest pages are asked for."""
        return {"uri": f"{path}?$top={PAGE_SIZE}" if is_paged else path, "token": ""}

    def listed(
        self, path: str, cursor: Cursor | None = None, *, is_paged: bool = True, before: AsBefore | None = None
    ) -> ListedPage:
        """
        Fetch one page of the list at this path: the first, or the one an earlier page's cursor names.

        It is read the same way, whatever it was `before`.

        https://learn.microsoft.com/graph/paging
        :raises CursorRejected: the cursor is no longer known; start from the first page
        :raises NotThere: Graph has no such list
        :raises Unavailable, Garbled: try again later; `retry_after` is in seconds
        :raises AccessRefused: the partner must act
        :raises Untrustworthy: the answer has the wrong shape or leads elsewhere
        """
        uri = (cursor or self.first(path, is_paged=is_paged))["uri"]
        try:
            content = self._get(f"{self._session.root}/v1.0/{uri}" if cursor is None else self._link(uri, path))
        except CallRejected as failure:
            if cursor is None:
                raise
            raise CursorRejected(
                "The list can't be continued here.", code="cursor", correlation_id=failure.correlation_id
            ) from failure
        found = self._understood(content, _envelope)
        items = bytes(found.get("value", b""))
        if not items.startswith(b"["):
            raise self.untrustworthy("It has no list.", "wrong_shape")
        total, link = (parse(bytes(found.get(f"@odata.{name}", b"null"))) for name in ("count", "nextlink"))
        following: Cursor | None = {"uri": self._link(str(link), path), "token": ""} if link else None
        return ListedPage(items, count(total), following)

    def understood(self, page: ListedPage, how: Callable[[ListedPage], Result]) -> Result:
        """
        What the reader makes of a page.

        :raises Garbled: nothing, for its items are no JSON
        """
        return self._understood(page.items, lambda _items: how(page))

    def untrustworthy(self, why: str, code: str) -> Untrustworthy:
        """The error for an answer that must not be used."""
        return Untrustworthy(f"Graph's answer is not used. {why}", code=code, correlation_id=self._correlation_id)

    def _link(self, link: str, path: str) -> str:
        """The next link as it stands, where it stays in the list."""
        try:
            absolute = same_origin(f"{self._session.root}/v1.0/", link)
        except HostRefused as refused:
            raise self.untrustworthy("Its next link leads to another host.", "foreign_link") from refused
        if urlsplit(absolute).path.lower().rstrip("/") != f"/v1.0/{path}".lower():
            raise self.untrustworthy("Its next link leads out of the list.", "foreign_link")
        if len(absolute) > MAX_LINK:
            raise self.untrustworthy("Its next link is too long.", "wrong_shape")
        return absolute

    def _get(self, url: str) -> bytes:
        """The bytes of a good answer; everything else is raised as what somebody can do about it."""
        headers = {"Accept": "application/json", "client-request-id": self._correlation_id}
        response = self._session.get(url, headers=headers)
        if response.status_code != 200:
            raise self._failure(response)
        if len(response.content) > MAX_BYTES:
            raise self.untrustworthy(f"It is {len(response.content)} bytes long.", "oversized_page")
        return response.content

    def _understood(self, content: bytes, how: Callable[[bytes], Result]) -> Result:
        try:
            return how(content)
        except ValueError as garbled:
            code = "html" if content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<" else "not_json"
            logger.warning("Graph's answer is garbled", extra={"code": code})
            raise Garbled("Graph's answer can't be read.", code=code, correlation_id=self._correlation_id) from garbled

    def _failure(self, response: requests.Response) -> Transient | Permanent:
        """https://learn.microsoft.com/graph/errors"""
        status, code = (
            response.status_code,
            _code(_parse(response.content[:MAX_BYTES])) or f"http_{response.status_code}",
        )
        logger.info("Graph refused", extra={"status": status, "code": code, "request": self._correlation_id})
        known: dict[str, Any] = {"code": code, "correlation_id": self._correlation_id}
        if status in (408, 429) or status >= 500 or status in (202, 204):
            kind = Throttled if status == 429 else Unavailable
            return kind("Graph asks to wait or is down.", retry_after=retry_after(response), **known)
        if status < 400:
            return Garbled("Something else answered for Graph.", **known)
        if status == 401:
            return SessionRefused("Graph does not accept the partner's sign-in.", **known)
        if status == 403:
            return AccessRefused("The account that agreed lacks the role or permission.", **known)
        if status == 404:
            return NotThere("Graph does not have the list that we asked for.", **known)
        return CallRejected("Graph rejects our request.", **known)


def _envelope(content: bytes) -> dict[str, msgspec.Raw]:
    """
    What surrounds the items, by names in lower case: overlooking where the list goes on would be taken for its end.

    :raises ValueError: it is no JSON
    """
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        found = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except msgspec.ValidationError:  # it is JSON, and no object
        return {}
    return {name.lower(): value for name, value in found.items()}


def _failure(response: requests.Response, body: Any, request_id: str) -> Transient | Permanent:
    """https://learn.microsoft.com/graph/errors"""
    status, code = response.status_code, _code(body) or f"http_{response.status_code}"
    words = f"(HTTP {status}, code {code}, request {request_id})"
    if 400 <= status < 500 and status not in (408, 429):
        return GraphRefused(f"Graph refuses {words}.", code=code, correlation_id=request_id)
    if status == 200:
        code = "not_json" if body is None else "wrong_shape"
    return GraphUnavailable(
        f"Graph can't answer now {words}.", code=code, correlation_id=request_id, retry_after=retry_after(response)
    )


def _code(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    found = str(error.get("code") or "") if isinstance(error, dict) else ""
    return found if re.fullmatch(r"[\w.-]{1,40}", found, re.ASCII) else ""


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
