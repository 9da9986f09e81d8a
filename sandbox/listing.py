"""Lists that come in pages: where the caller is, one page, and how to go on; SDK CustomerCollectionOperations."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from sandbox import jose
from sandbox.asks import Answer, Ask
from sandbox.customers import BETWEEN, FIELD_ORDERS, listed
from sandbox.directory import Tenant
from sandbox.envelopes import collection, link, refusal
from sandbox.faults import PAGES
from sandbox.kept import Key, Page
from sandbox.world import World

PAGE_CAP = 500
DEFAULT_SIZE = 100
_FIELDS = {"companyname": "company_name", "domain": "domain"}
_BETWEEN = BETWEEN.encode()


@dataclass(frozen=True)
class Place:
    """
    Where a caller is in a list (of customers, or of one's users); it travels in a header, never in the address.

    `read` is the number of a read whose list has an order of its own, `turn` tells apart tokens for the same place.
    """

    start: int
    filter: str | None
    tenant: str
    customer: str | None
    read: int = 0
    turn: int = 0

    @property
    def token(self) -> str:
        place: dict[str, Any] = {"start": self.start, "filter": self.filter, "tenant": self.tenant}
        place["customer"] = self.customer
        more = {name: getattr(self, name) for name in ("read", "turn") if getattr(self, name)}
        return jose.b64(json.dumps(place | more).encode())


def size_of(ask: Ask) -> int:
    text = ask.request.args.get("size", "0")
    if not text.isdigit():
        raise Answer(refusal(400, 2000, "size must be a number."))
    return min(int(text) or DEFAULT_SIZE, PAGE_CAP)


def place_of(ask: Ask, tenant: Tenant, customer: str | None = None) -> Place:
    """
    Where the caller wants to go on.

    :raises Answer: 400 without the header on a seek, and for a token that is not of this list
    """
    token = ask.request.headers.get("MS-ContinuationToken")
    if not token:
        if ask.request.args.get("seekOperation"):
            raise Answer(refusal(400, 2000, "The continuation token is missing."))
        return Place(0, ask.request.args.get("filter"), tenant.id, customer)
    try:
        place = json.loads(jose.unb64(token))
        if (place["tenant"], place["customer"]) != (tenant.id, customer) or ask.has_fault("cursor-rejected"):
            raise ValueError
        read, turn = int(place.get("read", 0)), int(place.get("turn", 0))
        return Place(int(place["start"]), place["filter"], tenant.id, customer, read, turn)
    except (ValueError, KeyError, TypeError) as error:
        raise Answer(refusal(400, 2000, "The continuation token is not valid.")) from error


def self_uri(ask: Ask, path: str = "/customers") -> str:
    query = ask.request.query_string.decode()
    return path + (f"?{query}" if query else "")


def links_of(ask: Ask, tenant: Tenant, path: str, size: int, following: Place | None) -> dict[str, Any]:
    """The links of a page; `following` is where the next one begins."""
    links = {"self": link(self_uri(ask, path))}
    if following is not None and "body-token" not in tenant.quirks:
        links["next"] = _next(ask, tenant, path, size, following)
    return links


def _next(ask: Ask, tenant: Tenant, path: str, size: int, following: Place) -> dict[str, Any]:
    mark = "?" if "second-question-mark" in tenant.quirks else "&"
    uri = f"{path}?size={size}{mark}seekOperation=Next"
    if ask.world.next_link_with_v1 or ask.has_fault("v1-next") or "v1-next" in tenant.quirks:
        uri = "/v1" + uri
    if ask.has_fault("foreign-next"):
        uri = f"https://customers.evil.test/v1{uri}&from={quote(ask.place.host)}"
    return link(uri, [{"key": "MS-ContinuationToken", "value": following.token}])


def page_of(total: int, items: str, links: dict[str, Any], tenant: Tenant, following: Place | None) -> Page:
    """One page, with its token in the body for who wants that."""
    body = collection(total, items, links)
    begin = body.index(b"[") + 1
    end = begin + len(items.encode()) - 2
    if following is not None and "body-token" in tenant.quirks:
        body = body[:-1] + f',"continuationToken":"{following.token}"}}'.encode()
    return Page(body, begin, end, 0)


# customers


def customers(ask: Ask, tenant: Tenant) -> bytes:
    """
    A page of the partner's customers.

    :raises Answer: 400 for a size, a filter or a token that it does not know
    """
    size, place = size_of(ask), place_of(ask, tenant)
    drift = tenant.customers.drift
    if drift.order == "shuffled" and not place.start and not place.read:
        place = replace(place, read=drift.next_read())
    turn = drift.next_read() % FIELD_ORDERS if drift.fields else 0
    page = _page(ask, tenant, size, place, turn)
    ask.call.detail |= {"start": place.start, "items": page.items}
    return begun_elsewhere(page, drift.next_read()) if drift.order == "rotated" else page.body


def _page(ask: Ask, tenant: Tenant, size: int, place: Place, turn: int) -> Page:
    """Made once and kept, unless it is another one each time."""
    if place.read or place.filter or (ask.fault is not None and ask.fault.kind in PAGES):
        return _made(ask, tenant, size, place, turn)
    world = ask.world
    key: Key = (state_of(world, tenant), (size, place, turn, ask.request.query_string))
    page = world.kept.get(key)
    if page is None:
        page = _made(ask, tenant, size, place, turn)
        with world.lock:
            world.kept.put(key, page)
    if not turn:
        token = ask.request.headers.get("MS-ContinuationToken", "")
        world.kept.shorten((tenant.id, ask.request.query_string.decode("latin-1"), token), key)
    return page


def state_of(world: World, tenant: Tenant) -> tuple[object, ...]:
    """Differs when pages of this partner's list may."""
    return (tenant.id, tenant.customers.stamp(), tuple(tenant.quirks), world.next_link_with_v1)


def _made(ask: Ask, tenant: Tenant, size: int, place: Place, turn: int) -> Page:
    if ask.has_fault("no-items"):
        return Page(b'{"items":{"code":0},"attributes":{"objectType":"Collection"}}', 0, 0, 0)
    picked, start, total = _picked(ask, tenant, size, place)
    following = None if start is None else replace(place, start=start)
    picked, following = _disturbed(ask, place, picked, following)
    owner = owner_of(ask, tenant).customers
    texts = [owner.item(index, turn) for index in picked]
    if ask.has_fault("holes"):
        texts[6::7] = [f'{{"id":"{owner.at(index).tenant_id}"}}' for index in picked[6::7]]
    items = listed(texts)
    links = links_of(ask, tenant, "/customers", size, following)
    page = page_of(total + ask.has_fault("wrong-total"), items, links, tenant, following)
    return page._replace(items=len(picked))


def _picked(ask: Ask, tenant: Tenant, size: int, place: Place) -> tuple[list[int], int | None, int]:
    """Which customers, where the next page starts, and how many there are in all."""
    customers, total = tenant.customers, len(tenant.customers)
    size *= 10 if ask.has_fault("too-many-items") else 1
    wanted = _filter(place.filter)
    if wanted:
        found, end = customers.matching(*wanted), place.start + size
        return found[place.start : end], end if end < len(found) else None, len(found)
    if ask.has_fault("endless-next") and place.start + size >= customers.count:
        end = place.start + size
        return (
            [index for index in range(place.start, end) if index >= customers.count or customers.has(index)],
            end,
            total,
        )
    return *customers.page(place.start, size, place.read), total


def _filter(text: str | None) -> tuple[str, str] | None:
    """The one filter customers know: the beginning of the name or of the domain."""
    if not text:
        return None
    try:
        given = {name.lower(): value for name, value in json.loads(text).items()}
        if given["operator"].lower() != "starts_with":
            raise ValueError
        return _FIELDS[given["field"].lower()], str(given["value"])
    except (ValueError, KeyError, AttributeError) as error:
        raise Answer(refusal(400, 2000, "The filter is not valid.")) from error


def _disturbed(ask: Ask, place: Place, picked: list[int], following: Place | None) -> tuple[list[int], Place | None]:
    """What a fault makes of a page's customers and of the way on."""
    kind = ask.fault.kind if ask.fault else ""
    again = replace(place, turn=place.turn + 1)
    if kind == "duplicates":
        picked = picked + picked[:10]
    elif kind == "moved":
        picked = picked[1:] if place.start else picked
    elif kind == "empty-page":
        picked, following = [], again
    elif kind == "cyclic-next":
        following = place
    elif kind == "circle-next" and following is None:
        following = replace(again, start=0)
    elif following is not None and kind in ("inserted", "removed"):
        following = replace(following, start=following.start + (-1 if kind == "inserted" else 1))
    return picked, following


def owner_of(ask: Ask, tenant: Tenant) -> Tenant:
    """Whose customers are shown: another partner's, if a fault says so and there is one."""
    if ask.has_fault("other-tenant"):
        others = (other for other in ask.world.tenants.values() if other.id != tenant.id and other.customers.count)
        return next(others, tenant)
    return tenant


def begun_elsewhere(page: Page, read: int) -> bytes:
    """The same items, beginning somewhere else; two copies of memory and no more."""
    body, begin, end = page.body, page.begin, page.end
    span = end - begin
    cut = body.find(_BETWEEN, begin + read * 0x9E3779B1 % span, end) if span > 0 else -1
    cut = cut if cut >= 0 else body.find(_BETWEEN, begin, end)
    if cut < 0:
        return body
    return b"".join((body[:begin], body[cut + len(_BETWEEN) : end], _BETWEEN, body[begin:cut], body[end:]))
