"""
Who is gone: what two whole lists, a day or more apart, both lacked. docs/decisions/0016 tells why it is done this way.

Nothing is written for rows that are there. The pages of a list tell together which keys it has; so whatever run read
them, in however many turns, the question is one comparison on the server, and asked only if a page changed.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from partners import jobs
from partners.mirrored_kinds import MIRRORS
from partners.mirrors import SHORT, Mirror, lane_bounds
from partners.models import Customer, ListPage, ListRefusal, ListState, Partner, Run
from partners.taking_back import DOUBTFUL
from partners.writing import ACCEPTED_FOR, Progress, state_of
from tokens import audit
from tokens.actors import Actor
from tokens.tenancy import partner_scope, system_scope

APART = dt.timedelta(hours=24)
FEW = 5  # rows: so many may be missing at once in the smallest list
SHARE = 10  # percent: and of a larger one so many
ABSENT = "absent"
WITH_CUSTOMER = "customer_removed"
AT_ONCE = 1_000  # rows in one short transaction
MOST = 1_000_000  # rows of one partner and kind in a day; the rest follows the next day
ALIKE = 2**44  # pairs of keys in a list: of so many, one may look alike, as keys are short on a page
HOURS = 24
LIKE_NOTHING = b""  # the digest of a page that is to be read anew


@dataclass(frozen=True)
class Missing:
    """
    What a whole list lacks, and of how many; `listed` is how many it lists, each counted once.

    `is_repeated` when it lists something twice. Of each customer's list, that is no whole list: such are `torn`.
    """

    present: int
    missing: int
    listed: int
    is_repeated: bool
    torn: frozenset[int] = frozenset()


def conclude(work: jobs.Work, mirror: Mirror[Any], progress: Progress) -> None:
    """
    End a run that read to the end: note what is missing, and remove what was missing a day ago as well.

    Call it in a transaction. Where the list was not whole, nothing is concluded.
    """
    now = timezone.now()
    if not progress.is_whole:
        return
    state = state_of(work, mirror, is_locked=True)  # `bringing_back` comes wholly before this or wholly after
    if progress.are_strangers_accepted:  # it was for one run
        ListState.objects.filter(pk=state.pk).update(accepted_at=None)
        state.accepted_at = None
    if progress.is_trusted and not progress.is_changed and not state.missing and not state.held_at:
        ListState.objects.filter(pk=state.pk).update(completed_at=now)
        return
    is_new = progress.is_first and not progress.is_repeated
    found = Missing(progress.seen, 0, progress.seen, is_repeated=False) if is_new else _look(work, mirror)
    if not mirror.is_of_customers and progress.expected is not None and are_too_few(found.listed, progress.expected):
        progress.is_whole, progress.seen = False, found.listed  # so many were listed twice, and others not at all
        return
    state.present, state.missing, state.completed_at = found.present, found.missing, now
    state.is_settled, state.unproven_since = not found.is_repeated, None
    may_lack_some = found.is_repeated and not mirror.is_of_customers and progress.expected is None
    if not may_lack_some and (removed := _let_go(work, mirror, state, found, now)):
        work.count(expected=progress.expected, removed=removed)
    state.save()


def are_too_few(listed: int, told: int) -> bool:
    """Whether a list is short, though it may have as many entries as are told; of millions, some look the same."""
    return listed + listed * listed // ALIKE < told


def _let_go(work: jobs.Work, mirror: Mirror[Any], state: ListState, found: Missing, now: dt.datetime) -> int:
    """Mark what is missing but for what waits for a person, and after a day remove it; how many were removed."""
    held, lists = _held(work, mirror, state, found, now) if found.missing else (0, frozenset[int]())
    state.held_at, removed = (state.held_at or now) if held else None, 0
    if found.missing > held:
        removed = _mark_and_remove(work, mirror, now, but=found.torn | lists)
    state.present -= removed
    state.missing = held or found.missing - removed
    return removed


def _held(
    work: jobs.Work, mirror: Mirror[Any], state: ListState, found: Missing, now: dt.datetime
) -> tuple[int, frozenset[int]]:
    """
    Of how many missing rows the removal waits for a person, and which customers' lists they are of.

    A list that became empty waits, however short it was, and so do many of one list at once. Where that is true of all
    lists together nothing is removed. What one list lacks keeps no other one waiting.
    """
    if not mirror.is_guarded:
        return 0, frozenset()
    held, lists = found.missing if _are_many(found.missing, found.present) else 0, frozenset[int]()
    if not held and mirror.is_of_customers:
        many = {one: missing for one, missing, present in _by_list(work, mirror, found) if _are_many(missing, present)}
        held, lists = sum(many.values()), frozenset(many)
    is_accepted = state.accepted_at is not None and state.accepted_at > now - ACCEPTED_FOR
    return (0, frozenset()) if is_accepted and held <= state.accepted_missing else (held, lists)


def _are_many(missing: int, present: int) -> bool:
    return missing == present or (missing > FEW and missing * 100 > present * SHARE)


@transaction.atomic
def accept(partner: Partner, kind: str, *, by: Actor, reason: str = "") -> int:
    """
    Somebody looked and says that what is missing is gone; it may be removed as ever, though not before its day is over.

    How many rows are missing; more than these wait for a person again. 0 when nothing is held.
    """
    held = list(ListState.objects.filter(partner=partner, kind=kind, held_at__isnull=False))
    if held:
        jobs.make_due(partner, kind=kind)  # first the job and then the state, as runs do
    for state in held:
        ListState.objects.filter(pk=state.pk).update(
            accepted_at=timezone.now(), accepted_by=str(by)[:200], accepted_missing=state.missing
        )
    if held:
        audit.record("removals.accepted", actor=by, partner=partner, object=kind, **_said(reason))
    return sum(state.missing for state in held)


@transaction.atomic
def accept_strangers(partner: Partner, kind: str, *, by: Actor, reason: str = "") -> bool:
    """
    Somebody says that a list is this partner's, though nobody on it was known or it went on without end.

    The next whole run takes it, up to as many rows as of a list of which nothing is known.

    False when no run was refused for that.
    """
    newest = Run.objects.filter(partner=partner, job__kind=kind).order_by("-pk").values_list("error_code", flat=True)
    if newest.first() not in DOUBTFUL:
        return False
    jobs.make_due(partner, kind=kind)
    accepted = {"accepted_at": timezone.now(), "accepted_by": str(by)[:200], "accepted_missing": 0}
    if not ListState.objects.filter(partner=partner, kind=kind).update(**accepted):
        ListState.objects.create(partner=partner, kind=kind, **accepted)
    audit.record("strangers.accepted", actor=by, partner=partner, object=kind, **_said(reason))
    return True


def _said(reason: str) -> dict[str, str]:
    return {"reason": reason[:200]} if reason else {}


# --- What there is no reason to keep ----------------------------------------------------------------------------------
def erase_old(*, hour: int | None = None) -> int:
    """
    Erase personal data that there is no reason to keep, and let what is of removed customers go; how many rows.

    That is what was removed, what is of a list that can't be read, all of a partner whose access ended, and all of a
    kind that is not read any more, each for longer than the kind keeps removed rows. Their pages are read anew if need
    be. Where an `hour` (0 to 23) is given it is about the partners whose hour it is.
    """
    now = timezone.now()
    with system_scope("whose rows are old"):
        partners = [
            pk
            for pk in Partner.objects.order_by("pk").values_list("pk", flat=True)
            if hour is None or pk % HOURS == hour
        ]
    done = 0
    for partner_id in partners:
        with partner_scope(partner_id):
            for mirror in MIRRORS.values():
                done += _let_go_with_customers(partner_id, mirror) if mirror.is_of_customers else 0
                if mirror.keeps_removed is not None:
                    done += _erase(mirror, _old(partner_id, mirror, now - mirror.keeps_removed), partner_id)
                _forget_pages(partner_id, mirror, now)
    return done


def _old(partner_id: int, mirror: Mirror[Any], before: dt.datetime) -> QuerySet[Any]:
    rows: QuerySet[Any] = mirror.rows(partner_id)
    states = ListState.objects.filter(partner=partner_id, kind=mirror.kind, completed_at__isnull=False)
    is_read = states.filter(completed_at__gte=before).exists() or not states.exists()
    if not is_read or _has_ended(partner_id, before):
        return rows
    is_old = Q(removed_at__lt=before)
    if mirror.is_of_customers:
        refused = ListRefusal.objects.filter(partner=partner_id, kind=mirror.kind, since__lt=before)
        is_old |= Q(customer__in=refused.values("customer"))
    return rows.filter(is_old)


def _has_ended(partner_id: int, before: dt.datetime) -> bool:
    ended = Q(killed_at__lt=before) | Q(withdrawn_at__lt=before) | Q(offboarded_at__lt=before)
    return Partner.objects.filter(ended, pk=partner_id).exists()


def _erase(mirror: Mirror[Any], old: QuerySet[Any], partner_id: int) -> int:
    def erase(rows: QuerySet[Any]) -> int:
        return int(rows.delete()[0])

    return _in_batches(mirror, old, partner_id, erase)


def _let_go_with_customers(partner_id: int, mirror: Mirror[Any]) -> int:
    """Count rows as removed since their customer is; its list is not walked any more."""
    removed = Customer.objects.filter(partner=partner_id, removed_at__isnull=False)
    since = Subquery(removed.filter(pk=OuterRef("customer")).values("removed_at")[:1])
    present: QuerySet[Any] = mirror.rows(partner_id).filter(removed_at=None, customer__in=removed.values("pk"))
    return _in_batches(
        mirror, present, partner_id, lambda rows: rows.update(removed_at=since, removed_reason=WITH_CUSTOMER)
    )


def _in_batches(mirror: Mirror[Any], rows: QuerySet[Any], partner_id: int, act: Callable[[QuerySet[Any]], int]) -> int:
    """
    Do it to some rows at a time; of the lists they stood on no page is as it was.

    The pages stay: a run that is under way does not write again what it knows, and asks all pages who is listed. Rows
    first and then pages, as runs do.
    """
    done = 0
    collection = "customer_id" if mirror.is_of_customers else "partner_id"
    while done < MOST and (some := dict(rows.values_list("pk", collection)[:AT_ONCE])):
        with transaction.atomic():
            done += act(mirror.rows(partner_id).filter(pk__in=list(some)))
            pages = ListPage.objects.filter(partner=partner_id, kind=mirror.kind).exclude(digest=LIKE_NOTHING)
            lists = set(some.values()) if mirror.is_of_customers else {0}
            pages.filter(collection__in=lists).update(digest=LIKE_NOTHING, hashes=b"")
    return done


def _forget_pages(partner_id: int, mirror: Mirror[Any], now: dt.datetime) -> None:
    """Erase the pages of lists that nobody reads any more: of a partner that left, and of customers who did."""
    pages = ListPage.objects.filter(partner=partner_id, kind=mirror.kind)
    if mirror.keeps_removed is not None and _has_ended(partner_id, now - mirror.keeps_removed):
        pages.delete()
    elif mirror.is_of_customers:  # for a day a turn may still be at a list of theirs
        left = Customer.objects.filter(partner=partner_id, removed_at__lt=now - APART)
        pages.filter(collection__in=left.values("pk")).delete()


# --- On either database ---------------------------------------------------------------------------------------------
def _own(work: jobs.Work, mirror: Mirror[Any], but: frozenset[int] = frozenset()) -> QuerySet[Any]:
    """The rows that are present and whose lists this lane could read, `but` those of these customers."""
    rows: QuerySet[Any] = mirror.rows(work.partner.pk).filter(removed_at=None)
    if not mirror.is_of_customers:
        return rows
    refused: QuerySet[Any] = ListRefusal.objects.filter(partner=work.partner, kind=mirror.kind)
    rows = rows.exclude(customer__in=sorted(but)) if but else rows
    return rows.filter(customer__in=_share(work)).exclude(customer__in=refused.values("customer"))


def _share(work: jobs.Work) -> QuerySet[Customer]:
    first, last = lane_bounds(*work.share)
    return Customer.objects.filter(partner=work.partner, tenant_id__gte=first, tenant_id__lte=last)


def _pages(work: jobs.Work, mirror: Mirror[Any]) -> QuerySet[Any]:
    pages = ListPage.objects.filter(partner=work.partner, kind=mirror.kind)
    return pages.filter(collection__in=_share(work).values("pk")) if mirror.is_of_customers else pages


def _look(work: jobs.Work, mirror: Mirror[Any]) -> Missing:
    return _look_there(work, mirror) if connection.vendor == "postgresql" else _look_here(work, mirror)


def _mark_and_remove(work: jobs.Work, mirror: Mirror[Any], now: dt.datetime, *, but: frozenset[int]) -> int:
    """
    Note what is missing for the first time, and remove what has been for a day; how many were removed.

    Nothing is said `but` of these customers' lists.
    """
    own = _own(work, mirror, but)
    if connection.vendor == "postgresql":
        _unlisted(mirror, own.filter(missing_since=None)).update(missing_since=now)
    else:
        listed = _listed_here(work, mirror)
        gone = [pk for pk, short in _shorts_here(mirror, own.filter(missing_since=None)) if short not in listed]
        for begin in range(0, len(gone), 500):
            own.filter(pk__in=gone[begin : begin + 500]).update(missing_since=now)
    return int(own.filter(missing_since__lte=now - APART).update(removed_at=now, removed_reason=ABSENT))


def _by_list(work: jobs.Work, mirror: Mirror[Any], found: Missing) -> Iterator[tuple[int, int, int]]:
    """Of each customer's list that lacks something: the customer, how many rows it lacks, and of how many."""
    own = _own(work, mirror, found.torn)
    if connection.vendor == "postgresql":
        counted = _unlisted(mirror, own).values("customer").annotate(n=Count("pk")).values_list("customer", "n")
        missing = dict(counted.order_by())
    else:
        listed = _listed_here(work, mirror)
        gone = [pk for pk, short in _shorts_here(mirror, own) if short not in listed]
        missing = Counter(own.filter(pk__in=gone).values_list("customer", flat=True))
    customers = sorted(missing)
    for begin in range(0, len(customers), AT_ONCE):
        some = customers[begin : begin + AT_ONCE]
        present = own.filter(customer__in=some).values("customer").annotate(n=Count("pk")).order_by()
        for customer, number in present.values_list("customer", "n"):
            yield customer, missing[customer], number


# --- On PostgreSQL --------------------------------------------------------------------------------------------------
# Joined with nothing, a page's keys are taken out of the compressed row once, and not once for each key.
_MAKE_ROOM = "CREATE TEMP TABLE IF NOT EXISTS cpv_listed (short bytea NOT NULL) ON COMMIT DELETE ROWS"
_LIST = (
    "INSERT INTO pg_temp.cpv_listed SELECT substr(page.k, i * {0} + 1, {0}) "
    "FROM (SELECT keys || ''::bytea AS k FROM partners_listpage WHERE id IN ({1}) OFFSET 0) page, "
    "generate_series(0, length(page.k) / {0} - 1) i"
)
_TORN = (
    "SELECT DISTINCT collection FROM (SELECT page.collection, substr(page.k, i * {0} + 1, {0}) short "
    "FROM (SELECT collection, keys || ''::bytea AS k FROM partners_listpage WHERE id IN ({1}) OFFSET 0) page, "
    "generate_series(0, length(page.k) / {0} - 1) i) one GROUP BY collection, short HAVING count(*) > 1"
)
_COUNT = "SELECT count(*), count(DISTINCT short) FROM pg_temp.cpv_listed"
_IS_LISTED = "SELECT FROM pg_temp.cpv_listed l WHERE l.short = {}"


def _short(mirror: Mirror[Any]) -> str:
    """What `Mirror.short` computes, in SQL."""
    table = f'"{mirror.model._meta.db_table}"'
    if mirror.key_column == "tenant_id":
        return f"substr(uuid_send({table}.tenant_id), {16 - SHORT + 1})"
    customer = f"{table}.customer_id" if mirror.is_of_customers else "0"
    return f"substr(decode(md5({customer}::text || '/' || {table}.key), 'hex'), 1, {SHORT})"


def _unlisted(mirror: Mirror[Any], rows: QuerySet[Any]) -> QuerySet[Any]:
    """Those that the look before this one, in the same transaction, did not find on any page."""
    return rows.extra(where=[f"NOT EXISTS ({_IS_LISTED.format(_short(mirror))})"])  # noqa: S610 - of our own names


def _look_there(work: jobs.Work, mirror: Mirror[Any]) -> Missing:
    pages, params = _pages(work, mirror).values("id").query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(_MAKE_ROOM)
        cursor.execute("DELETE FROM pg_temp.cpv_listed")  # of an earlier look in the same transaction
        cursor.execute(_LIST.format(SHORT, pages), params)
        cursor.execute(_COUNT)
        listed, distinct = cursor.fetchone()
        torn: frozenset[int] = frozenset()
        if listed != distinct and mirror.is_of_customers:
            cursor.execute(_TORN.format(SHORT, pages), params)
            torn = frozenset(customer for (customer,) in cursor.fetchall())
    own = _own(work, mirror, torn)
    return Missing(own.count(), _unlisted(mirror, own).count(), distinct, listed != distinct, torn)


# --- On SQLite ------------------------------------------------------------------------------------------------------
def _listed_here(work: jobs.Work, mirror: Mirror[Any]) -> Counter[bytes]:
    return Counter(short for _, short in _keys_here(work, mirror))


def _keys_here(work: jobs.Work, mirror: Mirror[Any]) -> Iterator[tuple[int, bytes]]:
    for collection, keys in _pages(work, mirror).values_list("collection", "keys").iterator():
        content = bytes(keys)
        for begin in range(0, len(content), SHORT):
            yield collection, content[begin : begin + SHORT]


def _shorts_here(mirror: Mirror[Any], rows: QuerySet[Any]) -> Any:
    columns = ["pk", mirror.key_column, *(["customer_id"] if mirror.is_of_customers else [])]
    for pk, key, *customer in rows.values_list(*columns).iterator():
        yield pk, mirror.short(customer[0] if customer else 0, key.int if isinstance(key, UUID) else key)


def _look_here(work: jobs.Work, mirror: Mirror[Any]) -> Missing:
    listed = _listed_here(work, mirror)
    is_repeated, torn = any(times > 1 for times in listed.values()), frozenset[int]()
    if is_repeated and mirror.is_of_customers:
        torn = frozenset(customer for (customer, _), n in Counter(_keys_here(work, mirror)).items() if n > 1)
    own = _own(work, mirror, torn)
    gone = sum(short not in listed for _, short in _shorts_here(mirror, own))
    return Missing(own.count(), gone, len(listed), is_repeated, torn)
