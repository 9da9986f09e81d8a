"""
What a list added is taken back when the same reading finds that the list is not to be believed.

A list without end invents its entries, and another partner's are nobody's business here: neither is known before some
of it was written. Of a list that is refused for another reason, such as where its next link leads, what came is true.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from partners import jobs
from partners.following import ENDLESS
from partners.mirrored_kinds import CUSTOMERS
from partners.mirrors import Mirror
from partners.models import Change, ChosenCustomer, ListPage
from partners.partnercenter import OTHER_TENANT

DOUBTFUL = (ENDLESS, OTHER_TENANT)
AT_ONCE = 1_000  # rows in one short transaction


def take_back(work: jobs.Work, mirror: Mirror[Any], begun: str, *, collection: int = 0) -> int:
    """
    Erase what a list added since `begun`, in this turn and in earlier ones; how many rows.

    Its pages go first: one that is as it was would hide that its rows are not. A customer for whom somebody did
    something meanwhile stays: changed something, as that is written down with it, or gave it to a limited member. What
    was known before and is listed again is present; if that is not true, the next whole lists lack it.

    :raises LeaseLost: somebody else works on the job
    """
    added, done = _added(work, mirror, begun, collection), 0
    if added is None:
        return 0
    work.job.refresh_from_db(fields=["cursor"])  # what we remember may have been rolled back
    pages = ListPage.objects.filter(partner=work.partner, kind=mirror.kind, collection=collection)
    while some := list(added.values_list("pk", flat=True)[:AT_ONCE]):
        with transaction.atomic():
            work.keep(work.job.cursor)
            pages.delete()
            mirror.rows(work.partner.pk).filter(pk__in=some).delete()
        done += len(some)
    if done:
        work.count(expected=work.run.expected, created=-min(done, work.run.created))
    return done


def _added(work: jobs.Work, mirror: Mirror[Any], begun: str, collection: int) -> QuerySet[Any] | None:
    if not begun:  # by an earlier release
        return None
    rows: QuerySet[Any] = mirror.rows(work.partner.pk).filter(first_seen_at__gte=dt.datetime.fromisoformat(begun))
    if mirror is CUSTOMERS:
        for model in (Change, ChosenCustomer):
            rows = rows.exclude(pk__in=model.objects.filter(partner=work.partner).values("customer"))
        return rows
    return rows.filter(customer=collection) if mirror.is_of_customers else rows
