"""Many partners at once, some at fault in every way we know: nobody else notices, and each fault has its name."""

from __future__ import annotations

import datetime as dt
import itertools
import random
import uuid
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from partners import jobs, pacing
from partners.jobs import claiming
from partners.models import Job, Partner, Run
from partners.standing import current_token, standing
from sandbox import demo
from sandbox.world import World
from tokens import custody
from tokens.models import RefreshToken
from tokens.secret import Secret

pytestmark = pytest.mark.django_db(transaction=True)
# By fault: the service, how the newest run ended, and where the partner stands afterwards.
FAULTS = {
    "500": ("partnercenter", "waiting", "active"),
    "503": ("partnercenter", "waiting", "active"),
    "throttled": ("partnercenter", "waiting", "active"),
    "html": ("partnercenter", "waiting", "active"),
    "truncated": ("partnercenter", "waiting", "active"),
    "foreign-next": ("partnercenter", "failed", "active"),
    "cyclic-next": ("partnercenter", "failed", "active"),
    "forbidden": ("partnercenter", "refused", "active"),
    "mfa": ("partnercenter", "refused", "mfa_missing"),
    "AADSTS50173": ("entra", "refused", "needs_consent"),
}

FEW, PAGES = 3, 520  # customers; some faults show on a second page only


def connected(world: World, tenant_id: str, name: str, *, customers: int) -> Partner:
    """What a consent leaves of a partner, without the way there, which takes most of the time."""
    tenant = world.add_tenant(tenant_id, name, customers=customers)
    account = tenant.add_account(f"svc-cpv@{tenant.domain}", groups={"AdminAgents"})
    partner = Partner.objects.create(cloud="global", tenant_id=tenant_id, name=name)
    world.ledger.consent(tenant.id, account.oid, demo.APP_ID, world.apps[demo.APP_ID].static_permissions(tenant.cloud))
    session = world.ledger.sign_in(account, demo.APP_ID, mfa=True)
    session.offline = True

    def on_pin(_token: RefreshToken) -> None:
        partner.start_access_period(timezone.now())
        jobs.ensure(partner, "customers")
        jobs.make_due(partner)

    custody.store(
        partner=partner, refresh_token=Secret(world.ledger.new_refresh(session).value), oid=uuid.UUID(account.oid),
        upn=account.upn, limits="", replaces=None, on_pin=on_pin,
    )  # fmt: skip
    return partner


@pytest.mark.parametrize("number", [100, pytest.param(1_000, marks=pytest.mark.soak)])
def test_one_faulty_partner_of_each_kind_costs_the_healthy_ones_nothing(
    db: None, world: World, settings: Any, number: int
) -> None:
    settings.CPV_TOKENS_PER_SECOND = 10_000
    places = random.Random(6).sample(range(number), number // 10)  # noqa: S311 - the same story each time
    at_fault = dict(zip(places, itertools.cycle(FAULTS), strict=False))
    faulty, healthy = {}, []
    for one in range(number):
        fault, tenant = at_fault.get(one), str(uuid.UUID(int=1000 + one))
        partner = connected(world, tenant, f"Partner {one}", customers=FEW if fault is None else PAGES)
        if fault is None:
            healthy.append(partner)
        else:
            faulty[partner] = fault
            world.fail(FAULTS[fault][0], fault, tenant=tenant)

    begun = timezone.now()
    for minute in range(4):
        with time_machine.travel(begun + dt.timedelta(minutes=minute)):
            pacing.forget()
            claiming.forget()
            jobs.work_off()

    for partner in healthy:
        run = Run.objects.filter(partner=partner).latest("pk")
        assert (run.outcome, run.seen, partner.customers.present().count()) == ("done", FEW, FEW)
    for partner, fault in faulty.items():
        run = Run.objects.filter(partner=partner).latest("pk")
        fresh = Partner.objects.get(pk=partner.pk)
        _, outcome, state = FAULTS[fault]
        assert (fault, str(run.outcome)) == (fault, outcome)
        assert run.error_code
        assert (fault, standing(fresh, current_token(fresh)).state) == (fault, state)
    assert not Job.objects.filter(leased_until__gt=timezone.now()).exists()
