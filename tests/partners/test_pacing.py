"""How fast calls leave, and when none does: what Microsoft asked for, our own limits, and a service that is down."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import time_machine
from django.db import connection, connections
from django.utils import timezone

from partners import circuits, jobs, lookups, pacing
from partners.models import Job, Pace, Partner, Run, Service
from sandbox.world import World
from tests.conftest import CONTOSO, FABRIKAM
from tests.partners.test_runs import a_job, a_partner, customers_of, run
from tokens.clouds import Audience
from tokens.tenancy import partner_scope

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
SERVICE = "partnercenter"
WOODGROVE = "60009205-0000-4000-8000-0000000000d0"
NORTHWIND = "20274819-0000-4000-8000-0000000000d1"


def later(**by: float) -> Any:
    return time_machine.travel(timezone.now() + dt.timedelta(**by))


def another_worker() -> None:
    """From here on we are a process that knows nothing but the rows."""
    pacing.forget()


def put_off(job: Job) -> Run:
    """A job that could not begin: its run is in no table."""
    ended = jobs.run_job(job.pk)
    assert ended is not None
    assert ended.pk is None
    job.refresh_from_db()
    return ended


def calls(world: World) -> int:
    return len(world.calls_to(SERVICE))


# --- What Microsoft asks for ----------------------------------------------------------------------------------------
def test_a_wait_that_microsoft_asked_for_counts_for_all_jobs_of_the_partner_in_all_workers(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner()
    world.fail(SERVICE, "throttled", times=1, retry_after=60)
    run(customers_of(partner))
    other, sent = a_job(partner, "customers", lane=1), calls(world)
    another_worker()

    ended = put_off(other)

    assert (ended.outcome, ended.error_code, other.wait_code) == ("waiting", "asked_to_wait", "asked_to_wait")
    assert (calls(world), other.failures) == (sent, 0)
    assert other.next_run_at
    assert dt.timedelta(seconds=50) < other.next_run_at - timezone.now() <= dt.timedelta(seconds=60)
    with later(seconds=61):
        another_worker()
        assert run(other).outcome == "done"
    assert other.wait_code == ""


def test_other_partners_do_not_wait_with_it(connected_partner: Connect, world: World) -> None:
    throttled, other = connected_partner(), connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    world.fail(SERVICE, "throttled", tenant=CONTOSO, retry_after=60)
    run(customers_of(throttled))

    assert run(customers_of(other)).outcome == "done"


def test_a_short_wait_is_waited_out_in_the_worker(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    world.fail(SERVICE, "throttled", times=1, retry_after=1)
    run(customers_of(partner))
    asked = time.monotonic()
    another_worker()

    assert run(a_job(partner, "customers", lane=1)).outcome == "done"
    assert 0.5 < time.monotonic() - asked < pacing.PATIENCE


def test_a_member_who_asks_meanwhile_is_told_so_and_no_call_leaves(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    run(customers_of(partner))
    world.fail(SERVICE, "throttled", times=1, retry_after=60)
    run(customers_of(partner))
    sent = calls(world)
    question = lookups.ask(member=partner.members.get(), customer=partner.customers.all()[0])

    assert lookups.answer(question.pk)

    question.refresh_from_db()
    look = lookups.take(question)
    assert look.words == lookups.REFUSALS["later"]
    assert look.retry_at
    assert calls(world) == sent


def test_a_customer_whom_microsoft_shields_holds_up_no_other(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    run(customers_of(partner))
    first, second = partner.customers.order_by("pk")[:2]
    world.fail(SERVICE, "throttled", path=str(first.tenant_id), times=1, retry_after=60)
    member = partner.members.get()

    answers = []
    for customer in (first, first, second):
        question = lookups.ask(member=member, customer=customer)
        lookups.answer(question.pk)
        question.refresh_from_db()
        answers.append(lookups.take(question).state)

    assert answers == ["refused", "refused", "users"]
    assert len([call for call in world.calls_to(SERVICE) if str(first.tenant_id) in call.path]) == 1
    assert run(customers_of(partner)).outcome == "done"


def test_what_is_said_about_one_customer_slows_the_partner_down(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    run(customers_of(partner))
    customer = partner.customers.order_by("pk")[0]
    world.fail(SERVICE, "throttled", path=str(customer.tenant_id), times=1, retry_after=60)

    lookups.answer(lookups.ask(member=partner.members.get(), customer=customer).pk)

    lane = pacing._lane(partner.pk, SERVICE)
    assert lane.known_wait() <= 0
    assert lane.speed() == pytest.approx(pacing.SLOWED_TO, rel=0.05)


def test_a_second_customer_who_is_throttled_meanwhile_holds_up_the_partner(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner()
    run(customers_of(partner))
    world.fail(SERVICE, "throttled", path="/users", retry_after=60)
    for customer in partner.customers.order_by("pk")[:2]:
        lookups.answer(lookups.ask(member=partner.members.get(), customer=customer).pk)
    another_worker()

    held_up = pacing.hold_up(partner, Audience.PARTNER_CENTER)

    assert held_up
    assert (held_up.code, 50 < held_up.back_in <= 60) == ("asked_to_wait", True)


def test_two_customers_who_are_throttled_one_after_the_other_hold_up_nobody(connected_partner: Connect) -> None:
    lane = pacing._lane(connected_partner().pk, SERVICE)
    lane.slow_down(60, "a")

    with later(seconds=61):
        lane.slow_down(60, "b")
        assert lane.known_wait() <= 0


def test_what_was_said_about_customers_is_forgotten_a_day_later(connected_partner: Connect) -> None:
    lane = pacing._lane(connected_partner().pk, SERVICE)
    lane.slow_down(60, "a")

    with later(hours=23):
        assert pacing.forget_old() == 0
    with later(hours=25):
        lane.hold(60, "b")
        assert pacing.forget_old() == 1
    assert set(Pace.objects.values_list("customer", flat=True)) == {"", "b"}


def test_a_wait_that_comes_with_an_outage_is_kept_too(connected_partner: Connect) -> None:
    traffic = pacing.PartnersTraffic("global", connected_partner().pk, SERVICE)
    answer = requests.Response()
    answer.status_code, answer.headers["Retry-After"] = 503, "60"

    traffic.after("https://api.partnercenter.microsoft.com/v1/customers", answer)

    lane = pacing._lane(traffic.partner_id, SERVICE)
    assert 50 < lane.known_wait() <= 60
    assert lane.speed() == 500


def test_after_a_wait_a_partner_goes_slower_and_ever_faster_again(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    lane = pacing._lane(partner.pk, SERVICE)
    lane.slow_down(60, "")
    lane.slow_down(60, "")  # of a call that was under way at the same time

    lane.known_wait()
    assert lane.speed() == pytest.approx(pacing.SLOWED_TO, rel=0.05)
    with later(minutes=20):
        assert lane.speed() == pytest.approx(4 * pacing.SLOWED_TO, rel=0.05)
    with later(days=1):
        assert lane.speed() == 500


# --- Our own limits -------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_taken_while_a_call_of_the_partner_takes_permits_waits_for_neither() -> None:
    """On SQLite the one held the only right to write and waited for the lock, and the other the other way round."""
    partner = a_partner(1)
    with ThreadPoolExecutor(1) as other, pacing._lane(partner.pk, Audience.PARTNER_CENTER).lock:
        asked = other.submit(_held_up_elsewhere, partner)
        assert asked.result(timeout=30) is None


def _held_up_elsewhere(partner: Partner) -> pacing.HeldUp | None:
    try:
        with partner_scope(partner):
            return pacing.hold_up(partner, Audience.PARTNER_CENTER)
    finally:
        connections.close_all()


def test_calls_of_a_partner_keep_to_its_limit_in_all_workers_together(settings: Any) -> None:
    settings.CPV_CALLS_PER_PARTNER = 2
    partner = a_partner(1)
    with time_machine.travel(timezone.now(), tick=False):
        waits = []
        for _ in range(8):
            another_worker()
            waits.append(round(pacing._lane(partner.pk, SERVICE).permit(10), 2))

    assert waits == [0, 0, 0, 0.5, 1.0, 1.5, 2.0, 2.5]


def test_a_call_that_would_wait_too_long_does_not_leave_and_takes_no_permit(settings: Any) -> None:
    settings.CPV_CALLS_PER_PARTNER = 1
    lane = pacing._lane(a_partner(1).pk, SERVICE)
    with time_machine.travel(timezone.now(), tick=False):
        waits = [lane.permit(2) for _ in range(20)]

    assert [wait for wait in waits if wait <= 2] == [0, 0, 1, 2]
    assert Pace.objects.get().taken_until - timezone.now().timestamp() < 5


def test_most_calls_cost_no_query(django_assert_max_num_queries: Any) -> None:
    lane = pacing._lane(a_partner(1).pk, SERVICE)

    with django_assert_max_num_queries(3):
        for _ in range(200):
            assert lane.permit(10) == 0
            assert lane.known_wait() <= 0


def test_as_many_threads_as_take_rights_share_them_and_no_more() -> None:
    permits = circuits.Permits(1_000, until=time.monotonic() + 60)

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(lambda _: sum(permits.take() for _ in range(500)), range(8)))

    assert taken == 1_000
    assert not circuits.Permits(1_000, until=time.monotonic() - 0.1).take(), "they are good for a while only"


def test_while_one_thread_asks_for_more_the_others_use_what_it_had_for_a_second_more(settings: Any) -> None:
    settings.CPV_CALLS_PER_PARTNER = 100
    partner = a_partner(1)
    lane, circuit = pacing._lane(partner.pk, SERVICE), circuits.circuit_of("global", SERVICE)
    with partner_scope(partner):
        for of in (lane, circuit):
            for ago, may_leave in ((0.5, True), (1.5, False)):
                of.permits = circuits.Permits(5, until=time.monotonic() - ago)
                with of.lock:  # as while somebody asks
                    assert of.permits.take(later=circuits.KEEN) == may_leave
        lane.permits = circuits.Permits(5, until=time.monotonic() - 0.5)
        with ThreadPoolExecutor(1) as pool, lane.lock:
            assert pool.submit(lane.permit, 10.0).result(5) == 0
        lane.hold(60, "")
        assert not lane.permits.take(later=circuits.KEEN), "nothing of them is left once Microsoft asked for patience"


def test_after_an_outage_no_more_than_ten_tokens_a_second_are_asked_for() -> None:
    with time_machine.travel(timezone.now(), tick=False):
        waits = []
        for _ in range(90):
            another_worker()
            waits.append(circuits.circuit_of("global", pacing.ENTRA).permit(10, 10, ahead=0))

    for second in range(8):
        assert len([wait for wait in waits if second - 0.05 <= wait < second + 0.95]) == 10


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_workers_that_take_permits_at_the_same_time_share_the_limit(settings: Any) -> None:
    settings.CPV_CALLS_PER_PARTNER = 10
    partner, begun = a_partner(1), time.time()

    def take(_: int) -> None:
        try:
            lane = pacing._Lane(partner.pk, SERVICE)
            with partner_scope(partner):
                for _ in range(5):
                    lane.permits = circuits.Permits()
                    lane.permit(60)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(8)))

    given_out = Pace.objects.get().taken_until - begun
    assert given_out == pytest.approx(8 * 5 * 0.5, abs=2)


@pytest.fixture
def two_connections(transactional_db: None) -> Iterator[None]:
    """This process has no more than two connections to the database."""
    postgresql: Any = connection
    options = postgresql.settings_dict["OPTIONS"]
    usual = options["pool"]
    for most in (2, usual["max_size"]):
        postgresql.close()
        postgresql.close_pool()
        options["pool"] = usual | {"max_size": most}
        if most == 2:
            yield


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("two_connections")
def test_calls_that_wait_for_their_right_leave_the_connections_to_the_one_that_gets_it() -> None:
    """All had one and waited for the lock, and who held the lock waited for a connection."""
    partner = a_partner(1)
    connection.close()
    lane = pacing._lane(partner.pk, SERVICE)
    have_one = threading.Barrier(3)

    def call() -> None:
        try:
            with partner_scope(partner):
                assert Partner.objects.exists()
                have_one.wait(30)
                lane.permit(10)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool, lane.lock:
        calls = [pool.submit(call) for _ in range(2)]
        have_one.wait(30)
        with partner_scope(partner):
            assert Partner.objects.exists()
    assert [one.result(30) for one in calls] == [None, None]


# --- A service that is down -----------------------------------------------------------------------------------------
@pytest.fixture
def many(connected_partner: Connect) -> list[Job]:
    """Jobs of four partners."""
    names = {CONTOSO: "Contoso", FABRIKAM: "Fabrikam", WOODGROVE: "Woodgrove", NORTHWIND: "Northwind"}
    return [customers_of(connected_partner(tenant_id=tenant, name=name)) for tenant, name in names.items()]


@pytest.mark.parametrize("fault", ["503", "timeout-before", "down"])
def test_when_a_service_is_down_few_calls_find_out_and_the_others_wait(
    many: list[Job], world: World, fault: str
) -> None:
    world.fail(SERVICE, fault)
    sent = calls(world)

    for job in many[:3]:
        assert run(job).error_code != "service_down"
    another_worker()
    ended = put_off(many[3])

    assert (calls(world) - sent, ended.error_code, many[3].wait_code) == (3, "service_down", "service_down")
    assert many[3].next_run_at
    assert 0 < (many[3].next_run_at - timezone.now()).total_seconds() <= circuits.FIRST + 1


def test_one_call_at_a_time_tries_and_its_good_answer_lets_all_go_on(many: list[Job], world: World) -> None:
    world.fail(SERVICE, "503", times=3)
    for job in many[:3]:
        run(job)

    with later(seconds=circuits.FIRST + 1):
        another_worker()
        circuit = circuits.circuit_of("global", SERVICE)
        stranger = many[3].partner_id
        assert circuit.refuses(stranger) == 0
        assert circuit.refuses(stranger) == circuits.ASK_AGAIN
        circuit.went_well(stranger)
        many[3].make_due()
        assert run(many[3]).outcome == "done"

    assert Service.objects.get(name=SERVICE).times == 0


def test_a_service_that_is_still_down_is_left_alone_for_longer(many: list[Job], world: World) -> None:
    world.fail(SERVICE, "503")
    for job in many[:3]:
        run(job)

    with later(seconds=circuits.FIRST + 1):
        another_worker()
        many[3].make_due()
        assert run(many[3]).outcome == "waiting"
        row = Service.objects.get(name=SERVICE)
        assert row.open_until
        assert (row.open_until - timezone.now()).total_seconds() == pytest.approx(2 * circuits.FIRST, abs=1)


def test_a_partner_for_whom_everything_fails_takes_the_service_from_nobody(many: list[Job], world: World) -> None:
    world.fail(SERVICE, "500", tenant=CONTOSO)
    for _ in range(6):
        many[0].make_due()
        run(many[0])

    assert run(many[1]).outcome == "done"


def test_partners_for_whom_everything_fails_take_the_service_from_nobody_else(many: list[Job], world: World) -> None:
    *poison, healthy = many
    for tenant in (CONTOSO, FABRIKAM, WOODGROVE):
        world.fail(SERVICE, "500", tenant=tenant)
    begun = timezone.now()

    def played(job: Job, *, due: float, until: float) -> float:
        """What is due is worked off each second; after how many this job was done."""
        Job.objects.filter(pk=job.pk).update(next_run_at=begun + dt.timedelta(seconds=due))
        for second in range(int(due), int(until)):
            with time_machine.travel(begun + dt.timedelta(seconds=second)):
                another_worker()
                while jobs.work_off():
                    pass
                newest = Run.objects.filter(job=job).last()
                if newest and newest.outcome == "done" and newest.started_at >= begun + dt.timedelta(seconds=due):
                    return second
        return until

    for job in poison:
        with time_machine.travel(begun):
            run(job)
    assert Service.objects.get(name=SERVICE).times == 1
    assert played(healthy, due=60, until=120) == 60
    for minute in range(10, 600, 10):  # as theirs come back ever more seldom
        assert played(healthy, due=60 * minute, until=60 * minute + 5) == 60 * minute
    assert Job.objects.filter(quarantined_at__isnull=False).count() == 3


def test_those_who_are_blamed_try_for_themselves_and_are_cleared_when_it_goes_well(
    many: list[Job], world: World
) -> None:
    world.fail(SERVICE, "503", times=4)
    for job in many[:3]:
        run(job)
    first, second = many[0], many[1]

    with later(seconds=circuits.FIRST + 1):  # the fourth failure: it counts for them, and for nobody else
        another_worker()
        first.make_due()
        assert run(first).error_code == "http_503"
        circuit = circuits.circuit_of("global", SERVICE)
        assert circuit.closed_for(second.partner_id) == pytest.approx(2 * circuits.FIRST, abs=1)
        assert circuit.closed_for(many[3].partner_id) == 0
        second.make_due()
        assert put_off(second).error_code == "service_down"
    with later(seconds=3 * circuits.FIRST + 3):
        another_worker()
        first.make_due()
        assert run(first).outcome == "done"

    row = Service.objects.get(name=SERVICE)
    assert (row.times, row.open_until, row.blamed_until) == (0, None, None)
    assert set(row.blamed or ()) == {job.partner_id for job in many[1:3]}


def test_jobs_that_waited_come_back_one_after_another() -> None:
    Service.objects.create(cloud="global", name=SERVICE, times=1, open_until=timezone.now() + dt.timedelta(seconds=30))
    with time_machine.travel(timezone.now(), tick=False):
        circuit = circuits.circuit_of("global", SERVICE)
        assert circuit.closed_for(1) > 0
        back_in = [circuit.ticket(1) for _ in range(50)]

    assert back_in[0] >= 30 - 1
    assert [round(late - early, 2) for early, late in itertools.pairwise(back_in)] == [0.1] * 49


def test_when_entra_is_down_jobs_wait_without_a_call(many: list[Job], world: World) -> None:
    world.fail("entra", "503")
    for job in many[:3]:
        run(job)
    sent = len(world.calls)
    another_worker()

    assert put_off(many[3]).error_code == "service_down"
    assert len(world.calls) == sent
