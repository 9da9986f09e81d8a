"""
What we ask Microsoft Graph about the person who agreed.

https://learn.microsoft.com/graph/api/overview
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests

from tokens.errors import Permanent, Transient
from tokens.http import HostRefused, retry_after, same_origin

AGENT_GROUPS = frozenset({"AdminAgents", "SalesAgents", "HelpdeskAgents"})
ME = "/v1.0/me?$select=id,userPrincipalName,displayName"
GROUPS = "/v1.0/me/transitiveMemberOf/microsoft.graph.group"
MAX_PAGES = 50  # of 999 groups each


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
