"""Many partners at once, some at fault in every way we know: nobody else notices, and each fault has its name."""

from __future__ import annotations

import datetime as dt
import itertools
import random
import uuid
from dataclasses import dataclass, field
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
from tests.partners.test_sync import at_microsoft, mirrored, sync
from tokens import custody
from tokens.models import RefreshToken
from tokens.secret import Secret

pytestmark = pytest.mark.django_db(transaction=True)

FEW, SMALL, PAGES = 3, 30, 520  # customers; some faults show on a second page only
MINUTES = 10  # a service counts as down for some of them, when it was so for several partners in a row
TOO_LONG = 60  # seconds, which is longer than a call may last


@dataclass(frozen=True, eq=False)
class At:
    """Which service is at fault and how, what the newest run is called for it, and where the partner stands then."""

    service: str
    kind: str
    outcome: str
    code: str
    state: str = "active"
    options: dict[str, Any] = field(default_factory=dict)
    customers: int = PAGES
    was_well: bool = False  # it was synced before the fault; else its first sync meets it
    is_whole: bool = False  # all its customers are there, right to the row


def pc(kind: str, outcome: str, code: str, **more: Any) -> At:
    return At("partnercenter", kind, outcome, code, **more)


# Each row of the policy table that is about one partner, and each way in which a list can be wrong.
FAULTS = (
    # It is throttled, down, or does not answer in time
    pc("throttled", "waiting", "http_429"),
    pc("throttled-silent", "waiting", "http_429"),
    pc("500", "waiting", "900192"),
    pc("502", "waiting", "http_502"),
    pc("503", "waiting", "http_503"),
    pc("504", "waiting", "http_504"),
    pc("timeout-before", "waiting", "timeout"),
    pc("timeout-after", "waiting", "timeout"),
    pc("drip", "waiting", "timeout", options={"seconds": TOO_LONG}),
    pc("down", "waiting", "unreachable"),
    pc("cut", "waiting", "unreachable"),
    # It answers something else
    pc("html", "waiting", "html"),
    pc("truncated", "waiting", "not_json"),
    pc("no-items", "failed", "wrong_shape"),
    pc("400", "failed", "2000"),
    pc("404", "failed", "1000"),
    # It does not let us
    pc("unauthorized", "refused", "401/400"),
    pc("forbidden", "refused", "2032"),
    pc("claims-again", "refused", "claims-challenge"),
    pc("mfa", "refused", "900421", state="mfa_missing"),
    At("entra", "AADSTS50173", "refused", "AADSTS50173", state="needs_consent"),
    At("entra", "AADSTS50076", "refused", "AADSTS50076", state="mfa_missing"),
    At("entra", "AADSTS7000222", "failed", "AADSTS7000222"),
    At("entra", "throttled", "waiting", "AADSTS90055"),
    At("entra", "503", "waiting", "entra-503"),
    At("vault", "throttled", "waiting", "vault-429"),
    At("vault", "503", "waiting", "vault-503"),
    # Its list is wrong
    pc("foreign-next", "failed", "foreign_link"),
    pc("cyclic-next", "failed", "cyclic_link"),
    pc("circle-next", "failed", "cyclic_link"),
    pc("endless-next", "failed", "endless_list"),
    pc("too-many-items", "failed", "oversized_page", customers=1_001),
    pc("too-many-bytes", "failed", "oversized_page", options={"size": 9_000_000}),
    pc("other-tenant", "failed", "other_tenant", was_well=True, is_whole=True),
    pc("other-tenant", "failed", "other_tenant", customers=SMALL, was_well=True, is_whole=True),
    pc("other-tenant", "failed", "other_tenant", customers=FEW, was_well=True, is_whole=True),
    pc("endless-next", "failed", "endless_list", customers=SMALL),
    pc("endless-next", "failed", "endless_list", customers=SMALL, was_well=True, is_whole=True),
    pc("circle-next", "failed", "cyclic_link", customers=SMALL, was_well=True, is_whole=True),
    pc("duplicates", "done", "", customers=SMALL, is_whole=True),
    pc("cursor-rejected", "failed", "cursor"),
    pc("wrong-total", "waiting", "incomplete"),
    pc("removed", "waiting", "incomplete"),
    pc("inserted", "done", "", is_whole=True),
    pc("duplicates", "done", "", is_whole=True),
    pc("empty-page", "done", "", is_whole=True, options={"times": 3}),
    pc("bom", "done", "", is_whole=True),
    pc("v1-next", "done", "", is_whole=True),
)


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
    places = random.Random(6).sample(range(number), max(number // 10, len(FAULTS)))  # noqa: S311 - the same each time
    at_fault = dict(zip(places, itertools.cycle(FAULTS), strict=False))
    faulty, healthy = {}, []
    for one in range(number):
        fault = at_fault.get(one)
        customers = FEW if fault is None else fault.customers
        partner = connected(world, str(uuid.UUID(int=1000 + one)), f"Partner {one}", customers=customers)
        if fault is None:
            healthy.append(partner)
        else:
            faulty[partner] = fault
            begin(world, partner, fault)

    begun = timezone.now()
    for minute in range(MINUTES):
        with time_machine.travel(begun + dt.timedelta(minutes=minute)):
            pacing.forget()
            claiming.forget()
            while jobs.work_off():  # it ends when it should listen to other messages, and a turn when others wait
                pass

    for partner in healthy:
        assert named(partner) == ("done", "", "active")
        assert mirrored(partner) == at_microsoft(world, partner)
    assert [(fault.service, fault.kind, *named(partner)) for partner, fault in faulty.items()] == [
        (fault.service, fault.kind, fault.outcome, fault.code, fault.state) for fault in faulty.values()
    ]
    theirs = {partner: {row[0] for row in at_microsoft(world, partner)} for partner in faulty}
    for partner, fault in faulty.items():
        rows = mirrored(partner)
        if fault.is_whole:
            assert rows == at_microsoft(world, partner), fault
        if fault.kind == "endless-next":
            assert len(rows) == (fault.customers if fault.was_well else 0), fault
        of_others = set().union(*(ids for other, ids in theirs.items() if other != partner))
        assert not of_others & {row[0] for row in rows}, fault
    assert not Job.objects.filter(leased_until__gt=timezone.now()).exists()


def begin(world: World, partner: Partner, fault: At) -> None:
    """Let it go wrong from now on."""
    if fault.was_well:
        assert sync(partner).outcome == "done"
        partner.jobs.update(next_run_at=timezone.now())
    where: dict[str, Any] = {"tenant": str(partner.tenant_id)}
    if fault.service == "vault":  # which does not know whose secret it is
        token = current_token(partner)
        assert token
        where = {"path": token.secret_name, "operation": "get"}
    world.fail(fault.service, fault.kind, **where, **fault.options)


def named(partner: Partner) -> tuple[str, str, str]:
    """How the newest run of its customers ended, why, and where the partner stands."""
    run = Run.objects.filter(partner=partner, job__kind="customers").order_by("pk").last() or Run(outcome="never began")
    fresh = Partner.objects.get(pk=partner.pk)
    return str(run.outcome), run.error_code, standing(fresh, current_token(fresh)).state
