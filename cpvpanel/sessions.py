"""Ends sessions, the desk's too: 30 minutes after the last thing a person did, and eight hours after they signed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from cpvpanel import desk
from partners import presence

SAFE = ("GET", "HEAD", "OPTIONS")
AUTO = "auto"  # in the address of a page that reads itself again without JavaScript: that keeps no session alive


class SessionLimits:
    """Stands behind the authentication, and before what leads strangers to the sign-in."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        why = _ended(request) if request.user.is_authenticated else ""
        match = request.resolver_match
        is_desk = match is not None and "admin" in match.namespaces
        opens = desk.OPEN if is_desk else ()
        is_closed = is_desk or getattr(view, "login_required", True)
        if request.user.is_authenticated or not is_closed or (match is not None and match.url_name in opens):
            return None
        _say(request, why)
        return None if is_desk else _to_sign_in(request)  # the desk has a sign-in of its own


def start_clocks(*, request: HttpRequest, **_told: Any) -> None:
    """Whoever signs in, in whatever way; a session without clocks is over."""
    presence.begin(request.session)


def _ended(request: HttpRequest) -> str:
    """Why the session is over, which it is from now on; empty when it goes on."""
    why = presence.why_over(request.session)
    if why:
        logout(request)
    elif not request.headers.get("HX-Request") and AUTO not in request.GET:
        presence.note_seen(request.session)
    return why


def _say(request: HttpRequest, why: str) -> None:
    lost = "What you sent just now was not carried out: sign in, and do it again."
    said = [f"You were signed out: {why}."] if why else []
    said += [lost] if request.method not in SAFE else []
    if said:
        messages.warning(request, " ".join(said))


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    """Lead to the sign-in, and from there back to the page, be it the one whose form was sent."""
    back = request.get_full_path() if request.method in SAFE else presence.page_before(request) or reverse("home")
    answer = redirect_to_login(back)
    if not request.headers.get("HX-Request"):
        return answer
    # A part of a page asked: the whole page goes to the sign-in, and back to itself.
    page = presence.own_path(request, request.headers.get("HX-Current-URL", "")) or reverse("home")
    led = HttpResponse()
    led["HX-Redirect"] = redirect_to_login(page)["Location"]
    return led
