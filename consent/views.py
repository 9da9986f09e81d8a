"""The pages on the way to Microsoft and back."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import resolve, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from consent import flow, invitations, posted
from consent.checks_at_consent import ROLE_WORDS
from consent.models import ConsentAttempt
from consent.refusals import WAY_ON, Refused
from partners.access import PartnerRequest, chosen_partner, enter, membership, needs, partner_required
from partners.leaving import View, leads_to_microsoft
from partners.models import CLOUDS, Member, Partner
from partners.overview import overview
from partners.powers import Power
from partners.presence import freshly_signed_in, prove
from partners.standing import current_token, standing
from tokens import outside
from tokens.tenancy import system_scope

# The words of a refusal speak of the invitation; on the way through sign-in or a reconnect there is none.
OPEN_AGAIN = "Open the invitation again"
AGAIN = {
    "/signin": "Sign in again",
    "/signin/again": "Sign in again",
    "/": "Reconnect from your home page",
}
INVITATION_KEPT = " Your invitation is still good."
BEFORE_SIGN_IN = system_scope("nobody is known yet")  # links, states and identities are looked up across partners
APPROVAL_HELPS = {"admin_approval", "approved_elsewhere"}
BROWSER_KEY = "consent_browser"
AnswerView = Callable[[HttpRequest, Mapping[str, str]], HttpResponse]


def explains_refusals(view: View) -> View:
    """Turn a refusal into its page."""

    @wraps(view)
    def explained(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except Refused as refused:
            return refusal_page(request, refused)

    return explained


def refusal_page(request: HttpRequest, refused: Refused) -> HttpResponse:
    words = refused.words
    retry_path = refused.retry_path
    again = AGAIN.get(retry_path, OPEN_AGAIN)
    retry_label = "Go to your home page" if retry_path == reverse("home") else again
    title = words.title
    if refused.reason in {"already_connected", "replayed", "answer_gone"} and (upn := _connected_as(request)):
        retry_path, retry_label = reverse("home"), "Go to your home page"
        title = f"Already connected as {upn}"
    why = _filled(words.why)
    refusal = {
        "title": _filled(title),
        "why": why if again == OPEN_AGAIN else why.replace(INVITATION_KEPT, ""),
        "steps": [
            _filled(step).replace(OPEN_AGAIN, again).replace(OPEN_AGAIN.lower(), again.lower()) for step in words.steps
        ],
        "missing": refused.missing,
        "command": words.command,
        "owner": words.owner,
        "reference": refused.reference,
        "retry_url": retry_path,
        "retry_label": retry_label,
        "admin_consent": refused.reason in APPROVAL_HELPS and _invitation_in(refused.retry_path),
        "nothing_stored": refused.reason not in {"used_invitation", "already_connected", "already_a_member"},
    }
    return at_the_callback(render(request, "consent/refused.html", {"refusal": refusal}, status=words.status))


def _filled(words: str) -> str:
    """The words of a refusal with what only the settings know."""
    apps = ", ".join(sorted({app["app_id"] for app in settings.CPV_APPS.values() if app["app_id"]}))
    known = {"{roles}": " or ".join(_accepted_roles()), "{apps}": apps, "{context}": settings.CPV_SIGN_IN_CONTEXT}
    for name, value in known.items():
        words = words.replace(name, value)
    return words


def at_the_callback(page: HttpResponse) -> HttpResponse:
    """A page whose address holds what Microsoft sent: no request it makes may tell that address, not even to us."""
    # "no-referrer" would also empty the Origin of the page's own forms, and Django would refuse them.
    page["Referrer-Policy"] = "strict-origin"
    return page


def _accepted_roles() -> list[str]:
    return [ROLE_WORDS[role] for role in settings.CPV_CONSENT_ROLES]


def _invitation_in(path: str) -> dict[str, str]:
    """How a page leads to an administrator's approval, given where its own attempt began; empty where it cannot."""
    match = resolve(path or "/signin")
    if match.url_name not in {"connect", "home"}:
        return {}
    link = match.kwargs.get("link", "")
    address = f"{reverse('admin_consent')}?{urlencode({'invitation': link})}" if link else ""
    return {"invitation": link, "link": f"{settings.CPV_BASE_URL}{address}" if link else ""}


def _connected_as(request: HttpRequest) -> str:
    """Who this very visitor's organisation is connected as; nothing for anybody who is not signed in as its member."""
    if not request.user.is_authenticated:
        return ""
    mine = Member.objects.filter(user_id=request.user.pk, partner_id=chosen_partner(request))
    member = mine.select_related("partner").first()
    token = current_token(member.partner) if member else None
    return token.upn if token else ""


def browser_secret(request: HttpRequest, *, make: bool = False) -> str:
    """The secret that ties an attempt to this browser's session; it is worth nothing without the session's cookie."""
    if make and BROWSER_KEY not in request.session:
        request.session[BROWSER_KEY] = secrets.token_urlsafe(32)
    return str(request.session.get(BROWSER_KEY, ""))


# --- Consent --------------------------------------------------------------------------------------------------------
@never_cache
@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
@BEFORE_SIGN_IN
@leads_to_microsoft
@explains_refusals
def connect(request: HttpRequest, link: str) -> HttpResponse:
    """Explain what is asked and why; a POST leads on to Microsoft. Looking never spends the invitation."""
    invitation = invitations.usable(link)
    partner = invitation.partner
    if request.method == "POST":
        address = flow.begin(
            partner=partner,
            invitation=invitation,
            browser=browser_secret(request, make=True),
            retry_path=reverse("connect", args=[link]),
            renewal=invitation.renews,
        )
        return HttpResponseRedirect(address)
    context = {
        "invitation": invitation,
        "partner": partner,
        "admin_consent": _invitation_in(request.path),
        "cloud_label": CLOUDS[partner.cloud],
        "permissions": outside.asked_permissions(),
        "roles": _accepted_roles(),
    }
    return render(request, "consent/connect.html", context)


def takes_microsofts_answer(
    kind: ConsentAttempt.Kind, *, explains: Callable[[View], View] = explains_refusals
) -> Callable[[AnswerView], View]:
    """
    Hand a view the answer Microsoft sends along with the browser, in the one form that CPV_RESPONSE_MODE asks for.

    By form it comes in two steps: Microsoft's page posts to us across sites, without our cookies and without a CSRF
    token of ours; we put the fields away and lead the browser to the same address on our own site.
    """

    def decorated(view: AnswerView) -> View:
        @csrf_exempt  # the state, and the browser's secret a step later, say whether the answer is wanted
        @wraps(view)
        def answered(request: HttpRequest) -> HttpResponseBase:
            by_form = settings.CPV_RESPONSE_MODE == "form_post"
            if request.method == "POST" and by_form:
                name = posted.keep(kind, _posted_fields(request, kind))
                return see_other(f"{request.path}?{urlencode({'answer': name})}")
            if request.method != "GET":
                return HttpResponseNotAllowed(["GET", "POST"] if by_form else ["GET"])
            if not request.GET:
                raise Http404
            if not by_form:
                return view(request, request.GET.dict())
            if list(request.GET) != ["answer"]:
                raise Refused("unfit_answer", retry_path=WAY_ON[kind])
            return view(request, posted.take(kind, request.GET["answer"]))

        return never_cache(login_not_required(BEFORE_SIGN_IN(leads_to_microsoft(explains(answered)))))

    return decorated


def _posted_fields(request: HttpRequest, kind: str) -> Mapping[str, str]:
    """What the form brought; a body of another kind or size is not even read."""
    is_fit = request.content_type == "application/x-www-form-urlencoded"
    if not is_fit or int(request.META.get("CONTENT_LENGTH") or 0) > posted.MOST_BYTES:
        raise Refused("unfit_answer", retry_path=WAY_ON[kind])
    return request.POST.dict()


@takes_microsofts_answer(ConsentAttempt.Kind.CONSENT)
def callback(request: HttpRequest, answer: Mapping[str, str]) -> HttpResponse:
    """Where Microsoft sends the browser; ends in a redirect, so that the code leaves the address bar."""
    connected = flow.complete(answer=answer, browser=browser_secret(request))
    member = membership(request)
    is_theirs = member is not None and member.partner == connected.partner and member.may(Power.CONSENT)
    if connected.pending and is_theirs:
        if connected.user == request.user:  # with their own account, which was a proof of them too
            prove(request.session, mfa=connected.mfa, at=connected.proved_at)
        return see_other(reverse("renewal"))  # an owner who signed in at Microsoft with the service account
    if connected.user is None and is_theirs:
        return see_other(reverse("connected"))  # and stays who they are, whichever account agreed
    if connected.user is None:
        return see_other(reverse("waiting" if connected.pending else "agreed"))
    enter(
        request,
        user=connected.user,
        partner=connected.partner,
        mfa=connected.mfa,
        proved_at=connected.proved_at,
    )
    return see_other(reverse("renewal" if connected.pending else "connected"))


@never_cache
@login_not_required
@require_safe
def waiting(request: HttpRequest) -> HttpResponse:
    """Where a renewal by link ends for somebody who is no owner: one has to say yes."""
    return render(request, "consent/waiting.html")


@never_cache
@login_not_required
@require_safe
def agreed(request: HttpRequest) -> HttpResponse:
    """Where a consent in force ends for somebody who is no member: an owner has to invite them."""
    return render(request, "consent/agreed.html")


@never_cache
@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
@BEFORE_SIGN_IN
@leads_to_microsoft
@explains_refusals
def admin_consent(request: HttpRequest) -> HttpResponse:
    """
    Explain an administrator's approval; a POST leads on to Microsoft.

    The address with its invitation is what a Global Administrator can be sent. A member may approve for a reconnect.
    """
    link = request.POST.get("invitation") or request.GET.get("invitation", "")
    invitation = invitations.usable(link) if link else None
    partner = invitation.partner if invitation else _own_partner(request)
    retry_path = reverse("connect", args=[link]) if link else reverse("home")
    if request.method == "POST":
        address = flow.begin_admin_consent(
            partner=partner,
            invitation=invitation,
            browser=browser_secret(request, make=True),
            retry_path=retry_path,
        )
        return HttpResponseRedirect(address)
    context = {
        "partner": partner,
        "permissions": outside.asked_permissions(),
        "admin_consent": _invitation_in(retry_path),
    }
    return render(request, "consent/admin_consent.html", context)


def _own_partner(request: HttpRequest) -> Partner:
    member = membership(request)
    if member is None or not member.may(Power.CONSENT):
        raise Http404
    return member.partner


@never_cache
@login_not_required
@require_GET
@BEFORE_SIGN_IN
@leads_to_microsoft
@explains_refusals
def admin_consent_callback(request: HttpRequest) -> HttpResponse:
    """Where Microsoft sends an administrator: always by address, for there is no code in it and nothing to steal."""
    if not request.GET:
        raise Http404
    path = flow.complete_admin_consent(answer=request.GET.dict(), browser=browser_secret(request))
    match = resolve(path)
    go_on = path if match.url_name == "connect" else reverse("renew")
    return at_the_callback(render(request, "consent/approved.html", {"go_on": go_on}))


def see_other(path: str) -> HttpResponse:
    response = HttpResponseRedirect(path)
    response.status_code = 303
    response["Referrer-Policy"] = "no-referrer"
    return response


@require_safe
@partner_required
def connected(request: PartnerRequest) -> HttpResponse:
    """What was stored just now, and the first sync counting up."""
    partner = request.partner
    token = current_token(partner)
    if token is None:
        return redirect("home")
    stands = standing(partner, token)
    context = {
        "partner": partner,
        "token": token,
        "consent": token.consent,
        "role": ROLE_WORDS.get(token.consent.role, token.consent.role),
        "standing": stands,
        "progress": overview(request.member).progress(token, is_live=stands.is_live),
    }
    return render(request, "consent/connected.html", context)


@require_POST
@leads_to_microsoft
@explains_refusals
@partner_required
@needs(Power.CONSENT)
def renew(request: PartnerRequest) -> HttpResponse:
    """Lead an owner to Microsoft for a new consent; where one is in force and works, the new one waits for a yes."""
    stands = standing(request.partner, current_token(request.partner))
    if not (stands.can_reconnect or stands.is_live):
        return redirect("home")
    address = flow.begin(
        partner=request.partner,
        browser=browser_secret(request, make=True),
        retry_path=reverse("connection" if stands.is_live else "home"),
        renewal=True,
    )
    return HttpResponseRedirect(address)


@require_http_methods(["GET", "HEAD", "POST"])
@partner_required
@needs(Power.CONSENT)
@freshly_signed_in("say yes or no to the renewal", back="renewal")
def renewal(request: PartnerRequest) -> HttpResponse:
    """What a renewal would change; an owner says yes or no, and until then nothing changes."""
    partner = request.partner
    if request.method != "POST":
        return render(request, "consent/renewal.html", {"partner": partner, "renewal": flow.renewal_of(partner)})
    if request.POST.get("answer") != "yes":
        flow.decline_renewal(partner=partner, by=request.user)
        messages.info(request, "The renewal was thrown away. Everything stays as it was.")
    elif flow.confirm_renewal(partner=partner, by=request.user):
        messages.success(request, "The new connection is in force, and the earlier one is over.")
    else:
        messages.error(request, "This renewal is over. Everything stays as it was; begin again to renew.")
    return redirect("connection")
