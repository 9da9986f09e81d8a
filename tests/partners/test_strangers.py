"""Whose list it is: one on which strangers stand in the place of those who are known waits for a person."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import requests

from partners import jobs, removals
from partners.models import ListPage, Partner
from sandbox.world import World
from tests.partners.pretended import answer
from tests.partners.streams import INVENTED, Listing, item
from tests.partners.test_moving_lists import work_of
from tests.partners.test_sync import SECOND, at_microsoft, fail_on_page, mirrored
from tests.partners.turns import A_DAY, Connect, follow, new_ones, of, overridden, read, refused
from tokens.actors import SYSTEM
from tokens.errors import Transient

pytestmark = pytest.mark.django_db


def foreign(world: World, partner: Partner, **where: Any) -> None:
    world.fail("partnercenter", "other-tenant", tenant=str(partner.tenant_id), **where)


@pytest.mark.parametrize("ours", [1, 4, 8])
def test_a_small_list_on_which_nobody_is_known_waits_for_a_person(
    connected_partner: Connect, world: World, clock: Any, ours: int
) -> None:
    partner = connected_partner(customers=ours)
    connected_partner(customers=8, **SECOND)
    read(partner)
    foreign(world, partner)

    for _ in range(2):
        ended = read(partner)
        assert (ended.outcome, ended.error_code) == ("failed", "other_tenant")
        clock.shift(A_DAY)

    assert mirrored(partner) == at_microsoft(world, partner)
    assert removals.accept_strangers(partner, "customers", by=SYSTEM)
    assert read(partner).created == ours


@pytest.mark.parametrize(("ours", "theirs"), [(4, 8), (8, 2), (1, 600)])
def test_nor_is_one_taken_that_is_longer_or_shorter(
    connected_partner: Connect, world: World, ours: int, theirs: int
) -> None:
    partner = connected_partner(customers=ours)
    read(partner)
    before = mirrored(partner)
    of(world, partner).customers.count = theirs
    overridden(world, partner, "tenantId", new_ones(*range(theirs)))

    assert read(partner).error_code == "other_tenant"
    assert mirrored(partner) == before


@pytest.mark.parametrize("ours", [4, 30])
def test_one_customer_whom_two_partners_share_makes_no_list_known(
    connected_partner: Connect, world: World, ours: int
) -> None:
    partner = connected_partner(customers=ours)
    other = connected_partner(customers=40, **SECOND)
    overridden(world, other, "tenantId", {3: of(world, partner).customers.at(0).tenant_id})
    read(partner)
    foreign(world, partner)

    assert read(partner).error_code == "other_tenant"
    assert mirrored(partner) == at_microsoft(world, partner)


def test_the_last_page_of_a_list_may_be_anothers_as_well(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=700)
    connected_partner(customers=700, **SECOND)
    read(partner)
    fail_on_page(world, 2, "other-tenant")

    assert read(partner).error_code == "other_tenant"
    assert mirrored(partner) == at_microsoft(world, partner)


def another(listing: Listing, page: int, was: requests.Response) -> requests.Response:
    """The page of somebody else's list, as long as ours."""
    body = json.loads(was.content)
    return answer(body | {"items": [item(INVENTED + place) for place in range(len(body["items"]))]})


PAGE = 30  # rows of each page below


def pages_of(first: int, last: int, **how: Any) -> Listing:
    return Listing({number: f"C{number}" for number in range(first, last + 1)}, size=PAGE, **how)


@pytest.mark.parametrize("last", [12 * PAGE, 12 * PAGE - 15], ids=["a full page", "half a page"])
def test_a_last_page_that_is_anothers_waits_for_a_person_however_long_the_list_is(
    connected_partner: Connect, clock: Any, last: int
) -> None:
    partner = connected_partner(customers=0)
    work = work_of(partner)
    follow(work, pages_of(1, last))

    def last_is_anothers(listing: Listing, page: int, was: requests.Response) -> requests.Response:
        return another(listing, page, was) if page == 11 else was

    def last_fails(listing: Listing, page: int, was: requests.Response) -> requests.Response:
        return answer(status=500) if page == 11 else was

    for new in (last + 1, last + 2, last + 3):  # stands on the first page, which is taken back, and all pages with it
        clock.shift(A_DAY)
        listing = pages_of(2, last, spoil=last_fails)
        listing.rows = {new: "new"} | listing.rows
        with pytest.raises(Transient):
            follow(work, listing)
        assert partner.customers.count() == last + 1
        listing.spoil = last_is_anothers
        assert refused(work, listing) == "other_tenant"
        assert {one.int for one in partner.customers.present().values_list("tenant_id", flat=True)} == {
            *range(1, last + 1)
        }


def test_a_person_may_say_that_all_who_came_last_are_others_now(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=1_040)
    read(partner)
    overridden(world, partner, "tenantId", new_ones(*range(1_000, 1_040)))

    assert read(partner).error_code == "other_tenant"
    assert removals.accept_strangers(partner, "customers", by=SYSTEM)
    assert read(partner).created == 40


@pytest.mark.parametrize(
    ("first", "last"),
    [(1, 25 * PAGE), (PAGE + 1, 13 * PAGE), (PAGE + 1, 12 * PAGE), (1, 8 * PAGE + 5), (PAGE + 1, 25 * PAGE)],
    ids=["only grew", "moved up a page and grew by one", "moved up", "is shorter", "moved up a page and grew by many"],
)
@pytest.mark.parametrize("in_turns", [False, True])
def test_who_moved_up_a_page_makes_room_for_new_ones(
    connected_partner: Connect, settings: Any, first: int, last: int, in_turns: bool
) -> None:
    partner = connected_partner(customers=0)
    work = work_of(partner)
    follow(work, pages_of(1, 12 * PAGE))
    if in_turns:
        work.until = 0

    listing = pages_of(first, last)
    while True:
        with contextlib.suppress(jobs.TurnOver):
            follow(work, listing)
            break

    listed = partner.customers.filter(missing_since=None).values_list("tenant_id", flat=True)
    assert {one.int for one in listed} >= {*range(first, last + 1)}


@pytest.mark.parametrize("is_theirs", [False, True])
def test_a_page_within_may_be_anothers_though_nothing_is_known_of_the_pages(
    connected_partner: Connect, world: World, is_theirs: bool
) -> None:
    partner = connected_partner(customers=1_200)
    connected_partner(customers=1_200, **SECOND)
    read(partner)
    ListPage.objects.filter(partner=partner).delete()  # as when what a list added was taken back
    if is_theirs:
        fail_on_page(world, 2, "other-tenant")
    else:
        of(world, partner).customers.count += 600

    assert read(partner).error_code == ("other_tenant" if is_theirs else "")
    assert mirrored(partner) == at_microsoft(world, partner)


@pytest.mark.parametrize(
    ("customers", "changed", "more"),
    [
        (1, (), 20),
        (4, (), 500),
        (4, (2, 3), 0),
        (30, range(15, 30), 0),
        (1_040, range(1_031, 1_040), 0),
        (500, (), 600),
    ],
    ids=["many more", "a page more", "two of four are new", "half is new", "a few who came last", "whole pages more"],
)
def test_a_list_that_grew_or_in_which_some_changed_is_taken(
    connected_partner: Connect, world: World, customers: int, changed: Any, more: int
) -> None:
    partner = connected_partner(customers=customers)
    read(partner)
    overridden(world, partner, "tenantId", new_ones(*changed))
    of(world, partner).customers.count += more

    assert read(partner).outcome == "done"
    assert mirrored(partner) >= at_microsoft(world, partner)


def test_who_signs_in_without_mfa_may_be_somebody_else_each_day(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=0)
    for name in ("one", "two"):
        for account in list(of(world, partner).accounts.values()):
            if not account.upn.startswith("svc"):
                of(world, partner).accounts.pop(account.oid)
        of(world, partner).add_account(f"{name}@contoso.test", mfa_possible=False)
        assert read(partner, "mfa").outcome == "done"
