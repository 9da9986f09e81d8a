"""
How long somebody stays signed in, and how lately they proved who they are.

A session's times lie in the session itself, which the server keeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlencode, urlsplit

from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import NoReverseMatch, Resolver404, resolve, reverse

P = ParamSpec("P")
IDLE = 30 * 60  # seconds without anything a person did
LONGEST = 8 * 60 * 60  # seconds, whatever they did
FRESH = 10 * 60  # seconds after a proof in which what cannot be undone may be done
STEP = 60  # seconds; what a person does is not written down more often
LONGEST_PATH = 500
BEGAN, SEEN, PROVED, MFA, WANTED = "began_at", "seen_at", "proved_at", "mfa", "wanted_fresh"


# --- Lasting --------------------------------------------------------------------------------------------------------
def begin(session: SessionBase) -> None:
    """Start the clocks of whoever signed in just now."""
    session[BEGAN] = session[SEEN] = int(time.time())


def why_over(session: SessionBase) -> str:
    """Why this session has ended, in words; empty while it lasts."""
    now = time.time()
    if now >= session.get(BEGAN, 0) + LONGEST:
        return "a sign-in lasts eight hours"
    return "nothing was done here for 30 minutes" if now >= session.get(SEEN, 0) + IDLE else ""


def note_seen(session: SessionBase) -> None:
    """Somebody did something; written down in steps, so that not every page costs a write."""
    now = int(time.time())
    if now >= session.get(SEEN, 0) + STEP:
        session[SEEN] = now


# --- Proving --------------------------------------------------------------------------------------------------------
def prove(session: SessionBase, *, mfa: dict[str, Any], at: int | None) -> None:
    """
    Somebody proved who they are, with this evidence, at a time in seconds since 1970.

    Where nothing tells the time, the evidence counts for being signed in and not as a fresh proof.
    """
    session[MFA] = mfa
    if at is not None:
        session[PROVED] = min(at, int(time.time()))


def is_fresh(session: SessionBase) -> bool:
    proved_at: int = session.get(PROVED, 0)
    return time.time() < proved_at + FRESH


def freshly_signed_in(
    doing: str, *, back: str
) -> Callable[[Callable[Concatenate[Any, P], HttpResponse]], Callable[Concatenate[Any, P], HttpResponse]]:
    """
    Let a POST pass only within ten minutes of a proof; else lead to giving one first, and then back to the page.

    `doing` says on the way what it is for ("end access"); nothing is sent again by itself. `back` names
    the page with the button. It stands below `@partner_required` and `@needs`, which refuse before anybody is asked.
    """

    def decorated(view: Callable[Concatenate[Any, P], HttpResponse]) -> Callable[Concatenate[Any, P], HttpResponse]:
        @wraps(view)
        def checked(request: Any, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            if request.method in ("GET", "HEAD") or is_fresh(request.session):
                return view(request, *args, **kwargs)
            return ask_anew(request, doing=doing, back=page_before(request, name=back) or _address(back, kwargs))

        checked.freshly_signed_in = True  # type: ignore[attr-defined] # the tests of the house look for it
        return checked

    return decorated


def _address(name: str, kwargs: dict[str, Any]) -> str:
    """Of the page with that name; be it one about what the form was about."""
    try:
        return reverse(name, kwargs=kwargs)
    except NoReverseMatch:
        return reverse(name)


def ask_anew(request: HttpRequest, *, doing: str, back: str) -> HttpResponse:
    """Lead somebody to proving once more who they are: members at Microsoft, staff with a factor; then to `back`."""
    request.session[WANTED] = {"doing": doing, "back": back}
    if getattr(request.user, "is_from_entra", False):  # of the staff, and without a factor here
        return redirect(f"{reverse('admin:microsoft')}?{urlencode({'next': back})}")
    return redirect("admin:again" if getattr(request.user, "is_staff", False) else "signin_again")


def wanted(session: SessionBase) -> dict[str, str]:
    """What somebody was about to do when they were sent to prove themselves; empty when it was nothing."""
    found: dict[str, str] = session.get(WANTED, {})
    return found


def page_before(request: HttpRequest, *, name: str = "") -> str:
    """The page of ours a form was sent from, be it one with that name; empty when nothing tells."""
    return own_path(request, request.headers.get("Referer", ""), name=name)


def own_path(request: HttpRequest, url: str, *, name: str = "") -> str:
    """Path and query of an address of ours, be it of the page with that name; empty for any other."""
    try:
        address = urlsplit(url)
        match = resolve(address.path)
    except (ValueError, Resolver404):
        return ""
    path = address._replace(scheme="", netloc="", fragment="").geturl()
    fits = address.netloc == request.get_host() and len(path) <= LONGEST_PATH and not path.startswith("//")
    return path if fits and name in ("", match.view_name) else ""
