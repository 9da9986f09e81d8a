"""The page "Evidence": what an auditor asks about the connection, to read, to print and to take along."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from partners import evidence as gathered
from partners.access import PartnerRequest, needs, partner_required
from partners.powers import Power
from partners.presence import freshly_signed_in
from tokens import audit


@require_safe
@partner_required
@needs(Power.EVIDENCE)
def evidence(request: PartnerRequest) -> HttpResponse:
    """Who agreed to what with which proof, what was stored and used, stops, and how far the activity is sealed."""
    return render(request, "partners/evidence.html", {"evidence": gathered.document(request.partner)})


@require_POST
@partner_required
@needs(Power.EVIDENCE)
@freshly_signed_in("take the evidence along", back="evidence")
def export_evidence(request: PartnerRequest) -> HttpResponse:
    """The same as JSON; that somebody took it along is written down first."""
    audit.record("evidence.exported", actor=request.user.as_actor(), partner=request.partner, object="json")
    answer = JsonResponse(gathered.document(request.partner), json_dumps_params={"indent": 2})
    name = f"evidence-{request.partner.tenant_id}-{timezone.now():%Y-%m-%d}.json"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    answer["Cache-Control"] = "no-store"
    return answer
