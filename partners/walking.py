"""A list for each customer: mirrored one after another, where one customer's fault alone stops nobody else's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from partners import jobs, removals, writing
from partners.ahead import SECONDS_OF_SHORT, batches
from partners.following import Source, Start, read_list
from partners.mirrors import Mirror, ReadPage, lane_bounds
from partners.models import Customer
from partners.pacing import CustomerPaced, Paced
from partners.partnercenter import (
    AccessRefused,
    CallRejected,
    CursorRejected,
    SessionRefused,
    Throttled,
    Untrustworthy,
)
from partners.reading import Cursor
from partners.taking_back import DOUBTFUL, take_back
from partners.writing import Pages, Progress
from tokens.errors import Failure, Transient

AT_ONCE = 200  # customers whose pages are known at the same time
HOPELESS = 50  # lists, the lane's first, and each denied: then the role is missing, and not for one customer
PATIENCE = 2  # turns that ended at the same customer's list before it is left out
MOST_LATER = 50  # customers who are throttled and read last; of more it is the partner whom we ask too fast
TOO_FAST = "http_429"  # whatever number of Microsoft's own comes with it
AT_THE_END = "later"  # where reading breaks off while only these are left
WORTH_WAITING = 600.0  # seconds: who is to be let alone for longer is left out this time


@dataclass(frozen=True)
class Ended:
    """One customer's list was read to its end, or can't be read, and why; `is_clean` is for `batches`."""

    customer_id: int
    tenant_id: UUID
    number: int = 0
    code: str = ""
    correlation_id: str = ""
    is_denied: bool = False  # for want of a role or permission
    is_clean: bool = True


@dataclass(frozen=True)
class Later:
    """Microsoft throttles calls about this customer, whose list comes when all others were read, from this place on."""

    tenant_id: UUID
    place: Start
    is_clean: bool = True


def walk(work: jobs.Work, mirror: Mirror[Any], source: Source) -> None:
    """
    Mirror the lists of this lane's customers one after another, from where an earlier turn stopped.

    What goes wrong with one customer's list alone is noted, and the others go on.
    """
    progress = Progress.of(work, mirror)
    share = _share(work)
    progress.expected = share.count()
    work.count(expected=progress.expected)
    while customers := _next_ones(share, progress):
        known = writing.known_pages(work, mirror, [pk for pk, _ in customers])
        had = writing.had_before(work, mirror, [pk for pk, _ in customers], progress, known)
        way = Walk(source, mirror, customers, progress, known, had)
        try:
            # Not ahead, as each page of a long list is: nearly all the time is spent waiting for one answer after the
            # other, and a second thread for each lane would cost more than it hides.
            for batch in batches(way.lists(), seconds=SECONDS_OF_SHORT):
                _store_lists(work, mirror, batch, progress, known, dict(customers))
                del batch
                work.pause()
            if way.is_hopeless:
                raise _denied(progress)
        except Transient:
            if way.broken_at is not None:
                progress.stuck = progress.stuck + 1 if progress.stuck_at == str(way.broken_at) else 1
                progress.stuck_at = str(way.broken_at)
                work.keep(progress.kept())
            raise
    with transaction.atomic():
        work.keep(progress.kept())
        removals.conclude(work, mirror, progress)
    if progress.denied and progress.denied == progress.lists:
        raise _denied(progress)


def _denied(progress: Progress) -> AccessRefused:
    return AccessRefused("Not one customer's list may be read by the account that agreed.", code=progress.code)


def _share(work: jobs.Work) -> QuerySet[Customer]:
    first, last = lane_bounds(*work.share)
    present = Customer.objects.filter(partner=work.partner, removed_at=None)
    return present.filter(tenant_id__gte=first, tenant_id__lte=last)


def _next_ones(share: QuerySet[Customer], progress: Progress) -> list[tuple[int, UUID]]:
    """Some whose lists are still to be read; those whom Microsoft throttles when nobody else is left."""
    found = list(_after(share, progress)[:AT_ONCE].values_list("pk", "tenant_id"))
    if not found and progress.later:
        left = dict(share.filter(tenant_id__in=progress.later).values_list("tenant_id", "pk"))
        progress.later = {one: place for one, place in progress.later.items() if UUID(one) in left}
        found = [(left[UUID(one)], UUID(one)) for one in progress.later]
    return found


def _after(share: QuerySet[Customer], progress: Progress) -> QuerySet[Customer]:
    rows = share.order_by("tenant_id")
    if progress.within > progress.at:
        return rows.filter(tenant_id__gte=progress.within)  # first the one whose list is under way
    return rows.filter(tenant_id__gt=progress.at) if progress.at else rows


def _start(number: int, place: Cursor | None, mark: Sequence[Any], seen: int = 0, most: int = 0) -> Start:
    return Start(place, number, seen, tuple(mark), most)


class Walk:
    """
    Reads some customers' lists; `broken_at` is the one at which it had to give up.

    It looks at no rows: what is known was looked up before, for all of them at once.
    """

    def __init__(
        self,
        source: Source,
        mirror: Mirror[Any],
        customers: list[tuple[int, UUID]],
        progress: Progress,
        known: Pages,
        had: Mapping[int, int],
    ) -> None:
        self._source, self._mirror, self._customers, self._progress = source, mirror, customers, progress
        self._known, self._had = known if progress.is_trusted else {}, had
        self._places = {one: _start(*place) for one, place in progress.later.items()}
        under_way = _start(progress.number, progress.next, progress.mark, progress.listed, progress.most)
        self._places[progress.within] = under_way
        self._later = set(progress.later)
        self._stuck = progress.stuck_at if progress.stuck >= PATIENCE else ""
        self._denied = progress.denied if progress.denied == progress.lists else None  # None: some could be read
        self.broken_at: UUID | None = None

    @property
    def is_hopeless(self) -> bool:
        return self._denied is not None and self._denied >= HOPELESS

    def lists(self) -> Iterator[ReadPage | Ended | Later]:
        for customer_id, tenant_id in self._customers:
            for one in self._list(customer_id, tenant_id, self._places.get(str(tenant_id))):
                is_denied = isinstance(one, Ended) and one.is_denied
                if not isinstance(one, Later):
                    self._denied = self._denied + 1 if is_denied and self._denied is not None else None
                yield one
            if self.is_hopeless:
                return

    def _list(self, customer_id: int, tenant_id: UUID, start: Start | None) -> Iterator[ReadPage | Ended | Later]:
        start = start or Start(most=self._had.get(customer_id, 0))
        number, total, seen, reached = start.number, 0, 0, start
        path = self._mirror.path(tenant_id)
        try:
            for page in read_list(self._source, self._mirror, path, start, known=self._known, collection=customer_id):
                number, total, seen = page.number, max(total, page.total or 0), seen + page.count
                reached = Start(page.cursor, number, start.seen + seen, tuple(page.mark), page.most)
                yield page
        except CursorRejected:
            if start.place is not None:  # Microsoft forgot where we were
                self._progress.is_trusted = False  # what was read of it may be elsewhere on it by now
                yield from self._list(customer_id, tenant_id, None)
                return
            yield Ended(customer_id, tenant_id, code="cursor")
        except SessionRefused:
            raise
        except (AccessRefused, CallRejected, Untrustworthy) as failure:
            yield self._without(customer_id, tenant_id, failure)
        except (CustomerPaced, Throttled) as failure:
            yield from self._throttled(customer_id, tenant_id, reached, failure)
        except Paced:  # nothing is wrong with this customer: it is we who come too fast
            raise
        except Transient as failure:
            # It is waited for, as any outage; but one customer whose list never comes must not stop all others.
            if self._stuck != str(tenant_id):
                self.broken_at = tenant_id
                raise
            yield self._without(customer_id, tenant_id, failure)
        else:
            is_short = start.seen + seen < total
            yield Ended(customer_id, tenant_id, number, code="incomplete" if is_short else "")

    def _throttled(
        self, customer_id: int, tenant_id: UUID, reached: Start, failure: CustomerPaced | Throttled
    ) -> Iterator[Ended | Later]:
        """One customer alone stops nobody: it comes last, is waited for then, and at last left out this time."""
        is_last = str(tenant_id) in self._later
        if not is_last and len(self._later) < MOST_LATER:
            self._later.add(str(tenant_id))
            yield Later(tenant_id, reached)
            return
        if is_last and (self._stuck == AT_THE_END or (failure.retry_after or 0) > WORTH_WAITING):
            yield Ended(customer_id, tenant_id, code=TOO_FAST, correlation_id=failure.correlation_id)
            return
        if is_last and isinstance(failure, Throttled):
            yield Later(tenant_id, reached)
        raise failure

    def _without(self, customer_id: int, tenant_id: UUID, failure: Failure) -> Ended:
        code = failure.code or type(failure).__name__.lower()
        is_denied = isinstance(failure, AccessRefused)
        return Ended(customer_id, tenant_id, code=code, correlation_id=failure.correlation_id, is_denied=is_denied)


@transaction.atomic
def _store_lists(
    work: jobs.Work,
    mirror: Mirror[Any],
    batch: list[ReadPage | Ended | Later],
    progress: Progress,
    known: Pages,
    tenants: dict[int, UUID],
) -> None:
    """What was read of several customers, those whose list came to its end among them."""
    refused = writing.refusals(work, mirror, [one.customer_id for one in batch if isinstance(one, Ended)])
    for one in batch:
        if isinstance(one, ReadPage):
            progress.pages, progress.seen = progress.pages + 1, progress.seen + one.count
            progress.within, progress.number, progress.next = str(tenants[one.collection]), one.number, one.cursor
            progress.mark, progress.most = one.mark, one.most
            progress.listed = one.count if one.number == 1 else progress.listed + one.count
        elif isinstance(one, Later):
            _put_last(one, progress)
        else:
            _end_list(work, mirror, one, progress, known, refused)
    writing.store(work, mirror, [one for one in batch if isinstance(one, ReadPage)], progress, known)
    for one in batch:
        if isinstance(one, Ended) and one.code in DOUBTFUL:
            take_back(work, mirror, progress.begun, collection=one.customer_id)


def _be_done_with(tenant_id: UUID, progress: Progress) -> None:
    progress.at, progress.within, progress.next = max(progress.at, str(tenant_id)), "", None
    progress.number, progress.mark, progress.listed, progress.most = 0, (), 0, 0


def _put_last(one: Later, progress: Progress) -> None:
    """Who had its turn at the end already, and came no further, makes us lose patience."""
    before = progress.later.get(str(one.tenant_id))
    if before is not None:
        is_further = one.place.number > before[0]
        progress.stuck = 0 if is_further else progress.stuck + 1 if progress.stuck_at == AT_THE_END else 1
        progress.stuck_at = AT_THE_END
    at = one.place
    progress.later[str(one.tenant_id)] = [at.number, at.place, list(at.mark), at.seen, at.most]
    _be_done_with(one.tenant_id, progress)


def _end_list(
    work: jobs.Work, mirror: Mirror[Any], one: Ended, progress: Progress, known: Pages, refused: dict[int, str]
) -> None:
    _be_done_with(one.tenant_id, progress)
    progress.later.pop(str(one.tenant_id), None)
    progress.lists += 1
    if one.code:
        progress.denied, progress.code = progress.denied + one.is_denied, one.code
        if refused.get(one.customer_id) != one.code:
            writing.refuse(work, mirror, one.customer_id, one.code, one.correlation_id)
        return
    is_shorter = writing.drop_pages_after(work, mirror, one.customer_id, one.number, known)
    if one.customer_id in refused:
        writing.readmit(work, mirror, one.customer_id)
    if is_shorter or one.customer_id in refused:
        writing.unsettle(work, mirror)
        progress.is_changed = True
