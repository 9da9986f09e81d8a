"""Turns of a sync, one after another: of a partner's list through the stand-in, or of one that is pretended alone."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from partners import jobs, sync, walking
from partners.mirrored_kinds import CUSTOMERS, USERS
from partners.models import LEASE, Customer, Job, Partner, Run
from partners.partnercenter import PartnerCenter, Untrustworthy
from sandbox.directory import Tenant
from sandbox.world import World
from tests.partners.streams import Listing, Lists, user
from tokens import broker

Connect = Callable[..., Partner]
A_DAY = dt.timedelta(days=1)


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


def users_of(customer: Customer, rows: dict[int, str], **how: Any) -> Lists:
    path = f"customers/{customer.tenant_id}/users"
    return Lists({str(customer.tenant_id): Listing(rows, path=path, make=user, **how)})


def walk(work: jobs.Work, lists: Lists) -> None:
    """One turn, and what it means to have come to the end."""
    Job.objects.filter(pk=work.job.pk).update(leased_until=timezone.now() + LEASE)
    walking.walk(work, USERS, PartnerCenter(lists))
    work.job.cursor = {}
