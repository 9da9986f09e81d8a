"""
The audit made tamper-evident: each line gets a link in its partner's chain, and all chains an anchor each minute.

Lines are written by whoever decides, without waiting for each other; one sealer at a time links them afterwards. So a
line can be changed unnoticed until it is sealed, a minute later at most, and never after that: a link covers the line
and the link before, an anchor all links and the anchor before, and its MAC takes a key that the database does not hold.
What was sealed last is kept apart (`audit_witness`) and goes to the log: so a cut that takes anchors along shows, too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from django.db import connection, transaction
from django.db.models import Max, Model, QuerySet, Subquery
from django.utils import timezone

from tokens import alarms, audit_witness
from tokens.models import AuditAnchor, AuditEvent, AuditLink, AuditWitness
from tokens.tenancy import system_scope

Row = TypeVar("Row", bound=Model)
logger = logging.getLogger(__name__)

VERSION = "cpv-audit-1"
AT_ONCE = 1_000  # lines linked in one statement
STRAGGLES = dt.timedelta(hours=1)  # longer than any transaction: a line that shows later than that is not linked
ANCHORED_WITHIN = dt.timedelta(minutes=5)  # older than that, and the newest anchor was taken away or nobody seals
LOCK = 0x6370762D61756474  # this sealer's among PostgreSQL's advisory locks
BEGINNING = "0" * 64


# --- Sealing --------------------------------------------------------------------------------------------------------
@system_scope("the audit of all")
def seal() -> AuditAnchor:
    """
    Link every line that has no link, and anchor all chains; safe at any time, from several processes too.

    Where the audit is not as it was sealed, that is an alarm, and the anchors show it for good. What is new is sealed
    all the same: to stop would leave it open to whoever did that.
    """
    with transaction.atomic():
        _one_at_a_time()
        before = AuditAnchor.objects.order_by("-pk").first()
        doubts = [*audit_witness.doubts(before), *_doubts_of_the_newest(before)]
        heads = _Heads()
        while lines := _unlinked(before):
            AuditLink.objects.bulk_create([heads.link(line) for line in lines])
        anchor = _anchor(before, audit_witness.follow(before, in_doubt=bool(doubts)))
        audit_witness.keep(anchor)
        if doubts:
            alarms.note_audit(doubts[0])
    said = {"entries": anchor.entries, "head": anchor.head, "mac": anchor.mac, "at": anchor.at.isoformat()}
    logger.info("audit anchor", extra=said | {"number": anchor.number})
    return anchor


def _doubts_of_the_newest(anchor: AuditAnchor | None) -> Iterator[str]:
    """Why the newest anchor is not ours or does not fit its links; all the others are for `verify`."""
    if anchor is None:
        return
    if not hmac.compare_digest(anchor.mac, _mac(anchor)):
        yield "the newest anchor was not made with our key"
        return
    older = AuditAnchor.objects.filter(pk__lt=anchor.pk).order_by("-pk").first()
    after, head = (older.last_link, older.head) if older else (0, BEGINNING)
    covered = AuditLink.objects.filter(pk__gt=after, pk__lte=anchor.last_link).order_by("pk")
    if anchor.head != _anchor_head(head, covered.values_list("hash", flat=True).iterator()):
        yield "the newest anchor does not fit the lines before it"


def _one_at_a_time() -> None:
    if connection.vendor == "postgresql":  # SQLite's writers take turns anyway
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def _unlinked(before: AuditAnchor | None) -> list[AuditEvent]:
    """The next lines without a link, in the order they were written."""
    lines = AuditEvent.objects.filter(link=None).select_related("partner").order_by("pk")
    if before:  # what is older was linked long ago; so sealing costs what is new, however long the audit is
        lines = lines.filter(at__gt=before.at - STRAGGLES)
    return list(lines[:AT_ONCE])


class _Heads:
    """Number and hash of the newest link of each chain, read when a chain is first continued."""

    def __init__(self) -> None:
        self._heads: dict[int | None, tuple[int, str]] = {}

    def link(self, line: AuditEvent) -> AuditLink:
        number, before = self._heads.get(line.partner_id) or self._read(line.partner_id)
        new = AuditLink(
            event=line, partner_id=line.partner_id, number=number + 1, hash=_link_hash(line, number + 1, before)
        )
        self._heads[line.partner_id] = (new.number, new.hash)
        return new

    def _read(self, partner: int | None) -> tuple[int, str]:
        newest = AuditLink.objects.filter(partner=partner).order_by("-number").values_list("number", "hash").first()
        return newest or (0, BEGINNING)


def _anchor(before: AuditAnchor | None, follows: audit_witness.Sealed) -> AuditAnchor:
    after, head = (before.last_link, before.head) if before else (0, BEGINNING)
    new = AuditLink.objects.filter(pk__gt=after).order_by("pk")
    last = new.aggregate(last=Max("pk"))["last"] or after
    anchor = AuditAnchor(
        number=follows.number + 1,
        before=follows.mac,
        at=timezone.now(),
        entries=(before.entries if before else 0) + new.count(),
        last_link=last,
        head=_anchor_head(head, new.values_list("hash", flat=True).iterator()),
    )
    anchor.mac = _mac(anchor)
    anchor.save(force_insert=True)
    return anchor


def _link_hash(line: AuditEvent, number: int, before: str) -> str:
    said = [
        VERSION, before, number, line.pk, str(line.partner.tenant_id) if line.partner else None,
        line.at.astimezone(dt.UTC).isoformat(timespec="microseconds"), line.actor_kind, line.actor_id,
        line.actor_label, line.action, line.object, line.detail, line.request_id,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _anchor_head(before: str, hashes: Iterable[str]) -> str:
    head = hashlib.sha256(f"{VERSION}|{before}".encode())
    for one in hashes:
        head.update(one.encode())
    return head.hexdigest()


def _mac(anchor: AuditAnchor) -> str:
    at = anchor.at.astimezone(dt.UTC).isoformat(timespec="microseconds")
    said = f"{at}|{anchor.entries}|{anchor.last_link}|{anchor.head}"
    if anchor.number is None:
        return audit_witness.macked(f"{VERSION}|{said}")
    return audit_witness.macked(f"cpv-audit-2|{anchor.number}|{anchor.before}|{said}")


# --- Verifying ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Broken:
    """The first thing that is not as it was sealed."""

    what: str
    partner: str = ""
    event: int | None = None


@dataclass(frozen=True)
class Verdict:
    entries: int
    anchors: int
    anchored_at: dt.datetime | None
    first_broken: Broken | None

    @property
    def intact(self) -> bool:
        return self.first_broken is None


@system_scope("the audit of all")
def verify(*, logged: Iterable[str] = ()) -> Verdict:
    """
    Walk every line, link and anchor; `logged` are MACs of anchors as the log has them.

    Lines younger than the newest anchor are not judged: they are sealed with the next one.
    """
    began, witness = timezone.now(), AuditWitness.objects.first()
    newest = AuditAnchor.objects.order_by("-pk").first()
    broken = next(_breaks(newest, witness, set(logged), began), None)
    return Verdict(
        entries=newest.entries if newest else 0,
        anchors=AuditAnchor.objects.count(),
        anchored_at=newest.at if newest else None,
        first_broken=broken,
    )


def _breaks(
    newest: AuditAnchor | None, witness: AuditWitness | None, logged: set[str], began: dt.datetime
) -> Iterator[Broken]:
    if newest is None:  # as in the first minutes of an installation, too
        seen = witness or logged or AuditLink.objects.exists()
        if seen or AuditEvent.objects.filter(at__lte=began - ANCHORED_WITHIN).exists():
            yield Broken("there is no anchor, though there are lines or the log has some: nobody seals, or it was cut")
        return
    yield from _broken_links(newest)
    yield from _broken_anchors(newest)
    yield from map(Broken, audit_witness.breaks(witness, is_numbered=newest.number is not None))
    yield from _unsealed(newest)
    for anchor in chain.from_iterable(_batches(AuditAnchor.objects.only("mac"))) if logged else ():
        logged.discard(anchor.mac)
    if logged:
        yield Broken("an anchor that the log has is not here")
    if began - newest.at > ANCHORED_WITHIN:
        yield Broken(f"the newest anchor is of {newest.at:%Y-%m-%d %H:%M} UTC: later ones are gone, or nobody seals")


def _broken_links(newest: AuditAnchor) -> Iterator[Broken]:
    """Each link against its line and the link before it, in the order they were made."""
    heads: dict[int | None, tuple[int, str]] = {}
    for link, line in _with_lines(newest):
        number, before = heads.get(link.partner_id, (0, BEGINNING))
        whose = str(link.partner.tenant_id) if link.partner else ""
        if line is None:
            yield Broken("a line is gone", whose, link.event_id)
        elif link.partner_id != line.partner_id or link.number != number + 1:
            yield Broken("a line is not where it was: one before it is gone or was moved", whose, link.event_id)
        elif not hmac.compare_digest(link.hash, _link_hash(line, link.number, before)):
            yield Broken("a line is not what it was", whose, link.event_id)
        heads[link.partner_id] = (link.number, link.hash)


def _with_lines(newest: AuditAnchor) -> Iterator[tuple[AuditLink, AuditEvent | None]]:
    """Each link with its line, or None where that is gone: a join would leave such a link out."""
    for batch in _batches(AuditLink.objects.select_related("partner"), newest.last_link):
        lines = AuditEvent.objects.select_related("partner").in_bulk([link.event_id for link in batch])
        yield from ((link, lines.get(link.event_id)) for link in batch)


def _batches(rows: QuerySet[Row], up_to: int | None = None) -> Iterator[list[Row]]:
    """Rows in the order they were made, a thousand at a time: an audit of years fits no memory."""
    after = 0
    rows = rows if up_to is None else rows.filter(pk__lte=up_to)
    while batch := list(rows.filter(pk__gt=after).order_by("pk")[:AT_ONCE]):
        after = batch[-1].pk
        yield batch


def _broken_anchors(newest: AuditAnchor) -> Iterator[Broken]:
    """Each anchor against its MAC, the anchor before it and the links between the two."""
    before = AuditAnchor(entries=0, last_link=0, head=BEGINNING)  # which has neither a number nor a MAC
    links = _Peeking(chain.from_iterable(_batches(AuditLink.objects.only("hash"), newest.last_link)))
    for anchor in chain.from_iterable(_batches(AuditAnchor.objects.all(), newest.pk)):
        hashes = links.take_up_to(anchor.last_link)
        when = f"the anchor of {anchor.at:%Y-%m-%d %H:%M:%S} UTC"
        if not hmac.compare_digest(anchor.mac, _mac(anchor)):
            yield Broken(f"{when} was not made with our key")
        elif anchor.number is None and before.number is not None:
            yield Broken(f"{when} has no number, and one before it has")
        elif anchor.number is not None and anchor.number != (before.number or 0) + 1:
            yield Broken(
                f"{when} is number {anchor.number} and follows number {before.number or 0}: those between are gone, "
                "or the audit was not as it was sealed when it was made"
            )
        elif anchor.number is not None and anchor.before != before.mac:
            yield Broken(f"{when} follows another one than was before it")
        elif anchor.entries != before.entries + len(hashes):
            yield Broken(f"{when} has another number of lines")
        elif anchor.head != _anchor_head(before.head, hashes):
            yield Broken(f"{when} does not fit the lines before it")
        before = anchor


class _Peeking:
    """Links in their order, taken as far as each anchor goes."""

    def __init__(self, links: Iterator[AuditLink]) -> None:
        self._links = links
        self._next = next(links, None)

    def take_up_to(self, last: int) -> list[str]:
        """The hashes of the links not taken yet, up to this one."""
        hashes = []
        while self._next is not None and self._next.pk <= last:
            hashes.append(self._next.hash)
            self._next = next(self._links, None)
        return hashes


def _unsealed(newest: AuditAnchor) -> Iterator[Broken]:
    """Lines without a link that are too old to be sealed still, and links behind the newest anchor."""
    forged = (
        AuditEvent.objects.filter(link=None, at__lte=newest.at - STRAGGLES).select_related("partner").order_by("pk")
    )
    for line in forged[:1]:
        yield Broken("a line was put in later", str(line.partner.tenant_id) if line.partner else "", line.pk)
    # In one statement: while all this was read, more may have been sealed and anchored.
    last = AuditAnchor.objects.order_by("-pk").values("last_link")[:1]
    if AuditLink.objects.filter(pk__gt=Subquery(last)).exists():
        yield Broken("there are links that no anchor covers")


def described(verdict: Verdict) -> dict[str, Any]:
    """The verdict as the command prints it."""
    broken = verdict.first_broken
    return {
        "entries": verdict.entries,
        "intact": verdict.intact,
        "first_broken": {"what": broken.what, "partner": broken.partner, "event": broken.event} if broken else None,
        "anchors": verdict.anchors,
        "anchored_at": verdict.anchored_at,
    }
