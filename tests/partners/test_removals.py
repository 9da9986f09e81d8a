"""Who counts as gone, and who does not; through the stand-in."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from consent import invitations
from partners import jobs, removals
from partners.models import ListState, Partner, Run
from sandbox.directory import Tenant
from sandbox.world import World
from tests.pretend import Person, admin_agent
from tokens import broker
from tokens.actors import SYSTEM
from tokens.models import AuditEvent, RefreshToken

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
A_DAY = dt.timedelta(days=1)


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(timezone.now(), tick=False) as traveller:
        yield traveller


def sync(partner: Partner) -> Run:
    broker.forget()  # the clock here jumps, and the one by which access tokens end does not
    jobs.make_due(partner, kind="customers")
    ended = jobs.run_job(jobs.ensure(partner, "customers").pk)
    assert ended
    return ended


def of(world: World, partner: Partner) -> Tenant:
    return world.tenants[str(partner.tenant_id)]


def gone(partner: Partner) -> set[uuid.UUID]:
    return set(partner.customers.exclude(removed_at=None).values_list("tenant_id", flat=True))


def leave(world: World, partner: Partner, *indexes: int) -> set[uuid.UUID]:
    customers = of(world, partner).customers
    customers.removed = set(indexes)
    return {uuid.UUID(customers.at(index).tenant_id) for index in indexes}


def state(partner: Partner) -> ListState:
    found: ListState = ListState.objects.get(partner=partner, kind="customers")
    return found


def test_who_two_whole_lists_a_day_apart_lack_is_gone(connected_partner: Connect, world: World, clock: Any) -> None:
    partner = connected_partner(customers=20)
    sync(partner)
    left = leave(world, partner, 3)

    first = sync(partner)
    clock.shift(23 * 3600)
    within_a_day = sync(partner)
    clock.shift(3600)
    a_day_later = sync(partner)

    assert [run.removed for run in (first, within_a_day, a_day_later)] == [0, 0, 1]
    assert gone(partner) == left
    row = partner.customers.get(tenant_id__in=left)
    assert (row.removed_reason, row.missing_since) == ("absent", row.removed_at - A_DAY)
    assert sync(partner).unchanged == 19


def test_who_is_listed_in_between_is_not_gone(connected_partner: Connect, world: World, clock: Any) -> None:
    partner = connected_partner(customers=20)
    sync(partner)

    for indexes in ((3,), (), (3,)):
        leave(world, partner, *indexes)
        sync(partner)
        clock.shift(13 * 3600)

    assert gone(partner) == set()
    assert partner.customers.exclude(missing_since=None).count() == 1


def test_who_comes_back_is_as_before_however_long_they_were_away(
    connected_partner: Connect, world: World, clock: Any
) -> None:
    partner = connected_partner(customers=20)
    sync(partner)
    [left] = leave(world, partner, 3)
    known_since = partner.customers.get(tenant_id=left).first_seen_at

    for days in (20, 40):
        leave(world, partner, 3)
        for _ in range(2):
            sync(partner)
            clock.shift(A_DAY)
        assert gone(partner) == {left}
        clock.shift(days * A_DAY)
        leave(world, partner)
        sync(partner)
        row = partner.customers.get(tenant_id=left)
        assert (row.removed_at, row.missing_since, row.removed_reason) == (None, None, "")
        assert row.first_seen_at == known_since


def test_a_list_that_did_not_come_to_its_end_says_nothing_of_who_is_missing(
    connected_partner: Connect, world: World, clock: Any
) -> None:
    partner = connected_partner(customers=1200)
    sync(partner)
    leave(world, partner, 3)
    for _ in range(3):
        world.fail("partnercenter", "500", times=1)
        assert sync(partner).outcome == "waiting"
        jobs.ensure(partner, "customers")
        partner.jobs.update(cursor={})
        clock.shift(2 * A_DAY)

    assert partner.customers.exclude(missing_since=None).count() == 0


def test_much_that_is_missing_at_once_waits_for_a_person(connected_partner: Connect, world: World, clock: Any) -> None:
    partner = connected_partner(customers=30)
    sync(partner)
    left = leave(world, partner, *range(6))

    for _ in range(3):
        ended = sync(partner)
        clock.shift(A_DAY)
    held = state(partner)

    assert (ended.outcome, held.held_at is not None, held.missing, held.present) == ("done", True, 6, 30)
    assert partner.customers.exclude(missing_since=None).count() == 0

    assert removals.accept(partner, "customers", by=SYSTEM) == 6
    for _ in range(2):
        sync(partner)
        clock.shift(A_DAY)

    assert gone(partner) == left
    assert (state(partner).held_at, state(partner).missing, state(partner).present) == (None, 0, 24)
    assert AuditEvent.objects.filter(action="removals.accepted", partner=partner).count() == 1


def test_more_than_was_accepted_waits_again(connected_partner: Connect, world: World, clock: Any) -> None:
    partner = connected_partner(customers=30)
    sync(partner)
    leave(world, partner, *range(6))
    sync(partner)
    removals.accept(partner, "customers", by=SYSTEM)
    leave(world, partner, *range(7))

    for _ in range(3):
        sync(partner)
        clock.shift(A_DAY)

    assert gone(partner) == set()
    assert state(partner).held_at


def test_what_was_held_is_let_go_when_the_list_is_whole_again(
    connected_partner: Connect, world: World, clock: Any
) -> None:
    partner = connected_partner(customers=30)
    sync(partner)
    leave(world, partner, *range(20))
    sync(partner)
    leave(world, partner)

    sync(partner)

    assert (state(partner).held_at, state(partner).missing, state(partner).is_settled) == (None, 0, True)
    assert removals.accept(partner, "customers", by=SYSTEM) == 0


@pytest.mark.parametrize(("customers", "missing", "is_held"), [(6, 5, False), (100, 10, False), (100, 11, True)])
def test_a_few_or_a_tenth_may_be_missing_at_once(
    connected_partner: Connect, world: World, clock: Any, customers: int, missing: int, is_held: bool
) -> None:
    partner = connected_partner(customers=customers)
    sync(partner)
    leave(world, partner, *range(missing))

    sync(partner)

    assert (state(partner).held_at is not None) == is_held
    assert partner.customers.exclude(missing_since=None).count() == (0 if is_held else missing)


def test_who_agrees_anew_between_two_turns_has_the_whole_list_read_at_once(
    connected_partner: Connect, world: World, clock: Any, settings: Any
) -> None:
    partner = connected_partner(customers=5_600)  # more than is written together
    sync(partner)
    leave(world, partner, 0, 1)
    settings.CPV_TURN_SECONDS = -1
    assert sync(partner).outcome == "waiting"
    settings.CPV_TURN_SECONDS = 600

    RefreshToken.objects.current().get().mark_refused("needs_consent", code="AADSTS50173")
    _, url = invitations.invite(partner=partner, by=SYSTEM)
    Person(Client(), world).connect(url, admin_agent(of(world, partner)))
    job = partner.jobs.get(kind="customers")
    assert job.pk in jobs.claim_due(), "whoever agrees anew does not wait for the next regular run"
    ended = jobs.run_job(job.pk)

    assert ended
    assert (ended.outcome, ended.pages, ended.seen, ended.expected) == ("done", 12, 5_598, 5_598), "from the first page"
    assert partner.customers.exclude(missing_since=None).count() == 2, "and it is concluded who is missing"


def test_a_list_with_nobody_known_on_it_is_taken_once_after_somebody_said_so(
    connected_partner: Connect, world: World, clock: Any
) -> None:
    partner = connected_partner(customers=30)
    assert not removals.accept_strangers(partner, "customers", by=SYSTEM)
    sync(partner)

    for change in (1, 2):
        of(world, partner).customer_overrides = {
            index: {"tenantId": str(uuid.UUID(int=7000 * change + index))} for index in range(30)
        }
        clock.shift(60)
        assert sync(partner).error_code == "other_tenant"
        assert removals.accept_strangers(partner, "customers", by=SYSTEM)
        assert (sync(partner).outcome, state(partner).accepted_at) == ("done", None)

    assert partner.customers.count() == 90
    assert partner.customers.present().count() == 90, "who was known is missing, and waits for a person"
    assert state(partner).held_at
    assert AuditEvent.objects.filter(action="strangers.accepted", partner=partner).count() == 2
