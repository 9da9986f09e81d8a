"""
A removal is undone: what one whole list took away is there again, as it was.

For a month, and only where a person is asked about removals at all. Whom Microsoft's next two whole lists, a day apart,
still lack is removed again; however many somebody accepted before, much at once waits for a person anew.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from partners import jobs, writing
from partners.mirrored_kinds import CUSTOMERS, MIRRORS
from partners.mirrors import Mirror, lane_bounds
from partners.models import Customer, ListState, Partner, Run
from partners.removals import ABSENT, WITH_CUSTOMER
from tokens import audit
from tokens.actors import Actor

FOR = dt.timedelta(days=30)
AT_ONCE = 2_000  # rows in one short transaction, and in one line of the audit
MOST = 50_000  # rows that are brought back at one asking; the rest takes another
SHOWN = 100  # removals on a page
AS_BEFORE = {"removed_at": None, "missing_since": None, "removed_reason": ""}


class NotNow(Exception):
    """Nothing was brought back; the text says why."""


@dataclass(frozen=True)
class BroughtBack:
    """How many rows are there again, and whether others still wait to be asked for."""

    rows: int
    is_more: bool

    @property
    def words(self) -> str:
        rows = f"{self.rows:,} {'is' if self.rows == 1 else 'are'} back."
        if self.is_more:
            return f"{rows} There are more: bring them back once more."
        return f"{rows} What Microsoft's next two complete lists, a day apart, still lack is taken away again."


def is_offered(kind: str) -> bool:
    """Whether removals of this kind can be undone; who leaves the list of those without MFA mended their sign-in."""
    return kind in MIRRORS and MIRRORS[kind].is_guarded


def removals(partner: Partner, kind: str) -> QuerySet[Run]:
    """The readings of the last month whose whole list took something away, the newest first."""
    if not is_offered(kind):
        return partner.runs.none()
    lately = partner.runs.filter(job__kind=kind, removed__gt=0, finished_at__gte=timezone.now() - FOR)
    return lately.order_by("-finished_at", "-pk")


def bring_back(run: Run, *, by: Actor, reason: str = "", at_once: int = AT_ONCE, most: int = MOST) -> BroughtBack:
    """
    Undo what this run's whole list took away, a few rows at a time; to be called within the scope of its partner.

    Customers come with what went because of them. The answer counts what they were asked for: not what came with them.

    :raises NotNow: there is nothing to undo, or it is too late; the text is for people
    """
    mirror = _mirror_of(run)
    rows, last = 0, 0
    for some in _batches(_taken_by(run, mirror), at_once):
        rows, last = rows + _give_back(run, mirror, some, by=by, reason=reason), some[-1]
        if rows >= most:
            break
    if not rows:
        raise NotNow("Nothing was changed: none of it is away any more, as Microsoft lists it again.")
    is_more = rows >= most and _taken_by(run, mirror).filter(pk__gt=last).exists()
    if not is_more:
        run.mark_brought_back()
    jobs.make_due(run.partner, kind=mirror.kind)
    return BroughtBack(rows, is_more)


def _mirror_of(run: Run) -> Mirror[Any]:
    if not is_offered(run.job.kind) or not run.removed:
        raise NotNow("Nothing was changed: that reading took nothing away.")
    if run.brought_back_at is not None:
        raise NotNow("Nothing was changed: they are back already.")
    if run.finished_at is None or run.finished_at < timezone.now() - FOR:
        raise NotNow(f"Nothing was changed: what was taken away more than {FOR.days} days ago stays away.")
    return MIRRORS[run.job.kind]


def _taken_by(run: Run, mirror: Mirror[Any]) -> QuerySet[Any]:
    """The rows that this run took away and nobody brought back: those of its lane that went while it ran."""
    rows: QuerySet[Any] = mirror.rows(run.partner_id).filter(removed_reason=ABSENT)
    rows = rows.filter(removed_at__gte=run.started_at, removed_at__lte=run.finished_at)
    if not mirror.is_of_customers:
        return rows
    first, last = lane_bounds(run.job.lane, jobs.kind_named(mirror.kind).lanes)
    lane = Customer.objects.filter(partner=run.partner_id, tenant_id__gte=first, tenant_id__lte=last, removed_at=None)
    return rows.filter(customer__in=lane.values("pk"))


def _batches(rows: QuerySet[Any], at_once: int = AT_ONCE) -> Iterator[list[int]]:
    """Their ids, some at a time and each once, in an order that has an index."""
    last = 0
    while some := list(rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:at_once]):
        yield some
        last = some[-1]


def _give_back(run: Run, mirror: Mirror[Any], some: list[int], *, by: Actor, reason: str) -> int:
    if mirror is CUSTOMERS:  # first: whoever is interrupted finds the customers still away, and all is done anew
        _give_back_what_went_with(run.partner_id, some)
    with transaction.atomic():
        rows = _clear(mirror, run.partner_id, some, ABSENT)
        if rows:
            said = {"reason": reason[:200]} if reason else {}
            audit.record(
                "removals.undone", actor=by, partner=run.partner, object=mirror.kind, rows=rows, run=run.pk,
                removed_as=ABSENT, **said,
            )  # fmt: skip
    return rows


def _give_back_what_went_with(partner_id: int, customers: list[int]) -> None:
    for mirror in MIRRORS.values():
        if mirror.is_of_customers:
            went = mirror.rows(partner_id).filter(customer__in=customers, removed_reason=WITH_CUSTOMER)
            for some in _batches(went):
                with transaction.atomic():
                    _clear(mirror, partner_id, some, WITH_CUSTOMER)


def _clear(mirror: Mirror[Any], partner_id: int, some: list[int], reason: str) -> int:
    """
    Have these rows be present again, and nobody rely on what was concluded from the lists without them.

    A run that writes one of them at this moment has it from Microsoft's list, and is left alone: waiting for it, while
    it waits for the lists' state, would be for ever.
    """
    writing.distrust(partner_id, mirror.kind)
    ListState.objects.filter(partner=partner_id, kind=mirror.kind).update(accepted_at=None, accepted_missing=0)
    away = mirror.rows(partner_id).filter(pk__in=some, removed_reason=reason, removed_at__isnull=False)
    free = list(away.select_for_update(skip_locked=True).values_list("pk", flat=True))
    return int(mirror.rows(partner_id).filter(pk__in=free).update(**AS_BEFORE))
