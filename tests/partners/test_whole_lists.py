"""What a list must be before anything follows from it: whole, of its owner, with an end. Through the stand-in."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import jobs, removals, sync
from partners.mirrored_kinds import CUSTOMERS, USERS
from partners.models import LEASE, Customer, CustomerUser, Job, ListPage, ListRefusal, ListState, Partner, Run
from partners.partnercenter import PartnerCenter, Untrustworthy
from sandbox.directory import Tenant
from sandbox.world import World
from tests.partners.pretended import answer
from tests.partners.streams import INVENTED, Listing, Lists, item, user
from tests.partners.test_moving_lists import work_of
from tests.partners.test_sync import SECOND, at_microsoft, fail_on_page, mirrored
from tokens import broker
from tokens.actors import SYSTEM
from tokens.errors import Transient

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
A_DAY = dt.timedelta(days=1)


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(timezone.now(), tick=True) as traveller:
        yield traveller


def read(partner: Partner, kind: str = "customers") -> Run:
    """Every lane of the kind, one after another; the run of the first one."""
    broker.forget()  # the clock here jumps, and the one by which access tokens end does not
    jobs.ensure(partner, kind, due_now=True)
    ended = [jobs.run_job(job.pk, insists=True) for job in partner.jobs.filter(kind=kind).order_by("lane")]
    assert ended[0]
    return ended[0]


def of(world: World, partner: Partner) -> Tenant:
    return world.tenants[str(partner.tenant_id)]


def overridden(world: World, partner: Partner, field: str, values: dict[int, Any]) -> None:
    of(world, partner).customer_overrides = {index: {field: value} for index, value in values.items()}


def new_ones(*indexes: int) -> dict[int, str]:
    return {index: str(uuid.UUID(int=7_000 + index)) for index in indexes}


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


def follow(work: jobs.Work, listing: Listing) -> None:
    """One turn of a partner's own list, and what it means to have come to the end."""
    Job.objects.filter(pk=work.job.pk).update(leased_until=timezone.now() + LEASE)
    sync.follow(work, CUSTOMERS, PartnerCenter(listing))
    work.job.cursor = {}


def refused(work: jobs.Work, listing: Listing) -> str:
    """Why a turn ended with nothing to go on from."""
    with pytest.raises(Untrustworthy) as failure:
        follow(work, listing)
    work.job.cursor = {}
    return failure.value.code


@pytest.mark.parametrize(("listed", "told", "is_short"), [(19, 20, True), (9_999_999, 10_000_000, False)])
def test_of_millions_two_may_look_alike(listed: int, told: int, is_short: bool) -> None:
    assert removals.are_too_few(listed, told) == is_short


def test_in_a_first_sync_as_well(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=520)
    overridden(world, partner, "tenantId", {510: of(world, partner).customers.at(3).tenant_id})

    assert read(partner).error_code == "incomplete"


@pytest.fixture
def customer(connected_partner: Connect) -> Customer:
    partner = connected_partner(customers=0)
    return Customer.objects.create(partner=partner, tenant_id=uuid.UUID(int=1 << 100), name="A")


def users_of(customer: Customer, rows: dict[int, str], **how: Any) -> Lists:
    path = f"customers/{customer.tenant_id}/users"
    return Lists({str(customer.tenant_id): Listing(rows, path=path, make=user, **how)})


def walk(work: jobs.Work, lists: Lists) -> None:
    """One turn, and what it means to have come to the end."""
    Job.objects.filter(pk=work.job.pk).update(leased_until=timezone.now() + LEASE)
    sync.walk(work, USERS, PartnerCenter(lists))
    work.job.cursor = {}


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


# --- Whose list it is -------------------------------------------------------------------------------------------------
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


# --- A list without end -----------------------------------------------------------------------------------------------
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
