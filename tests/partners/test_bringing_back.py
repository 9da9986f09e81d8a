"""A removal can be undone for a month; through the stand-in."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import time_machine
from django.db import OperationalError, connection, connections, transaction
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import bringing_back, jobs, removals
from partners.bringing_back import bring_back
from partners.models import ListState, Partner, Run, SubscribedSku, Subscription
from sandbox.world import World
from tests.statements import asked
from tokens import broker, tenancy
from tokens.actors import SYSTEM
from tokens.models import AuditEvent

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
A_DAY = dt.timedelta(days=1)


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(timezone.now(), tick=False) as traveller:
        yield traveller


def sync(partner: Partner, kind: str = "customers") -> list[Run]:
    broker.forget()  # the clock here jumps, and the one by which access tokens end does not
    jobs.ensure(partner, kind)
    jobs.make_due(partner, kind=kind)
    ended = [jobs.run_job(job.pk) for job in partner.jobs.filter(kind=kind).order_by("lane")]
    return [run for run in ended if run]


def of(world: World, partner: Partner) -> Any:
    return world.tenants[str(partner.tenant_id)]


def gone(partner: Partner) -> set[uuid.UUID]:
    return set(partner.customers.exclude(removed_at=None).values_list("tenant_id", flat=True))


def lose(partner: Partner, world: World, clock: Any, *indexes: int) -> Run:
    """Have two whole lists, a day apart, lack these; the run that took them away."""
    clock.shift(60)  # else all calls would be of one moment, and too many for it
    of(world, partner).customers.removed = set(indexes)
    sync(partner)
    if ListState.objects.filter(partner=partner, held_at__isnull=False).exists():
        removals.accept(partner, "customers", by=SYSTEM)
        sync(partner)
    clock.shift(A_DAY)
    [run] = sync(partner)
    assert run.removed == len(indexes) == len(gone(partner))
    clock.shift(60)
    return run


@pytest.fixture
def partner(connected_partner: Connect) -> Partner:
    made = connected_partner(customers=30)
    sync(made)
    return made


def test_what_a_list_took_away_is_there_again_as_it_was_until_two_more_lists_lack_it(
    partner: Partner, world: World, clock: Any
) -> None:
    before = set(partner.customers.values_list("pk", "first_seen_at", "changed_at", "content_hash"))
    run = lose(partner, world, clock, 3, 4)

    done = bring_back(run, by=SYSTEM)

    assert (done.rows, done.is_more) == (2, False)
    assert set(partner.customers.present().values_list("pk", "first_seen_at", "changed_at", "content_hash")) == before
    assert partner.customers.exclude(missing_since=None, removed_reason="").count() == 0
    assert not ListState.objects.get(partner=partner, kind="customers").is_settled
    written = AuditEvent.objects.get(action="removals.undone", partner=partner)
    assert (written.object, written.detail) == ("customers", {"rows": 2, "run": run.pk, "removed_as": "absent"})

    removed = [sync(partner)[0].removed]
    assert partner.customers.present().exclude(missing_since=None).count() == 2
    clock.shift(A_DAY)
    removed += [sync(partner)[0].removed]

    assert removed == [0, 2]


def test_they_stay_where_microsoft_lists_them_again(partner: Partner, world: World, clock: Any) -> None:
    run = lose(partner, world, clock, 3)
    bring_back(run, by=SYSTEM)
    of(world, partner).customers.removed = set()

    for _ in range(3):
        sync(partner)
        clock.shift(A_DAY)

    assert gone(partner) == set()
    assert partner.customers.exclude(missing_since=None).count() == 0


def test_what_was_accepted_once_is_asked_again(partner: Partner, world: World, clock: Any) -> None:
    run = lose(partner, world, clock, *range(8))
    bring_back(run, by=SYSTEM)

    for _ in range(3):
        sync(partner)
        clock.shift(A_DAY)

    assert gone(partner) == set()
    assert ListState.objects.get(partner=partner, kind="customers").held_at


def test_a_run_under_way_does_not_hide_that_they_are_back(
    connected_partner: Connect, world: World, clock: Any, settings: Any
) -> None:
    partner = connected_partner(customers=1200)
    sync(partner)
    taken = lose(partner, world, clock, 3)
    sync(partner)
    settings.CPV_TURN_SECONDS = -1
    [begun] = sync(partner)
    assert begun.outcome == "waiting" or begun.pages

    bring_back(taken, by=SYSTEM)
    settings.CPV_TURN_SECONDS = 60
    sync(partner)
    sync(partner)

    assert partner.customers.present().exclude(missing_since=None).count() == 1


def test_many_are_brought_back_a_few_at_a_time_and_the_rest_at_the_next_asking(
    partner: Partner, world: World, clock: Any
) -> None:
    run = lose(partner, world, clock, *range(5))

    first = bring_back(run, by=SYSTEM, at_once=2, most=4)
    assert (first.rows, first.is_more, len(gone(partner))) == (4, True, 1)
    run.refresh_from_db()
    assert run.brought_back_at is None
    rest = bring_back(run, by=SYSTEM, at_once=2, most=4)

    assert (rest.rows, rest.is_more, gone(partner)) == (1, False, set())
    told = AuditEvent.objects.filter(action="removals.undone").order_by("pk")
    assert [event.detail["rows"] for event in told] == [2, 2, 1]


def test_it_is_done_once_and_only_what_this_list_took_away(partner: Partner, world: World, clock: Any) -> None:
    first = lose(partner, world, clock, 3)
    sync_before = gone(partner)
    of(world, partner).customers.removed = {3, 9}
    sync(partner)
    clock.shift(A_DAY)
    sync(partner)
    clock.shift(60)
    assert len(gone(partner)) == 2

    assert bring_back(first, by=SYSTEM).rows == 1

    assert len(gone(partner)) == 1
    assert not gone(partner) & sync_before
    first.refresh_from_db()
    with pytest.raises(bringing_back.NotNow, match="back already"):
        bring_back(first, by=SYSTEM)


def test_after_a_month_it_is_too_late(partner: Partner, world: World, clock: Any) -> None:
    run = lose(partner, world, clock, 3)
    assert list(bringing_back.removals(partner, "customers")) == [run]
    clock.shift(30 * A_DAY)

    with pytest.raises(bringing_back.NotNow, match="more than 30 days ago"):
        bring_back(run, by=SYSTEM)

    assert len(gone(partner)) == 1
    assert not bringing_back.removals(partner, "customers").exists()


def test_a_run_that_took_nothing_away_has_nothing_to_undo(partner: Partner) -> None:
    with pytest.raises(bringing_back.NotNow, match="took nothing away"):
        bring_back(Run.objects.get(partner=partner), by=SYSTEM)


def test_what_came_back_by_itself_is_not_counted_again(partner: Partner, world: World, clock: Any) -> None:
    run = lose(partner, world, clock, 3)
    of(world, partner).customers.removed = set()
    sync(partner)

    with pytest.raises(bringing_back.NotNow, match="lists it again"):
        bring_back(run, by=SYSTEM)

    assert not AuditEvent.objects.filter(action="removals.undone").exists()


def test_what_went_because_of_its_customer_comes_back_with_it(partner: Partner, world: World, clock: Any) -> None:
    for kind in ("subscriptions", "licences"):
        sync(partner, kind)
        clock.shift(60)
    before = (Subscription.objects.count(), SubscribedSku.objects.count())
    run = lose(partner, world, clock, 3)
    assert removals.erase_old() > 0
    assert Subscription.objects.filter(removed_at=None).count() < before[0]

    assert bring_back(run, by=SYSTEM).rows == 1

    assert (Subscription.objects.count(), SubscribedSku.objects.count()) == before
    for model in (Subscription, SubscribedSku):
        assert not model.objects.exclude(removed_at=None, removed_reason="").exists()
    assert not ListState.objects.filter(kind__in=("subscriptions", "licences"), is_settled=True).exists()


def test_of_a_list_of_many_lanes_only_the_share_of_its_run_comes_back(partner: Partner, clock: Any) -> None:
    sync(partner, "subscriptions")
    now = timezone.now()
    Subscription.objects.update(removed_at=now, removed_reason="absent")
    runs = Run.objects.filter(job__kind="subscriptions").order_by("job__lane")
    runs.update(started_at=now, finished_at=now, removed=1)
    everything = Subscription.objects.count()

    back = [bring_back(run, by=SYSTEM).rows for run in runs]

    assert len(back) == 4
    assert sum(back) == everything
    assert all(0 < some < everything for some in back)


def test_who_leaves_the_list_of_those_without_mfa_is_not_brought_back(partner: Partner) -> None:
    [run] = sync(partner, "mfa")
    Run.objects.filter(pk=run.pk).update(removed=1)
    run.refresh_from_db()

    assert not bringing_back.removals(partner, "mfa").exists()
    with pytest.raises(bringing_back.NotNow):
        bring_back(run, by=SYSTEM)


# --- Beside a run at work -------------------------------------------------------------------------------------------
@contextmanager
def held_elsewhere(rows: QuerySet[Any]) -> Iterator[None]:
    """Another transaction has these rows; and whoever waits for one here is told so before long."""
    is_held, may_end = threading.Event(), threading.Event()

    @tenancy.owner_scope()
    def hold() -> None:
        try:
            with transaction.atomic():
                assert list(rows.select_for_update())
                is_held.set()
                assert may_end.wait(30)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert is_held.wait(30)
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '300ms'")
        try:
            yield
        finally:
            may_end.set()
            held.result()
            with connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_what_a_run_writes_at_this_moment_is_left_to_it(partner: Partner, world: World, clock: Any) -> None:
    run = lose(partner, world, clock, 3, 4)
    written = partner.customers.exclude(removed_at=None).order_by("pk")[0]

    with held_elsewhere(partner.customers.filter(pk=written.pk)):
        assert bring_back(run, by=SYSTEM).rows == 1

    assert gone(partner) == {written.tenant_id}


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_whoever_concludes_from_a_list_is_waited_for(partner: Partner, world: World, clock: Any) -> None:
    run = lose(partner, world, clock, 3)

    with (
        held_elsewhere(ListState.objects.filter(partner=partner, kind="customers")),
        pytest.raises(OperationalError, match="lock timeout"),
    ):
        bring_back(run, by=SYSTEM)

    assert len(gone(partner)) == 1
    assert not AuditEvent.objects.filter(action="removals.undone").exists()


@pytest.mark.postgresql
def test_a_run_has_the_lists_state_before_it_looks_for_what_is_missing(partner: Partner, world: World) -> None:
    of(world, partner).customers.removed = {3}

    with CaptureQueriesContext(connection) as queries:
        sync(partner)

    said = asked(queries)
    locks = [number for number, sql in enumerate(said) if "partners_liststate" in sql and sql.endswith("FOR UPDATE")]
    looks = [number for number, sql in enumerate(said) if "INSERT INTO pg_temp.cpv_listed" in sql]
    assert len(locks) == len(looks) == 1
    assert locks < looks
