"""Stored sign-ins are used and stored anew once a day, by whoever claims them, and come back slowly after an outage."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from typing import Any

import pytest
import time_machine
from django.db.models import F
from django.utils import timezone

from cpvpanel.celery import app
from partners.models import Partner
from tests.conftest import CONTOSO, FABRIKAM
from tokens import broker, custody, rotation, tasks
from tokens.models import Alarm, RefreshToken, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
NORTHWIND = "0a7b1d00-0000-4000-8000-0000000000d0"
VAULT = "cpv-demo.vault.azure.net"


def due(**fields: Any) -> None:
    RefreshToken.objects.update(next_refresh_at=timezone.now() - dt.timedelta(seconds=1), **fields)


def stored(world: Any) -> int:
    return sum(len(versions) for versions in world.vault(VAULT).secrets.values())


def later(**by: float) -> Any:
    return time_machine.travel(timezone.now() + dt.timedelta(**by), tick=False)


def many(number: int) -> None:
    """Partners that are due, all at once; nothing of theirs is in the vault."""
    partners = [Partner(cloud="global", tenant_id=uuid.UUID(int=n + 1), name=f"Partner {n}") for n in range(number)]
    now = timezone.now()
    Partner.objects.bulk_create(partners)
    RefreshToken.objects.bulk_create(
        RefreshToken(
            partner=partner, generation=1, oid=uuid.UUID(int=7), secret_name=f"rt-{partner.pk}", stored_at=now,
            pinned_version="1", last_success_at=now, next_refresh_at=now - dt.timedelta(seconds=1),
        )
        for partner in partners
    )  # fmt: skip


# --- One sign-in ----------------------------------------------------------------------------------------------------
def test_a_due_sign_in_is_stored_anew_and_due_again_within_a_day(member, world):
    due()
    before = RefreshToken.objects.get()

    (claimed,) = rotation.claim_due()
    assert rotation.rotate(claimed)

    after = RefreshToken.objects.get()
    assert stored(world) == 2
    assert after.pinned_version != before.pinned_version
    left = after.next_refresh_at - timezone.now()
    assert dt.timedelta(hours=21) < left <= dt.timedelta(days=1)
    assert rotation.claim_due() == []
    assert TokenUse.objects.filter(purpose="token.keep", outcome="granted").count() == 1


def test_a_fresh_consent_is_not_due(member):
    assert rotation.claim_due() == []
    with later(days=1, seconds=1):
        assert len(rotation.claim_due()) == 1


def test_where_every_redeem_stores_the_clock_still_comes_once_a_day(member, settings):
    settings.CPV_REFRESH_STORE_INTERVAL = 0
    due()
    rotation.rotate(rotation.claim_due()[0])

    assert RefreshToken.objects.get().next_refresh_at > timezone.now() + dt.timedelta(hours=21)


def test_two_clocks_claim_a_row_once(member):
    due()

    assert len(rotation.claim_due() + rotation.claim_due()) == 1


def test_a_row_that_nobody_took_is_offered_again_within_a_quarter_of_an_hour(member):
    due()
    rotation.claim_due()

    with later(minutes=4, seconds=59):
        assert rotation.claim_due() == []
    with later(minutes=15):
        assert len(rotation.claim_due()) == 1


@pytest.mark.parametrize("stop", ["killed_at", "suspended_at", "withdrawn_at", "offboarded_at", "lapses_at"])
def test_what_is_stopped_is_not_touched(member, world, stop):
    due()
    Partner.objects.update(**{stop: timezone.now()})
    token = RefreshToken.objects.get()

    assert rotation.claim_due() == []
    assert not rotation.rotate(token.pk)
    assert stored(world) == 1


def test_a_sign_in_that_was_revoked_is_marked_and_left(member, contoso):
    contoso.revoke()
    broker.forget()
    due()

    assert not rotation.rotate(rotation.claim_due()[0])

    assert RefreshToken.objects.get().refusal == "needs_consent"
    due()
    assert rotation.claim_due() == []


@pytest.mark.parametrize(("service", "path"), [("vault", None), ("entra", CONTOSO)])
def test_an_outage_kills_nothing_and_is_tried_again(member, world, service, path):
    world.fail(service, "503", path=path)
    due()

    assert not rotation.rotate(rotation.claim_due()[0])

    token = RefreshToken.objects.get()
    assert token.refused_at is None
    assert dt.timedelta(minutes=4) < token.next_refresh_at - timezone.now() < dt.timedelta(minutes=15)
    world.heal()
    due()
    RefreshToken.objects.update(leased_until=None)
    assert rotation.rotate(rotation.claim_due()[0])


def test_the_tick_sends_one_message_for_each(member, world):
    due()
    app.conf.task_always_eager = True
    try:
        tasks.keep()
        tasks.keep()
    finally:
        app.conf.task_always_eager = False

    assert stored(world) == 2


# --- Many -----------------------------------------------------------------------------------------------------------
def test_after_ten_minutes_of_outage_a_thousand_come_back_at_most_ten_in_a_second(
    connected_partner, world, record_property
):
    """Three of the thousand are real: their redemptions are tried in the outage, and bring them back after it."""
    connected_partner()
    connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    connected_partner(tenant_id=NORTHWIND, name="Northwind")
    due()
    real, calls = set(RefreshToken.objects.values_list("pk", flat=True)), len(world.calls)
    many(997)
    world.vault_fault(None, "503")
    tries: Counter[int] = Counter()
    kept: list[tuple[int, bool]] = []
    begun = timezone.now()

    for second in range(0, 2400, 2):  # a tick every two seconds; the vault is down for the first ten minutes
        with time_machine.travel(begun + dt.timedelta(seconds=second), tick=False):
            if second == 600:
                assert len(world.calls_to("vault")) > len(real)
                assert not redeemed(world, calls)
                world.heal("vault")
            claimed = rotation.claim_due()
            tries[second] = len(claimed)
            kept += [(second, rotation.rotate(pk)) for pk in claimed if pk in real]
            if second >= 600:
                others = RefreshToken.objects.filter(pk__in=set(claimed) - real)
                others.update(next_refresh_at=F("next_refresh_at") + custody.DAY)

    after = begun + dt.timedelta(seconds=2400)
    assert all(worked == (second >= 600) for second, worked in kept)
    assert sum(worked for _, worked in kept) == redeemed(world, calls) == len(real)
    assert max(tries.values()) <= 10, "even were all of a tick sent in one second"
    assert not RefreshToken.objects.filter(next_refresh_at__lte=after).exists(), "every one has come back"
    assert not RefreshToken.objects.filter(refused_at__isnull=False).exists()
    record_property("figure", f"1,000 due after ten minutes of outage: at most {max(tries.values())} a second")


def redeemed(world: Any, since: int) -> int:
    """How many refresh tokens came in at Entra since then; a vault's identity asks for its tenant, not a partner's."""
    asked = [call for call in world.calls[since:] if call.service == "entra" and call.path.endswith("/token")]
    return sum(call.tenant in (CONTOSO, FABRIKAM, NORTHWIND) for call in asked)


def test_those_that_failed_together_do_not_come_back_together(db):
    many(200)
    while rotation.claim_due():
        pass

    times = set(RefreshToken.objects.values_list("next_refresh_at", flat=True))
    assert max(times) - min(times) > dt.timedelta(minutes=5)


# --- Nobody uses it -------------------------------------------------------------------------------------------------
def test_a_sign_in_nobody_used_for_two_weeks_raises_an_alarm_long_before_it_dies(member, world):
    rotation.watch_idle()
    assert not Alarm.objects.exists()

    RefreshToken.objects.update(last_success_at=timezone.now() - dt.timedelta(days=15))
    tasks.tidy()
    tasks.tidy()

    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.code, alarm.closed_at) == ("idle", "1 of them", None)
    due()
    rotation.rotate(rotation.claim_due()[0])
    tasks.tidy()
    assert Alarm.objects.get().closed_at
