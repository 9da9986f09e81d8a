"""
The sweep of the walls: every address, every method, everybody who has no right to it, ids wherever an id can stand.

`tests.house.attempts` has what is tried; here is who makes it, and what must not come back.
"""

from __future__ import annotations

import difflib
import html
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.signals import got_request_exception
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils import timezone

from tests.house.attempts import ACTS, NOWHERE, SAFE, WORDS, WORDS_OF, Attempt, Route, names_of_fields, nobodys
from tests.house.test_walls import CSRF
from tests.house.victim import A_DAY, MARK, Actor, Ground
from tests.plainclient import handler
from tests.pretend import FORM

REFUSED = (302, 303, 400, 403, 404, 405, 410)
COOKIE = "cpv_session"
SAID = ("next", "invitation")  # what pages say again, and a link: whoever has one was given it
OF_WHAT_WAS_DONE = ("activity", "export_activity")
OF_A_NAME = {
    "partner_id": "partner", "customer_id": "customer", "tenant": "firm", "invitation": "connect_link",
    "lookup": "look", "id": "member", "pk": "partner", "user_id": "user", "add": "tenant_id", "drop": "tenant_id",
    "code": "state", "device": "user", "next": "partner",
}  # fmt: skip


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
        return handler()(self._base_environ(**request))

    def come(self, method: str, path: str, fields: dict[str, Any], session: str) -> Came:
        headers = {"HTTP_COOKIE": f"{COOKIE}={session}"} if session else {}
        answer = self.generic(method.upper(), path, urlencode(fields, doseq=True), FORM, **headers)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        said = "\n".join(f"{name}: {value}" for name, value in answer.items()) + _messages(answer)
        text = f"{said}\n{answer.cookies.output()}\n{body.decode(errors='replace')}"
        cookie = answer.cookies[COOKIE].value if COOKIE in answer.cookies else None
        return Came(answer.status_code, answer.get("Location", ""), text, cookie)


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
    said: dict[str, set[str]] = field(
        default_factory=dict
    )  # by actor: ids they put into forms, which their activity has
    browser: Browser = field(default_factory=Browser)

    def __post_init__(self) -> None:
        self.names = names_of_fields()
        self.values = [value for name, value in self.ground.ids.items() if "." not in name]
        self.long = [text for text in self.ground.canaries if not MARK.fullmatch(text)]

    def run(self, plan: dict[Actor, list[Attempt]], *, until_found: bool = False) -> None:
        """Make them all; or until one has found something: whoever did comes first the next time, then all in order."""
        for actor, attempts in plan.items():
            self.ground.world.calls.clear()
            for attempt in attempts:
                self.attempt(actor, attempt)
                if until_found and self.found:
                    break
            firm = str(self.ground.partner.tenant_id)
            self.found += [
                f"{actor}: a call left for the victim: {call.path}"
                for call in self.ground.world.calls
                if firm in (call.tenant, *call.path.split("/"))
            ]
            self.found += [f"{actor}: {change}" for change in self.ground.changed(actor)]
            if until_found and self.found:
                self.ground.actors.sort(key=lambda other: (other is not actor, other.number))
                return

    def attempt(self, actor: Actor, attempt: Attempt) -> Came:
        path, fields = self.filled(attempt, actor)
        said = self.said.setdefault(actor.name, set())
        said |= {str(value) for value in fields.values()}.intersection(self.long)
        came = self.come(actor, attempt.method, path, fields)
        self.tried[actor.name] += 1
        self.reached.add(attempt.route)
        for what in self.looked_at(actor, attempt, came, [path, fields]):
            self.found.append(f"{actor}: {attempt}: {what}")
        if attempt.has_ids and attempt.place != "query" and not (attempt.route.is_desk and attempt.method != "get"):
            self.compare(actor, attempt, came, path, fields)
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
            if not Session.objects.filter(session_key=actor.session).update(**row):
                Session.objects.create(session_key=actor.session, **row)
        return came

    def filled(self, attempt: Attempt, actor: Actor, *, missing: bool = False) -> tuple[str, dict[str, Any]]:
        ids = self.ground.ids | actor.ids
        path = attempt.route.address(ids, missing=missing)
        fields: dict[str, Any] = {}
        if attempt.method not in SAFE:
            act = ACTS[attempt.turn % len(ACTS)]
            grant = ids["open_grant" if act in ("end", "open") else "grant"]
            fields = WORDS | {"act": act, "grant": grant} | WORDS_OF.get(attempt.route.name, {}) | actor.words
        if attempt.place != "path":
            named = {name: self.value(name, number, attempt.turn) for number, name in enumerate(self.names)}
            if missing:
                named |= {name: nobodys(value) for name, value in named.items() if name not in SAID}
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
        return self.values[(number + turn // 2) % len(self.values)]

    # --- The oracles ------------------------------------------------------------------------------------------------
    def looked_at(self, actor: Actor, attempt: Attempt, came: Came, sent: list[Any]) -> Iterator[str]:
        for is_desk, page in ((attempt.route.is_desk, came.text), *came.onward):
            # Who has no desk is answered there as everywhere else, by the page that names them.
            may_see = actor.may_see_at_the_desk if is_desk and actor.has_the_desk else actor.may_see
            for text in sorted({*MARK.findall(page), *(text for text in self.long if text in page)}):
                canary = self.ground.canaries[text]
                is_theirs = text in str(sent) or (
                    attempt.route.name in OF_WHAT_WAS_DONE and text in self.said[actor.name]
                )
                if not is_theirs and not may_see(canary):
                    yield f"shows {canary}"
        if came.status >= 500:
            yield f"answers {came.status} ({type(self.errors[-1]).__name__ if self.errors else 'no error'})"
        elif self.is_refused(actor, attempt.route) and came.status not in REFUSED:
            yield f"answers {came.status}"

    def is_refused(self, actor: Actor, route: Route) -> bool:
        """Whether nothing at all is here for this actor."""
        if route.name == "admin_consent":  # open to whoever has a link; without one, to those who may consent
            return actor.is_outside or (actor.opens is not None and route.name not in actor.opens)
        if route.is_open:
            return bool(set(route.parameters) & {"link"})
        if route.is_desk:
            return not actor.has_the_desk
        if actor.is_outside or set(route.parameters) - {"kind"}:  # a kind of work is nobody's
            return actor.opens is None or route.name not in actor.opens
        return actor.opens is not None and route.name not in actor.opens

    def compare(self, actor: Actor, attempt: Attempt, came: Came, path: str, mine: dict[str, Any]) -> None:
        """Somebody else's id is answered as one that nobody has."""
        if attempt.route.is_desk and actor.has_the_desk:
            return  # staff may know which partners there are
        if "link" in attempt.route.parameters or attempt.route.name in (actor.opens or ()):
            return  # a link is no id: whoever has one was given it
        there, fields = self.filled(attempt, actor, missing=True)
        other = self.come(actor, attempt.method, there, fields)
        self.pairs += 1
        sent = [(path, mine), (there, fields)]
        foreign, nobodys_own = _told(came, *sent), _told(other, *sent)
        if foreign != nobodys_own:
            # Or it was told by what this actor just did, as a limit that is reached: then it is the same by now.
            foreign = _told(self.come(actor, attempt.method, path, mine), *sent)
        if foreign != nobodys_own:
            lines = difflib.unified_diff(foreign.splitlines(), nobodys_own.splitlines(), "foreign", "none", n=0)
            self.found.append(
                f"{actor}: {attempt}: tells {came.status} for a foreign id from {other.status} for none:\n"
                + "\n".join(line[:300] for line in islice(lines, 12))
            )


def _told(came: Came, *sent: tuple[str, dict[str, Any]]) -> str:
    """All of an answer but what is new each time, and the addresses and ids that were sent: also the other time."""
    text = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", came.text)  # a state and a nonce on the way to Microsoft
    text = re.sub(r"nonce-?[^\s;>]*|(?:Set-Cookie|Content-Length|Expires|Last-Modified|ETag):.*", "", text)
    text = CSRF.sub(b"", text.encode()).decode()
    text = re.sub(r".*\bactivity\.exported\b.*\n?", "", text)  # an export names itself next time
    text = re.sub(r'"as_of": "[^"]*"', "", text)  # and has the time at which it was made
    for path, fields in sent:
        ids = sorted({str(value) for name, value in fields.items() if name not in WORDS}, key=len, reverse=True)
        for spelling in (path, quote(path), html.escape(path), quote(quote(path)), urlsplit(path).path, *ids):
            text = text.replace(spelling, "…") if len(spelling) > 6 else text.replace(f'"{spelling}"', '"…"')
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
