"""What was read is written: pages, rows and the place to go on, all in one short transaction, or none of it."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, DateTimeField, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from partners import copying, jobs, row_by_row, strangers, upserting
from partners.mirrors import Known, Mirror, ReadPage, lane_name
from partners.models import ListPage, ListRefusal, ListState
from partners.reading import Cursor

ACCEPTED_FOR = dt.timedelta(days=7)  # what somebody said of a list
Pages = dict[tuple[int, int], Known]


@dataclass
class Progress:
    """
    Where a run is and what it may conclude at its end; kept with the job, so that another turn goes on from it.

    `next` is the next page of the list that is being read, and `number` the number of pages before it. Of lists of
    customers, `at` is the last one whose list was read to its end and `within` the one whose list is under way.
    """

    next: Cursor | None = None
    number: int = 0
    mark: tuple[Any, ...] | list[Any] = ()  # of `following.Trail`
    most: int = 0  # of `following.told`, or how many there were before
    listed: int = 0  # rows of the customer's list that is under way
    begun: str = ""  # when reading began, or what is unproven did
    pages: int = 0
    seen: int = 0
    expected: int | None = None
    consent: tuple[int, int] | list[int] = (0, 0)  # a token's row and its generation
    is_whole: bool = True  # nothing was left out
    is_trusted: bool = False  # a page that is as it was is not read
    is_first: bool = False  # the mirror had no row
    is_changed: bool = False  # a page differs from what it was
    is_repeated: bool = False  # a key was listed twice
    are_strangers_accepted: bool = False  # somebody says that the list is this partner's, whoever is on it
    at: str = ""
    within: str = ""
    lists: int = 0  # that came to an end, how many of them were denied, and why the last could not be read
    denied: int = 0
    code: str = ""
    stuck: int = 0  # how often in a row reading broke off, and at which customer's list (or `walking.AT_THE_END`)
    stuck_at: str = ""
    # The customers whom Microsoft throttles: who comes last, and what `following.Start` is to be.
    later: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, work: jobs.Work, mirror: Mirror[Any]) -> Progress:
        """
        What an earlier turn left, or the start; also where the partner agreed anew since, maybe by another account.

        What two accounts were shown is no whole list, and nothing could be concluded from it; a few pages more are.
        """
        kept = work.job.cursor
        if "is_whole" in kept:
            progress = cls(**{name: value for name, value in kept.items() if name in cls.__dataclass_fields__})
            if list(progress.consent) == consent_of(work):
                return progress
        return cls.start(work, mirror)

    @classmethod
    def start(cls, work: jobs.Work, mirror: Mirror[Any]) -> Progress:
        state = state_of(work, mirror)
        is_first = not mirror.rows(work.partner.pk).exists()
        # Rows that are gone although the last whole list had some were taken by somebody else.
        is_trusted = state.is_settled and not (is_first and state.present)
        accepted = state.accepted_at if not state.accepted_missing else None
        return cls(
            consent=consent_of(work),
            begun=(state.unproven_since or timezone.now()).isoformat(),
            most=0 if mirror.is_of_customers else state.present,
            is_trusted=is_trusted,
            is_first=is_first,
            are_strangers_accepted=accepted is not None and accepted > timezone.now() - ACCEPTED_FOR,
        )

    def kept(self) -> dict[str, Any]:
        return asdict(self)


def consent_of(work: jobs.Work) -> list[int]:
    return [work.token.pk, work.token.generation]


def state_of(work: jobs.Work, mirror: Mirror[Any], *, is_locked: bool = False) -> ListState:
    """What is known of this lane's lists, be it locked; not written until there is something to say."""
    own = {"partner": work.partner, "kind": mirror.kind, "lane": lane_name(*work.share)}
    rows = ListState.objects.select_for_update() if is_locked else ListState.objects.all()
    return rows.filter(**own).first() or ListState(**own)


def backend() -> Any:
    """How rows are written on this database."""
    return copying if connection.vendor == "postgresql" else upserting


def made_ready(mirror: Mirror[Any], pages: Callable[[], Iterator[ReadPage]]) -> Iterator[ReadPage]:
    """The same pages, put into words by who reads them: all of their rows are new, and the writer has enough to do."""
    how = backend()
    for page in pages():
        how.make_ready(mirror, page)
        yield page
        del page  # before the next one comes


def known_pages(work: jobs.Work, mirror: Mirror[Any], collections: Sequence[int] = (0,)) -> Pages:
    found: Pages = backend().known_pages(mirror, work.partner.pk, list(collections))
    return found


def had_before(
    work: jobs.Work, mirror: Mirror[Any], customers: Sequence[int], progress: Progress, known: Pages
) -> Mapping[int, int]:
    """
    How many each of these customers' lists had.

    Its pages tell; where they are gone, as what a list without end had added is, the rows that are present do.
    """
    had: Counter[int] = Counter()
    for (customer_id, _), page in known.items():
        had[customer_id] += page.count
    others = [customer_id for customer_id in customers if customer_id not in had]
    if others and not progress.is_first:
        rows = mirror.rows(work.partner.pk).filter(removed_at=None, customer__in=others).order_by()
        had.update(dict(rows.values("customer").annotate(n=Count("pk")).values_list("customer", "n")))
    return had


def store(work: jobs.Work, mirror: Mirror[Any], pages: Sequence[ReadPage], progress: Progress, known: Pages) -> None:
    """
    Write what differs on these pages, and where to go on. Call it in a transaction.

    :raises LeaseLost: somebody else works on the job; nothing is written
    :raises Untrustworthy: a page is most likely of another partner's list
    """
    dirty = [page for page in pages if not page.is_clean]
    is_first_change = bool(dirty) and not progress.is_changed
    progress.is_changed |= is_first_change
    backend().need_not_be_on_disk_at_once()
    work.keep(progress.kept())
    if is_first_change:
        unsettle(work, mirror)
    counts = Counter(pages=len(pages), seen=sum(page.count for page in pages))
    counts["unchanged"] = sum(page.count for page in pages if page.is_clean)
    if dirty:
        _write(work, mirror, pages, progress, known, counts)
    work.count(expected=progress.expected, **counts)


def _write(
    work: jobs.Work,
    mirror: Mirror[Any],
    pages: Sequence[ReadPage],
    progress: Progress,
    known: Pages,
    counts: Counter[str],
) -> None:
    partner_id, how = work.partner.pk, backend()
    dirty = [page for page in pages if not page.is_clean]
    added = changed = 0
    if progress.is_first:
        listed = new = sum(page.count for page in dirty)
        added = how.add(mirror, partner_id, dirty, timezone.now())
        how.keep_pages(mirror, partner_id, dirty, [])
    else:
        rows = mirror.rows_of(dirty)
        if len(rows) < sum(page.count for page in dirty):  # what is listed twice is not on both pages as it is kept
            for page in dirty:
                page.hashes = b""
        kept = row_by_row.KeptRows(work, mirror, dirty)
        doubtful, wanted = kept.differing() if progress.is_trusted else (rows, {})
        wanted |= how.compare(mirror, partner_id, doubtful) if doubtful else {}
        if not progress.are_strangers_accepted:
            strangers.check(work, mirror, pages, wanted, progress.seen, known)
        listed, new = len(rows), sum(wanted.values())
        if wanted:
            added, changed = how.write(mirror, partner_id, rows, wanted, timezone.now())
        if changed < len(wanted) - new and (rest := how.compare(mirror, partner_id, rows)):
            # What was to be there is not: it only looks like what was kept of another one.
            new += sum(rest.values())
            some = how.write(mirror, partner_id, rows, rest, timezone.now())
            added, changed = added + some[0], changed + some[1]
        if not all(wanted.values()):
            lists = kept.have_moved(wanted) if progress.is_trusted else {page.collection for page in dirty}
            kept.believe_no_other(lists)
        how.keep_pages(mirror, partner_id, *kept.now())
    if added < new and not progress.is_repeated:
        progress.is_repeated = True
        work.keep(progress.kept())
    counts.update(created=added, updated=changed, unchanged=listed - added - changed)


# --- What is known of lists -----------------------------------------------------------------------------------------
def unsettle(work: jobs.Work, mirror: Mirror[Any]) -> None:
    """
    From now on, and until a run is whole, a page that is as it was proves nothing, and what is added is unproven.

    Call it before the first row is written.
    """
    own = {"partner": work.partner, "kind": mirror.kind, "lane": lane_name(*work.share)}
    now = timezone.now()
    since = Coalesce("unproven_since", Value(now, output_field=DateTimeField()))
    if not ListState.objects.filter(**own).update(is_settled=False, unproven_since=since):
        ListState.objects.create(**own, unproven_since=now)


def distrust(partner_id: int, kind: str) -> None:
    """
    Let the next run compare every row.

    Whoever writes to the mirror beside a run calls this in the same transaction: a page that is as it was would
    otherwise hide that the row is not.
    """
    ListState.objects.filter(partner=partner_id, kind=kind).update(is_settled=False)


def drop_pages_after(work: jobs.Work, mirror: Mirror[Any], collection: int, number: int, known: Pages) -> bool:
    """The list ended after this many pages; whether it was longer before."""
    if not any(of == collection and there > number for of, there in known):
        return False
    pages = ListPage.objects.filter(partner=work.partner, kind=mirror.kind, collection=collection)
    pages.filter(number__gt=number).delete()
    return True


def refusals(work: jobs.Work, mirror: Mirror[Any], customers: Sequence[int]) -> dict[int, str]:
    """Which of these customers' lists could not be read at the last try, and why."""
    own = ListRefusal.objects.filter(partner=work.partner, kind=mirror.kind, customer__in=customers)
    return dict(own.values_list("customer_id", "code"))


def readmit(work: jobs.Work, mirror: Mirror[Any], customer_id: int) -> None:
    """This customer's list can be read again."""
    ListRefusal.objects.filter(partner=work.partner, customer=customer_id, kind=mirror.kind).delete()


def refuse(work: jobs.Work, mirror: Mirror[Any], customer_id: int, code: str, correlation_id: str) -> None:
    """Note that this customer's list can't be read, and why; since when, whatever the reason was, stays."""
    said = {"code": code[:40], "correlation_id": correlation_id[:64]}
    row = ListRefusal(partner=work.partner, customer_id=customer_id, kind=mirror.kind, **said)
    unique = ["partner", "customer", "kind"]
    ListRefusal.objects.bulk_create([row], update_conflicts=True, unique_fields=unique, update_fields=list(said))


@transaction.atomic
def forget(partner_id: int, mirror: Mirror[Any]) -> int:
    """Erase what is mirrored of a kind, as when a partner no longer wants it; how many rows."""
    own: dict[str, Any] = {"partner": partner_id, "kind": mirror.kind}
    for model in (ListPage, ListState, ListRefusal):
        model.objects.filter(**own).delete()
    return int(mirror.rows(partner_id).delete()[0])
