"""
The desk's other door: the vendor's staff by its own Entra tenant, where CPV_STAFF_ENTRA is on.

Whoever came in this way proves anew who they are here too: `prove_again`, or a POST with `again`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from consent import staff_sign_in
from consent.refusals import Refused
from consent.sign_in_views import safe_next
from consent.staff_refusals import words_of
from consent.views import at_the_callback, browser_secret, see_other, takes_microsofts_answer
from cpvpanel.desk_door import at_the_desk, began_anew, page
from partners import presence, second_factor, staff
from partners.leaving import View, leads_to_microsoft
from partners.models import User
from partners.sign_in_backends import PEOPLE


def where_switched_on(view: View) -> View:
    """Where CPV_STAFF_ENTRA is off, the address is none."""

    @wraps(view)
    def opened(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not settings.CPV_STAFF_ENTRA:
            raise Http404
        return view(request, *args, **kwargs)

    return opened


def explains_at_the_desk(view: View) -> View:
    """Turn a refusal into its page in the desk's look."""

    @wraps(view)
    def explained(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except Refused as refused:
            words = words_of(refused)
            answer = page(request, "refused", words.title, refused=words)
            answer.status_code = words.status
            return at_the_callback(answer)

    return explained


# --- Leaving --------------------------------------------------------------------------------------------------------
@where_switched_on
@never_cache
@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
@leads_to_microsoft
@explains_at_the_desk
def microsoft(request: HttpRequest) -> HttpResponse:
    """A POST leads on to Microsoft; to look at, the page that asks somebody at the desk to confirm that it is them."""
    person, next_path = from_entra(request), safe_next(request)
    if request.method == "POST" and not request.POST.get("again"):
        address = staff_sign_in.begin(browser=browser_secret(request, make=True), next_path=next_path)
        return HttpResponseRedirect(address)
    if person is None:
        return redirect("admin:login")
    if request.method == "POST":
        return prove_again(request, person, next_path=next_path)
    return page(request, "microsoft", "Confirm that it is you", next=next_path)


def from_entra(request: HttpRequest) -> User | None:
    """Who is at the desk, if they came in with Microsoft."""
    person = at_the_desk(request)
    return person if person is not None and person.is_from_entra else None


def prove_again(request: HttpRequest, person: User, *, next_path: str) -> HttpResponse:
    """
    Lead somebody at the desk to Microsoft, which asks for password and MFA anew; then on to a path of ours.

    Whatever page has the form for it is one that `leads_to_microsoft`.
    :raises Refused: Microsoft cannot be reached
    """
    address = staff_sign_in.begin(browser=browser_secret(request, make=True), next_path=next_path, again=person)
    return HttpResponseRedirect(address)


# --- The way back ---------------------------------------------------------------------------------------------------
@where_switched_on
@takes_microsofts_answer(staff_sign_in.KIND, explains=explains_at_the_desk)
def callback(request: HttpRequest, answer: Mapping[str, str]) -> HttpResponse:
    """Where Microsoft sends one of the staff; ends in a redirect, so that the code leaves the address bar."""
    proven = staff_sign_in.complete(answer=answer, browser=browser_secret(request))
    back = reverse("admin:index")
    if proven.again:
        back = began_anew(request)
    else:
        _let_in(request, proven)
    presence.prove(request.session, mfa=proven.mfa, at=proven.proved_at)
    return see_other(proven.next_path or back)


def _let_in(request: HttpRequest, proven: staff_sign_in.Proven) -> None:
    """As `desk_door.let_in` does with a factor of ours: a session of its own, with nothing of anybody before."""
    if request.user.is_authenticated:
        logout(request)
    login(request, proven.user, backend=PEOPLE)
    second_factor.note_shown_at_microsoft(request.session, proven.user)
    staff.note_sign_in(user=proven.user, mfa=proven.mfa)
