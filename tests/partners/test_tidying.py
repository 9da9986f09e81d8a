"""What is erased by its date goes while lists are read, and no run takes that for a loss."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from partners import removals
from partners.models import Customer, CustomerUser, ListPage, ListState, Partner
from tests.partners.streams import Listing, Lists
from tests.partners.test_moving_lists import work_of
from tests.partners.turns import users_of, walk

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
LONG_AGO = dt.timedelta(days=31)


@pytest.fixture
def customers(connected_partner: Connect) -> list[Customer]:
    partner = connected_partner(customers=0)
    tenants = [uuid.UUID(int=number << 100) for number in (1, 2)]
    return [Customer.objects.create(partner=partner, tenant_id=tenant, name="A") for tenant in tenants]


def lists_of(customers: list[Customer], rows: dict[int, str], more: int = 0) -> Lists:
    """The same users for each of them, and `more` of the last one."""
    found = [users_of(customer, dict(rows)).of for customer in customers]
    [last] = found[-1].values()
    last.rows |= dict.fromkeys(range(100, 100 + more), "")
    return Lists({tenant: listing for one in found for tenant, listing in one.items()})


def erases_when_it_comes_to(page: int, erased: list[int]) -> Callable[[Listing, int], None]:
    def between(_listing: Listing, number: int) -> None:
        if number == page:
            erased.append(removals.erase_old())

    return between


@pytest.mark.parametrize("name", ["", "another"], ids=["pages as they were", "the same users on other pages"])
def test_nobody_is_missing_where_old_users_are_erased_while_their_list_is_read(
    customers: list[Customer], name: str
) -> None:
    first, work, rows = customers[0], work_of(customers[0].partner, "users"), dict.fromkeys(range(2, 13), "")
    walk(work, lists_of(customers, rows))
    gone = CustomerUser.objects.create(
        partner=first.partner, customer=first, key="gone", content_hash=b"", removed_at=timezone.now() - LONG_AGO
    )
    lists, erased = lists_of(customers, dict.fromkeys(rows, name), more=1), list[int]()
    lists.of[str(first.tenant_id)].between = erases_when_it_comes_to(1, erased)

    walk(work, lists)

    assert erased == [1]
    assert not CustomerUser.objects.filter(pk=gone.pk).exists()
    assert not CustomerUser.objects.exclude(missing_since=None).exists()
    assert not ListState.objects.exclude(held_at=None, missing=0).exists()
    assert set(CustomerUser.objects.filter(customer=first).values_list("name", flat=True)) == {name}


def test_who_was_erased_and_is_listed_all_the_same_is_there_after_the_next_reading(customers: list[Customer]) -> None:
    work, rows = work_of(customers[0].partner, "users"), dict.fromkeys(range(1, 13), "")
    walk(work, lists_of(customers, rows))
    CustomerUser.objects.filter(customer=customers[0]).update(removed_at=timezone.now() - LONG_AGO)
    assert removals.erase_old() == 12

    walk(work, lists_of(customers, rows))

    assert CustomerUser.objects.present().filter(customer=customers[0]).count() == 12


def test_pages_of_a_customer_who_left_go_a_day_later(customers: list[Customer]) -> None:
    work = work_of(customers[0].partner, "users")
    walk(work, lists_of(customers, dict.fromkeys(range(1, 5), "")))
    Customer.objects.filter(pk=customers[0].pk).update(removed_at=timezone.now(), removed_reason="absent")

    def lists_with_pages(hours: int) -> set[Any]:
        with time_machine.travel(timezone.now() + dt.timedelta(hours=hours)):
            removals.erase_old()
        return set(ListPage.objects.values_list("collection", flat=True))

    assert lists_with_pages(hours=1) == {one.pk for one in customers}
    assert not CustomerUser.objects.present().filter(customer=customers[0]).exists()
    assert lists_with_pages(hours=25) == {customers[1].pk}
