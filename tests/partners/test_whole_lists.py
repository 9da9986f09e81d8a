"""What a list must be before anything follows from it: whole, and not much shorter than before."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import requests

from partners import removals
from partners.models import Customer, CustomerUser, ListState
from sandbox.world import World
from tests.partners.pretended import answer
from tests.partners.streams import Listing, item, user
from tests.partners.test_moving_lists import work_of
from tests.partners.turns import A_DAY, Connect, follow, of, overridden, read, users_of, walk
from tokens.actors import SYSTEM

pytestmark = pytest.mark.django_db


# --- Listed twice is not there twice ----------------------------------------------------------------------------------
@pytest.mark.parametrize(("customers", "twice", "omitted"), [(20, 8, 7), (520, 3, 510)], ids=["a page", "two pages"])
def test_a_list_that_names_one_twice_and_another_not_at_all_is_not_whole(
    connected_partner: Connect, world: World, clock: Any, customers: int, twice: int, omitted: int
) -> None:
    partner = connected_partner(customers=customers)
    read(partner)
    overridden(world, partner, "tenantId", {omitted: of(world, partner).customers.at(twice).tenant_id})

    for _ in range(3):
        ended = read(partner)
        assert (ended.outcome, ended.error_code, ended.removed) == ("waiting", "incomplete", 0)
        assert f"listed {customers - 1} and says that there are {customers}" in ended.error
        clock.shift(A_DAY)

    assert partner.customers.filter(missing_since=None).present().count() == customers
    overridden(world, partner, "tenantId", {})
    assert read(partner).outcome == "done"


def test_of_a_list_without_a_total_that_names_one_twice_nobody_is_gone(
    connected_partner: Connect, world: World, clock: Any
) -> None:
    partner = connected_partner(customers=0)
    work, rows = work_of(partner), {number: f"C{number}" for number in range(1, 13)}
    follow(work, Listing(rows, says_total=lambda _total: None))

    def first_again(listing: Listing, page: int, was: requests.Response) -> requests.Response:
        body = json.loads(was.content)
        return answer(body | {"items": [item(1, "C1"), *body["items"][1:]]}) if page == 1 else was

    for _ in range(3):
        follow(work, Listing(rows, says_total=lambda _total: None, spoil=first_again))
        clock.shift(A_DAY)

    assert partner.customers.filter(missing_since=None).present().count() == 12
    rows.pop(5)
    for _ in range(2):
        follow(work, Listing(rows, says_total=lambda _total: None))
        clock.shift(A_DAY)
    assert partner.customers.present().count() == 11


@pytest.mark.parametrize(("listed", "told", "is_short"), [(19, 20, True), (9_999_999, 10_000_000, False)])
def test_of_millions_two_may_look_alike(listed: int, told: int, is_short: bool) -> None:
    assert removals.are_too_few(listed, told) == is_short


def test_in_a_first_sync_as_well(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=520)
    overridden(world, partner, "tenantId", {510: of(world, partner).customers.at(3).tenant_id})

    assert read(partner).error_code == "incomplete"


def test_nothing_follows_from_a_customers_list_that_names_one_on_two_pages(customer: Customer, clock: Any) -> None:
    work, rows = work_of(customer.partner, "users"), dict.fromkeys(range(1, 13), "")
    other = Customer.objects.create(partner=customer.partner, tenant_id=uuid.UUID(int=2 << 100), name="B")
    lists = users_of(customer, rows)
    lists.of |= users_of(other, dict(rows)).of

    def first_again(listing: Listing, page: int, was: requests.Response) -> requests.Response:
        body = json.loads(was.content)
        return answer(body | {"items": [user(1), *body["items"][1:]]}) if page == 1 else was

    walk(work, lists)
    for _ in range(3):
        lists.of[str(customer.tenant_id)].spoil = first_again
        lists.of[str(other.tenant_id)].rows.pop(9, None)
        walk(work, lists)
        clock.shift(A_DAY)

    gone = CustomerUser.objects.exclude(removed_at=None)
    assert list(gone.values_list("customer", "key")) == [(other.pk, str(uuid.UUID(int=9)))]
    assert not CustomerUser.objects.filter(customer=customer).exclude(missing_since=None).exists()


# --- The guard looks at each list -------------------------------------------------------------------------------------
@pytest.mark.parametrize("customers", [1, 5])
def test_a_list_that_became_empty_waits_for_a_person(
    connected_partner: Connect, world: World, clock: Any, customers: int
) -> None:
    partner = connected_partner(customers=customers)
    read(partner)
    of(world, partner).customers.removed = set(range(customers))

    for _ in range(3):
        read(partner)
        clock.shift(A_DAY)

    assert partner.customers.filter(missing_since=None).present().count() == customers
    assert removals.accept(partner, "customers", by=SYSTEM) == customers
    for _ in range(2):
        read(partner)
        clock.shift(A_DAY)
    assert partner.customers.present().count() == 0


@pytest.mark.parametrize(("left", "is_held"), [(0, True), (20, True), (27, False)])
def test_many_that_one_customers_list_lacks_wait_for_a_person_and_others_do_not(
    connected_partner: Connect, world: World, clock: Any, left: int, is_held: bool
) -> None:
    partner = connected_partner(customers=60)
    read(partner)
    overridden(world, partner, "users", dict.fromkeys(range(60), 30))
    read(partner, "users")
    lane = {customer.tenant_id: customer.index for customer in of(world, partner).customers if customer.tenant_id < "4"}
    shrunk, other, *_ = lane.values()
    overridden(world, partner, "users", dict.fromkeys(range(60), 30) | {shrunk: left, other: 29})

    for _ in range(2):
        read(partner, "users")
        clock.shift(A_DAY)

    def present(index: int) -> int:
        tenant_id = of(world, partner).customers.at(index).tenant_id
        return CustomerUser.objects.present().filter(customer__tenant_id=tenant_id).count()

    assert (present(shrunk), present(other)) == (30 if is_held else left, 29)
    held = list(ListState.objects.filter(kind="users", held_at__isnull=False).values_list("lane", "missing"))
    assert held == ([("0/4", 30 - left)] if is_held else [])
    assert removals.accept(partner, "users", by=SYSTEM) == (30 - left if is_held else 0)
    for _ in range(2):
        read(partner, "users")
        clock.shift(A_DAY)
    assert present(shrunk) == left
