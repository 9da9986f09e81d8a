"""What a list that is not to be believed had added is taken back, and nothing else. Through the stand-in."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from partners import jobs, writing
from partners.models import Change, ChosenCustomer, Customer, CustomerUser, ListRefusal, Partner, Run
from sandbox.world import World
from tests.partners.test_moving_lists import work_of
from tests.partners.test_sync import at_microsoft, mirrored
from tests.partners.turns import of, read, users_of, walk
from tokens.actors import SYSTEM

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
A_DAY = dt.timedelta(days=1)


# --- Who was known before ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("days", [1, 31, 400])
def test_a_customer_of_long_ago_who_came_back_stays_with_what_is_known_of_it(
    connected_partner: Connect, world: World, days: int
) -> None:
    partner = connected_partner(customers=520)
    read(partner)
    before = mirrored(partner)
    back = partner.customers.get(tenant_id=of(world, partner).customers.at(0).tenant_id)
    away = {"removed_at": timezone.now() - days * A_DAY, "removed_reason": "absent"}
    Customer.objects.filter(pk=back.pk).update(**away)
    writing.distrust(partner.pk, "customers")
    world.fail("partnercenter", "endless-next")

    assert read(partner).error_code == "endless_list"

    now = Customer.objects.get(pk=back.pk)
    assert (now.first_seen_at, now.removed_at, now.removed_reason) == (back.first_seen_at, None, "")
    assert mirrored(partner) == before
    assert partner.customers.count() == len(before)
    world.heal("partnercenter")
    assert read(partner).outcome == "done"
    assert mirrored(partner) == at_microsoft(world, partner)


# --- What no whole list named -----------------------------------------------------------------------------------------
def read_and_cancel(partner: Partner, beyond: int = 0) -> None:
    """A reading that somebody cancels between two turns, when there are so many customers and more."""
    assert read(partner).error_code == "turn_over"
    while partner.customers.count() <= beyond:
        assert read(partner).error_code == "turn_over"
    assert jobs.cancel(partner.jobs.get(kind="customers"), by=SYSTEM)


def read_to_the_end(partner: Partner) -> Run:
    while (run := read(partner)).error_code == "turn_over":
        pass
    return run


@pytest.mark.parametrize("is_known", [True, False])
def test_what_a_cancelled_reading_had_added_is_taken_back_with_the_rest(
    connected_partner: Connect, world: World, settings: Any, is_known: bool
) -> None:
    partner = connected_partner(customers=1_000)
    if is_known:
        read(partner)
    before = set(partner.customers.values_list("pk", flat=True))
    world.fail("partnercenter", "endless-next")
    settings.CPV_TURN_SECONDS = -1  # a turn is one batch
    read_and_cancel(partner, beyond=1_000)

    assert read_to_the_end(partner).error_code == "endless_list"

    assert set(partner.customers.values_list("pk", flat=True)) == before


def test_but_not_customers_for_whom_somebody_did_something(
    connected_partner: Connect, world: World, settings: Any
) -> None:
    partner = connected_partner(customers=1_000)
    world.fail("partnercenter", "endless-next")
    settings.CPV_TURN_SECONDS = -1
    read_and_cancel(partner)
    changed, chosen = partner.customers.order_by("pk")[:2]
    Change.objects.create(partner=partner, customer=changed, subscription_id="ONE", subscription_key="one")
    ChosenCustomer.objects.create(partner=partner, member=partner.members.get(), customer=chosen)

    assert read_to_the_end(partner).error_code == "endless_list"

    assert set(partner.customers.all()) == {changed, chosen}


def test_what_a_whole_list_named_since_stays(connected_partner: Connect, world: World, settings: Any) -> None:
    partner = connected_partner(customers=6_000)
    settings.CPV_TURN_SECONDS = -1
    read_and_cancel(partner)
    assert 0 < partner.customers.count() < 6_000
    settings.CPV_TURN_SECONDS = 300
    assert read(partner).outcome == "done"
    before = mirrored(partner)
    world.fail("partnercenter", "endless-next")

    assert read(partner).error_code == "endless_list"

    assert mirrored(partner) == before == at_microsoft(world, partner)


def test_nothing_stays_of_one_customers_list_of_which_an_earlier_reading_was_cancelled(
    connected_partner: Connect,
) -> None:
    partner = connected_partner(customers=0)
    customer = Customer.objects.create(partner=partner, tenant_id=uuid.UUID(int=1 << 100), name="A")
    work = work_of(partner, "users")
    walk(work, users_of(customer, dict.fromkeys(range(1, 501), ""), size=500))
    endless = users_of(customer, dict.fromkeys(range(1, 30_000), ""), size=500)
    endless.of[str(customer.tenant_id)].says_total = lambda _total: 600
    work.until = 0
    with contextlib.suppress(jobs.TurnOver):
        walk(work, endless)
    added, work.job.cursor, work.until = CustomerUser.objects.count() - 500, {}, math.inf

    walk(work, endless)

    assert added > 0
    assert ListRefusal.objects.get().code == "endless_list"
    assert CustomerUser.objects.count() == 500
