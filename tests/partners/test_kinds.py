"""What is mirrored beside the customers; through the stand-in, job and all."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import jobs, pacing, tasks, writing
from partners import sync as syncing
from partners.mirrored_kinds import MIRRORS, CustomerItem, Customers
from partners.mirrors import lane_bounds
from partners.models import (
    CustomerUser,
    Job,
    ListPage,
    ListRefusal,
    ListState,
    Partner,
    Run,
    SubscribedSku,
    Subscription,
)
from sandbox import changes, licences
from sandbox.directory import Tenant
from sandbox.world import World
from tests.partners.test_moving_lists import work_of
from tests.statements import asked

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]


def sync(partner: Partner, kind: str) -> list[Run]:
    """Every lane of the kind, one after another."""
    jobs.ensure(partner, kind, due_now=True)
    ended = [jobs.run_job(job.pk) for job in partner.jobs.filter(kind=kind).order_by("lane")]
    return [run for run in ended if run]


def of(world: World, partner: Partner) -> Tenant:
    return world.tenants[str(partner.tenant_id)]


@pytest.fixture
def partner(connected_partner: Connect) -> Partner:
    made = connected_partner(customers=12)
    sync(made, "customers")
    return made


def test_every_customers_subscriptions_are_mirrored(partner: Partner, world: World) -> None:
    runs = sync(partner, "subscriptions")

    tenant = of(world, partner)
    expected = {
        (uuid.UUID(customer.tenant_id), one["id"], one["quantity"], one["status"], one["autoRenewEnabled"])
        for customer in tenant.customers
        for one in changes.listed(world, tenant, customer)
    }
    columns = ("customer__tenant_id", "subscription_id", "quantity", "status", "auto_renew")
    assert set(Subscription.objects.values_list(*columns)) == expected
    assert len(runs) == 4
    assert {run.outcome for run in runs} == {"done"}
    assert sum(run.expected or 0 for run in runs) == sum(run.pages for run in runs) == 12
    assert sum(run.created for run in runs) == len(expected)


def test_every_customers_licences_are_mirrored(partner: Partner, world: World) -> None:
    sync(partner, "licences")

    tenant = of(world, partner)
    expected = {
        (uuid.UUID(customer.tenant_id), one["productSku"]["skuPartNumber"], one["totalUnits"], one["consumedUnits"])
        for customer in tenant.customers
        for one in licences.every(tenant, customer)
    }
    columns = ("customer__tenant_id", "part_number", "total_units", "consumed_units")
    assert set(SubscribedSku.objects.values_list(*columns)) == expected


def test_users_are_mirrored_page_by_page(partner: Partner, world: World) -> None:
    of(world, partner).customer_overrides = {2: {"users": 1100}}

    runs = sync(partner, "users")

    mine = CustomerUser.objects.filter(customer__tenant_id=of(world, partner).customers.at(2).tenant_id)
    assert mine.count() == 1100
    assert sum(run.pages for run in runs) == 14  # three of it, and one of each other
    assert sum(run.seen for run in runs) == CustomerUser.objects.count()


def test_who_signs_in_without_mfa_is_mirrored(partner: Partner, world: World) -> None:
    of(world, partner).add_account("old@contoso.test", mfa_possible=False)

    [run] = sync(partner, "mfa")

    assert (run.outcome, run.error) == ("done", "")
    assert list(partner.unproven_principals.values_list("sign_in_name", flat=True)) == ["old@contoso.test"]


@pytest.mark.parametrize("kind", ["subscriptions", "licences", "users", "mfa"])
def test_a_second_run_writes_no_row_and_asks_little(partner: Partner, kind: str) -> None:
    sync(partner, kind)

    with CaptureQueriesContext(connection) as queries:
        runs = sync(partner, kind)

    table = MIRRORS[kind].model._meta.db_table
    on_rows = [sql for sql in asked(queries) if f'"{table}"' in sql]
    assert all(sql.startswith("SELECT") for sql in on_rows)
    assert {run.created + run.updated + run.removed for run in runs} == {0}
    assert len(asked(queries)) <= 60 * len(runs)  # whatever the number of customers is


class OtherCustomers(Customers):
    """The customers of a release that makes other rows of the same items."""

    version = Customers.version + 1

    def values(self, item: CustomerItem) -> tuple[Any, ...]:
        name, *others = super().values(item)
        return (f"new {name}", *others)


def test_a_raised_version_has_every_row_written_anew_and_once(connected_partner: Connect) -> None:
    partner = connected_partner(customers=520)
    sync(partner, "customers")
    before = list(partner.customers.order_by("pk").values_list("name", flat=True))
    jobs.ensure(partner, "customers", due_now=True)
    work = work_of(partner)

    counts = []
    for _ in range(2):
        syncing.sync(work, OtherCustomers())
        counts.append((work.run.created, work.run.updated, work.run.unchanged))
        work.job.cursor = {}

    assert counts == [(0, 520, 0), (0, 520, 520)]
    assert list(partner.customers.order_by("pk").values_list("name", flat=True)) == [f"new {name}" for name in before]


def test_a_customer_whose_list_is_refused_is_noted_and_the_others_go_on(partner: Partner, world: World) -> None:
    some = of(world, partner).customers.at(3).tenant_id
    for kind in ("forbidden",):
        world.fail("partnercenter", kind, times=1, path=f"/v1/customers/{some}/subscriptions")

    runs = sync(partner, "subscriptions")

    refusal = ListRefusal.objects.get()
    assert (str(refusal.customer.tenant_id), refusal.kind, refusal.code) == (some, "subscriptions", "2032")
    assert {run.outcome for run in runs} == {"done"}
    assert Subscription.objects.values("customer").distinct().count() == 11

    sync(partner, "subscriptions")

    assert not ListRefusal.objects.exists()
    assert Subscription.objects.values("customer").distinct().count() == 12


def test_where_no_customers_list_can_be_read_the_run_says_so(partner: Partner, world: World) -> None:
    of(world, partner).gdap_missing = True

    runs = [run for run in sync(partner, "licences") if run.expected]

    assert {(run.outcome, run.error_code) for run in runs} == {("refused", "900308")}
    assert ListRefusal.objects.count() == 12


@pytest.mark.parametrize(("kind", "times"), [("404", 1), ("html", 3)])
def test_a_customer_that_cannot_be_read_is_no_refusal_though_there_is_no_other(
    connected_partner: Connect, world: World, kind: str, times: int
) -> None:
    partner = connected_partner(customers=1)
    sync(partner, "customers")
    if kind == "404":
        of(world, partner).customers.removed = {0}
    else:
        world.fail("partnercenter", kind, times=times)

    runs = [sync(partner, "subscriptions") for _ in range(times)][-1]

    assert {(run.outcome, run.error_code) for run in runs} == {("done", "")}
    assert ListRefusal.objects.count() == 1


def test_where_the_role_is_missing_not_every_customer_is_asked_about(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=700)
    sync(partner, "customers")
    of(world, partner).gdap_missing = True
    asked_before = len(world.calls_to("partnercenter"))

    runs = sync(partner, "licences")

    assert {(run.outcome, run.error_code) for run in runs} == {("refused", "900308")}
    assert len(world.calls_to("partnercenter")) - asked_before == 4 * 50

    of(world, partner).gdap_missing = False
    assert {run.outcome for run in sync(partner, "licences")} == {"done"}
    assert not ListRefusal.objects.exists()


def test_an_outage_stops_the_lane_and_it_goes_on_at_the_same_customer(partner: Partner, world: World) -> None:
    world.fail("partnercenter", "503", times=1, after=5)

    first = sync(partner, "subscriptions")
    again = sync(partner, "subscriptions")

    assert sorted(run.outcome for run in first) == ["done", "done", "done", "waiting"]
    assert {run.outcome for run in again} == {"done"}
    assert Subscription.objects.values("customer").distinct().count() == 12
    stopped = next(place for place, run in enumerate(first) if run.outcome == "waiting")
    assert again[stopped].pages < (first[stopped].expected or 0) or first[stopped].pages == 0


def test_one_list_that_never_comes_does_not_stop_the_others_for_ever(partner: Partner, world: World) -> None:
    some = of(world, partner).customers.at(3).tenant_id
    world.fail("partnercenter", "html", times=100, path=f"/v1/customers/{some}/subscriptions")

    outcomes = [sorted(run.outcome for run in sync(partner, "subscriptions")) for _ in range(3)]

    assert [one.count("waiting") for one in outcomes] == [1, 1, 0]
    assert ListRefusal.objects.get().code == "html"
    assert Subscription.objects.values("customer").distinct().count() == 11


def test_many_lists_in_a_row_that_never_come_do_not_hold_the_job(connected_partner: Connect, world: World) -> None:
    made = connected_partner(customers=40)
    sync(made, "customers")
    world.fail("partnercenter", "html", path="/subscriptions")
    first = jobs.ensure(made, "subscriptions", due_now=True)
    turns = 2 * made.customers.filter(tenant_id__lte=lane_bounds(0, 4)[1]).count()
    assert turns > 10

    outcomes = []
    for _ in range(turns + 1):
        first.make_due()
        ended = jobs.run_job(first.pk)
        outcomes.append(ended and ended.outcome)
        first.refresh_from_db()
        assert first.quarantined_at is None

    assert outcomes == ["waiting"] * turns + ["done"]


def test_a_customer_whose_calls_we_hold_back_comes_last_and_is_not_refused(partner: Partner, world: World) -> None:
    some = of(world, partner).customers.at(3).tenant_id
    world.fail("partnercenter", "throttled", times=1, path=f"/v1/customers/{some}/subscriptions", retry_after=60)

    codes = [{run.error_code for run in sync(partner, "subscriptions")} - {""} for _ in range(4)]

    assert codes == [{"asked_to_wait"}] * 4
    assert not ListRefusal.objects.exists()
    assert Subscription.objects.values("customer").distinct().count() == 11
    with time_machine.travel(timezone.now() + dt.timedelta(seconds=61)):
        pacing.forget()
        assert {run.outcome for run in sync(partner, "subscriptions")} == {"done"}
    assert Subscription.objects.values("customer").distinct().count() == 12


def turns(job: Job, *, most: int = 20) -> list[Run]:
    """What becomes of one lane, each turn when it is due, until it is done or held."""
    ended: list[Run] = []
    while len(ended) < most and (due := job.next_run_at) and not (ended and ended[-1].outcome == "done"):
        with time_machine.travel(max(due, timezone.now()) + dt.timedelta(seconds=1)):
            pacing.forget()
            run = jobs.run_job(job.pk)
            assert run
            ended.append(run)
        job.refresh_from_db()
    return ended


@pytest.fixture
def one_lane(connected_partner: Connect) -> list[str]:
    """The customers of a partner's first lane, in the order in which it reads them."""
    made = connected_partner(customers=40)
    sync(made, "customers")
    lanes = lane_bounds(0, 4)
    mine = made.customers.filter(tenant_id__gte=lanes[0], tenant_id__lte=lanes[1]).order_by("tenant_id")
    return [str(one) for one in mine.values_list("tenant_id", flat=True)]


def test_customers_whom_microsoft_throttles_without_end_stop_no_other_and_are_left_out_at_last(
    one_lane: list[str], world: World
) -> None:
    job, throttled = jobs.ensure(Partner.objects.get(), "subscriptions"), {one_lane[0], one_lane[3]}
    for one in throttled:
        world.fail("partnercenter", "throttled", path=f"/v1/customers/{one}/subscriptions", retry_after=60)

    ended = turns(job)

    assert [run.outcome for run in ended][-1] == "done"
    assert len(ended) <= 7
    assert {str(one.customer.tenant_id): one.code for one in ListRefusal.objects.all()} == dict.fromkeys(
        throttled, "http_429"
    )
    read = {str(one) for one in Subscription.objects.values_list("customer__tenant_id", flat=True)}
    assert read == set(one_lane) - throttled

    world.heal("partnercenter")
    assert [run.outcome for run in turns(job)] == ["done"]
    assert not ListRefusal.objects.exists()


def test_a_long_list_that_is_throttled_on_the_way_goes_on_from_there_after_the_others(
    one_lane: list[str], world: World
) -> None:
    partner, long = Partner.objects.get(), one_lane[0]
    tenant = of(world, partner)
    number = next(n for n in range(40) if tenant.customers.at(n).tenant_id == long)
    tenant.customer_overrides = {number: {"users": 4_100}}  # nine pages
    job = jobs.ensure(partner, "users")
    for pages in (2, 5, 8):
        world.fail(
            "partnercenter", "throttled", path=f"/v1/customers/{long}/users", after=pages, times=1, retry_after=60
        )

    ended = turns(job)

    assert [run.outcome for run in ended] == ["waiting"] * (len(ended) - 1) + ["done"]
    assert sum(run.pages for run in ended) == 9 + len(one_lane) - 1
    assert ended[0].pages >= 2 + len(one_lane) - 1
    assert CustomerUser.objects.filter(customer__tenant_id=long).count() == 4_100
    assert not ListRefusal.objects.exists()


def test_who_is_to_be_let_alone_for_hours_keeps_the_lane_from_nothing(one_lane: list[str], world: World) -> None:
    job = jobs.ensure(Partner.objects.get(), "subscriptions")
    path = f"/v1/customers/{one_lane[0]}/subscriptions"
    world.fail("partnercenter", "throttled", path=path, retry_after=20_000)

    assert [run.outcome for run in turns(job)] == ["done"]
    assert ListRefusal.objects.get().code == "http_429"


def test_where_all_calls_are_throttled_it_is_the_partner_that_waits(one_lane: list[str], world: World) -> None:
    job = jobs.ensure(Partner.objects.get(), "subscriptions")
    world.fail("partnercenter", "throttled", path="/subscriptions", retry_after=60)
    sent = len(world.calls_to("partnercenter"))

    [ended] = turns(job, most=1)

    assert (ended.outcome, ended.error_code) == ("waiting", "asked_to_wait")
    assert len(world.calls_to("partnercenter")) - sent == 2
    assert not ListRefusal.objects.exists()


def test_lanes_share_all_customers_and_none_twice() -> None:
    for of_all in (1, 3, 4):
        bounds = [lane_bounds(index, of_all) for index in range(of_all)]

        assert (bounds[0][0].int, bounds[-1][1].int) == (0, (1 << 128) - 1)
        assert all(one[1].int + 1 == other[0].int for one, other in pairwise(bounds))


def test_what_a_partner_no_longer_wants_is_erased(partner: Partner) -> None:
    sync(partner, "users")
    assert CustomerUser.objects.exists()

    writing.forget(partner.pk, MIRRORS["users"])

    assert not CustomerUser.objects.exists()
    assert not ListPage.objects.filter(kind="users").exists()


# --- What is not kept -----------------------------------------------------------------------------------------------
def kept_after(days: int, *, is_read: bool = True) -> int:
    """How many users are left when it was tidied up for a day, so much later; their lists may be read until then."""
    for hour in range(24):
        later = timezone.now() + dt.timedelta(days=days, hours=hour - 23)
        if is_read:
            ListState.objects.update(completed_at=later)
        with time_machine.travel(later):
            tasks.tidy()
    return CustomerUser.objects.count()


def test_users_who_are_gone_for_a_month_are_erased_though_nothing_runs_any_more(partner: Partner) -> None:
    sync(partner, "users")
    before, gone = CustomerUser.objects.count(), CustomerUser.objects.earliest("pk").pk
    CustomerUser.objects.filter(pk=gone).update(removed_at=timezone.now())

    assert [kept_after(29), kept_after(31)] == [before, before - 1]


def test_what_is_of_a_removed_customer_goes_with_it_and_comes_back_with_it(partner: Partner) -> None:
    sync(partner, "users")
    sync(partner, "subscriptions")
    some = CustomerUser.objects.earliest("pk").customer_id
    before, its = CustomerUser.objects.count(), CustomerUser.objects.filter(customer=some).count()
    subscriptions = Subscription.objects.filter(customer=some)
    listed = set(subscriptions.values_list("key", flat=True))
    partner.customers.filter(pk=some).update(removed_at=timezone.now(), removed_reason="absent")

    assert kept_after(29) == before
    assert not subscriptions.present().exists()
    assert set(subscriptions.values_list("removed_reason", flat=True)) == {"customer_removed"}
    assert kept_after(31) == before - its
    assert set(subscriptions.values_list("key", flat=True)) == listed, "they are nobody's personal data"

    partner.customers.filter(pk=some).update(removed_at=None, removed_reason="")
    sync(partner, "users")
    sync(partner, "subscriptions")

    assert CustomerUser.objects.count() == before
    assert set(subscriptions.present().values_list("key", flat=True)) == listed


def test_users_of_a_list_that_was_refused_for_a_month_are_erased(partner: Partner, world: World) -> None:
    sync(partner, "users")
    some = CustomerUser.objects.earliest("pk").customer
    before, its = CustomerUser.objects.count(), CustomerUser.objects.filter(customer=some).count()
    path = f"/v1/customers/{some.tenant_id}/users"
    world.fail("partnercenter", "forbidden", times=1, path=path)
    sync(partner, "users")
    ListRefusal.objects.update(code="another_reason", since=timezone.now() - dt.timedelta(days=2))
    world.fail("partnercenter", "forbidden", times=1, path=path)
    sync(partner, "users")

    assert ListRefusal.objects.get().code == "2032"
    assert [kept_after(27), kept_after(29)] == [before, before - its]

    sync(partner, "users")
    assert CustomerUser.objects.count() == before


def test_users_that_nobody_reads_any_more_are_erased(partner: Partner) -> None:
    sync(partner, "users")
    before = CustomerUser.objects.count()

    assert [kept_after(29, is_read=False), kept_after(31, is_read=False)] == [before, 0]


@pytest.mark.parametrize("how", ["killed_at", "withdrawn_at", "offboarded_at"])
def test_of_a_partner_whose_access_ended_no_user_is_kept(partner: Partner, how: str) -> None:
    sync(partner, "users")
    before = CustomerUser.objects.count()
    Partner.objects.filter(pk=partner.pk).update(**{how: timezone.now()})

    assert [kept_after(29), kept_after(31)] == [before, 0]
    assert not ListPage.objects.filter(kind="users").exists()


def test_a_row_that_somebody_else_wrote_is_put_right_after_they_said_so(partner: Partner, world: World) -> None:
    sync(partner, "subscriptions")
    row = Subscription.objects.earliest("pk")
    Subscription.objects.filter(pk=row.pk).update(quantity=-7, content_hash=b"0" * 16)
    writing.distrust(partner.pk, "subscriptions")

    runs = sync(partner, "subscriptions")

    row.refresh_from_db()
    assert row.quantity != -7
    assert sum(run.updated for run in runs) == 1


def kinds_with(**traits: Any) -> list[str]:
    return [
        kind.name for kind in jobs.kinds().values() if all(getattr(kind, name) == it for name, it in traits.items())
    ]


def test_every_kind_declares_what_it_promises() -> None:
    assert sorted(jobs.kinds()) == sorted(MIRRORS)
    assert kinds_with(opt_in=True) == ["users"]
    for kind in jobs.kinds().values():
        assert kind.every < kind.fresh_for
        assert kind.purpose == f"sync.{kind.name}"
