"""What was decided about one partner, for its owners and auditors: to read page by page, to filter, to take along."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.core import signing
from django.db.models import QuerySet

from partners.models import Partner
from tokens import audit
from tokens.models import AuditEvent
from tokens.tenancy import partner_scope

PAGE_SIZE = 50
AT_ONCE = 1_000  # lines an export has in memory
SALT = "activity.before"
ACTIONS = {
    "invitation.made": "Invitation made",
    "approval.answered": "Administrator's approval answered",
    "consent.given": "Consent given",
    "consent.refused": "Consent refused",
    "renewal.offered": "Renewal offered",
    "renewal.confirmed": "Renewal confirmed",
    "renewal.declined": "Renewal declined",
    "connection.refused": "Microsoft refused the connection",
    "connection.limited": "Microsoft took permissions back",
    "connection.wrong_holder": "Microsoft answered for another account",
    "member.signed_in": "Signed in",
    "member.entered": "Came in from another organisation of theirs",
    "member.invited": "Member invited",
    "member.invitation_ended": "Invitation of a member taken back",
    "member.joined": "Member joined",
    "member.role_changed": "Role changed",
    "member.limited": "Limited to some customers",
    "member.unlimited": "Limit to some customers lifted",
    "member.customers_chosen": "Customers chosen for a member",
    "member.removed": "Member removed",
    "member.confirmed": "Confirmed at Microsoft who they are",
    "sync.asked": "Sync asked for",
    "removals.accepted": "Removal of missing rows accepted",
    "removals.undone": "Removed rows brought back",
    "mirror.asked_for": "Reading asked for",
    "mirror.ended": "Reading ended, and what was read erased",
    "strangers.accepted": "List with nobody known on it accepted",
    "job.paused": "Job paused",
    "job.resumed": "Job resumed",
    "job.cancelled": "Job cancelled",
    "job.held": "Job held: it failed too often",
    "job.released": "Job that failed too often released",
    "users.asked": "Users of a customer asked for",
    "change.asked": "Change of a subscription begun",
    "change.confirmed": "Change of a subscription confirmed",
    "change.sent": "Change of a subscription sent to Microsoft",
    "change.ended": "Change of a subscription ended",
    "token.explained": "Connection tested by the vendor",
    "custody.tried": "Custody tested by the vendor",
    "period.chosen": "Access period chosen",
    "partner.withdrawn": "Access ended by the organisation",
    "partner.killed": "Stopped for security",
    "partner.unkilled": "Stop lifted",
    "activity.exported": "Activity exported",
    "evidence.exported": "Evidence exported",
    "access.asked": "The vendor's staff ask to look",
    "access.approved": "A look by the vendor's staff allowed",
    "access.refused": "A look by the vendor's staff refused",
    "access.closed": "Request for a look over without an answer",
    "access.used": "Page opened by the vendor's staff",
    "access.ended": "A look by the vendor's staff ended",
}
"""Every action that is ever written down, in words. What is missing here shows under its own name."""
COLUMNS = ("at", "action", "what", "by", "by_kind", "object", "detail", "request", "line", "number", "hash")
# What a spreadsheet may take for a formula, be it behind what it skips; the wide forms of the letters count as well.
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\x7f\ufeff\u200b]*[=+\-@\uff1d\uff0b\uff0d\uff20]")


@dataclass(frozen=True)
class Asked:
    """What a reader asked to see; what cannot be understood is left out, and named in `wrong`."""

    action: str = ""
    since: dt.date | None = None
    until: dt.date | None = None
    wrong: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Any) -> Asked:
        """Read it from the fields of an address or a form."""
        action, texts = given.get("action", ""), {name: given.get(name, "").strip() for name in ("since", "until")}
        days = {name: _date(text) for name, text in texts.items()}
        wrong = tuple(text[:20] for name, text in texts.items() if text and days[name] is None)
        return cls(action if action in ACTIONS else "", days["since"], days["until"], wrong)

    @property
    def fields(self) -> dict[str, str]:
        said = {"action": self.action, "since": self.since, "until": self.until}
        return {name: str(value) for name, value in said.items() if value}


def _date(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Line:
    """One decision in words, as its reader may know it."""

    event: AuditEvent
    sees_customers: bool

    @property
    def what(self) -> str:
        return ACTIONS.get(self.event.action, self.event.action)

    @property
    def by(self) -> str:
        return self.event.actor_label or self.event.actor_kind

    @cached_property
    def told(self) -> audit.Told:
        return audit.told(self.event, sees_customers=self.sees_customers)

    @property
    def details(self) -> list[tuple[str, str]]:
        """Name and value of what was written down beside, as a person reads it."""
        return [(name.replace("_", " "), _as_text(value)) for name, value in self.told.detail.items() if value]


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    if isinstance(value, dict):
        return "; ".join(f"{name} {_as_text(part)}" for name, part in sorted(value.items()))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Page:
    """Up to 50 lines, the newest first, and the addresses of what comes next and first."""

    lines: list[Line]
    next_url: str | None
    first_url: str | None


def page(partner: Partner, asked: Asked, *, before: str, sees_customers: bool) -> Page:
    """One page; `before` is the opaque mark of the last line seen. A mark that is not ours starts from the newest."""
    found, mark = _found(partner, asked).order_by("-pk"), _read(before)
    if mark:
        found = found.filter(pk__lt=mark)
    rows = list(found[: PAGE_SIZE + 1])
    more, rows = len(rows) > PAGE_SIZE, rows[:PAGE_SIZE]
    return Page(
        lines=[Line(row, sees_customers) for row in rows],
        next_url=_address(asked, signing.dumps(rows[-1].pk, salt=SALT)) if more else None,
        first_url=_address(asked, "") if mark else None,
    )


def _found(partner: Partner, asked: Asked) -> QuerySet[AuditEvent]:
    found = partner.audit_events.all()
    if asked.action:
        found = found.filter(action=asked.action)
    if asked.since:
        found = found.filter(at__gte=_midnight(asked.since))
    if asked.until:
        found = found.filter(at__lt=_midnight(asked.until) + dt.timedelta(days=1))
    return found


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC)


def _read(mark: str) -> int:
    try:
        return int(signing.loads(mark, salt=SALT))
    except (signing.BadSignature, ValueError, TypeError):
        return 0


def _address(asked: Asked, before: str) -> str:
    query = asked.fields | ({"before": before} if before else {})
    return f"?{urlencode(query)}" if query else "?"


# --- Taking it along ------------------------------------------------------------------------------------------------
def as_csv(partner: Partner, asked: Asked, *, sees_customers: bool) -> Iterator[str]:
    """Every line that was asked for, the oldest first, a few at a time; no cell is taken for a formula."""
    yield _csv_row(COLUMNS)
    for row in _rows(partner, asked, sees_customers):
        cells = row | {"detail": json.dumps(row["detail"], sort_keys=True)}
        yield _csv_row([_plain(str(cells[name])) for name in COLUMNS])


def as_json(partner: Partner, asked: Asked, *, sees_customers: bool) -> Iterator[str]:
    """The same as one JSON list."""
    separator = "["
    for row in _rows(partner, asked, sees_customers):
        yield separator + json.dumps(row)
        separator = ",\n"
    yield "[]\n" if separator == "[" else "]\n"


def _rows(partner: Partner, asked: Asked, sees_customers: bool) -> Iterator[dict[str, Any]]:
    found = _found(partner, asked).select_related("link").order_by("pk")
    with partner_scope(partner):  # the file is written when the view is long over
        for event in found.iterator(chunk_size=AT_ONCE):
            yield _row(Line(event, sees_customers))


def _row(line: Line) -> dict[str, Any]:
    event, told = line.event, line.told
    link = getattr(event, "link", None)  # what was written down within the last minute has none yet
    return {
        "at": event.at.astimezone(dt.UTC).isoformat(timespec="microseconds"), "action": event.action,
        "what": line.what, "by": line.by, "by_kind": event.actor_kind, "object": told.object,
        "detail": told.detail, "request": event.request_id, "line": event.pk,
        "number": link.number if link else "", "hash": link.hash if link else "",
    }  # fmt: skip


def _csv_row(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _plain(cell: str) -> str:
    """
    A cell that a spreadsheet takes for text.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell
