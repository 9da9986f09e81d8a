"""The mirror of a partner's customers; through the stand-in."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import jobs, writing
from partners.models import Customer, Job, Partner, Run
from partners.standing import current_token, standing
from partners.writing import Progress
from sandbox.directory import Tenant
from sandbox.world import World
from tests.statements import asked

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
MOST_STATEMENTS = 40  # of a whole run that finds nothing new: its own rows, the gate, the ledger
THIRD = {"tenant_id": "c0470500-0000-4000-8000-0000000000c3", "name": "Third Partner"}
SECOND = {"tenant_id": "c0470500-0000-4000-8000-0000000000c2", "name": "Second Partner"}


def sync(partner: Partner) -> Run:
    job = jobs.ensure(partner, "customers")
    job.make_due()
    ended = jobs.run_job(job.pk, insists=True)
    assert ended
    return ended


def job_of(partner: Partner) -> Job:
    return partner.jobs.get(kind="customers")


def tenant_of(world: World, partner: Partner) -> Tenant:
    return world.tenants[str(partner.tenant_id)]


def mirrored(partner: Partner) -> set[tuple[Any, ...]]:
    return set(partner.customers.present().values_list("tenant_id", "name", "domain", "relationship"))


def at_microsoft(world: World, partner: Partner) -> set[tuple[Any, ...]]:
    customers = tenant_of(world, partner).customers
    listed = [customers.at(index) for index in customers.page(0, customers.count)[0]]
    return {(uuid.UUID(one.tenant_id), one.company_name, one.domain.lower(), one.relationship) for one in listed}


def fail_on_page(world: World, number: int, kind: str) -> None:
    """Let one page go wrong: the pages before it are only slow, which costs nothing here."""
    world.sleep = lambda seconds: None
    world.fail("partnercenter", "slow", times=number - 1)
    world.fail("partnercenter", kind, times=1)


# --- What is mirrored -----------------------------------------------------------------------------------------------
def test_the_first_sync_mirrors_every_customer(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=1200)

    ended = sync(partner)

    assert mirrored(partner) == at_microsoft(world, partner)
    assert (ended.outcome, ended.pages, ended.created, ended.seen, ended.expected) == ("done", 3, 1200, 1200, 1200)


def test_a_partner_without_customers_is_done_too(connected_partner: Connect) -> None:
    ended = sync(connected_partner(customers=0))

    assert (ended.outcome, ended.pages, ended.seen, ended.expected) == ("done", 1, 0, 0)


def test_a_second_sync_of_the_same_customers_writes_none_of_them(connected_partner: Connect) -> None:
    partner = connected_partner(customers=700)
    sync(partner)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        ended = sync(partner)

    on_customers = [query["sql"] for query in queries if "partners_customer" in query["sql"]]
    assert on_customers
    assert all(sql.startswith("SELECT") for sql in on_customers)
    assert (ended.created, ended.updated, ended.unchanged) == (0, 0, 700)


def test_only_what_changed_is_written(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=5)
    sync(partner)
    before = partner.customers.get(tenant_id=tenant_of(world, partner).customers.at(2).tenant_id)
    tenant_of(world, partner).customer_overrides = {2: {"companyName": "Straße & Söhne"}}

    ended = sync(partner)

    after = partner.customers.get(pk=before.pk)
    assert (after.name, after.name_key) == ("Straße & Söhne", "strasse & söhne")
    assert after.first_seen_at == before.first_seen_at
    assert after.changed_at > before.changed_at
    assert (ended.created, ended.updated, ended.unchanged) == (0, 1, 4)


def test_a_customer_microsoft_no_longer_lists_stays_for_now(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=5)
    sync(partner)
    tenant_of(world, partner).customers.removed = {1}

    ended = sync(partner)

    assert (ended.removed, ended.unchanged, partner.customers.present().count()) == (0, 4, 5)


def test_a_customer_that_came_back_is_present_again(connected_partner: Connect) -> None:
    partner = connected_partner(customers=3)
    sync(partner)
    gone = partner.customers.earliest("pk")
    Customer.objects.filter(pk=gone.pk).update(removed_at=timezone.now(), removed_reason="absent")
    writing.distrust(partner.pk, "customers")

    ended = sync(partner)

    gone.refresh_from_db()
    assert (gone.removed_at, gone.removed_reason, ended.updated) == (None, "", 1)


def test_a_name_longer_than_a_column_is_cut(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=1)
    tenant_of(world, partner).customer_overrides = {0: {"companyName": "ß" * 500}}

    assert sync(partner).outcome == "done"
    assert sync(partner).unchanged == 1

    customer = partner.customers.get()
    assert (len(customer.name), len(customer.name_key)) == (400, 400)


@pytest.mark.parametrize(
    "name", ["a\tb", "a\nb", "a\r\nb", "a\\tb", "\\N", "\\.", "a\\", '"a"', "a\x01b\x7f", "a\u2028İ\U0001f600"]
)
def test_a_name_comes_through_as_microsoft_wrote_it(connected_partner: Connect, world: World, name: str) -> None:
    partner = connected_partner(customers=3)
    tenant_of(world, partner).customer_overrides = {1: {"companyName": name}}

    assert (sync(partner).created, sync(partner).unchanged) == (3, 3)

    stored = set(partner.customers.values_list("name", "name_key"))
    assert (name, name.casefold()) in stored
    assert len(stored) == 3


def test_two_partners_may_have_the_same_customer(connected_partner: Connect, world: World) -> None:
    first, second = connected_partner(customers=1), connected_partner(customers=1, **SECOND)
    shared = tenant_of(world, first).customers.at(0).tenant_id
    tenant_of(world, second).customer_overrides = {0: {"tenantId": shared}}

    sync(first)
    sync(second)

    assert Customer.objects.filter(tenant_id=shared).count() == 2


# --- What goes wrong ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "outcome", "code"),
    [
        ("html", "waiting", "html"),
        ("truncated", "waiting", "not_json"),
        ("throttled", "waiting", "http_429"),
        ("500", "waiting", "900192"),
        ("503", "waiting", ""),
        ("timeout-before", "waiting", ""),
        ("mfa", "refused", "900421"),
        ("unauthorized", "refused", "401/400"),
        ("forbidden", "refused", "2032"),
        ("foreign-next", "failed", "foreign_link"),
        ("cyclic-next", "failed", "cyclic_link"),
        ("other-tenant", "failed", "other_tenant"),
        ("bom", "done", ""),
        ("v1-next", "done", ""),
        ("duplicates", "done", ""),
    ],
)
def test_every_fault_ends_by_name_and_keeps_the_rows(
    connected_partner: Connect, world: World, kind: str, outcome: str, code: str
) -> None:
    partner = connected_partner(customers=600)
    sync(partner)
    before = mirrored(partner)
    hosts = {call.host for call in world.calls}
    world.fail("partnercenter", kind)

    ended = sync(partner)

    assert ended.outcome == outcome
    assert ended.error_code == code or (not code and outcome == "waiting" and ended.error_code)
    assert bool(ended.error) == (outcome != "done")
    assert mirrored(partner) == before
    assert {call.host for call in world.calls} == hosts  # no bearer went anywhere new


@pytest.mark.parametrize("kind", ["html", "truncated", "throttled", "500", "foreign-next", "cyclic-next", "forbidden"])
def test_after_any_fault_the_next_sync_is_whole(connected_partner: Connect, world: World, kind: str) -> None:
    partner = connected_partner(customers=1200)
    fail_on_page(world, 2, kind)

    spoiled = sync(partner)
    whole = sync(partner)

    assert spoiled.outcome != "done"
    assert whole.outcome == "done"
    assert mirrored(partner) == at_microsoft(world, partner)


def test_a_refused_sign_in_shows_on_the_partner(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=600)
    fail_on_page(world, 2, "mfa")

    ended = sync(partner)

    assert (ended.outcome, ended.pages, partner.customers.count()) == ("refused", 1, 500)
    assert standing(partner, current_token(partner)).state == "mfa_missing"


def test_a_list_that_came_short_is_not_called_done_and_comes_again(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=600)
    world.fail("partnercenter", "wrong-total", times=6 * 2)

    short = [sync(partner) for _ in range(6)]
    waits_until = job_of(partner).next_run_at
    whole = sync(partner)

    assert {(run.outcome, run.error_code, run.seen, run.expected) for run in short} == {
        ("waiting", "incomplete", 600, 601)
    }
    assert [run.retry_after for run in short] == [3600.0] * 4 + [6 * 3600.0] * 2
    assert ["support" in run.error for run in short] == [False] * 4 + [True] * 2
    assert "listed 600 and says that there are 601" in short[0].error
    assert waits_until
    assert waits_until > timezone.now() + dt.timedelta(hours=5)
    assert (whole.outcome, whole.seen, job_of(partner).quarantined_at) == ("done", 600, None)
    assert mirrored(partner) == at_microsoft(world, partner)


# --- Going on -------------------------------------------------------------------------------------------------------
def test_after_a_retry_after_it_goes_on_where_it_stopped(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=1200)
    fail_on_page(world, 3, "throttled")

    first = sync(partner)
    kept = job_of(partner).cursor
    calls = len(world.calls_to("partnercenter"))
    second = sync(partner)

    assert (first.outcome, first.pages, kept["seen"], kept["expected"]) == ("waiting", 2, 1000, 1200)
    assert (second.outcome, second.pages, second.created) == ("done", 1, 200)
    assert len(world.calls_to("partnercenter")) == calls + 1
    assert mirrored(partner) == at_microsoft(world, partner)
    assert job_of(partner).cursor == {}


def test_after_a_crash_it_goes_on_where_it_stopped(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=6_000)
    pages = iter(range(20))

    def crash_on_the_twelfth_page() -> None:
        if next(pages) == 11:
            raise KeyboardInterrupt

    world.latency["partnercenter"] = 0.001
    world.sleep = lambda seconds: crash_on_the_twelfth_page()
    with pytest.raises(KeyboardInterrupt):
        sync(partner)
    world.sleep = lambda seconds: None
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=3)):
        rest = sync(partner)

    assert rest.outcome == "done"
    assert 1 <= rest.pages < 12, "what was written before the crash is not read again"
    assert rest.created == 500 * rest.pages
    assert mirrored(partner) == at_microsoft(world, partner)


def test_a_place_microsoft_forgot_means_the_first_page(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=600)
    jobs.ensure(partner, "customers")
    forgotten = {"uri": "customers?size=500&seekOperation=Next", "token": "long-ago"}
    kept = Progress(next=forgotten, number=7, pages=7, seen=3500, expected=3600).kept() | {"of a later release": 1}
    Job.objects.filter(partner=partner).update(cursor=kept)

    ended = sync(partner)

    assert (ended.outcome, ended.pages, ended.expected, ended.seen) == ("done", 2, 600, 600)


@pytest.mark.parametrize(("kind", "code"), [("endless-next", "endless_list"), ("circle-next", "cyclic_link")])
def test_a_list_without_end_ends_by_name_though_no_turn_reads_far(
    connected_partner: Connect, world: World, settings: Any, kind: str, code: str
) -> None:
    partner = connected_partner(customers=1000)
    world.fail("partnercenter", kind)
    settings.CPV_TURN_SECONDS = -1  # a turn is one batch

    ended = next(run for run in (sync(partner) for _ in range(12)) if run.error_code != "turn_over")

    assert (ended.outcome, ended.error_code) == ("failed", code)


# --- How much it takes ----------------------------------------------------------------------------------------------
def test_a_page_is_one_short_transaction_whatever_the_mirror_holds(connected_partner: Connect) -> None:
    partner = connected_partner(customers=1000)
    sync(partner)

    with CaptureQueriesContext(connection) as queries:
        sync(partner)

    on_customers = [query for query in queries if '"partners_customer"' in query["sql"]]
    assert len(on_customers) <= 1, on_customers  # whether there are any
    assert len(asked(queries)) <= MOST_STATEMENTS, asked(queries)
