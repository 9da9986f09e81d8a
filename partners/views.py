"""The portal: what a partner's members see."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from partners import activity, holdings, jobs, lifecycle, lookups, relationships
from partners.access import PartnerRequest, needs, partner_required
from partners.leaving import leads_to_microsoft
from partners.listing import customer_page
from partners.models import ACCESS_DAYS, Member, Partner, Run
from partners.overview import as_of, overview
from partners.powers import Power
from partners.presence import freshly_signed_in
from partners.standing import current_token, standing
from tokens import audit, outside
from tokens import permissions as scopes


@require_safe
@leads_to_microsoft
@partner_required
def home(request: PartnerRequest) -> HttpResponse:
    """The connection, the customers, and what was done lately."""
    partner = request.partner
    token = current_token(partner)
    stands = standing(partner, token)
    view = overview(request.member, lapsing=relationships.lapsing(request.member))
    may_renew = request.member.may(Power.CONSENT)
    context = {
        "partner": partner,
        "standing": stands,
        "token": token,
        "consent": getattr(token, "consent", None),
        "progress": view.progress(token, is_live=stands.is_live),
        "customer_count": view.customer_count,
        "has_more_customers": view.has_more,
        "recent_runs": view.runs,
        "as_of": view.as_of,
        "lapsing": view.lapsing,
        "can_renew": may_renew,
        "can_sync": stands.is_live and request.member.may(Power.JOBS),
        "owners": [] if may_renew else _owners(partner),
    }
    return render(request, "partners/home.html", context)


def _owners(partner: Partner) -> list[str]:
    owners = partner.members.filter(role=Member.Role.OWNER).select_related("user")[:3]
    return [member.user.get_short_name() for member in owners]


@require_POST
@partner_required
@needs(Power.JOBS)
def sync_now(request: PartnerRequest) -> HttpResponse:
    """Make the customer sync due at once; the page shows how it goes."""
    if standing(request.partner, current_token(request.partner)).is_live:
        job = jobs.ensure(request.partner, "customers")
        jobs.queue_now(job)
        audit.record("sync.asked", actor=request.user.as_actor(), partner=request.partner, object=job.kind)
    return redirect("home")


@require_safe
@partner_required
def progress(request: PartnerRequest) -> HttpResponse:
    """
    The progress line alone, for htmx.

    Asked with `?then=customers` it sends the browser on to the list once the sync that is being watched has ended well.
    """
    token = current_token(request.partner)
    now = overview(request.member).progress(token, is_live=standing(request.partner, token).is_live)
    then_customers = request.GET.get("then") == "customers" and request.member.may(Power.CUSTOMERS)
    response = render(request, "partners/_progress.html", {"progress": now, "then_customers": then_customers})
    if then_customers and now.run and now.run.outcome == Run.Outcome.DONE:
        response["HX-Redirect"] = reverse("customers")
    elif not now.is_active:
        response["HX-Refresh"] = "true"  # the page around the line shows numbers of before
    return response


@require_safe
@partner_required
@needs(Power.CUSTOMERS)
def customers(request: PartnerRequest) -> HttpResponse:
    """The partner's customers by name, 50 a page, with search."""
    partner, member = request.partner, request.member
    text = request.GET.get("q", "").replace("\x00", "").strip()[:200]  # PostgreSQL takes no NUL in a text
    token = current_token(partner)
    stands = standing(partner, token)
    view = overview(member)
    after, left_out = request.GET.get("after", ""), 0 if member.sees_every_customer else None
    context = {
        "q": text,
        "page": customer_page(request.member.customers, text=text, after=after, left_out=left_out),
        "customer_count": view.customer_count,
        "has_more_customers": view.has_more,
        "as_of": view.as_of,
        "standing": stands,
        "progress": view.progress(token, is_live=stands.is_live),
    }
    return render(request, "partners/customers.html", context)


@require_safe
@partner_required
@needs(Power.CUSTOMERS)
def customer(request: PartnerRequest, tenant_id: UUID) -> HttpResponse:
    """What the last sync said about one customer; with `?look=` what Microsoft says about its users right now."""
    partner, sees_users = request.partner, request.member.may(Power.USERS)
    wanted = request.GET.get("look", "") if sees_users else ""
    along = {"as_of": as_of(partner)} | holdings.freshness(partner, tenant_id, with_users=sees_users)
    along |= relationships.freshness(partner) | relationships.of_customer(request.member, tenant_id)
    lookup = lookups.find(member=request.member, tenant_id=tenant_id, look=wanted, **along) if wanted else None
    found: Any = lookup or get_object_or_404(request.member.customers.present().annotate(**along), tenant_id=tenant_id)
    customer = lookup.customer if lookup else found
    look = None
    if wanted and request.method == "GET":  # a HEAD must not use up the answer
        look = lookups.take(lookup) if lookup else lookups.gone()
    # Staff who were lent a look see who the customers are, and no more; who waits for an answer waits for it alone.
    are_shown = request.member.pk is not None and not wanted
    licences = holdings.licences(customer) if are_shown else []
    gdap = relationships.along(found) if are_shown else []
    context = {
        "customer": customer,
        "as_of": found.as_of,
        "licences": licences[: holdings.AT_MOST],
        "at_most": holdings.AT_MOST if len(licences) > holdings.AT_MOST else 0,
        "licences_read": holdings.licences_of(found) if are_shown else None,
        "relationships": [relationships.told(row, partner.cloud) for row in gdap[: relationships.OF_A_CUSTOMER]],
        "relationships_at_most": relationships.OF_A_CUSTOMER if len(gdap) > relationships.OF_A_CUSTOMER else 0,
        "relationships_read": relationships.reading_of(found) if are_shown else None,
        "users_read": holdings.users_of(found) if sees_users else None,
        "standing": standing(partner, current_token(partner)),
        "look": look,
        "look_id": wanted,
    }
    return render(request, "partners/customer_detail.html", context)


@require_POST
@partner_required
@needs(Power.USERS)
def ask_for_users(request: PartnerRequest, tenant_id: UUID) -> HttpResponse:
    """Have a worker read one customer's users; the page shows them when they come."""
    customer = get_object_or_404(request.member.customers.present(), tenant_id=tenant_id)
    page = reverse("customer", args=[tenant_id])
    if not standing(request.partner, current_token(request.partner)).is_live:
        return redirect(page)
    lookup = lookups.ask(member=request.member, customer=customer, after=request.POST.get("after", ""))
    return redirect(f"{page}?look={lookup.pk}#users")


@require_safe
@partner_required
@needs(Power.CONNECTION)
def permissions(request: PartnerRequest) -> HttpResponse:
    """What we ask for and why, what uses it, and which of it this partner granted."""
    partner = request.partner
    token = current_token(partner)
    consent = getattr(token, "consent", None)
    asked = outside.asked_permissions()
    given = consent.scopes if consent else []
    context = {
        "partner": partner,
        "standing": standing(partner, token),
        "permissions": asked,
        "application_permissions": scopes.for_the_application_alone(scopes.manifest(asked)),
        "consent": consent,
        "granted": scopes.held(asked, given),
        "beyond": scopes.beyond(asked, given),
    }
    return render(request, "partners/permissions.html", context)


@require_safe
@partner_required
@needs(Power.ACTIVITY)
def activity_log(request: PartnerRequest) -> HttpResponse:
    """What was decided about this partner, by whom and when."""
    asked, sees = activity.Asked.of(request.GET), request.member.may(Power.CUSTOMERS)
    context = {
        "page": activity.page(request.partner, asked, before=request.GET.get("before", ""), sees_customers=sees),
        "sees_customers": sees,
        "asked": asked,
        "actions": sorted(activity.ACTIONS.items(), key=lambda action: action[1]),
    }
    return render(request, "partners/activity.html", context)


@require_POST
@partner_required
@needs(Power.ACTIVITY)
@freshly_signed_in("take the activity along", back="activity")
def export_activity(request: PartnerRequest) -> HttpResponse:
    """The same as a file; that somebody took it along is written down first."""
    writers = {"csv": (activity.as_csv, "text/csv; charset=utf-8"), "json": (activity.as_json, "application/json")}
    kind, asked = request.POST.get("format", ""), activity.Asked.of(request.POST)
    if kind not in writers:
        raise Http404
    audit.record(
        "activity.exported", actor=request.user.as_actor(), partner=request.partner, object=kind, asked=asked.fields
    )
    write, content_type = writers[kind]
    name = f"activity-{request.partner.tenant_id}-{timezone.now():%Y-%m-%d}.{kind}"
    lines = write(request.partner, asked, sees_customers=request.member.may(Power.CUSTOMERS))
    answer = StreamingHttpResponse(lines, content_type=content_type)
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    answer["Cache-Control"] = "no-store"
    return answer  # type: ignore[return-value] # a streaming answer is none of Django's HttpResponse


# --- The connection -------------------------------------------------------------------------------------------------
IDLE_DAYS = 90  # Microsoft's: a refresh token that nobody uses for so long dies


@require_safe
@leads_to_microsoft
@partner_required
@needs(Power.CONNECTION)
def connection(request: PartnerRequest) -> HttpResponse:
    """The connection in words: who agreed to what, until when, and how to renew, change or end it."""
    partner = request.partner
    token = current_token(partner)
    stands = standing(partner, token)
    may_change = request.member.may(Power.CONSENT)
    pending = partner.refresh_tokens.pending(timezone.now()).first() if may_change else None
    context = {
        "partner": partner,
        "standing": stands,
        "token": token,
        "consent": getattr(token, "consent", None),
        "pending": pending,
        "unproven": holdings.unproven(partner) if may_change else None,
        "idle_until": token.last_success_at + dt.timedelta(days=IDLE_DAYS) if token and token.last_success_at else None,
        "idle_days": IDLE_DAYS,
        "may_change": may_change,
        "can_renew": may_change and (stands.can_reconnect or stands.is_live),
        "can_revoke": may_change and partner.withdrawn_at is None and token is not None,
        "periods": ACCESS_DAYS,
        "owners": [] if may_change else _owners(partner),
        "app_ids": [app["app_id"] for cloud, app in settings.CPV_APPS.items() if cloud == partner.cloud],
    }
    return render(request, "partners/connection.html", context)


@require_POST
@partner_required
@needs(Power.CONSENT)
@freshly_signed_in("choose how long access is granted", back="connection")
def choose_period(request: PartnerRequest) -> HttpResponse:
    """How long a consent opens access; counts from the consent in force."""
    days = _choice(request, "days", [str(days) for days in ACCESS_DAYS])
    try:
        lifecycle.choose_period(partner=request.partner, by=request.user.as_actor(), days=int(days))
    except lifecycle.WouldEndAccess:
        text = f"Nothing was changed: your consent is older than {days} days, so access would end now."
        messages.error(request, f"{text} Renew first and then choose, or end access below.")
        return redirect("connection")
    messages.success(request, f"Access is granted for {days} days from each consent.")
    return redirect("connection")


@require_POST
@partner_required
@needs(Power.CONSENT)
@freshly_signed_in("end access", back="connection")
def revoke(request: PartnerRequest) -> HttpResponse:
    """End the vendor's access, by an owner who typed that this is wanted."""
    if not _choice(request, "sure", ["yes", ""]):
        messages.error(request, "Nothing was ended: tick the box to say that you are sure.")
        return redirect("connection")
    reason = " ".join(request.POST.get("reason", "").split())[:200] or "no reason given"
    lifecycle.revoke(partner=request.partner, by=request.user.as_actor(), reason=reason)
    messages.success(request, "Access is ended: no call leaves any more, and the stored secret is being disabled.")
    return redirect("connection")


def _choice(request: PartnerRequest, name: str, choices: list[str]) -> str:
    """What was chosen on a form; for what the form does not offer, the page is not there."""
    chosen = request.POST.get(name, "")
    if chosen not in choices:
        raise Http404
    return chosen
