"""
Borrowed access: one of the vendor's staff looks at one partner's pages, to read only, for an hour at most.

They ask with a reason; an owner of the partner allows it, or a second, different member of staff. The wall
(`partners.access`) asks `stand_in` anew at every request, and `noted` writes down what was opened.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils import timezone

from partners import second_factor, two_people
from partners.desk_roles import Act, may
from partners.models import AccessGrant, Member, Partner, User
from tokens import audit
from tokens.actors import SYSTEM, Actor
from tokens.models import AuditEvent
from tokens.tenancy import system_scope

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

SESSION_KEY = "access_grant"
# Names of pages; no more.
OPENS = frozenset({"home", "progress", "customers", "customer", "jobs", "permissions", "connection"})
ROLE = "borrowed"  # no member's role: it holds no power to change, and no row can have it
NOTED_FOR = dt.timedelta(minutes=1)  # the same page opened again within that is no new line


class NotNow(Exception):
    """It was not done; the text says what is wrong, who acts and what next."""


# --- Who ------------------------------------------------------------------------------------------------------------
def is_proven_staff(request: HttpRequest) -> bool:
    """Whether this request is one of the vendor's staff, with the second factor shown: what the desk demands, too."""
    user: Any = request.user
    return may(user, Act.LOOK) and second_factor.was_shown(request)


def may_approve(user: User, grant: AccessGrant) -> bool:
    """An owner of the partner, or security or an admin of ours; never who asked."""
    if user.pk == grant.asked_by_id or not user.is_active:
        return False
    if user.is_staff:
        return may(user, Act.ALLOW_A_LOOK)
    return is_owner(user, grant)


def is_owner(user: User, grant: AccessGrant) -> bool:
    owners = Member.objects.filter(partner_id=grant.partner_id, role=Member.Role.OWNER)
    return owners.filter(user_id=user.pk, user__is_active=True).exists()


# --- Asking and answering -------------------------------------------------------------------------------------------
@transaction.atomic
def ask(*, partner: Partner, by: User, reason: str) -> AccessGrant:
    """
    Ask for a look at one partner's pages.

    :raises NotNow: somebody who may not, no reason, an open request, or a partner that nobody may look at now
    """
    reason = " ".join(reason.split())[:200]
    if not may(by, Act.ASK_FOR_A_LOOK):
        raise NotNow("Only support and security may ask.")
    if not reason:
        raise NotNow("Please say why: the partner reads it.")
    now = timezone.now()
    for unanswered in partner.access_grants.over(now).filter(asked_by=by):
        _close(unanswered, now)
    try:
        with transaction.atomic():
            grant = AccessGrant.objects.create(partner=partner, asked_by=by, reason=reason, asked_at=now)
    except IntegrityError as twice:
        raise NotNow("You have asked already. Wait for the answer, or take the request back.") from twice
    if not AccessGrant.objects.waiting(now).filter(pk=grant.pk).exists():
        raise NotNow("This partner is stopped, or has ended our access: there is nothing to look at for now.")
    audit.record("access.asked", actor=by.as_actor(), partner=partner, object=f"access {grant.pk}", reason=reason)
    return grant


@transaction.atomic
def approve(*, grant: AccessGrant, by: User) -> None:
    """
    Allow a look for an hour from now on.

    :raises NotNow: by somebody who may not, or too late
    """
    now = timezone.now()
    _still_open(grant, by, now)
    why_not = by.is_staff and (two_people.why_not_yet(by) or two_people.why_not_both(grant.asked_by, by))
    if why_not:
        raise NotNow(f"Nothing was changed. {why_not} An owner of the partner may answer in any case.")
    if not grant.mark_approved(by, now):
        raise NotNow(OVER)
    audit.record(
        "access.approved", actor=by.as_actor(), partner=grant.partner, object=f"access {grant.pk}",
        asked_by=str(grant.asked_by), reason=grant.reason, until=f"{grant.ends_at:%Y-%m-%d %H:%M} UTC",
    )  # fmt: skip


@transaction.atomic
def refuse(*, grant: AccessGrant, by: User) -> None:
    """
    Say no.

    :raises NotNow: by somebody who may not, or too late
    """
    now = timezone.now()
    _still_open(grant, by, now)
    if not grant.mark_refused(now):
        raise NotNow(OVER)
    audit.record(
        "access.refused", actor=by.as_actor(), partner=grant.partner, object=f"access {grant.pk}",
        asked_by=str(grant.asked_by), reason=grant.reason,
    )  # fmt: skip


OVER = "Nothing was changed: the request is answered, taken back or over. If a look is still needed, staff ask anew."


def _still_open(grant: AccessGrant, by: User, now: dt.datetime) -> None:
    if not may_approve(by, grant):
        raise NotNow("Nothing was changed: an owner of the partner answers, or another one of security or an admin.")
    if not AccessGrant.objects.waiting(now).filter(pk=grant.pk).exists():
        raise NotNow(OVER)


# --- Ending ---------------------------------------------------------------------------------------------------------
@transaction.atomic
def end(*, grant: AccessGrant, by: User) -> None:
    """
    End a look at once, or take an unanswered request back: an owner, or whoever asked.

    :raises NotNow: by somebody else, or it is over already
    """
    is_own = by.pk == grant.asked_by_id
    if not is_own and not is_owner(by, grant):
        raise NotNow("Nothing was changed: an owner of the partner ends a look, or whoever asked for it.")
    why = "given back" if is_own else "by the organisation"
    if not (_end(grant, by.as_actor(), why) or (is_own and _close(grant, timezone.now(), by.as_actor()))):
        raise NotNow("It was over already.")


@system_scope("looks that are over")
@transaction.atomic
def end_what_is_over() -> None:
    """Write down the end of whatever ended by itself: an hour over, a day without an answer, a stop, a lost role."""
    now = timezone.now()
    for grant in AccessGrant.objects.over(now).select_related("partner", "asked_by"):
        why = "the hour is over" if grant.ends_at and grant.ends_at <= now else "no longer allowed"
        if not _end(grant, SYSTEM, why):
            _close(grant, now)


def end_those_of(*, by: Actor, why: str, partner: Partner) -> None:
    """
    End all looks at a partner, and requests for one: call it in the transaction that ends more.

    What reopens later brings no look back.
    """
    _end_all(AccessGrant.objects.filter(partner=partner), by, why)


def end_those_with(*, person: User, by: Actor, became: str, partner: Partner | None = None) -> None:
    """
    End all looks that somebody asked for or allowed, or those at one partner; call it in the transaction of the change.

    `became` says of them what changed; when it changes back, that brings no look back.
    """
    theirs = AccessGrant.objects.filter(partner=partner) if partner else AccessGrant.objects.all()
    _end_all(theirs.filter(asked_by=person), by, f"whoever asked {became}")
    _end_all(theirs.filter(approved_by=person), by, f"whoever allowed it {became}")


def _end_all(grants: Any, by: Actor, why: str) -> None:
    for grant in grants.unsaid().select_related("partner", "asked_by"):
        if not _end(grant, by, why):
            _close(grant, timezone.now(), by)


def _end(grant: AccessGrant, by: Actor, why: str) -> bool:
    ended = grant.mark_ended(timezone.now())
    if ended:
        audit.record(
            "access.ended", actor=by, partner=grant.partner, object=f"access {grant.pk}",
            asked_by=str(grant.asked_by), why=why, at=f"{grant.ended_at:%Y-%m-%d %H:%M} UTC", **_what_was_opened(grant),
        )  # fmt: skip
    return ended


def _close(grant: AccessGrant, now: dt.datetime, by: Actor = SYSTEM) -> bool:
    closed = grant.mark_closed(now)
    if closed:
        audit.record(
            "access.closed", actor=by, partner=grant.partner, object=f"access {grant.pk}",
            asked_by=str(grant.asked_by), reason=grant.reason, state=grant.state,
        )  # fmt: skip
    return closed


# --- Looking --------------------------------------------------------------------------------------------------------
def begin(request: HttpRequest, grant: AccessGrant) -> None:
    """Have the session of whoever asked look at the partner's pages; it gets a new key."""
    request.session.cycle_key()
    request.session[SESSION_KEY] = grant.pk


@system_scope("whether staff were lent a look")
def stand_in(request: Any) -> Member | None:
    """
    Somebody to stand in for a member while staff look with a grant in force: it has no row, and no power to change.

    None for whoever has none, for every page that is not lent, and for whatever would change something.
    """
    named, page = request.session.get(SESSION_KEY), getattr(request.resolver_match, "view_name", "")
    if not named or request.method not in ("GET", "HEAD") or page not in OPENS or not is_proven_staff(request):
        return None
    now = timezone.now()
    lines = AuditEvent.objects.filter(partner=OuterRef("partner"), action="access.used", at__gt=now - NOTED_FOR)
    what = _what_is_opened(request)
    known = lines.filter(actor_id=str(request.user.pk), object=what, detail__opened=what)  # not by a search alone
    grants = AccessGrant.objects.in_force(now).filter(pk=named, asked_by=request.user.pk)
    grant = grants.select_related("partner", "approved_by").annotate(is_noted=Exists(known)).first()
    if grant is None:
        return None
    request.borrowed = grant
    return Member(user=request.user, partner=grant.partner, role=ROLE)


def noted(request: Any, response: HttpResponseBase) -> HttpResponseBase:
    """What staff opened becomes a line of the partner's activity before they see it; it is kept in no cache."""
    grant = getattr(request, "borrowed", None)
    if grant is None:
        return response
    how = _how_it_is_opened(request)
    if how or not grant.is_noted:
        what = _what_is_opened(request)
        opened = ", ".join((what, *how))
        by = request.user.as_actor()
        audit.record("access.used", actor=by, partner=grant.partner, object=what, opened=opened, reason=grant.reason)
    response["Cache-Control"] = "no-store"
    return response


def _what_is_opened(request: Any) -> str:
    """The page, and of which customer; the line that counts a sync up is a part of home."""
    match = request.resolver_match
    page = "home" if match.view_name == "progress" else match.view_name
    return f"{page} {match.kwargs['tenant_id']}" if "tenant_id" in match.kwargs else str(page)


SEARCHED, FURTHER_ON = "searched", "further on"


def _how_it_is_opened(request: Any) -> list[str]:
    """
    That somebody searched or turned pages, and never the words: each time it is something else, and a line of its own.

    The same page again without either shows nothing new.
    """
    asked = {"q": SEARCHED, "after": FURTHER_ON} if request.resolver_match.view_name == "customers" else {}
    return [said for name, said in asked.items() if request.GET.get(name, "").strip()]


def _what_was_opened(grant: AccessGrant) -> dict[str, Any]:
    """How many pages somebody opened in the hour, and in how many of them they had searched."""
    used = grant.partner.audit_events.filter(action="access.used", actor_id=str(grant.asked_by_id))
    lines = used.filter(at__gte=grant.approved_at, at__lte=grant.ended_at).values_list("detail", flat=True)
    opened = [str(detail.get("opened", "")) for detail in lines.iterator()]
    return {"pages": len(opened), "searches": sum(f", {SEARCHED}" in one for one in opened)}


def with_news(members: QuerySet[Any]) -> QuerySet[Any]:
    """Note whether any look or request of the partner's tells of no end yet: for most there is none (`add_news`)."""
    unsaid = AccessGrant.objects.filter(partner=OuterRef("partner")).unsaid()
    noted: QuerySet[Any] = members.annotate(has_looks=Exists(unsaid))
    return noted


def add_news(member: Any) -> None:
    """What every page of theirs tells: until when staff may look (`lent_until`), and whether a request waits."""
    member.lent_until, member.is_asked = None, False
    if member.has_looks:
        now, of_it = timezone.now(), AccessGrant.objects.filter(partner=member.partner_id)
        lent = of_it.in_force(now).order_by("-ends_at").values("ends_at")[:1]
        told = Member.objects.filter(pk=member.pk).annotate(until=Subquery(lent), asks=Exists(of_it.waiting(now)))
        member.lent_until, member.is_asked = told.values_list("until", "asks").get()
