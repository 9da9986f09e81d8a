"""The tenant wall: which partner a request speaks for, and who may pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib.auth import login
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from partners.models import Member, Partner, User

P = ParamSpec("P")
SESSION_KEY = "partner_id"


class PartnerRequest(HttpRequest):
    """A request of a signed-in member; `partner` and `member` come from the session, never from the address."""

    user: User
    partner: Partner
    member: Member


def enter(request: HttpRequest, *, user: User, partner: Partner) -> None:
    """Sign somebody in for one partner; the session gets a new key, and whatever another person left in it is gone."""
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    request.session[SESSION_KEY] = partner.pk


def partner_required(
    view: Callable[Concatenate[Any, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """Let members pass, with `request.partner` set; a stranger meets the same 404 as at an address that isn't there."""

    @wraps(view)
    def checked(request: Any, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        member = membership(request)
        if member is None:
            raise Http404
        request.partner, request.member = member.partner, member
        return view(request, *args, **kwargs)

    checked.partner_required = True  # type: ignore[attr-defined] # the sweep of the walls looks for it
    return checked


def chosen_partner(request: HttpRequest) -> int:
    """The id of the partner this session speaks for; 0, which is nobody's, when it speaks for none."""
    return int(request.session.get(SESSION_KEY, 0))


def membership(request: HttpRequest) -> Member | None:
    """Who this request's visitor is at the partner of the session; None for a stranger."""
    if not request.user.is_authenticated:
        return None
    memberships = Member.objects.filter(user_id=request.user.pk, partner__offboarded_at=None).select_related("partner")
    return memberships.filter(partner_id=chosen_partner(request)).first()
