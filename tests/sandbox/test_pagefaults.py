"""Pages that are wrong, each in its own way; the list behind them is whole."""

from __future__ import annotations

import re

import pytest
import requests

from sandbox import faults
from sandbox.directory import Tenant
from sandbox.world import World
from tests.sandbox.conftest import GRAPH, LOGIN, PARTNER, PC, VAULT, Browser, Clock
from tests.sandbox.reading import LIST, Body, follow, following, ids


@pytest.fixture
def token(browser: Browser) -> str:
    return browser.bearer()


@pytest.fixture
def whole(partner: Tenant) -> list[str]:
    return [customer.tenant_id for customer in partner.customers]


def next_token(page: Body) -> str:
    found = following(page)
    assert found
    return found["MS-ContinuationToken"]


def test_a_list_without_end_goes_on_with_new_customers(
    world: World, browser: Browser, token: str, whole: list[str]
) -> None:
    world.fail("partnercenter", "endless-next")

    pages = follow(browser, token, most=8)

    assert len(pages) == 8
    assert ids(pages)[:1203] == whole
    assert len(set(ids(pages))) == len(ids(pages)) == 4000
    assert len({next_token(page) for page in pages}) == 8


def test_a_list_in_a_circle_leads_from_its_end_to_its_beginning_by_new_tokens(
    world: World, browser: Browser, token: str, whole: list[str]
) -> None:
    world.fail("partnercenter", "circle-next")

    pages = follow(browser, token, most=7)

    assert ids(pages)[1203:2406] == whole
    assert len({next_token(page) for page in pages}) == 7


def test_an_empty_page_leads_to_where_it_stood(world: World, browser: Browser, token: str, whole: list[str]) -> None:
    world.fail("partnercenter", "empty-page", operation="next", times=2)

    pages = follow(browser, token)

    assert [len(page["items"]) for page in pages] == [500, 0, 0, 500, 203]
    assert ids(pages) == whole


def test_more_items_than_were_asked_for(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "too-many-items")

    assert len(browser.get(f"{PC}/v1/customers?size=100", token).json()["items"]) == 1000


def test_a_count_that_is_wrong_and_json_that_is_no_list(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "wrong-total", times=1)
    world.fail("partnercenter", "no-items", times=1)

    assert browser.get(LIST, token).json()["totalCount"] == 1204
    assert browser.get(LIST, token).json()["items"] == {"code": 0}


@pytest.mark.parametrize(
    ("kind", "twice", "never"), [("inserted", [499], []), ("removed", [], [500]), ("moved", [], [500])]
)
def test_a_list_that_moves_under_the_reader(
    world: World, browser: Browser, token: str, whole: list[str], kind: str, twice: list[int], never: list[int]
) -> None:
    operation = "next" if kind == "moved" else "first"
    world.fail("partnercenter", kind, operation=operation, times=1)

    seen = ids(follow(browser, token))

    assert [whole.index(one) for one in whole if seen.count(one) > 1] == twice
    assert [whole.index(one) for one in whole if one not in seen] == never
    assert ids(follow(browser, token)) == whole


def test_a_cursor_that_is_not_known_any_more(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "cursor-rejected")
    page = browser.get(LIST, token)

    answer = browser.get(f"{LIST}&seekOperation=Next", token, **following(page.json()) or {})

    assert page.status_code == 200
    assert (answer.status_code, answer.json()["code"]) == (400, 2000)


def test_a_fault_can_wait_for_a_page_in_the_middle(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "404", after=2, times=1)

    found = [browser.get(LIST, token).status_code for _ in range(4)]

    assert found == [200, 200, 404, 200]


@pytest.mark.parametrize(("kind", "status"), [("400", 400), ("404", 404), ("502", 502), ("504", 504)])
def test_plain_refusals(world: World, browser: Browser, token: str, kind: str, status: int) -> None:
    world.fail("partnercenter", kind)

    assert browser.get(LIST, token).status_code == status


def test_a_page_in_drops_comes_whole_but_late(world: World, browser: Browser, token: str, clock: Clock) -> None:
    sound = browser.get(LIST, token).content
    world.fail("partnercenter", "drip", seconds=25)

    answer = browser.get(LIST, token)

    assert answer.content == sound
    assert sum(clock.slept) == pytest.approx(25, abs=0.5)


def test_a_page_that_drips_for_longer_than_anybody_waits_is_a_timeout_for_which_no_test_waits(
    world: World, browser: Browser, token: str, clock: Clock
) -> None:
    world.fail("partnercenter", "drip", seconds=world.hang_seconds + 1)

    with pytest.raises(requests.exceptions.ReadTimeout):
        browser.get(LIST, token)
    assert clock.slept == []


def test_a_connection_that_breaks_in_the_middle_is_no_answer(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "cut")

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        browser.get(LIST, token)


def test_a_page_of_more_bytes_than_anybody_wants(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "too-many-bytes", size=3_000_000)

    answer = browser.get(LIST, token)

    assert len(answer.content) == int(answer.headers["Content-Length"]) == 3_000_000
    assert len(answer.json()["items"]) == 500


def test_items_with_nothing_but_an_id(world: World, browser: Browser, token: str, whole: list[str]) -> None:
    world.fail("partnercenter", "holes")

    page = browser.get(LIST, token).json()

    assert ids([page]) == whole[:500]
    assert [index for index, item in enumerate(page["items"]) if set(item) == {"id"}] == list(range(6, 500, 7))


ADDRESSES = {
    "entra": f"{LOGIN}/{PARTNER}/v2.0/.well-known/openid-configuration",
    "graph": f"{GRAPH}/v1.0/me",
    "partnercenter": LIST,
    "vault": f"{VAULT}/secrets/a/?api-version=7.5",
}
SOME = [(service, kind) for service in faults.SERVICES for kind in faults.ANYWHERE]
SOME += [("partnercenter", kind) for kind in faults.PARTNER_CENTER_ONLY | faults.APIS_ONLY]
SOME += [("graph", kind) for kind in faults.APIS_ONLY]

# late, or of no effect on a first page
HARMLESS = {"slow", "drip", "circle-next", "endless-next", "cursor-rejected", "moved"}


@pytest.mark.parametrize(("service", "kind"), SOME)
def test_every_fault_comes_once_and_goes(world: World, browser: Browser, token: str, service: str, kind: str) -> None:
    def answer() -> tuple[int, bytes] | None:
        try:
            found = browser.get(ADDRESSES[service], token, **{"client-request-id": "one"})
        except requests.RequestException:
            return None
        return found.status_code, re.sub(rb"20\d\d-[\d:T-]+|[0-9a-f-]{36}", b"", found.content)

    sound = answer()
    world.fail(service, kind, seconds=0.01, size=400_000, times=1)

    faulty = answer()

    assert world.calls[-1].fault == kind
    assert (faulty == sound) == (kind in HARMLESS)
    assert answer() == sound
