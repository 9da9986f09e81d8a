"""The tenant wall: which partner a request speaks for, and who may pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from django.contrib.auth import login
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import rotate_token
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache

from partners import borrowed, presence
from partners.models import Member, Partner, User
from partners.powers import Power
from partners.sign_in_backends import PEOPLE
from tokens import audit
from tokens.tenancy import partner_scope, system_scope

P = ParamSpec("P")
ViewT = TypeVar("ViewT", bound=Callable[..., HttpResponseBase])
SESSION_KEY = "partner_id"
WHO_MAY_ENTER = system_scope("who may enter")  # somebody may be a member of several partners
PAGE_OF = "X-CPV-Partner"  # what a part of a page that asks for itself says: whose page it stands on
NEXT_KEY = "next_path"  # where a sign-in leads once the partner is chosen; a path of our own


class PartnerRequest(HttpRequest):
    """A request of a signed-in member; `partner` and `member` come from the session, never from the address."""

    user: User
    partner: Partner
    member: Member


def enter(
    request: HttpRequest, *, user: User, partner: Partner | None, mfa: dict[str, Any], proved_at: int | None
) -> None:
    """
    Sign somebody in for one partner; the session gets a new key, and whatever another person left in it is gone.

    Without a partner they still have to choose one: until then the session speaks for none. `mfa` is the evidence we
    saw, `proved_at` when they proved themselves, where that is known (seconds since 1970).
    """
    login(request, user, backend=PEOPLE)
    request.session.pop(SESSION_KEY, None)
    presence.prove(request.session, mfa=mfa, at=proved_at)
    if partner is not None:
        request.session[SESSION_KEY] = partner.pk
        for member in places(user.pk).filter(partner=partner):
            member.mark_signed_in()


def needs(power: Power) -> Callable[[ViewT], ViewT]:
    """Say which power a view needs; stands right below `partner_required`, which asks for it."""

    def marked(view: ViewT) -> ViewT:
        view.power = power  # type: ignore[attr-defined] # read by partner_required, and by the sweep of the walls
        return view

    return marked


def partner_required(
    view: Callable[Concatenate[Any, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """
    Let members with the view's power pass, with `request.partner` and `request.member` set.

    So do staff whom somebody lent a look (`partners.borrowed`): a member without a row stands in for them. Everybody
    else meets the same 404 as at an address that isn't there; who has still to choose an organisation is led there.
    """

    @never_cache  # also once somebody has signed out and goes back
    @wraps(view)
    def checked(request: Any, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        with _one_transaction(request):
            member = borrowed.stand_in(request) or membership(request)
            if member is None and _may_choose(request):
                return redirect("switch")
            if member is None or not member.may(getattr(view, "power", None)):
                raise Http404
            request.partner, request.member = member.partner, member
            if request.headers.get(PAGE_OF, str(member.partner.tenant_id)) != str(member.partner.tenant_id):
                return HttpResponse(headers={"HX-Refresh": "true"})  # in another tab somebody switched
            with partner_scope(member.partner):
                return borrowed.noted(request, view(request, *args, **kwargs))

    checked.partner_required = True  # type: ignore[attr-defined] # the sweep of the walls looks for it
    return checked


def _one_transaction(request: HttpRequest) -> AbstractContextManager[Any]:
    """
    A page that only reads is one transaction, which takes on the system's role once, and then its partner's.

    SQLite has no roles, and would make writers wait.
    """
    is_reading = request.method in ("GET", "HEAD") and connection.vendor == "postgresql"
    return transaction.atomic() if is_reading else nullcontext()


def chosen_partner(request: HttpRequest) -> int:
    """The id of the partner this session speaks for; 0, which is nobody's, when it speaks for none."""
    return int(request.session.get(SESSION_KEY, 0))


@WHO_MAY_ENTER
def membership(request: HttpRequest) -> Member | None:
    """Who this request's visitor is at the partner of the session; None for a stranger."""
    if not request.user.is_authenticated or request.user.is_staff:  # who is at the desk is no member
        return None
    mine = borrowed.with_news(places(request.user.pk))
    member: Member | None = mine.filter(partner_id=chosen_partner(request)).first()
    if member is not None:
        borrowed.add_news(member)
    return member


# --- Several partners -----------------------------------------------------------------------------------------------
def places(user_id: int | str) -> QuerySet[Any]:
    """Everything this person is a member of; `has_others` says whether there is more than the one."""
    living = Member.objects.filter(user_id=user_id, partner__offboarded_at=None)
    others = living.filter(user_id=OuterRef("user_id")).exclude(pk=OuterRef("pk"))
    return living.select_related("partner").annotate(has_others=Exists(others))


@WHO_MAY_ENTER
def _may_choose(request: HttpRequest) -> bool:
    if request.method not in ("GET", "HEAD") or not request.user.is_authenticated:
        return False
    return places(request.user.pk).filter(has_others=True).exists()


def choose(request: HttpRequest, member: Member) -> None:
    """
    Have the session speak for another partner of the same person from now on; it gets a new key.

    A form of a page that still stands in another tab was about the partner before: it has expired.
    """
    with transaction.atomic():
        member.mark_signed_in()
        audit.record("member.entered", actor=member.user.as_actor(), partner=member.partner)
    request.session.cycle_key()
    rotate_token(request)
    request.session[SESSION_KEY] = member.partner_id
