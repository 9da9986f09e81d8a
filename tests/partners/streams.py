"""Lists of Microsoft's as streams of pages in memory, with everything that may go wrong with them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import requests

from tests.partners.pretended import answer

ROOT = "https://api.partnercenter.microsoft.com"


def item(number: int, name: str = "") -> dict[str, Any]:
    tenant = str(UUID(int=number))
    profile = {"tenantId": tenant, "domain": f"d{number}.test", "companyName": name or f"C{number}"}
    return {"id": tenant, "companyProfile": profile, "relationshipToPartner": "reseller"}


def user(number: int, name: str = "") -> dict[str, Any]:
    return {
        "id": str(UUID(int=number)),
        "userPrincipalName": f"u{number}@a.test",
        "displayName": name,
        "state": "active",
    }


@dataclass
class Listing:
    """
    What Microsoft would list at one address: number → name, in an order. It gives its pages as a session would.

    `between` is called before each page: lists move while they are read. `spoil` may put another answer in its place.
    """

    rows: dict[int, str]
    size: int = 4
    between: Callable[[Listing, int], None] = lambda listing, page: None
    spoil: Callable[[Listing, int, requests.Response], requests.Response] = lambda listing, page, was: was
    shape: Callable[[list[dict[str, Any]], dict[str, Any]], bytes] = lambda items, rest: json.dumps(
        {"items": items, **rest}
    ).encode()
    root: str = ROOT
    path: str = "customers"
    make: Callable[[int, str], dict[str, Any]] = item
    served: Any = field(default_factory=list)  # of each page that was answered well
    calls: int = 0
    says_total: Callable[[int], int | None] = lambda total: total

    def get(self, url: str, *, headers: dict[str, str] | None = None) -> requests.Response:
        """Stands for the broker's session."""
        place = int((headers or {}).get("MS-ContinuationToken", "0"))
        number = place // self.size
        self.calls += 1
        self.between(self, number)
        order = list(self.rows)
        picked = order[place : place + self.size]
        link = {
            "uri": f"/{self.path}?size=500&seekOperation=Next&n={place + self.size}",
            "headers": [{"key": "MS-ContinuationToken", "value": str(place + self.size)}],
        }
        rest: dict[str, Any] = {"links": {"next": link} if place + self.size < len(order) else {}}
        total = self.says_total(len(order))
        if total is not None:
            rest["totalCount"] = total
        self.listed = set(picked)
        content = self.shape([self.make(one, self.rows[one]) for one in picked], rest)
        given = self.spoil(self, number, answer(raw=content))
        self.served.append(self.listed)
        return given


# --- What goes wrong ------------------------------------------------------------------------------------------------
Dice = random.Random
Fault = Callable[[Listing, Dice], None]


def moves(listing: Listing, dice: Dice) -> None:
    """The order changes under the reader's feet: some are listed twice and some not at all."""

    def between(now: Listing, page: int) -> None:
        order = list(now.rows.items())
        dice.shuffle(order)
        now.rows = dict(order)

    listing.between = between


def shifts(listing: Listing, dice: Dice) -> None:
    """Somebody in front goes while it is read, so that one after them is skipped; a few come."""

    def between(now: Listing, page: int) -> None:
        if page and now.rows:
            now.rows.pop(dice.choice(list(now.rows)))
        if dice.random() < 0.5:
            now.rows[dice.randrange(1, 60)] = "new"

    listing.between = between


def _spoiled(
    at: Callable[[Listing, Dice], int], what: Callable[[Listing, requests.Response], requests.Response]
) -> Fault:
    def fault(listing: Listing, dice: Dice) -> None:
        where = at(listing, dice)

        def spoil(now: Listing, page: int, was: requests.Response) -> requests.Response:
            if page != where:
                return was
            given = what(now, was)
            return given

        listing.spoil = spoil

    return fault


def _anywhere(listing: Listing, dice: Dice) -> int:
    return dice.randrange(max(1, -(-len(listing.rows) // listing.size)))


def _without(now: Listing, was: requests.Response) -> requests.Response:
    """A page lacks half of what it should list, and nothing tells."""
    body = json.loads(was.content)
    body["items"] = body["items"][::2]
    body.pop("totalCount", None)
    now.listed = {int(UUID(one["id"])) for one in body["items"]}
    return answer(body)


def _last(now: Listing, was: requests.Response) -> requests.Response:
    """The list says that it ends here."""
    body = json.loads(was.content)
    body["links"] = {}
    return answer(body)


def _twice(now: Listing, was: requests.Response) -> requests.Response:
    """Everybody on the page is listed twice, the second time under another name."""
    body = json.loads(was.content)
    again = json.loads(json.dumps(body["items"]))
    for one in again:
        one.get("companyProfile", one)["companyName"] = "again"
    body["items"] += again
    return answer(body)


def _nobody(now: Listing, was: requests.Response) -> requests.Response:
    body = json.loads(was.content)
    now.listed = set()
    return answer(body | {"items": [], "links": {}, "totalCount": 0})


def _answers(**how: Any) -> Callable[[Listing, requests.Response], requests.Response]:
    def given(now: Listing, was: requests.Response) -> requests.Response:
        now.listed = set()
        return answer(**how)

    return given


def _cut(now: Listing, was: requests.Response) -> requests.Response:
    now.listed = set()
    return answer(raw=was.content[: len(was.content) // 2])


def _circle(now: Listing, was: requests.Response) -> requests.Response:
    body = json.loads(was.content)
    now.listed = set()
    token = {"key": "MS-ContinuationToken", "value": str(now.size)}
    link = {"uri": f"/{now.path}?size=500&seekOperation=Next&n={now.size}", "headers": [token]}
    return answer(body | {"links": {"next": link}})


def _foreign(now: Listing, was: requests.Response) -> requests.Response:
    body = json.loads(was.content)
    now.listed = set()
    return answer(body | {"links": {"next": {"uri": "https://evil.test/v1/customers", "headers": []}}})


def _strangers(now: Listing, was: requests.Response) -> requests.Response:
    """The page is of another partner's list."""
    body = json.loads(was.content)
    now.listed = set()
    return answer(body | {"items": [now.make(1_000 + place, "theirs") for place, _ in enumerate(body["items"])]})


def shouts(listing: Listing, dice: Dice) -> None:
    """Other case, a byte order mark, fields nobody knows and nulls: odd, and nothing wrong."""

    def shape(items: list[dict[str, Any]], rest: dict[str, Any]) -> bytes:
        def shout(node: Any) -> Any:
            if isinstance(node, dict):
                return {key[0].upper() + key[1:]: shout(value) for key, value in node.items()} | {"extra": None}
            return [shout(one) for one in node] if isinstance(node, list) else node

        body = shout({"items": items, **rest})
        return b"\xef\xbb\xbf" + json.dumps(body).encode()

    listing.shape = shape


def counts_pages(listing: Listing, dice: Dice) -> None:
    listing.says_total = lambda total: min(total, listing.size)


def counts_nothing(listing: Listing, dice: Dice) -> None:
    listing.says_total = lambda total: None


def lags(*, and_ends: bool) -> Fault:
    """The second page lists somebody of the first again as they were long ago; the third may not come at all."""

    def fault(listing: Listing, dice: Dice) -> None:
        def spoil(now: Listing, page: int, was: requests.Response) -> requests.Response:
            if page == 1:
                body = json.loads(was.content)
                again = dice.choice(list(now.rows)[: now.size])
                now.listed = {*now.listed, again}
                return answer(body | {"items": [*body["items"], now.make(again, "long ago")]})
            if page == 2 and and_ends:
                now.listed = set()
                return answer(body={"code": 2000}, status=400)
            return was

        listing.spoil = spoil

    return fault


FAULTS: tuple[Fault, ...] = (
    moves,
    shifts,
    shouts,
    counts_pages,
    counts_nothing,
    _spoiled(_anywhere, _without),
    _spoiled(_anywhere, _last),
    _spoiled(_anywhere, _twice),
    _spoiled(_anywhere, _nobody),
    _spoiled(_anywhere, _answers(raw=b"<html>")),
    _spoiled(_anywhere, _answers(raw=b"", status=500)),
    _spoiled(_anywhere, _answers(body={"code": 2000}, status=400)),
    _spoiled(_anywhere, _answers(body={"code": 2032}, status=403)),
    _spoiled(_anywhere, _cut),
    _spoiled(_anywhere, _circle),
    _spoiled(_anywhere, _foreign),
    lags(and_ends=False),
    lags(and_ends=True),
    _spoiled(_anywhere, _strangers),
)


WAITED_FOR = (FAULTS[9], FAULTS[10], FAULTS[13])  # a web page, an outage, an answer that ends in the middle


@dataclass
class Lists:
    """Many lists, each at its own address, behind one session."""

    of: dict[str, Listing]
    root: str = ROOT

    def get(self, url: str, *, headers: dict[str, str] | None = None) -> requests.Response:
        return self.of[urlsplit(url).path.split("/")[-2]].get(url, headers=headers)


def changes(rows: dict[int, str], dice: Dice) -> dict[int, str]:
    """A day later: some went, some came, some have another name."""
    now = dict(rows)
    for number in dice.sample(sorted(now), k=min(len(now), dice.choice((0, 0, 1, 2)))):
        del now[number]
    for number in dice.sample(range(1, 60), k=dice.choice((0, 1, 2))):
        now.setdefault(number, f"C{number}")
    for number in dice.sample(sorted(now), k=min(len(now), dice.choice((0, 1)))):
        now[number] = f"renamed {dice.random():.3f}"
    order = list(now.items())
    if dice.random() < 0.3:
        dice.shuffle(order)
    return dict(order)
