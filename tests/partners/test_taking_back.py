"""What a list that is not to be believed had added is taken back, and nothing else. Through the stand-in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from django.utils import timezone

from partners import writing
from partners.models import Customer, Partner
from sandbox.world import World
from tests.partners.test_sync import at_microsoft, mirrored
from tests.partners.test_whole_lists import of, read

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
A_DAY = dt.timedelta(days=1)


# --- Who was known before ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("days", [1, 31, 400])
def test_a_customer_of_long_ago_who_came_back_stays_with_what_is_known_of_it(
    connected_partner: Connect, world: World, days: int
) -> None:
    partner = connected_partner(customers=520)
    read(partner)
    before = mirrored(partner)
    back = partner.customers.get(tenant_id=of(world, partner).customers.at(0).tenant_id)
    away = {"removed_at": timezone.now() - days * A_DAY, "removed_reason": "absent"}
    Customer.objects.filter(pk=back.pk).update(**away)
    writing.distrust(partner.pk, "customers")
    world.fail("partnercenter", "endless-next")

    assert read(partner).error_code == "endless_list"

    now = Customer.objects.get(pk=back.pk)
    assert (now.first_seen_at, now.removed_at, now.removed_reason) == (back.first_seen_at, None, "")
    assert mirrored(partner) == before
    assert partner.customers.count() == len(before)
    world.heal("partnercenter")
    assert read(partner).outcome == "done"
    assert mirrored(partner) == at_microsoft(world, partner)
