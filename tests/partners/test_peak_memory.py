"""How much memory a sync takes, by how many customers there are."""

from __future__ import annotations

import gc
import tracemalloc
from collections import deque
from collections.abc import Callable

import pytest
import time_machine

from partners import jobs, sync
from partners.mirrored_kinds import CUSTOMERS
from partners.models import LEASE, Job, ListState, Partner
from partners.partnercenter import PartnerCenter
from partners.writing import Progress
from tests.partners.streams import Listing
from tests.partners.test_moving_lists import BEGUN, forget_all, work_of

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("few", "many"), [(5_000, 10_000), pytest.param(10_000, 100_000, marks=pytest.mark.soak, id="soak")]
)
def test_many_times_the_customers_take_no_more_memory(
    connected_partner: Callable[..., Partner], record_property: Callable[[str, object], None], few: int, many: int
) -> None:
    work = work_of(connected_partner(customers=0))
    peak_memory(work, few)  # whatever is loaded once is loaded now

    small, large = peak_memory(work, few), peak_memory(work, many)
    for _ in range(3):  # both differ by when the collector comes
        if large > 1.2 * max(small, MAY_WAIT):
            small, large = max(small, peak_memory(work, few)), min(large, peak_memory(work, many))

    figure = f"peak of a sync: {small / 1e6:.2f} MB for {few:,} customers, {large / 1e6:.2f} MB for {many:,}"
    record_property("figure", figure)
    assert large <= 1.2 * max(small, MAY_WAIT), figure


MAY_WAIT = 3_500_000  # bytes: pages between who reads and who writes, more or fewer by who is faster


def peak_memory(work: jobs.Work, customers: int) -> int:
    """Of a first sync and one that compares every row."""
    forget_all(work)
    rows = {number: f"C{number}" for number in range(1, customers + 1)}
    listing = Listing(rows, size=500, served=deque(maxlen=1))  # what it remembers is not our memory
    gc.collect()
    tracemalloc.start()
    try:
        with time_machine.travel(BEGUN, tick=False):  # or what waits is written after a moment, full or not
            for _ in range(2):
                Job.objects.filter(pk=work.job.pk).update(leased_until=BEGUN + LEASE)
                work.job.cursor = {}
                sync.read_on(work, CUSTOMERS, PartnerCenter(listing), Progress.of(work, CUSTOMERS))
                ListState.objects.update(is_settled=False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
