"""A customer's users as they were last read, where an owner asked for that."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from partners import holdings
from partners.access import PartnerRequest, needs, partner_required
from partners.powers import Power
from partners.standing import current_token, standing


@require_safe
@partner_required
@needs(Power.USERS)
def customer_users(request: PartnerRequest, tenant_id: UUID) -> HttpResponse:
    """The users of one customer by name, 50 a page."""
    partner = request.partner
    known = request.member.customers.present()
    fresh = holdings.freshness(partner, tenant_id, with_users=True)
    customer: Any = get_object_or_404(known.annotate(**fresh), tenant_id=tenant_id)
    context = {
        "customer": customer,
        "reading": holdings.users_of(customer),
        "page": holdings.user_page(customer.customerusers.all(), after=request.GET.get("after", "")),
        "standing": standing(partner, current_token(partner)),
        "as_of": customer.users_at,
    }
    return render(request, "partners/customer_users.html", context)
