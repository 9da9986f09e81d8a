"""
Marking customers for the index of parts that a search asks, beside the syncs; docs/decisions/0019 tells why so.

A search finds everybody whether marked or not: those who are not cost it time. So nothing hangs on when this happens,
how often, or whether it comes to its end.
"""

from __future__ import annotations

import time
from collections import deque

from django.db import connection, transaction
from django.utils import timezone

from partners import jobs
from partners.mirrored_kinds import CUSTOMERS
from partners.models import Customer, Job, ListState
from tokens.tenancy import partner_scope, system_scope

MANY = 20_000  # customers; of fewer none is marked, for reading them through takes less than the rest of a page
AT_ONCE = 2_000  # rows in a transaction; and fewer than that stay unmarked
SECONDS = 25.0  # for one turn; the clock begins one each half minute


def catch_up(*, seconds: float = SECONDS, at_once: int = AT_ONCE) -> int:
    """
    Mark customers of partners who have many, some of one after some of the next; how many were marked.

    Between two transactions it waits as long as the first one took, so that half of the time is for others.
    """
    marked, until = 0, time.monotonic() + seconds
    waiting = deque(_partners_with_many()) if connection.vendor == "postgresql" else deque()
    while waiting and time.monotonic() < until:
        begun, partner_id = time.monotonic(), waiting.popleft()
        if number := mark_some(partner_id, at_once):
            waiting.append(partner_id)
            marked += number
        if jobs.rest(time.monotonic() - begun):
            break
    return marked


@system_scope("whose customers are many")
def _partners_with_many() -> list[int]:
    """Once their list was read to its end, and unless it is being read."""
    many = ListState.objects.filter(kind=CUSTOMERS.kind, present__gt=MANY)
    read_now = Job.objects.filter(kind=CUSTOMERS.kind, leased_until__gt=timezone.now())
    return list(many.exclude(partner__in=read_now.values("partner")).values_list("partner", flat=True))


def mark_some(partner_id: int, at_once: int = AT_ONCE) -> int:
    """Mark some of a partner's customers; 0 when too few are left. Rows that somebody writes are left for later."""
    with partner_scope(partner_id), transaction.atomic():
        rows = Customer.objects.not_indexed().select_for_update(skip_locked=True, no_key=True)
        some = list(rows.values_list("pk", flat=True)[:at_once])
        return Customer.objects.filter(pk__in=some).update(is_indexed=True) if len(some) == at_once else 0
