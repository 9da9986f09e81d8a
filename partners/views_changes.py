"""A customer's subscriptions, and changing one: begin, choose, confirm, and see what became of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import F, Q, QuerySet, Subquery
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from partners import change_meaning, changes
from partners.access import PartnerRequest, needs, partner_required
from partners.change_words import REASONS
from partners.models import Change, Customer
from partners.powers import Power
from partners.presence import freshly_signed_in
from partners.standing import current_token, standing

AT_MOST = 200  # subscriptions on a page
LATELY = 5  # changes beside them


@require_safe
@partner_required
@needs(Power.CUSTOMERS)
def subscriptions(request: PartnerRequest, tenant_id: UUID) -> HttpResponse:
    """What the last sync said about one customer's subscriptions, and what was changed lately."""
    rows = request.partner.subscriptions.present().filter(customer__tenant_id=tenant_id, customer__removed_at=None)
    if not request.member.sees_every_customer:
        rows = rows.filter(customer__in=request.member.customers)
    rows = rows.select_related("customer").annotate(as_of=_as_of(request)).order_by("friendly_name", "pk")
    found: list[Any] = list(rows[: AT_MOST + 1])
    none = request.member.customers.present().annotate(as_of=_as_of(request))
    first: Any = found[0] if found else get_object_or_404(none, tenant_id=tenant_id)
    customer = first.customer if found else first
    may_change = request.member.may(Power.CHANGES)
    context = {
        "customer": customer,
        "as_of": first.as_of,
        "standing": standing(request.partner, current_token(request.partner)),
        "subscriptions": found[:AT_MOST],
        "at_most": AT_MOST if len(found) > AT_MOST else 0,
        "may_change": may_change,
        "changes": _lately(customer) if found and may_change else [],
    }
    return render(request, "partners/subscriptions.html", context)


def _as_of(request: PartnerRequest) -> Subquery:
    """When the last of the lanes had read its share in whole; nothing until all of them have."""
    states = request.partner.list_states.filter(kind="subscriptions")
    return Subquery(states.order_by(F("completed_at").asc(nulls_first=True)).values("completed_at")[:1])


def _lately(customer: Customer) -> QuerySet[Change]:
    return customer.changes.exclude(confirmed_at=None).order_by("-confirmed_at")[:LATELY]


@require_POST
@partner_required
@needs(Power.CHANGES)
def begin_change(request: PartnerRequest, tenant_id: UUID) -> HttpResponse:
    """Have a worker read how a subscription stands; the page then asks what it shall be."""
    customer = get_object_or_404(request.member.customers.present(), tenant_id=tenant_id)
    wanted = request.POST.get("subscription", "").replace("\x00", "")[:64].lower()
    subscription = get_object_or_404(customer.subscriptions.present(), key=wanted)
    if not standing(request.partner, current_token(request.partner)).is_live:
        return redirect("subscriptions", tenant_id)
    change = changes.ask(
        member=request.member,
        customer=customer,
        subscription_id=subscription.subscription_id,
        title=str(subscription),
    )
    return redirect("change", tenant_id, change.pk)


@require_safe
@partner_required
@needs(Power.CHANGES)
def change(request: PartnerRequest, tenant_id: UUID, change_id: UUID) -> HttpResponse:
    """How the subscription stands, what it would become, or what became of it."""
    found = _change(request, tenant_id, change_id)
    context = {
        "change": found,
        "customer": found.customer,
        "before": change_meaning.facts(found.before),
        "after": change_meaning.facts(found.after),
        "mine": found.member_id == request.member.pk,
        "meaning": change_meaning.of(found, now=timezone.now()) if found.what else [],
        "words": REASONS.get(found.reason) if found.ended_at else None,
        "standing": standing(request.partner, current_token(request.partner)),
        "as_of": None,
    }
    return render(request, "partners/change.html", context)


@require_POST
@partner_required
@needs(Power.CHANGES)
def choose_change(request: PartnerRequest, tenant_id: UUID, change_id: UUID) -> HttpResponse:
    """What it shall be; the page then says what that means."""
    found, what = _change(request, tenant_id, change_id), request.POST.get("what", "")
    try:
        changes.choose(change=found, what=what, text=request.POST.get(what, "")[:100], by=request.member)
    except changes.NotNow as why:
        messages.error(request, str(why))
    return redirect(_page(found))


@require_POST
@partner_required
@needs(Power.CHANGES)
@freshly_signed_in("change a subscription", back="change")
def confirm_change(request: PartnerRequest, tenant_id: UUID, change_id: UUID) -> HttpResponse:
    """Have exactly what the page showed done."""
    found = _change(request, tenant_id, change_id)
    wanted = request.POST.get("wanted", "")
    shown = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 10 else -1
    try:
        changes.confirm(change=found, by=request.member, what=request.POST.get("what", ""), wanted=shown)
    except changes.NotNow as why:
        messages.error(request, str(why))
    return redirect(_page(found))


@require_POST
@partner_required
@needs(Power.CHANGES)
def take_back_change(request: PartnerRequest, tenant_id: UUID, change_id: UUID) -> HttpResponse:
    """Have it not be done, while it is not on its way."""
    found = _change(request, tenant_id, change_id)
    try:
        changes.take_back(change=found, by=request.member)
    except changes.NotNow as why:
        messages.error(request, str(why))
    return redirect(_page(found))


def _change(request: PartnerRequest, tenant_id: UUID, change_id: UUID) -> Change:
    """A change of a customer that the member may see; what others have not confirmed is theirs alone."""
    theirs = Q(member=request.member) | Q(confirmed_at__isnull=False)
    mine = request.partner.changes.filter(theirs, customer__tenant_id=tenant_id)
    if not request.member.sees_every_customer:
        mine = mine.filter(customer__in=request.member.customers)
    return get_object_or_404(mine.select_related("customer", "partner"), pk=change_id)


def _page(change: Change) -> str:
    return reverse("change", args=[change.customer.tenant_id, change.pk])
