"""Borrowed access at the desk: ask for a look at one partner's pages, agree to another's asking, go there."""

from __future__ import annotations

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from partners import borrowed, presence
from partners.desk_roles import Act, may
from partners.models import AccessGrant, Partner, User
from tokens.long_lists import ReadOnlyAdmin

NAME = "admin:borrowed_access"
EARLIER = 20
DONE = {
    "approve": "Allowed: whoever asked may look for 60 minutes. The partner reads that you allowed it.",
    "refuse": "Refused. The partner reads it.",
    "end": "It is over.",
}


def borrowed_access(request: HttpRequest, pk: int) -> HttpResponse:
    """The looks at one partner's pages: to ask for one, to answer another's request, to begin and to end one's own."""
    if not borrowed.is_proven_staff(request) or not isinstance(request.user, User):
        raise PermissionDenied
    partner = get_object_or_404(Partner, pk=pk)
    if request.method == "POST":
        if request.POST.get("act") == "approve" and not presence.is_fresh(request.session):
            return presence.ask_anew(request, doing=f"Answer for a look at {partner.name}", back=request.path)
        return _act(request, request.user, partner)
    now = timezone.now()
    grants = partner.access_grants.select_related("asked_by", "approved_by").order_by("-pk")
    waiting, open_now = list(grants.waiting(now)), list(grants.in_force(now))
    living = [grant.pk for grant in (*waiting, *open_now)]
    context = admin.site.each_context(request) | {
        "title": f"Look at the pages of {partner.name}",
        "partner": partner,
        "answerable": [(grant, borrowed.may_approve(request.user, grant)) for grant in waiting],
        "open_now": open_now,
        "earlier": grants.exclude(pk__in=living)[:EARLIER],
        "may_ask": may(request.user, Act.ASK_FOR_A_LOOK) and all(grant.asked_by != request.user for grant in waiting),
        "opts": Partner._meta,
    }
    return TemplateResponse(request, "admin/partners/access.html", context)


def _act(request: HttpRequest, user: User, partner: Partner) -> HttpResponse:
    act, here = request.POST.get("act", ""), redirect(NAME, partner.pk)
    try:
        if act == "ask":
            borrowed.ask(partner=partner, by=user, reason=request.POST.get("reason", ""))
            messages.success(request, "Asked. An owner of the partner answers, or another one of security or an admin.")
            return here
        grant = _named(request, partner)
        if act == "open":
            return _go_there(request, user, grant)
        acts = {"approve": borrowed.approve, "refuse": borrowed.refuse, "end": borrowed.end}
        if act not in acts:
            raise Http404
        acts[act](grant=grant, by=user)
        messages.success(request, DONE[act])
    except borrowed.NotNow as why:
        messages.error(request, str(why))
    return here


def _go_there(request: HttpRequest, user: User, grant: AccessGrant) -> HttpResponse:
    if not AccessGrant.objects.in_force(timezone.now()).filter(pk=grant.pk, asked_by=user).exists():
        raise borrowed.NotNow("This look is not yours, not allowed yet, or over. Ask anew if it is still needed.")
    borrowed.begin(request, grant)
    return redirect("home")


def _named(request: HttpRequest, partner: Partner) -> AccessGrant:
    named = request.POST.get("grant", "")
    if not (named.isascii() and named.isdigit() and len(named) < 19):
        raise Http404
    return get_object_or_404(partner.access_grants.select_related("partner", "asked_by"), pk=int(named))


@admin.register(AccessGrant)
class AccessGrantAdmin(ReadOnlyAdmin):
    """All of them, for whoever answers and whoever audits."""

    list_display = ("asked_at", "whose", "asked_by", "reason", "state", "approved_by", "approved_at", "ended_at")
    list_display_links = ("asked_at",)
    list_select_related = ("partner", "asked_by", "approved_by")
    finds_of, finds_newest = ("partner", "asked_by"), ("reason",)
    ordering = ("-id",)

    @admin.display(description="partner")
    def whose(self, grant: AccessGrant) -> str:
        return format_html('<a href="{}">{}</a>', reverse(NAME, args=[grant.partner_id]), grant.partner.name)
