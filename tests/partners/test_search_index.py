"""A search while some customers are in the index of parts and others are not yet; PostgreSQL alone has it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from partners import jobs, search_index, tasks
from partners.models import Customer, Job, ListState, Partner
from sandbox.world import World
from tests.conftest import FABRIKAM
from tests.partners.test_listing import add, names
from tests.partners.test_sync import sync, tenant_of

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db]
Connect = Callable[..., Partner]
FEW = 7


@pytest.fixture
def partner(member) -> Partner:
    return Partner.objects.get()


def fill(partner: Partner, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO partners_customer (partner_id, tenant_id, name, name_key, domain, relationship, content_hash,"
            " first_seen_at, changed_at, removed_reason) SELECT %s, gen_random_uuid(), 'Company ' || n,"
            " 'company ' || n, 'company' || n || '.example', '', '', now(), now(), '' FROM generate_series(1, %s) AS n",
            [partner.pk, number],
        )


def say_many(partner: Partner, present: int = search_index.MANY + 1) -> None:
    ListState.objects.update_or_create(partner=partner, kind="customers", defaults={"present": present})


def catch_up(seconds: float = 60) -> int:
    """In steps that a test can afford."""
    return search_index.catch_up(seconds=seconds, at_once=FEW)


def indexed(partner: Partner) -> int:
    return partner.customers.filter(is_indexed=True).count()


# --- What is found --------------------------------------------------------------------------------------------------
def test_a_customer_is_found_from_the_sync_on_and_a_renamed_one_by_the_new_name_alone(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner(customers=3)
    world_of = tenant_of(world, partner)
    world_of.customer_overrides = {0: {"companyName": "Woodgrove"}, 1: {"companyName": "Zebra"}}
    sync(partner)
    fill(partner, 1_100)  # so that a search's first look is not enough
    assert (names(partner, "oodgrov"), names(partner, "zebra")) == (["Woodgrove"], ["Zebra"])
    assert indexed(partner) == 0

    Customer.objects.update(is_indexed=True)
    assert (names(partner, "oodgrov"), names(partner, "zebra")) == (["Woodgrove"], ["Zebra"])

    world_of.customer_overrides = {0: {"companyName": "Wingtip"}, 1: {"companyName": "Zebra", "domain": "zoo.example"}}
    sync(partner)
    assert names(partner, "oodgrov") == []
    assert names(partner, "ingtip") == ["Wingtip"]
    assert names(partner, "zoo.exa") == ["Zebra"]
    assert set(partner.customers.filter(is_indexed=False).values_list("name", flat=True)) == {"Wingtip", "Zebra"}


def test_what_a_search_does_not_look_at_may_change_without_leaving_the_index(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner(customers=3)
    sync(partner)
    Customer.objects.update(is_indexed=True)
    tenant_of(world, partner).customer_overrides = {1: {"relationshipToPartner": "advisor"}}

    assert sync(partner).updated == 1

    assert partner.customers.get(relationship="advisor").is_indexed


def test_half_in_the_index_and_half_not_everybody_is_met_once_and_in_order(partner):
    fill(partner, 1_100)
    for number in range(160):
        add(partner, f"Woodgrove {number % 40:03}", f"w{number}.example", is_indexed=number % 3 == 0)
    Customer.objects.filter(pk__in=Customer.objects.order_by("?")[:600].values("pk")).update(is_indexed=True)
    expected = sorted(f"Woodgrove {number % 40:03}" for number in range(160))

    assert names(partner, "oodgrove") == expected
    assert names(partner, "wo") == expected
    assert sorted(names(partner, "company")) == sorted(f"Company {number}" for number in range(1, 1_101))
    assert names(partner, "company 1099") == ["Company 1099"]


def test_who_is_gone_is_in_neither_half_and_who_came_back_is_found_again(partner):
    fill(partner, 1_100)
    for is_indexed in (True, False):
        gone = add(partner, "Woodgrove", f"{is_indexed}.example", is_indexed=is_indexed)
        Customer.objects.filter(pk=gone.pk).update(removed_at=timezone.now())
    assert names(partner, "oodgrove") == []

    Customer.objects.update(removed_at=None)

    assert names(partner, "oodgrove") == ["Woodgrove"] * 2


def test_neither_half_has_anything_of_another_partner(partner):
    other = Partner.objects.create(cloud="global", tenant_id=FABRIKAM, name="Fabrikam")
    tenants = {add(other, "Woodgrove", "w.example", is_indexed=half).tenant_id for half in (True, False)}
    fill(partner, 1_100)
    Customer.objects.filter(partner=partner, name__endswith="5").update(is_indexed=True)

    for text in ("oodgrove", "wo", "w.example", *map(str, tenants)):
        assert names(partner, text) == [], text
        assert names(other, text), text


# --- Who is put into the index --------------------------------------------------------------------------------------
def test_only_partners_with_many_customers_are_indexed_and_no_small_rest_is(partner):
    fill(partner, 4 * FEW + FEW - 1)
    say_many(partner, search_index.MANY)
    assert catch_up() == 0

    say_many(partner)
    assert catch_up() == 4 * FEW
    assert (indexed(partner), partner.customers.not_indexed().count()) == (4 * FEW, FEW - 1)
    assert catch_up() == 0


def test_the_clock_has_it_done(partner):
    fill(partner, search_index.AT_ONCE + 1)
    say_many(partner)

    tasks.index_customers()

    assert indexed(partner) == search_index.AT_ONCE


def test_it_stops_when_its_time_is_over_and_goes_on_another_time_with_each_partner_in_turn(partner):
    other = Partner.objects.create(cloud="global", tenant_id=FABRIKAM, name="Fabrikam")
    for one in (partner, other):
        fill(one, 3 * FEW)
        say_many(one)

    assert catch_up(0) == 0
    for step in range(1, 4):
        assert search_index.mark_some(partner.pk, FEW) == FEW
        assert (indexed(partner), indexed(other)) == (step * FEW, 0)
    assert search_index.mark_some(partner.pk, FEW) == 0
    assert catch_up() == 3 * FEW
    assert indexed(other) == 3 * FEW


def test_who_is_gone_is_not_indexed(partner):
    fill(partner, 2 * FEW)
    say_many(partner)
    Customer.objects.update(removed_at=timezone.now())

    assert catch_up() == 0


def test_while_a_sync_runs_its_customers_are_left_alone(partner):
    fill(partner, FEW)
    say_many(partner)
    job = jobs.ensure(partner, "customers")
    Job.objects.filter(pk=job.pk).update(leased_until=timezone.now() + dt.timedelta(minutes=1))
    assert catch_up() == 0

    Job.objects.filter(pk=job.pk).update(leased_until=timezone.now() - dt.timedelta(seconds=1))
    assert catch_up() == FEW


@pytest.mark.django_db(transaction=True)
def test_two_at_once_share_the_work_and_neither_waits_for_what_a_sync_writes(partner):
    fill(partner, 3 * FEW)
    behind = connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}
    with psycopg.connect(**behind) as other:
        asked = "SELECT id FROM partners_customer ORDER BY id LIMIT %s FOR NO KEY UPDATE"
        held = other.execute(asked, [FEW]).fetchall()
        for marked in (FEW, FEW, 0):
            assert search_index.mark_some(partner.pk, FEW) == marked

    assert set(partner.customers.not_indexed().values_list("pk")) == set(held)
    assert search_index.mark_some(partner.pk, FEW) == FEW
