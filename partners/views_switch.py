"""Choosing among several partners, for the few people who are members of more than one."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from partners import access


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@access.WHO_MAY_ENTER
def switch(request: HttpRequest) -> HttpResponse:
    """The organisations somebody is a member of, to choose one; for a member of one there is nothing here."""
    user_id = request.user.pk or 0  # the login middleware lets nobody come this far without
    mine = list(access.places(user_id).filter(has_others=True).order_by("partner__name", "pk"))
    if not mine:
        raise Http404
    if request.method != "POST":
        return render(request, "partners/switch.html", {"places": mine, "current": access.chosen_partner(request)})
    wanted = request.POST.get("member", "")
    member = next((member for member in mine if str(member.pk) == wanted), None)
    if member is None:
        raise Http404
    access.choose(request, member)
    return redirect(request.session.pop(access.NEXT_KEY, "") or "home")
