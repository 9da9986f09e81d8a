"""Signing in and out, and proving once more who one is."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from consent import sign_in
from consent.models import ConsentAttempt
from consent.views import BEFORE_SIGN_IN, browser_secret, explains_refusals, see_other, takes_microsofts_answer
from partners import presence
from partners.access import NEXT_KEY, PartnerRequest, enter, partner_required
from partners.leaving import leads_to_microsoft
from partners.models import CLOUDS
from tokens import outside


@never_cache
@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
@BEFORE_SIGN_IN
@leads_to_microsoft
@explains_refusals
def signin(request: HttpRequest) -> HttpResponse:
    """Explain who may enter; a POST leads on to Microsoft."""
    clouds = [(name, label) for name, label in CLOUDS.items() if outside.is_configured(name)]
    next_path = safe_next(request)
    if request.method == "POST":
        cloud = request.POST.get("cloud") or (clouds[0][0] if len(clouds) == 1 else "")
        if cloud not in dict(clouds):
            return render(request, "consent/signin.html", {"clouds": clouds, "next": next_path}, status=400)
        address = sign_in.begin(cloud=cloud, browser=browser_secret(request, make=True), next_path=next_path)
        return HttpResponseRedirect(address)
    return render(request, "consent/signin.html", {"clouds": clouds, "next": next_path})


def safe_next(request: HttpRequest) -> str:
    """A path of our own to go on to, never an address elsewhere."""
    wanted = (request.POST.get("next") or request.GET.get("next", "")).strip()
    try:
        is_path = urlsplit(wanted).path.startswith("/")
    except ValueError:  # such as "//["
        return ""
    fits = is_path and wanted.isprintable() and len(wanted) <= presence.LONGEST_PATH
    own = url_has_allowed_host_and_scheme(wanted, allowed_hosts=None, require_https=request.is_secure())
    return wanted if fits and own else ""


@require_http_methods(["GET", "HEAD", "POST"])
@leads_to_microsoft
@explains_refusals
@partner_required
def signin_again(request: PartnerRequest) -> HttpResponse:
    """Say why somebody who is signed in has to prove it, and for what; a POST leads on to Microsoft."""
    wanted = presence.wanted(request.session)
    if request.method == "POST":
        address = sign_in.begin(
            cloud=request.partner.cloud,
            browser=browser_secret(request, make=True),
            next_path=wanted.get("back", ""),
            again=request.member,
        )
        return HttpResponseRedirect(address)
    return render(request, "consent/signin_again.html", {"doing": wanted.get("doing", ""), "back": wanted.get("back")})


@takes_microsofts_answer(ConsentAttempt.Kind.SIGN_IN)
def signin_callback(request: HttpRequest, answer: Mapping[str, str]) -> HttpResponse:
    """Where Microsoft sends somebody who signs in."""
    ended = sign_in.complete(answer=answer, browser=browser_secret(request))
    if isinstance(ended, sign_in.GoOn):
        return see_other(ended.address)
    if ended.again:
        _prove(request, ended)
    else:
        enter(request, user=ended.user, partner=ended.partner, mfa=ended.mfa, proved_at=ended.proved_at)
    if ended.partner is None:
        request.session[NEXT_KEY] = ended.next_path
        return see_other(reverse("switch"))
    return see_other(ended.next_path or reverse("home"))


def _prove(request: HttpRequest, ended: sign_in.SignedIn) -> None:
    """Note that it is really them; the session stays whose it is, under a new key."""
    doing = presence.wanted(request.session).get("doing")
    request.session.pop(presence.WANTED, None)
    request.session.cycle_key()
    presence.prove(request.session, mfa=ended.mfa, at=ended.proved_at)
    if doing:
        messages.info(request, f"You confirmed that it is you. Nothing was sent yet: go on to {doing}.")


@require_POST
@login_not_required
def signout(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("signed_out")


@login_not_required
@require_safe
def signed_out(request: HttpRequest) -> HttpResponse:
    return render(request, "consent/signed_out.html")
