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
INVENTED = 1_000  # numbers from here on are nobody's, or somebody else's


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
    Who is `hidden` is left out and not counted, though they are there. It `was_at_fault` once anything of that showed.
    """

    rows: dict[int, str]
    size: int = 4
    hidden: frozenset[int] = frozenset()
    between: Callable[[Listing, int], None] | None = None
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
    was_at_fault: bool = False

    def get(self, url: str, *, headers: dict[str, str] | None = None) -> requests.Response:
        """Stands for the broker's session."""
        place = int((headers or {}).get("MS-ContinuationToken", "0"))
        number = place // self.size
        self.calls += 1
        before = self.rows
        if self.between:
            self.between(self, number)
        order = [one for one in self.rows if one not in self.hidden]
        picked = order[place : place + self.size]
        link = {
            "uri": f"/{self.path}?size=500&seekOperation=Next&n={place + self.size}",
            "headers": [{"key": "MS-ContinuationToken", "value": str(place + self.size)}],
        }
        links = {"self": {"uri": f"/{self.path}?size=500"}}
        rest: dict[str, Any] = {"links": links | ({"next": link} if place + self.size < len(order) else {})}
        total = self.says_total(len(order))
        if total is not None:
            rest["totalCount"] = total
        self.listed = set(picked)
        content = self.shape([self.make(one, self.rows[one]) for one in picked], rest)
        well = answer(raw=content)
        given = self.spoil(self, number, well)
        is_odd = total != len(self.rows) or self.shape is not Listing.shape
        self.was_at_fault |= given is not well or is_odd or list(before) != list(self.rows)
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
        now.rows = dict(now.rows)
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


def _first(listing: Listing, dice: Dice) -> int:
    return 0


def _at_the_end(listing: Listing, dice: Dice) -> int:
    return max(0, -(-len(listing.rows) // listing.size) - 1)


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


def _leading_to(place: int) -> Callable[[Listing, requests.Response], requests.Response]:
    """The next link leads back to one page and the same again, from wherever it stands."""

    def given(now: Listing, was: requests.Response) -> requests.Response:
        body = json.loads(was.content)
        now.listed = set()
        return answer(body | {"links": {"next": _link(now, place * now.size)}})

    return given


def _link(now: Listing, place: int) -> dict[str, Any]:
    token = {"key": "MS-ContinuationToken", "value": str(place)}
    return {"uri": f"/{now.path}?size=500&seekOperation=Next&n={place}", "headers": [token]}


def _foreign(now: Listing, was: requests.Response) -> requests.Response:
    body = json.loads(was.content)
    now.listed = set()
    return answer(body | {"links": {"next": {"uri": "https://evil.test/v1/customers", "headers": []}}})


def _one_instead(now: Listing, was: requests.Response) -> requests.Response:
    """Somebody is listed a second time in another one's place, so that the number of all is right."""
    body = json.loads(was.content)
    if len(now.rows) < 2 or not body["items"]:
        return was
    again = next(one for one in now.rows if now.make(one, "")["id"] != body["items"][-1]["id"])
    body["items"][-1] = now.make(again, now.rows[again])
    now.listed = {UUID(one["id"]).int for one in body["items"]}
    return answer(body)


def _strangers(now: Listing, numbers: range, body: dict[str, Any]) -> requests.Response:
    """Another tenant's page. About one customer such a page says whose it is."""
    path = now.path.split("/")
    now.listed = set()
    body["items"] = [now.make(number, "") for number in numbers]
    if len(path) > 1:
        path[1] = str(UUID(int=INVENTED))
        body["links"]["self"] = {"uri": f"/{'/'.join(path)}"}
    return answer(body)


def _nobody_known(now: Listing, was: requests.Response) -> requests.Response:
    body = json.loads(was.content)
    return _strangers(now, range(INVENTED, INVENTED + max(1, len(body["items"]))), body)


def is_anothers(listing: Listing, dice: Dice) -> None:
    """The whole list is another tenant's, and has its own length."""
    length = dice.choice((1, 3, 9, 14))

    def spoil(now: Listing, page: int, was: requests.Response) -> requests.Response:
        begin, end = page * now.size, min((page + 1) * now.size, length)
        links = {"next": _link(now, end)} if end < length else {}
        return _strangers(now, range(INVENTED + begin, INVENTED + end), {"totalCount": length, "links": links})

    listing.spoil = spoil


def one_is_anothers(listing: Listing, dice: Dice) -> None:
    """A page after the first is another tenant's, if it lists ten; with fewer it could be anybody's."""
    where = dice.randrange(1, max(2, -(-len(listing.rows) // listing.size)))
    listing.spoil = lambda now, page, was: (
        _nobody_known(now, was) if page == where and len(json.loads(was.content)["items"]) >= 10 else was
    )


def has_no_end(listing: Listing, dice: Dice) -> None:
    """Behind the last one come invented ones, page after page, first few and then more than there are in all."""
    end = _at_the_end(listing, dice)

    def spoil(now: Listing, page: int, was: requests.Response) -> requests.Response:
        if page < end:
            return was
        body = json.loads(was.content)
        number = 2 if page == end else len(now.rows) + 20
        begin = INVENTED + 100 * (page - end)
        now.listed = set()
        body["items"] += [now.make(begin + place, "") for place in range(number)]
        body["links"]["next"] = _link(now, (page + 1) * now.size)
        return answer(body)

    listing.spoil = spoil


def _far_too_many(now: Listing, was: requests.Response) -> requests.Response:
    body = json.loads(was.content)
    now.listed = set()
    number = 1_001 if now.path == "customers" else 0
    return answer(body | {"items": body["items"] + [now.make(INVENTED + place, "") for place in range(number)]})


def _empty_page(now: Listing, was: requests.Response) -> requests.Response:
    """A page without entries, and where it goes on the list is as if it had had them."""
    body = json.loads(was.content)
    now.listed = set()
    return answer(body | {"items": []})


def _holes(now: Listing, was: requests.Response) -> requests.Response:
    """Of some there is an id and nothing else."""
    body = json.loads(was.content)
    body["items"] = [{"id": one["id"]} if place % 2 else one for place, one in enumerate(body["items"])]
    return answer(body)


def _no_list(now: Listing, was: requests.Response) -> requests.Response:
    now.listed = set()
    return answer({"items": {"code": 0}})


def hides(share: float) -> Fault:
    """So many are not listed today, and nothing else tells."""

    def fault(listing: Listing, dice: Dice) -> None:
        number = max(1, round(share * len(listing.rows)))
        listing.hidden = frozenset(dice.sample(sorted(listing.rows), k=min(number, len(listing.rows))))

    return fault


def counts_too_many(listing: Listing, dice: Dice) -> None:
    listing.says_total = lambda total: total + 1


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


OF_ANOTHER = (_spoiled(_first, _nobody_known), is_anothers)
WAITED_FOR = (
    _spoiled(_anywhere, _answers(raw=b"<html>")),
    _spoiled(_anywhere, _answers(raw=b"", status=500)),
    _spoiled(_anywhere, _cut),
)
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
    _spoiled(_anywhere, _one_instead),
    _spoiled(_anywhere, _empty_page),
    _spoiled(_anywhere, _holes),
    _spoiled(_anywhere, _no_list),
    _spoiled(_anywhere, _far_too_many),
    _spoiled(_anywhere, _answers(body={"code": 2000}, status=400)),
    _spoiled(_anywhere, _answers(body={"code": 2032}, status=403)),
    _spoiled(_anywhere, _leading_to(1)),
    _spoiled(_at_the_end, _leading_to(0)),
    _spoiled(_anywhere, _foreign),
    lags(and_ends=False),
    lags(and_ends=True),
    counts_too_many,
    hides(0),
    hides(0.5),
    hides(1),
    has_no_end,
    one_is_anothers,
    *OF_ANOTHER,
    *WAITED_FOR,
)


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
