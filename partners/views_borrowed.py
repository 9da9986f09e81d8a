"""Who of the vendor's staff may look at a partner's pages: its owners see it, allow it, refuse it and end it."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from partners import borrowed
from partners.access import PartnerRequest, needs, partner_required
from partners.models import AccessGrant
from partners.powers import Power
from partners.presence import freshly_signed_in

EARLIER = 20


@require_safe
@partner_required
@needs(Power.LOOKS)
def access(request: PartnerRequest) -> HttpResponse:
    """What waits for an answer, who may look right now, and who did before."""
    now = timezone.now()
    grants = request.partner.access_grants.select_related("asked_by", "approved_by").order_by("-pk")
    waiting, open_now = list(grants.waiting(now)), list(grants.in_force(now))
    living = [grant.pk for grant in (*waiting, *open_now)]
    context = {
        "partner": request.partner,
        "waiting": waiting,
        "open_now": open_now,
        "earlier": grants.exclude(pk__in=living)[:EARLIER],
    }
    return render(request, "partners/access.html", context)


@require_POST
@partner_required
@needs(Power.LOOKS)
@freshly_signed_in("let somebody look", back="access")
def allow(request: PartnerRequest) -> HttpResponse:
    """Let who asked look for an hour."""
    return _answered(request, borrowed.approve, "They may look for 60 minutes, to read only. End it here at any time.")


@require_POST
@partner_required
@needs(Power.LOOKS)
def refuse(request: PartnerRequest) -> HttpResponse:
    """Say no to who asked."""
    return _answered(request, borrowed.refuse, "The request is refused. Nobody looked at anything.")


@require_POST
@partner_required
@needs(Power.LOOKS)
def end(request: PartnerRequest) -> HttpResponse:
    """End a look; it takes effect at their next click."""
    return _answered(request, borrowed.end, "The look is ended. They see nothing of yours any more.")


def _answered(request: PartnerRequest, act: Callable[..., None], done: str) -> HttpResponse:
    grant = _named(request)
    try:
        act(grant=grant, by=request.user)
    except borrowed.NotNow as why:
        messages.error(request, str(why))
    else:
        messages.success(request, done)
    return redirect("access")


def _named(request: PartnerRequest) -> AccessGrant:
    named = request.POST.get("grant", "")
    grants = request.partner.access_grants.select_related("partner", "asked_by")
    grant = grants.filter(pk=int(named)).first() if named.isascii() and named.isdigit() and len(named) < 19 else None
    if grant is None:
        raise Http404
    return grant
