"""
What the sweep tries: every line of the URLconf with every method, and ids wherever an id can stand.

It walks the URLconf itself, so a new address is swept from its first day; a parameter it does not know is an error.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.urls import URLPattern, URLResolver, get_resolver

from cpvpanel.desk import OPEN as OPEN_AT_THE_DESK
from partners.models import Customer
from tests.house.test_walls import METHODS, OPEN
from tests.house.victim import ID, Actor, Ground

PLACES = ("path", "query", "body")
SAFE = ("get", "head", "options")
NOWHERE = 999_000_111
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)")
SEED = 20_261_126
AT_THE_DESK = 5  # actors that each of its routes meets at least
ON_THE_PORTAL = 8  # and there, where a sample must do; else everybody
# What a form must bring for a view to come as far as the ids in it.
WORDS = {
    "format": "csv", "role": "operator", "limited": "yes", "email": "open@contoso.test", "days": "180",
    "reason": "because", "cloud": "global", "answer": "yes", "username": "somebody", "q": "customer",
    "what": "quantity", "wanted": "12", "quantity": "12", "auto_renew": "off", "subscription": "subscription",
    "then": "customers", "name": "a name", "action": "member.invited", "since": "2020-01-01", "until": "2099-01-01",
}  # fmt: skip
# Other ones, by the address that takes them.
WORDS_OF: dict[str, dict[str, Any]] = {
    "choose_kind": {"wanted": "no"}, "job_act": {"act": "run"}, "team_choose": {"drop": []},
}  # fmt: skip
ACTS = ("approve", "refuse", "end", "open", "ask")
NAMES = (
    "partner", "partner_id", "member", "member_id", "customer", "customer_id", "tenant_id", "tenant", "grant",
    "invitation", "invitation_id", "look", "lookup", "next", "id", "pk", "user", "user_id", "state", "code",
)  # fmt: skip


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
            return str(nobodys(there))

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


def nobodys(there: Any) -> Any:
    """An id of the same kind that nothing has."""
    if isinstance(there, uuid.UUID):
        return uuid.UUID(int=NOWHERE)
    if ID.fullmatch(str(there)):
        return str(uuid.UUID(int=NOWHERE))
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


@cache
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


def each_id_under_each_name(actors: list[Actor], ids: int) -> dict[Actor, list[Attempt]]:
    """
    Attempts in which each of so many known ids stands under each name that a form has.

    On the portal everybody tries all of them everywhere. At the desk, which reads hardly any, it is pairwise: each
    route and way meets every id and every actor, and each actor every id.
    """
    plan: dict[Actor, list[Attempt]] = {actor: [] for actor in actors}
    ways = [
        (route, *way) for route in routes() for way in (("get", "query"), ("post", "query"), ("post", "body"))
    ]  # fmt: skip
    for number, (route, method, place) in enumerate(ways):
        for shift in range(max(ids, len(actors))):
            some = [actors[(number + shift) % len(actors)]] if route.is_desk else actors
            for actor in some:
                plan[actor].append(Attempt(route, method, place, turn=2 * shift + 1))
    return plan


def in_parts(plan: dict[Actor, list[Attempt]], number: int) -> Iterator[dict[Actor, list[Attempt]]]:
    """A long plan in parts that each are a sample of the whole: one that is cut off says something of it all."""
    dice = random.Random(SEED)  # noqa: S311 - the same every time
    shuffled = {actor: dice.sample(found, len(found)) for actor, found in plan.items()}
    for part in range(number):
        yield {actor: found[part::number] for actor, found in shuffled.items()}


def chosen(actors: list[Actor], number: int, *, is_sample: bool = False) -> dict[Actor, list[Attempt]]:
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
        least = AT_THE_DESK if route.is_desk else ON_THE_PORTAL if is_sample else len(actors)
        some = dice.sample(actors, least)
        for actor in actors:
            now = ([dice.choice(attempts)] if route.is_desk else first) if actor in some else []
            plan[actor] += now
            rest += [(actor, attempt) for attempt in attempts if attempt not in now and not actor.is_costly]
    missing = max(0, number - sum(map(len, plan.values())))
    for turn, (actor, attempt) in enumerate(dice.sample(rest, min(missing, len(rest)))):
        plan[actor].append(replace(attempt, turn=turn))
    return plan
