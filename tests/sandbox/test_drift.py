"""Lists that differ from one read to the next, and lists that do not."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from sandbox.customers import Customers
from sandbox.directory import Tenant
from sandbox.drift import Drift
from sandbox.world import World
from tests.sandbox.conftest import PARTNER, PC, Browser
from tests.sandbox.reading import LIST, follow, ids


@pytest.fixture
def token(browser: Browser) -> str:
    return browser.bearer()


def names(customers: Customers) -> dict[str, str]:
    return {customer.tenant_id: customer.company_name for customer in customers}


def test_a_list_nobody_touches_is_the_same_to_the_byte(world: World, browser: Browser, token: str) -> None:
    first = browser.get(LIST, token).content
    world.kept.most = 10_000_000

    made, kept = browser.get(LIST, token).content, browser.get(LIST, token).content

    assert first == made == kept
    assert world.kept.size == len(first)


@pytest.mark.parametrize("share", [0.01, 0.25, 1.0])
def test_a_share_of_the_customers_changes_in_every_page_alike(share: float) -> None:
    customers = Customers(1, PARTNER, 5000)
    before = names(customers)

    customers.change(share)

    after = names(customers)
    changed = [index for index, name in enumerate(after.values()) if before[list(before)[index]] != name]
    assert set(before) == set(after)
    assert len(changed) == pytest.approx(5000 * share, rel=0.05)
    for page in range(10):
        assert len([index for index in changed if index // 500 == page]) == pytest.approx(500 * share, abs=2)


def test_each_revision_leaves_what_others_changed_as_it_was() -> None:
    customers = Customers(1, PARTNER, 3000)
    customers.change(0.5)
    before = names(customers)

    revision = customers.change(0.02)

    after = names(customers)
    changed = {name for tenant_id, name in after.items() if before[tenant_id] != name}
    assert revision == 2
    assert len(changed) == pytest.approx(60, abs=3)
    assert all(name.endswith(" 2") for name in changed)


def test_a_page_that_was_kept_is_not_shown_after_a_change(
    world: World, browser: Browser, partner: Tenant, token: str
) -> None:
    world.kept.most = 10_000_000
    seen = [browser.get(LIST, token).content]

    for change in (
        lambda: partner.customers.change(0.01),
        lambda: partner.customers.hide(0.1),
        lambda: partner.customers.removed.add(3),
        lambda: partner.customer_overrides.update({5: {"companyName": "Odd"}}),
        lambda: partner.quirks.append("v1-next"),
    ):
        change()
        seen.append(browser.get(LIST, token).content)

    assert len(set(seen)) == 6


def test_absent_customers_are_gone_and_come_back(browser: Browser, partner: Tenant, token: str) -> None:
    whole = ids(follow(browser, token))
    partner.customers.hide(0.3)

    pages = follow(browser, token)
    gone = sorted(set(whole) - set(ids(pages)))
    again = follow(browser, token)
    one = browser.get(f"{PC}/v1/customers/{gone[0]}", token)
    partner.customers.hide(0)

    assert len(gone) == pytest.approx(361, abs=5)
    assert {page["totalCount"] for page in pages} == {len(ids(pages))} == {1203 - len(gone)}
    assert ids(again) == ids(pages)
    assert one.status_code == 404
    assert ids(follow(browser, token)) == whole


@pytest.mark.parametrize("order", ["rotated", "shuffled"])
def test_another_order_at_each_read_still_has_everybody_once(
    browser: Browser, partner: Tenant, token: str, order: str
) -> None:
    plain = ids(follow(browser, token))
    partner.customers.drift = Drift(order=order)

    first, second = follow(browser, token), follow(browser, token)

    assert len({tuple(plain), tuple(ids(first)), tuple(ids(second))}) == 3
    assert sorted(ids(first)) == sorted(ids(second)) == sorted(plain)
    same_pages = [set(ids([a])) == set(ids([b])) for a, b in zip(first, second, strict=True)]
    assert all(same_pages) == (order == "rotated")


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 500, 1000, 4096])
def test_a_shuffled_list_deals_every_place_once(count: int) -> None:
    for read in range(1, 40):
        assert len({Drift().index(place, count, read) for place in range(count)}) == count


def test_a_rotated_page_survives_any_name(browser: Browser, partner: Tenant, token: str) -> None:
    partner.customer_overrides = {index: {"companyName": 'a,\n{"b"},{'} for index in range(40)}
    partner.customers.drift = Drift(order="rotated")

    for _ in range(50):
        assert len(browser.get(f"{PC}/v1/customers?size=40", token).json()["items"]) == 40


def test_properties_can_come_in_another_order_each_time(browser: Browser, partner: Tenant, token: str) -> None:
    partner.customers.drift = Drift(fields=True)

    reads = [browser.get(LIST, token) for _ in range(3)]

    assert len({read.content for read in reads}) == 3
    assert reads[0].json() == reads[1].json() == reads[2].json()


def test_orders_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no order 'sideways'"):
        Drift(order="sideways")


def test_what_was_served_is_kept_within_its_bound(world: World, browser: Browser, token: str) -> None:
    world.kept.most = 600_000  # two pages of the three

    for _ in range(4):
        assert len(ids(follow(browser, token))) == 1203

    assert 250_000 < world.kept.size <= 600_000


def test_a_million_customers_take_no_more_memory_than_a_thousand() -> None:
    def peak(count: int) -> int:
        customers = Customers(1, PARTNER, count)
        tracemalloc.start()
        start: int | None = count - 1000
        while start is not None:
            picked, start = customers.page(start, 500)
            json.loads("[" + ",".join(customers.item(index) for index in picked) + "]")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(1_000_000) < 1.2 * peak(1_000)
