"""The partner's delegated admin relationships (GDAP), by when they end."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from partners import relationships
from partners.access import PartnerRequest, needs, partner_required
from partners.powers import Power
from partners.standing import current_token, standing


@require_safe
@partner_required
@needs(Power.CUSTOMERS)
def relationship_list(request: PartnerRequest) -> HttpResponse:
    """In force or to come, ending soon, or ended; 50 a page."""
    partner, member = request.partner, request.member
    read = relationships.read(member)
    context: dict[str, Any] = {
        "page": relationships.page(member, show=request.GET.get("show", ""), after=request.GET.get("after", "")),
        "read": read,
        "standing": standing(partner, current_token(partner)),
        "as_of": read.at,
        "days": relationships.SOON.days,
    }
    return render(request, "partners/relationships.html", context)
