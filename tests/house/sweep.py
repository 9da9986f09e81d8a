"""
The sweep of the walls: every address, every method, everybody who has no right to it, ids wherever an id can stand.

It walks the URLconf itself, so a new address is swept from its first day; a parameter it does not know is an error.
"""

from __future__ import annotations

import html
import logging
import random
import re
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from django.contrib.contenttypes.models import ContentType
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.signals import got_request_exception
from django.http import HttpRequest
from django.test import RequestFactory
from django.test.client import ClientHandler
from django.test.utils import override_settings
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from cpvpanel.desk import OPEN as OPEN_AT_THE_DESK
from partners.models import Customer
from tests.house.test_walls import CSRF, METHODS, OPEN
from tests.house.victim import A_DAY, MARK, Actor, Ground
from tests.pretend import FORM

PLACES = ("path", "query", "body")
SAFE = ("get", "head", "options")
NOWHERE = 999_000_111
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)")
REFUSED = (302, 303, 400, 403, 404, 405, 410)
SEED = 20_261_126
AT_THE_DESK = 5  # actors that each of its routes meets at least; on the portal it is everybody
COOKIE = "cpv_session"
# What a form must bring for a view to come as far as the ids in it.
WORDS = {
    "format": "csv", "role": "operator", "limited": "yes", "email": "open@contoso.test", "days": "180",
    "reason": "because", "cloud": "global", "answer": "yes", "username": "somebody", "q": "customer",
    "what": "quantity", "wanted": "12", "quantity": "12", "auto_renew": "off", "subscription": "subscription",
    "then": "customers", "name": "a name", "action": "member.invited", "since": "2020-01-01", "until": "2099-01-01",
}  # fmt: skip
SAID = ("next", "invitation")  # what pages say again, and a link: whoever has one was given it
ACTS = ("approve", "refuse", "end", "open", "ask")
NAMES = (
    "partner", "partner_id", "member", "member_id", "customer", "customer_id", "tenant_id", "tenant", "grant",
    "invitation", "invitation_id", "look", "lookup", "next", "id", "pk", "user", "user_id", "state", "code",
)  # fmt: skip
OF_A_NAME = {
    "partner_id": "partner", "customer_id": "customer", "tenant": "firm", "invitation": "connect_link",
    "lookup": "look", "id": "member", "pk": "partner", "user_id": "user", "add": "tenant_id", "drop": "tenant_id",
    "code": "state", "device": "user", "next": "partner",
}  # fmt: skip


# --- Addresses ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Route:
    """One line of the URLconf."""

    pattern: str
    name: str
    is_desk: bool
    parameters: tuple[str, ...]

    def __str__(self) -> str:
        return self.name or self.pattern

    @property
    def is_open(self) -> bool:
        return self.name in (OPEN_AT_THE_DESK if self.is_desk else OPEN)

    def address(self, ids: dict[str, Any], *, missing: bool = False) -> str:
        """
        The path with the victim's ids, or with ids that nobody has.

        :raises LookupError: a parameter that nobody told the sweep about
        """

        def value(match: re.Match[str]) -> str:
            parameter = match[1] or match[2]
            there = self.known(parameter, ids)
            if not missing or parameter in ("app_label", "content_type_id", "url", "kind"):
                return str(there)
            return str(_nobodys(there))

        return "/" + PARAMETER.sub(value, self.pattern).replace("^", "").replace("$", "")

    def known(self, parameter: str, ids: dict[str, Any]) -> Any:
        match parameter:
            case "tenant_id" | "member_id" | "invitation_id" | "change_id":
                return ids[parameter]
            case "link":
                return ids["join_link" if self.pattern.startswith("join/") else "connect_link"]
            case "uid":
                return ids["uid"]
            case "token":
                return "a-token"
            case "kind":
                return "users" if self.pattern.endswith("/choose") else "customers"
            case "app_label":
                return "partners"
            case "content_type_id":
                return ids["content_type"]
            case "url":
                return "no/such/page"
            case "pk":
                whose = self.pattern.split("/")[2]
                return ids["partner" if whose == "invitation" else whose]
            case "object_id":
                parts = self.pattern.split("/")
                return ids["customer"] if parts[1] == "r" else ids.get(f"{parts[1]}.{parts[2]}", NOWHERE)
        raise LookupError(f"{self.pattern}: the sweep does not know the parameter {parameter!r}")


def _nobodys(there: Any) -> Any:
    """An id of the same kind that nothing has."""
    if isinstance(there, uuid.UUID):
        return uuid.UUID(int=NOWHERE)
    return NOWHERE if str(there).isdigit() else "n" * len(str(there))


def routes(resolver: URLResolver | None = None, prefix: str = "", *, is_desk: bool = False) -> Iterator[Route]:
    """Every line of the URLconf, the desk's among them."""
    for pattern in (resolver or get_resolver()).url_patterns:
        whole, at_the_desk = prefix + str(pattern.pattern), is_desk or getattr(pattern, "namespace", "") == "admin"
        if isinstance(pattern, URLResolver):
            yield from routes(pattern, whole, is_desk=at_the_desk)
        elif isinstance(pattern, URLPattern):
            found = tuple(match[1] or match[2] for match in PARAMETER.finditer(whole))
            yield Route(whole, pattern.name or "", at_the_desk, found)


def names_of_fields() -> tuple[str, ...]:
    """What our forms call their fields, and what somebody who guesses would try."""
    pages = "".join(path.read_text() for path in Path("templates").rglob("*.html"))
    found = re.findall(r'<(?:input|select|textarea|button)[^>]*\sname="([a-z_]+)"', pages)
    return tuple(sorted({*found, *NAMES} - WORDS.keys() - {"act", "csrfmiddlewaretoken", "sure"}))


def complete(ground: Ground) -> None:
    """Add to the known ids those that the desk's addresses ask for."""
    for label, rows in ground.before.items():
        if rows and label.lower() not in ground.ids:
            ground.ids[label.lower()] = next(iter(rows))
    ground.ids["content_type"] = ContentType.objects.get_for_model(Customer).pk
    ground.ids["uid"] = "MQ"


# --- Attempts -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Attempt:
    """One request, but for who makes it."""

    route: Route
    method: str
    place: str
    turn: int = 0

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.route} with ids in the {self.place} (turn {self.turn})"

    @property
    def has_ids(self) -> bool:
        return bool(self.route.parameters) or self.place != "path" or self.method not in SAFE


def every_attempt() -> Iterator[Attempt]:
    """The whole cross but for who makes them; where no body is read, no ids are put into one."""
    for route in routes():
        for method in METHODS:
            for place in PLACES[: 2 if method in SAFE else 3]:
                yield Attempt(route, method, place)


def chosen(actors: list[Actor], number: int) -> dict[Actor, list[Attempt]]:
    """
    So many attempts out of the whole cross at least, always the same, with each route and each actor among them.

    What is not by chance is what an attacker begins with: GET and POST of the portal's pages, ids in the path.
    """
    dice = random.Random(SEED)  # noqa: S311 - a sample that is the same every time
    plan: dict[Actor, list[Attempt]] = {actor: [] for actor in actors}
    rest = []
    for route, found in groupby(every_attempt(), lambda attempt: attempt.route):
        attempts = list(found)
        first = [attempt for attempt in attempts if attempt.place == "path" and attempt.method in ("get", "post")]
        some = dice.sample(actors, AT_THE_DESK) if route.is_desk else actors
        for actor in actors:
            now = ([dice.choice(attempts)] if route.is_desk else first) if actor in some else []
            plan[actor] += now
            rest += [(actor, attempt) for attempt in attempts if attempt not in now]
    missing = max(0, number - sum(map(len, plan.values())))
    for turn, (actor, attempt) in enumerate(dice.sample(rest, min(missing, len(rest)))):
        plan[actor].append(replace(attempt, turn=turn))
    return plan


# --- What came back -------------------------------------------------------------------------------------------------
@dataclass
class Came:
    """An answer as the oracles read it."""

    status: int
    location: str
    text: str  # everything the browser could read: headers, cookies, messages, body
    cookie: str | None  # the session's, where the answer set one; "" where it ended it
    onward: list[tuple[bool, str]] = field(default_factory=list)  # pages that such a session opens; is it the desk's?


class Browser(RequestFactory):
    """Like Django's test client, without the record of templates that nobody reads here."""

    def request(self, **request: Any) -> Any:
        return _handler()(self._base_environ(**request))

    def come(self, method: str, path: str, fields: dict[str, Any], session: str) -> Came:
        headers = {"HTTP_COOKIE": f"{COOKIE}={session}"} if session else {}
        answer = self.generic(method.upper(), path, urlencode(fields, doseq=True), FORM, **headers)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        said = "\n".join(f"{name}: {value}" for name, value in answer.items()) + _messages(answer)
        text = f"{said}\n{answer.cookies.output()}\n{body.decode(errors='replace')}"
        cookie = answer.cookies[COOKIE].value if COOKIE in answer.cookies else None
        return Came(answer.status_code, answer.get("Location", ""), text, cookie)


@cache
def _handler() -> ClientHandler:
    handler = ClientHandler(enforce_csrf_checks=False)
    # As in production, not every request is a search for a file.
    with override_settings(WHITENOISE_AUTOREFRESH=False, WHITENOISE_USE_FINDERS=False, STATIC_ROOT="static"):
        handler.load_middleware()
    return handler


def _messages(answer: Any) -> str:
    """What the next page would say."""
    said = answer.cookies["messages"].value if "messages" in answer.cookies else ""
    return "\n".join(map(str, CookieStorage(HttpRequest())._decode(said) or ()))


# --- The sweep ------------------------------------------------------------------------------------------------------
@dataclass
class Sweep:
    """Makes attempts and keeps what the oracles found."""

    ground: Ground
    errors: list[BaseException]
    found: list[str] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    reached: set[Route] = field(default_factory=set)
    pairs: int = 0
    browser: Browser = field(default_factory=Browser)

    def __post_init__(self) -> None:
        self.names = names_of_fields()
        self.values = [value for name, value in self.ground.ids.items() if "." not in name]
        self.long = [text for text in self.ground.canaries if not MARK.fullmatch(text)]

    def run(self, plan: dict[Actor, list[Attempt]], *, until_found: bool = False) -> None:
        for actor, attempts in plan.items():
            self.ground.world.calls.clear()
            for attempt in attempts:
                self.attempt(actor, attempt)
            firm = str(self.ground.partner.tenant_id)
            self.found += [
                f"{actor}: a call left for the victim: {call.path}"
                for call in self.ground.world.calls
                if firm in (call.tenant, *call.path.split("/"))
            ]
            if not until_found or any(attempt.method != "get" for attempt in attempts):
                self.found += [f"{actor}: {change}" for change in self.ground.changed(actor)]
            if until_found and self.found:
                return

    def attempt(self, actor: Actor, attempt: Attempt) -> Came:
        path, fields = self.filled(attempt)
        came = self.come(actor, attempt.method, path, fields)
        self.tried[actor.name] += 1
        self.reached.add(attempt.route)
        for what in self.looked_at(actor, attempt, came, [path, fields]):
            self.found.append(f"{actor}: {attempt}: {what}")
        if attempt.has_ids and attempt.place != "query" and not (attempt.route.is_desk and attempt.method != "get"):
            self.compare(actor, attempt, came, path)
        return came

    def come(self, actor: Actor, method: str, path: str, fields: dict[str, Any]) -> Came:
        """One request; a session that it changed is as it was afterwards, and what it would open next is looked at."""
        came = self.browser.come(method, path, fields, actor.session)
        if came.cookie and actor.session and came.location.startswith("/"):
            for onward in (came.location, "/customers/"):
                page = self.browser.come("get", onward, {}, came.cookie).text
                came.onward.append((onward.startswith("/admin/"), page))
        if came.cookie is not None and actor.session and not actor.is_over:
            row = {"session_data": SessionStore().encode(actor.kept), "expire_date": timezone.now() + A_DAY}
            Session.objects.update_or_create(session_key=actor.session, defaults=row)
        return came

    def filled(self, attempt: Attempt, *, missing: bool = False) -> tuple[str, dict[str, Any]]:
        ids = self.ground.ids
        path = attempt.route.address(ids, missing=missing)
        fields: dict[str, Any] = {}
        if attempt.method not in SAFE:
            act = ACTS[attempt.turn % len(ACTS)]
            fields = WORDS | {"act": act, "grant": ids["open_grant" if act in ("end", "open") else "grant"]}
        if attempt.place != "path":
            named = {name: self.value(name, number, attempt.turn) for number, name in enumerate(self.names)}
            if missing:
                named |= {name: _nobodys(value) for name, value in named.items() if name not in SAID}
            if attempt.place == "body":
                fields = named | fields | {"grant": named["grant"]}
            else:
                path += f"?{urlencode(named)}"
        elif missing and fields:
            fields["grant"] = NOWHERE
        return path, fields

    def value(self, name: str, number: int, turn: int) -> Any:
        """The id that belongs under a name; on other turns another, so that in time each stands under each name."""
        if turn % 2 == 0:
            return self.ground.ids.get(OF_A_NAME.get(name, name), self.ground.ids["grant"])
        return self.values[(number + turn) % len(self.values)]

    # --- The oracles ------------------------------------------------------------------------------------------------
    def looked_at(self, actor: Actor, attempt: Attempt, came: Came, sent: list[Any]) -> Iterator[str]:
        for is_desk, page in ((attempt.route.is_desk, came.text), *came.onward):
            may_see = actor.may_see_at_the_desk if is_desk else actor.may_see
            for text in sorted({*MARK.findall(page), *(text for text in self.long if text in page)}):
                canary = self.ground.canaries[text]
                if text not in str(sent) and not may_see(canary):
                    yield f"shows {canary}"
        if came.status >= 500:
            yield f"answers {came.status} ({type(self.errors[-1]).__name__ if self.errors else 'no error'})"
        elif self.is_refused(actor, attempt.route) and came.status not in REFUSED:
            yield f"answers {came.status}"

    def is_refused(self, actor: Actor, route: Route) -> bool:
        """Whether nothing at all is here for this actor."""
        if route.name == "admin_consent":  # open to whoever has a link; without one, to those who may consent
            return actor.is_outside or actor.opens is not None
        if route.is_open:
            return bool(set(route.parameters) & {"link"})
        if route.is_desk:
            return not actor.has_the_desk
        if actor.is_outside or set(route.parameters) - {"kind"}:  # a kind of work is nobody's
            return actor.opens is None or route.name not in actor.opens
        return actor.opens is not None and route.name not in actor.opens

    def compare(self, actor: Actor, attempt: Attempt, came: Came, path: str) -> None:
        """Somebody else's id is answered as one that nobody has."""
        if attempt.route.is_desk and actor.has_the_desk:
            return  # staff may know which partners there are
        if "link" in attempt.route.parameters or attempt.route.name in (actor.opens or ()):
            return  # a link is no id: whoever has one was given it
        there, fields = self.filled(attempt, missing=True)
        other = self.come(actor, attempt.method, there, fields)
        self.pairs += 1
        mine = self.filled(attempt)[1]
        if _told(came, path, mine) != _told(other, there, fields):
            self.found.append(f"{actor}: {attempt}: tells {came.status} for a foreign id from {other.status} for none")


def _told(came: Came, path: str, fields: dict[str, Any]) -> str:
    """All of an answer but what is new each time, and the address and the ids that were sent."""
    text = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", came.text)  # a state and a nonce on the way to Microsoft
    text = re.sub(r"nonce-?[^\s;>]*|(?:Set-Cookie|Content-Length|Expires|Last-Modified|ETag):.*", "", text)
    text = CSRF.sub(b"", text.encode()).decode()
    ids = [str(value) for name, value in fields.items() if name not in WORDS and len(str(value)) > 6]
    for spelling in (path, quote(path), html.escape(path), quote(quote(path)), urlsplit(path).path, *ids):
        text = text.replace(spelling, "…") if len(spelling) > 1 else text
    return f"{came.status} {text}"


@contextmanager
def quiet() -> Iterator[list[BaseException]]:
    """No log lines of a thousand refusals; and errors of ours are kept, with the newest last."""
    errors: list[BaseException] = []

    def note(**_signal: Any) -> None:
        if error := sys.exc_info()[1]:
            errors.append(error)

    got_request_exception.connect(note)
    logging.disable(logging.CRITICAL)
    try:
        yield errors
    finally:
        logging.disable(logging.NOTSET)
        got_request_exception.disconnect(note)
