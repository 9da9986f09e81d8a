"""
Delegated admin relationships (GDAP) for people: a customer's, the partner's by their end, and what each means for them.

A limited member sees those with the customers chosen for them; who sees every customer sees all, also of tenants that
are none of the partner's customers. What a customer's page shows comes along with a query that runs anyway.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from django.core import signing
from django.db.models import Exists, JSONField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import JSONObject
from django.utils import timezone

from partners import gdap
from partners.mirrored_kinds import RELATIONSHIPS
from partners.models import ListState, Member, Partner, Relationship, Run
from partners.overview import HowMany
from partners.powers import Power
from partners.reading import guid, moment

SOON = dt.timedelta(days=30)  # Microsoft's first reminder comes then; others a week and a day before
PAGE_SIZE = 50
OF_A_CUSTOMER = 20  # on its page
COUNTED = 1_000
SHOWS = ("", "soon", "ended")
LAPSES = "After that nobody of yours, nor the account that is connected, can do anything in this customer through it."
FOR_EVER = "Once it has ended, Microsoft brings it back for nobody."
SAID = (  # what of a row a customer's page shows, and when
    "relationship_id", "name", "status", "awaits_partner", "roles", "duration", "auto_extend", "is_over",
)  # fmt: skip
MOMENTS = ("created_at", "activated_at", "end_at", "lapses_at")
INVITATION = "https://admin.microsoft.com/AdminPortal/Home#/partners/invitation/granularAdminRelationships/"


# --- What one means ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Told:
    """
    One relationship in words; `notes` are sentences. Where `action` is empty nobody needs to act.

    `link` is what the customer's administrator opens to approve it.
    """

    row: Any
    state: str
    tone: str
    when: str
    notes: list[str] = field(default_factory=list)
    action: str = ""
    link: str = ""

    @property
    def roles(self) -> list[str]:
        return gdap.role_names(self.row.roles.split())[0]

    @property
    def roles_without_a_name(self) -> list[str]:
        return gdap.role_names(self.row.roles.split())[1]

    @property
    def role_count(self) -> int:
        return len(self.row.roles.split())

    @property
    def has_global_administrator(self) -> bool:
        return gdap.GLOBAL_ADMINISTRATOR in self.row.roles.split()

    @property
    def extends(self) -> bool:
        """Whether it is in force and goes on by itself."""
        return self.row.status in gdap.IN_FORCE and self.row.end_at is not None and self.row.lapses_at is None

    @property
    def length(self) -> str:
        return gdap.length(self.row.duration)


def told(row: Relationship, cloud: str = "") -> Told:
    """What a person wants to know of it; the link to approve it is known for the global cloud alone."""
    state = gdap.state(row.status)
    if row.is_over:
        return Told(row, state, "plain", "Ended", [_how_it_ended(row.status)])
    if row.status in gdap.IN_FORCE:
        return _in_force(row, state)
    if row.status == "approvalpending":
        return _pending(row, state, cloud)
    return Told(row, state, "plain", "Would end", [_NOT_IN_FORCE[row.status]] if row.status in _NOT_IN_FORCE else [])


_NOT_IN_FORCE = {
    "created": "It was drafted in Partner Center, and not sent to the customer.",
    "approved": "The customer agreed. Microsoft puts it in force within minutes, as a rule.",
    "activating": "The customer agreed. Microsoft puts it in force within minutes, as a rule.",
    "terminationrequested": "Somebody asked to end it. Access ends within minutes, as a rule.",
    "terminating": "Somebody asked to end it. Access ends within minutes, as a rule.",
}


def _how_it_ended(status: str) -> str:
    if status == "terminated":
        return "Somebody ended it before its time: you, the customer, or Microsoft."
    return f"Its time was over. {FOR_EVER} If you still need access, agree on a new one with the customer."


def _in_force(row: Relationship, state: str) -> Told:
    has_global_administrator = gdap.GLOBAL_ADMINISTRATOR in row.roles.split()
    if row.end_at is None:
        return Told(row, state, "ok", "Ends", ["Microsoft tells no end."])
    if row.lapses_at is None:
        by = gdap.length(row.auto_extend)
        return Told(row, state, "ok", "Until", [f"Then Microsoft extends it by itself, by {by} each time."])
    why = "It does not extend itself."
    if has_global_administrator:
        why = "It has Global Administrator, and such a one Microsoft never extends by itself."
    left = row.lapses_at - timezone.now()
    if left > SOON:
        return Told(row, state, "ok", "Until", [why])
    action = "In Partner Center, among the admin relationships of the customer, switch auto-extend on for it"
    if has_global_administrator:
        action = "In Partner Center take Global Administrator out of it, and then switch auto-extend on"
    if left < dt.timedelta(0):
        note = "Its time is over by now; the next reading tells whether Microsoft ended it."
        return Told(row, "Ends now", "stopped", "Until", [why, note], "Agree on a new one with the customer.")
    action += f"; or agree on a new one with the customer before it ends. {FOR_EVER}"
    return Told(row, "Ends soon", "attention", "Until", [why, LAPSES], action)


def _pending(row: Relationship, state: str, cloud: str) -> Told:
    if row.awaits_partner:
        note = "Your indirect provider made it, and it waits for your own yes as well as for that of the customer."
        return Told(row, "Waits for you", "attention", "Would end", [note], "Approve or refuse it in Partner Center.")
    action = "Have an administrator of the customer approve it"
    link = f"{INVITATION}{quote(row.relationship_id)}" if cloud == "global" else ""
    return Told(row, state, "plain", "Would end", [], f"{action}, by this link:" if link else f"{action}.", link)


# --- Whose ------------------------------------------------------------------------------------------------------------
def of_member(member: Member) -> QuerySet[Relationship]:
    """Those that this member may see; staff who were lent a look see none."""
    every: QuerySet[Relationship] = member.partner.relationships.filter(removed_at=None)
    if member.pk is None or not member.may(Power.CUSTOMERS):
        return every.none()
    if member.sees_every_customer:
        return every
    return every.filter(customer_tenant_id__in=member.customers.present().values("tenant_id"))


class Along(Subquery):
    """What a query finds as JSON, `said` by each row, within another query: so it costs no statement of its own."""

    template = "(SELECT jsonb_agg(along.said) FROM (%(subquery)s) AS along)"
    output_field = JSONField()
    empty_result_set_value = None

    def as_sqlite(self, compiler: Any, connection: Any, **more: Any) -> Any:
        template = "(SELECT json_group_array(json(along.said)) FROM (%(subquery)s) AS along)"
        return self.as_sql(compiler, connection, template=template, **more)


def of_customer(member: Member, tenant_id: UUID) -> dict[str, Along]:
    """Those with one customer, what is in force first, as an expression by its name; `along` reads them from a row."""
    rows = of_member(member).filter(customer_tenant_id=tenant_id).order_by("is_over", "lists_by", "pk")
    said = JSONObject(**{name: name for name in ("pk", "lists_by", "provider_tenant_id", *SAID, *MOMENTS)})
    return {"relationships_said": Along(rows.values(said=said)[: OF_A_CUSTOMER + 1])}


def along(row: Any) -> list[Relationship]:
    """What came along with a row; one more than a page shows where there are more."""
    found = sorted(row.relationships_said or [], key=lambda one: (one["is_over"], one["lists_by"], one["pk"]))
    return [
        Relationship(
            provider_tenant_id=guid(one["provider_tenant_id"]),
            **{name: one[name] for name in SAID},
            **{name: moment(one[name]) for name in MOMENTS},
        )
        for one in found
    ]


def lapsing(member: Member) -> HowMany:
    """How many end within 30 days unless somebody acts, as an expression; more than a thousand are not counted."""
    return HowMany(_soon(of_member(member)).order_by().values("pk")[: COUNTED + 1])


def _soon(rows: QuerySet[Relationship]) -> QuerySet[Relationship]:
    return rows.filter(lapses_at__lte=timezone.now() + SOON)


# --- How they were read -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reading:
    """When the list was read in whole, and why not the last time; without `at` it never was."""

    at: dt.datetime | None
    error: str = ""
    code: str = ""
    lapsing: int = 0  # end within 30 days unless somebody acts

    @property
    def is_many(self) -> bool:
        return self.lapsing > COUNTED

    @property
    def counted(self) -> int:
        return min(self.lapsing, COUNTED)


def freshness(partner: Partner) -> dict[str, Any]:
    """Expressions for any query of the partner's rows, by name; `reading_of` reads them from a row."""
    states = ListState.objects.filter(partner=partner, kind=RELATIONSHIPS.kind, lane="")
    newest = Run.objects.filter(partner=partner, job__kind=RELATIONSHIPS.kind).order_by("-pk")
    ended = JSONObject(outcome="outcome", error="error", code="error_code")
    return {
        "relationships_at": Subquery(states.values("completed_at")[:1]),
        "relationships_run": Subquery(newest.values(said=ended)[:1]),
    }


def reading_of(row: Any) -> Reading:
    ended, lapsing = row.relationships_run or {}, getattr(row, "lapsing", 0)
    if ended.get("outcome") in (Run.Outcome.REFUSED, Run.Outcome.FAILED):
        return Reading(row.relationships_at, ended["error"], ended["code"], lapsing)
    return Reading(row.relationships_at, lapsing=lapsing)


def read(member: Member) -> Reading:
    """How the list was read, and how many of this member's end soon, in one query."""
    along = freshness(member.partner) | {"lapsing": lapsing(member)}
    return reading_of(Partner.objects.annotate(**along).get(pk=member.partner_id))


# --- The list ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Page:
    """Up to 50 relationships by their end, and the addresses of what comes next and first."""

    shown: list[Told]
    show: str
    next_url: str | None
    first_url: str | None


def page(member: Member, *, show: str, after: str) -> Page:
    """
    One page of those that are in force or to come, that end `soon`, or that have `ended`: these the newest first.

    `after` is the opaque mark of the last one seen; a mark that isn't ours starts from the beginning.
    """
    show = show if show in SHOWS else ""
    rows, by = _shown(of_member(member), show)
    mark = _read(after, show)
    if mark:
        at, pk = mark
        past = "lt" if show == "ended" else "gt"
        beyond = Q(**{f"{by}__{past}": at}) | Q(**{by: at, f"pk__{past}": pk})
        rows = rows.filter(beyond, **{f"{by}__{past}e": at})
    listed = member.customers.present().filter(tenant_id=OuterRef("customer_tenant_id"))
    order = [f"-{by}", "-pk"] if show == "ended" else [by, "pk"]
    found = list(rows.annotate(is_listed=Exists(listed)).order_by(*order)[: PAGE_SIZE + 1])
    is_more, found = len(found) > PAGE_SIZE, found[:PAGE_SIZE]
    return Page(
        shown=[told(row) for row in found],
        show=show,
        next_url=_address(show, _mark(found[-1], by, show)) if is_more else None,
        first_url=_address(show, "") if mark else None,
    )


def _shown(rows: QuerySet[Relationship], show: str) -> tuple[QuerySet[Relationship], str]:
    """Which, and by which column they are read."""
    if show == "soon":
        return _soon(rows), "lapses_at"
    return rows.filter(is_over=show == "ended"), "lists_by"


def _mark(row: Relationship, by: str, show: str) -> str:
    return signing.dumps([getattr(row, by).isoformat(), row.pk], salt=f"relationships.{show}", compress=True)


def _read(mark: str, show: str) -> tuple[dt.datetime, int] | None:
    try:
        at, pk = signing.loads(mark, salt=f"relationships.{show}")
        return dt.datetime.fromisoformat(at), pk
    except (signing.BadSignature, ValueError):
        return None


def _address(show: str, after: str) -> str:
    query = {key: value for key, value in (("show", show), ("after", after)) if value}
    return f"?{urlencode(query)}" if query else "?"
