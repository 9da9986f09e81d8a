"""
Whoever makes a change dies: before or after each thing they write, under each fault. The effect happens once.

Before and after each request that may have an effect something is written; so a death there is one before and after the
request, too. What dies is a real step of the product; what it had committed stays, all else is gone.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from partners import change_steps, changes
from partners.models import Change, Member
from tests.journeys import changing
from tests.journeys.changing import Ground
from tokens import broker

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("uncounted")]

FAULTS = ("", "timeout-after", "timeout-before", "lost", "504-after", "503", "html", "truncated", "throttled", "down")
WRITES = re.compile(r'(UPDATE|INSERT INTO) "(partners_change|tokens_auditevent)"')


class Died(BaseException):
    """Like `kill -9`: nothing that handles errors sees it."""


class Death:
    """Comes before or after the so-maniest thing written; each has two places."""

    def __init__(self, *places: int) -> None:
        self.places, self.passed = set(places), 0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not WRITES.match(sql):
            return execute(sql, params, many, context)
        self._pass()
        result = execute(sql, params, many, context)
        self._pass()
        return result

    def _pass(self) -> None:
        self.passed += 1
        if self.passed in self.places:
            raise Died


@contextmanager
def until(death: Death) -> Iterator[None]:
    """A process that works until death comes; whoever comes next remembers nothing."""
    with connection.execute_wrapper(death):
        try:
            yield
        except Died:
            broker.forget()


@pytest.fixture
def here(member, world, contoso, clock) -> Ground:
    return changing.ground(world, contoso, member.portal, clock)


def confirmed(here: Ground, wanted: int) -> Change:
    member = Member.objects.get()
    change = changes.ask(member=member, customer=here.customer, subscription_id=here.subscription.subscription_id)
    change_steps.work(change.pk)
    change.refresh_from_db()
    changes.choose(change=change, by=member, what="quantity", text=str(wanted))
    changes.confirm(change=change, by=member, what="quantity", wanted=wanted)
    return change


def live_through(here: Ground, kind: str, *places: int, times: int = 1) -> tuple[Change, int]:
    """One more licence, with a fault, and a death at each of these places; the change, and how many places passed."""
    wanted = here.resource["quantity"] + 1
    change, before = confirmed(here, wanted), here.effects
    if kind:
        here.world.fail("partnercenter", kind, method="PATCH", times=times, retry_after=5)
    death = Death(*places)
    with until(death):
        change_steps.work(change.pk)
    for _ in range(1 + len(places)):
        with until(death):
            here.settle(change)
    here.world.heal()
    where = f"{kind or 'no fault'}, death at {places}: {change.outcome} {change.reason} {change.code}"
    assert here.effects - before == 1, where
    assert here.resource["quantity"] == wanted, where
    assert (change.outcome, change.sealed_request) == ("done", ""), where
    return change, death.passed


def all_places(here: Ground, kind: str) -> int:
    """Die at every place of the way, one after another, until the way ends before death comes."""
    for place in itertools.count(1):
        _, passed = live_through(here, kind, place)
        if passed < place:
            return place - 1
    raise AssertionError


@pytest.mark.parametrize("kind", ["", "timeout-after", "timeout-before"])
def test_a_death_at_any_place_leads_to_one_effect(here, kind, record_property):
    places = all_places(here, kind)

    assert places >= 10
    record_property("figure", f"changes, {kind or 'no fault'}: a death at each of {places} places, 1 effect each")


@pytest.mark.soak
@pytest.mark.parametrize("kind", FAULTS)
def test_a_death_at_any_place_under_every_fault(here, kind, record_property):
    record_property("figure", f"changes, {kind or 'no fault'}: {all_places(here, kind)} places, 1 effect each")


@pytest.mark.soak
def test_two_deaths_at_random_under_two_faults(here, record_property):
    dice, lives = random.Random(20_261_127), 400  # noqa: S311 - a sample that is the same every time
    for _ in range(lives):
        places = sorted(dice.sample(range(1, 40), 2))
        live_through(here, dice.choice(FAULTS), *places, times=dice.choice((1, 2)))

    record_property("figure", f"changes, two deaths and two faults at random: {lives} lives, 1 effect each")
