"""
What is mirrored beside a customer, for its page: licences and users, how fresh they are, and why they are missing.

Everything about freshness comes as expressions, which cost no statement: they go along with a query that runs anyway.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.core import signing
from django.db.models import Exists, F, FilteredRelation, Q, QuerySet, Subquery

from partners import jobs
from partners.mirrored_kinds import LICENCES, MFA, USERS
from partners.mirrors import lane_name, lane_of
from partners.models import Customer, CustomerUser, Job, ListRefusal, ListState, Partner, Run
from partners.overview import HowMany

AT_MOST = 200  # licences on a page
COUNTED = 1_000  # users; more of them are not counted
PAGE_SIZE = 50
PEOPLE = 50  # of the partner's own without MFA
SALT = "users.after"
BY_A_POLICY = "900309"  # Partner Center: a Conditional Access policy in the customer's tenant
UNKNOWN_CUSTOMER = ("http_404", "1000", "3000")


@dataclass(frozen=True)
class Why:
    """Why one customer's list could not be read, who acts and what to do."""

    text: str
    owner: str  # partner, support or nobody
    action: str


BY_ITSELF = "It is read again by itself."
ROLE = Why(
    "Microsoft does not let the account that is connected read it. As a rule it has no role in this customer.",
    "partner",
    "Give the account one of the roles Directory Reader, Global Reader or User Administrator in this customer (GDAP)."
    f" {BY_ITSELF}",
)
POLICY = Why(
    "A sign-in policy in this customer's tenant does not let the account that is connected in.",
    "partner",
    f"Ask the customer to allow service provider access in its Conditional Access policies. {BY_ITSELF}",
)
UNKNOWN = Why(
    "Partner Center does not know this customer as yours. The relationship may have ended.",
    "partner",
    "Look the customer up in Partner Center. If the relationship has ended, there is nothing to do.",
)
SERVICE = Why("Microsoft's service for it does not answer, or not in whole.", "nobody", BY_ITSELF)
OURS = Why("Microsoft's answer could not be used.", "support", f"Give support the reference if it lasts. {BY_ITSELF}")
WHYS = {
    BY_A_POLICY: POLICY,
    **dict.fromkeys(UNKNOWN_CUSTOMER, UNKNOWN),
    **dict.fromkeys(("incomplete", "cursor", "html", "not_json", "http_429"), SERVICE),
}


def why(code: str) -> Why:
    """In words what a code of `ListRefusal` means; Microsoft's own numbers are refusals, and ours have names."""
    if code.isdigit() or code == "http_403":
        return WHYS.get(code, ROLE)
    return WHYS.get(code, SERVICE if code.startswith("http_5") else OURS)


@dataclass(frozen=True)
class Reading:
    """How one customer's list of a kind was read last; without `at` it never was in whole."""

    at: dt.datetime | None
    code: str = ""
    since: dt.datetime | None = None
    how_many: int = 0

    @property
    def why(self) -> Why | None:
        """Why it can't be read; None when it can."""
        return why(self.code) if self.code else None

    @property
    def is_many(self) -> bool:
        return self.how_many > COUNTED

    @property
    def counted(self) -> int:
        return min(self.how_many, COUNTED)


# --- Freshness ------------------------------------------------------------------------------------------------------
def freshness(partner: Partner, tenant_id: UUID, *, with_users: bool) -> dict[str, Any]:
    """Expressions for any query of the partner's rows, by name; `licences_of` and `users_of` read them from a row."""
    found = _of_kind(partner, tenant_id, LICENCES.kind)
    if with_users:
        rows = CustomerUser.objects.filter(partner=partner, customer__tenant_id=tenant_id, removed_at=None)
        found |= _of_kind(partner, tenant_id, USERS.kind)
        found["users_wanted"] = Exists(Job.objects.filter(partner=partner, kind=USERS.kind))
        found["users_counted"] = HowMany(rows.order_by().values("pk")[: COUNTED + 1])
    return found


def _of_kind(partner: Partner, tenant_id: UUID, kind: str) -> dict[str, Any]:
    of = jobs.kind_named(kind).lanes
    states = ListState.objects.filter(partner=partner, kind=kind, lane=lane_name(lane_of(tenant_id, of), of))
    refusals = ListRefusal.objects.filter(partner=partner, kind=kind, customer__tenant_id=tenant_id)
    return {
        f"{kind}_at": Subquery(states.values("completed_at")[:1]),
        f"{kind}_code": Subquery(refusals.values("code")[:1]),
        f"{kind}_since": Subquery(refusals.values("since")[:1]),
    }


def licences_of(row: Any) -> Reading:
    return Reading(row.licences_at, row.licences_code or "", row.licences_since)


def users_of(row: Any) -> Reading | None:
    """None where nobody asked for users to be read."""
    if not row.users_wanted:
        return None
    return Reading(row.users_at, row.users_code or "", row.users_since, row.users_counted)


# --- Users ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class UserPage:
    """Up to 50 users in the order of their names, and the addresses of what comes next and first."""

    users: list[CustomerUser]
    next_url: str | None
    first_url: str | None


def user_page(users: QuerySet[CustomerUser], *, after: str) -> UserPage:
    """One page; `after` is the opaque mark of the last one seen. A mark that isn't ours starts from the beginning."""
    mark = _read(after)
    found = users.filter(removed_at=None)
    if mark:
        name, pk = mark
        found = found.filter(Q(name__gt=name) | Q(name=name, pk__gt=pk))
    rows = list(found.order_by("name", "pk")[: PAGE_SIZE + 1])
    is_more, rows = len(rows) > PAGE_SIZE, rows[:PAGE_SIZE]
    next_mark = signing.dumps([rows[-1].name, rows[-1].pk], salt=SALT, compress=True) if is_more else ""
    return UserPage(rows, f"?{urlencode({'after': next_mark})}" if is_more else None, "?" if mark else None)


def _read(mark: str) -> tuple[str, int] | None:
    try:
        name, pk = signing.loads(mark, salt=SALT)
    except (signing.BadSignature, ValueError):
        return None
    return name, pk


# --- The partner's own people without MFA -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Unproven:
    """Who of the partner called Partner Center without MFA lately; `error` says why that could not be read."""

    at: dt.datetime | None
    people: list[tuple[str, dt.datetime | None]]
    is_more: bool
    error: str = ""
    code: str = ""


def unproven(partner: Partner) -> Unproven:
    """In one query, whether there is anybody or not."""
    states = ListState.objects.filter(partner=partner.pk, kind=MFA.kind, lane="")
    newest = Run.objects.filter(partner=partner.pk, job__kind=MFA.kind).order_by("-pk")
    found: list[Any] = list(
        Partner.objects.filter(pk=partner.pk)
        .annotate(
            someone=FilteredRelation("unproven_principals", condition=Q(unproven_principals__removed_at=None)),
            read_at=Subquery(states.values("completed_at")[:1]),
            **{name: Subquery(newest.values(name)[:1]) for name in ("outcome", "error", "error_code")},
        )
        .order_by(F("someone__last_request_at").desc(nulls_last=True), "someone__pk")
        .values_list(
            "someone__key", "someone__sign_in_name", "someone__last_request_at", "read_at", "outcome", "error",
            "error_code", named=True,
        )[: PEOPLE + 1]
    )  # fmt: skip
    people = [(row.someone__sign_in_name or row.someone__key, row.someone__last_request_at) for row in found]
    first = found[0]
    is_broken = first.outcome in (Run.Outcome.REFUSED, Run.Outcome.FAILED)
    return Unproven(
        at=first.read_at,
        people=people[:PEOPLE] if first.someone__key else [],
        is_more=len(people) > PEOPLE,
        error=first.error if is_broken else "",
        code=first.error_code if is_broken else "",
    )


def licences(customer: Customer) -> list[Any]:
    """The customer's, by name; one more than a page shows where there are more."""
    return list(customer.subscribedskus.filter(removed_at=None).order_by("name", "pk")[: AT_MOST + 1])
