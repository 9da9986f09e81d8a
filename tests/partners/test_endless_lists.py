"""A list without end: what it added is taken back, unless a person says that it is so long."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from partners import jobs, removals
from partners.models import Customer, CustomerUser, ListPage, ListRefusal, ListState, Run
from sandbox.world import World
from tests.partners.streams import Listing
from tests.partners.test_moving_lists import work_of
from tests.partners.test_sync import at_microsoft, mirrored
from tests.partners.turns import Connect, follow, read, refused, users_of, walk
from tokens.actors import SYSTEM

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("customers", [30, 520])
@pytest.mark.parametrize("is_known", [True, False])
def test_of_a_list_without_end_nothing_stays(
    connected_partner: Connect, world: World, customers: int, is_known: bool
) -> None:
    partner = connected_partner(customers=customers)
    if is_known:
        read(partner)
    before = mirrored(partner)
    world.fail("partnercenter", "endless-next")

    ended = read(partner)

    assert (ended.outcome, ended.error_code, ended.created) == ("failed", "endless_list", 0)
    assert ended.pages <= 25
    assert mirrored(partner) == before
    assert partner.customers.count() == len(before)
    world.heal("partnercenter")
    assert read(partner).outcome == "done"
    assert mirrored(partner) == at_microsoft(world, partner)


@pytest.mark.parametrize("told", [0, 2, 3])
def test_a_list_that_tells_fewer_than_one_of_its_pages_lists_is_read_to_its_end(
    connected_partner: Connect, told: int
) -> None:
    partner = connected_partner(customers=0)

    for last in (30, 60):
        follow(work_of(partner), Listing(dict.fromkeys(range(1, last + 1), "C"), says_total=lambda _total: told))
        assert partner.customers.present().count() == last


def test_a_list_that_grew_by_thousands_is_taken_once_a_person_says_that_it_is_so_long(
    connected_partner: Connect, clock: Any
) -> None:
    partner = connected_partner(customers=0)
    work = work_of(partner)

    def listing(last: int) -> Listing:
        return Listing(dict.fromkeys(range(1, last + 1), "C"), size=500, says_total=lambda total: min(total, 500))

    follow(work, listing(600))
    for _ in range(2):
        assert not removals.accept_strangers(partner, "customers", by=SYSTEM)
        assert refused(work, listing(11_800)) == "endless_list"
        assert partner.customers.count() == 600

    Run.objects.filter(pk=work.run.pk).update(error_code="endless_list")
    assert removals.accept_strangers(partner, "customers", by=SYSTEM)
    follow(work, listing(11_800))
    assert partner.customers.present().count() == 11_800
    assert not ListState.objects.exclude(accepted_at=None).exists(), "it was for one run"


def test_what_came_in_earlier_turns_is_taken_back_too(connected_partner: Connect, world: World, settings: Any) -> None:
    partner = connected_partner(customers=1_000)
    world.fail("partnercenter", "endless-next")
    settings.CPV_TURN_SECONDS = -1  # a turn is one batch

    runs = [read(partner)]
    while runs[-1].error_code == "turn_over":
        assert partner.customers.count() > 0
        runs.append(read(partner))

    assert len(runs) > 1
    assert runs[-1].error_code == "endless_list"
    assert "that it had added are taken back" in runs[-1].error
    assert (partner.customers.count(), ListPage.objects.filter(partner=partner).count()) == (0, 0)


def test_what_a_list_in_a_circle_listed_is_true_and_stays(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=1_000)
    world.fail("partnercenter", "circle-next")

    assert read(partner).error_code == "cyclic_link"
    assert mirrored(partner) == at_microsoft(world, partner)


@pytest.mark.parametrize("told", [600, None])
def test_of_one_customers_list_without_end_nothing_stays_however_many_turns_it_takes(
    customer: Customer, told: int | None
) -> None:
    work, known = work_of(customer.partner, "users"), dict.fromkeys(range(1, 501), "")
    walk(work, users_of(customer, known, size=500))
    endless = users_of(customer, dict.fromkeys(range(1, 30000), ""), size=500, says_total=lambda _total: told)

    for _reading in range(3):  # refused once, its pages are gone
        ListRefusal.objects.all().delete()
        turns = 0
        while not ListRefusal.objects.exists():
            turns += 1
            assert turns < 8
            work.until = 0
            with contextlib.suppress(jobs.TurnOver):
                walk(work, endless)
            if turns == 2:
                assert CustomerUser.objects.count() > 500

        assert ListRefusal.objects.get().code == "endless_list"
        assert turns > 1
        assert CustomerUser.objects.filter(removed_at=None, missing_since=None).count() == 500
        assert CustomerUser.objects.count() == 500


def test_how_many_customers_had_is_asked_at_once_and_only_where_no_page_tells(customer: Customer) -> None:
    work, rows = work_of(customer.partner, "users"), dict.fromkeys(range(1, 4), "")
    lists = users_of(customer, dict(rows))
    for number in range(2, 32):
        other = Customer.objects.create(partner=customer.partner, tenant_id=uuid.UUID(int=number << 100), name="B")
        lists.of |= users_of(other, dict(rows)).of
    walk(work, lists)

    def asked() -> int:
        with CaptureQueriesContext(connection) as queries:
            walk(work, lists)
        return sum("GROUP BY" in query["sql"] for query in queries)

    assert asked() == 0
    ListPage.objects.all().delete()
    assert asked() == 1
