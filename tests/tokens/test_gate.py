"""The gate: one question for all that are in use, and a "no" for whom it is meant."""

from __future__ import annotations

import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners.models import Partner
from tests.statements import asked
from tokens import gate
from tokens.models import RefreshToken

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch) -> None:
    """However slow the machine is."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)


@pytest.fixture
def signed_in(connected_partner) -> list[RefreshToken]:
    """More partners than one question asks about, each with a sign-in."""
    first = RefreshToken.objects.get(partner=connected_partner())
    tokens = [first]
    for number in range(1, gate.AT_ONCE + 4):
        tenant = f"9a7e0000-0000-4000-8000-{number:012d}"
        partner = Partner.objects.create(cloud="global", tenant_id=tenant, name=f"Partner {number}")
        copy = RefreshToken.objects.get(pk=first.pk)
        copy.pk, copy.partner, copy.secret_name = None, partner, f"secret-{number}"
        copy.save(force_insert=True)
        tokens.append(copy)
    gate.forget()
    return tokens


def check_all(tokens: list[RefreshToken]) -> int:
    """How many questions it takes."""
    with CaptureQueriesContext(connection) as captured:
        for token in tokens:
            gate.check(token)
    return len([said for said in asked(captured) if "tokens_refreshtoken" in said])


def test_those_in_use_are_asked_about_together(signed_in):
    some = signed_in[: gate.AT_ONCE]
    check_all(some)
    gate.forget()

    assert check_all(some) == 1
    assert check_all(some) == 0, "a yes holds for a moment"


def test_where_several_are_in_use_one_asks_for_all_before_anybody_has_to_wait(signed_in, monkeypatch):
    one, other, third = signed_in[:3]
    check_all([one, other, third])
    gate.forget()
    check_all([one, other, third])
    now = time.monotonic()

    def after(seconds: float) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: now + seconds)

    after(gate.EARLY + 0.01)
    assert check_all([one]) == 1
    with gate._asking:  # as while another thread asks
        assert check_all([other]) == 0
    after(gate.SNAPSHOT_AGE + 0.01)
    assert check_all([other, third]) == 0, "it was asked for them as well"
    after(gate.SNAPSHOT_AGE + gate.EARLY + 0.02)
    with gate._asking:
        assert check_all([other]) == 1, "and nobody goes by what is too old"


def test_who_is_alone_asks_when_its_yes_is_too_old_and_not_before(signed_in, monkeypatch):
    gate._used.clear()
    check_all(signed_in[:1])
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + gate.EARLY + 0.01)

    assert check_all(signed_in[:1]) == 0


def test_more_than_one_question_can_ask_about_take_a_second_one(signed_in):
    check_all(signed_in)
    gate.forget()

    assert check_all(signed_in) == 2


def test_who_is_stopped_is_no_more_let_through_with_the_others_than_alone(signed_in):
    one, stopped = signed_in[:2]
    check_all([one, stopped])
    Partner.objects.filter(pk=stopped.partner_id).update(killed_at=timezone.now())
    gate.forget()

    gate.check(one)

    with pytest.raises(gate.Stopped):
        gate.check(stopped)


def test_those_that_are_stopped_do_not_crowd_out_the_others(signed_in):
    *stopped, one, other = signed_in
    check_all(signed_in)
    Partner.objects.filter(pk__in=[token.partner_id for token in stopped]).update(killed_at=timezone.now())
    gate.forget()
    for token in stopped:
        with pytest.raises(gate.Stopped):
            gate.check(token)
    gate.forget()

    assert check_all([one, other]) == 1


def test_the_generation_of_one_is_not_taken_for_that_of_another(signed_in):
    one, other = signed_in[:2]
    check_all([one, other])
    gate.forget()
    one.generation += 1

    with pytest.raises(gate.Stopped):
        gate.check(one)
    gate.check(other)
