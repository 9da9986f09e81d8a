"""The team page of owners, and the page an invited person opens."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from uuid import UUID

from django import forms
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_not_required
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from consent import mails, sign_in, team
from consent.models import MemberInvitation
from consent.views import BEFORE_SIGN_IN, browser_secret, explains_refusals
from partners import team as members
from partners.access import PartnerRequest, needs, partner_required
from partners.leaving import leads_to_microsoft
from partners.listing import customer_page
from partners.models import Member
from partners.powers import LIMITABLE, WORDS, Power
from partners.presence import freshly_signed_in
from tokens.tenancy import no_scope

P = ParamSpec("P")
ROLES = [(role, role.capitalize()) for role in WORDS]


class InvitationForm(forms.Form):
    """What an owner may say about somebody they invite; whatever else a form brings is not read."""

    email = forms.EmailField(max_length=254)
    role = forms.ChoiceField(choices=ROLES)
    limited = forms.BooleanField(required=False)
    elsewhere = forms.BooleanField(required=False)
    tenant = forms.UUIDField(required=False)

    def clean(self) -> dict[str, Any]:
        said = super().clean() or {}
        if said.get("elsewhere") and not said.get("tenant") and "tenant" not in self.errors:
            self.add_error("tenant", "Give the tenant id of their organisation, or take the tick away.")
        if said.get("tenant") and not said.get("elsewhere"):
            self.add_error("tenant", "A tenant id counts only with the tick above it.")
        if said.get("limited") and said.get("role") not in LIMITABLE:
            self.add_error("limited", "Only operators and readers can be limited to some customers.")
        return said


def as_owners_decide(
    view: Callable[Concatenate[PartnerRequest, P], HttpResponse],
) -> Callable[Concatenate[PartnerRequest, P], HttpResponse]:
    """Say what became of a decision that could not be carried out."""

    @wraps(view)
    def explained(request: PartnerRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except members.NotYours as gone:
            raise Http404 from gone
        except members.LastOwner:
            text = "Nothing was changed: this is the only owner who can sign in. Make somebody else an owner first."
            messages.error(request, text)
            return redirect("team")

    return explained


# --- Owners -----------------------------------------------------------------------------------------------------------
@require_safe
@partner_required
@needs(Power.TEAM)
def team_page(request: PartnerRequest) -> HttpResponse:
    """Who belongs to this partner and what they may do, and who is invited."""
    return _team_page(request, InvitationForm(initial={"role": "reader"}))


def _team_page(request: PartnerRequest, form: InvitationForm, *, status: int = 200) -> HttpResponse:
    everybody = list(
        request.partner.members.select_related("user", "invitation")
        .annotate(chosen=Count("chosen_customers"))
        .order_by("user__name", "user__upn", "pk")
    )
    owners = [member for member in everybody if member.role == Member.Role.OWNER and member.user.is_active]
    context = {
        "members": everybody,
        "only_owner": owners[0] if len(owners) == 1 else None,
        "invitations": request.partner.member_invitations.open().order_by("-pk"),
        "roles": [(role, label, WORDS[role]) for role, label in ROLES],
        "limitable": LIMITABLE,
        "form": form,
    }
    return render(request, "consent/team.html", context, status=status)


@require_POST
@partner_required
@needs(Power.TEAM)
@freshly_signed_in("invite somebody", back="team")
@as_owners_decide
def invite(request: PartnerRequest) -> HttpResponse:
    """Mail somebody a link that makes them a member, once they have signed in at Microsoft."""
    form = InvitationForm(request.POST)
    if not form.is_valid():
        return _team_page(request, form, status=400)
    said = form.cleaned_data
    try:
        invitation, url = team.invite(
            email=said["email"], role=said["role"], limited=said["limited"], tenant_id=said["tenant"], by=request.member
        )
    except team.TooManyOpen:
        text = (
            f"Nobody was invited: {team.MOST_OPEN} invitations are open, or {team.MOST_A_DAY} were made within a day."
        )
        text += " Take one back, wait until one is used, or go on tomorrow."
        messages.error(request, text)
        return redirect("team")
    if _mailed(invitation, url):
        messages.success(request, f"An invitation is on its way to {invitation.email}. It is good for seven days.")
    else:
        team.take_back(invitation=invitation, by=request.member)
        messages.error(request, "The mail did not leave, so nobody is invited. Try again in a few minutes.")
    return redirect("team")


def _mailed(invitation: MemberInvitation, url: str) -> bool:
    context = {"invitation": invitation, "can": WORDS[invitation.role]}
    try:
        mails.send("member", to=invitation.email, partner=invitation.partner.name, url=url, context=context)
    except OSError:
        return False
    return True


@require_POST
@partner_required
@needs(Power.TEAM)
@as_owners_decide
def take_back(request: PartnerRequest, invitation_id: int) -> HttpResponse:
    """End an invitation before anybody used it."""
    invitation = get_object_or_404(request.partner.member_invitations, pk=invitation_id)
    if team.take_back(invitation=invitation, by=request.member):
        messages.success(request, f"The invitation to {invitation.email} leads nowhere any more.")
    else:
        messages.error(request, f"The invitation to {invitation.email} was over already.")
    return redirect("team")


@require_POST
@partner_required
@needs(Power.TEAM)
@freshly_signed_in("change a role", back="team")
@as_owners_decide
def change_role(request: PartnerRequest, member_id: int) -> HttpResponse:
    """Give a member another role."""
    member, role = _member(request, member_id), request.POST.get("role", "")
    if role not in WORDS:
        raise Http404
    if team.change_role(member=member, role=role, by=request.member):
        article = "a" if role == "reader" else "an"
        messages.success(request, f"{member.user.get_short_name()} is {article} {role} from now on.")
    still_owner = member.pk != request.member.pk or role == Member.Role.OWNER
    return redirect("team" if still_owner else "home")


@require_POST
@partner_required
@needs(Power.TEAM)
@freshly_signed_in("take somebody out", back="team")
@as_owners_decide
def remove(request: PartnerRequest, member_id: int) -> HttpResponse:
    """Take a member out; their very next request finds nothing."""
    member = _member(request, member_id)
    is_oneself = member.pk == request.member.pk
    ended = team.remove(member=member, by=request.member)
    if is_oneself:
        with no_scope():  # sessions belong to no partner
            logout(request)
        return redirect("signed_out")
    also = f" {ended} open invitation{'s' if ended > 1 else ''} of theirs ended too." if ended else ""
    messages.success(request, f"{member.user.get_short_name()} is no member any more.{also}")
    return redirect("team")


@require_safe
@partner_required
@needs(Power.TEAM)
def customers(request: PartnerRequest, member_id: int) -> HttpResponse:
    """Whether a member sees every customer or some, and which."""
    member = _member(request, member_id)
    if member.role not in LIMITABLE:
        raise Http404
    text = request.GET.get("q", "").replace("\x00", "").strip()[:200]
    chosen, others = [], None
    if member.limited_at:
        rows = member.chosen_customers.select_related("customer").order_by("customer__name_key", "customer")
        chosen = [row.customer for row in rows]
        free = request.member.customers.exclude(pk__in=[customer.pk for customer in chosen])
        others = customer_page(free, text=text, after=request.GET.get("after", ""), left_out=len(chosen))
    context = {"whose": member, "chosen": chosen, "page": others, "q": text}
    return render(request, "consent/team_customers.html", context)


@require_POST
@partner_required
@needs(Power.TEAM)
@freshly_signed_in("choose which customers somebody sees", back="team")
@as_owners_decide
def limit(request: PartnerRequest, member_id: int) -> HttpResponse:
    """Limit a member to some customers, or let them see all again."""
    member, answer = _member(request, member_id), request.POST.get("limited", "")
    if answer not in ("yes", "no") or member.role not in LIMITABLE:
        raise Http404
    name = member.user.get_short_name()
    if members.limit(member=member, limited=answer == "yes", by=request.member):
        sees = "sees no customer until you choose some" if answer == "yes" else "sees every customer"
        messages.success(request, f"{name} {sees} from now on.")
    return redirect("team_customers", member_id=member.pk)


@require_POST
@partner_required
@needs(Power.TEAM)
@freshly_signed_in("choose which customers somebody sees", back="team")
@as_owners_decide
def choose_customers(request: PartnerRequest, member_id: int) -> HttpResponse:
    """Add customers to what a limited member sees, and take others away."""
    member = _member(request, member_id)
    try:
        add, drop = ([UUID(tenant) for tenant in request.POST.getlist(name)] for name in ("add", "drop"))
        came, went = members.choose_customers(member=member, add=add, drop=drop, by=request.member)
    except (ValueError, members.CannotBeLimited) as unfit:
        raise Http404 from unfit
    except members.TooMany:
        text = f"Nothing was changed: {members.MOST_CHOSEN} customers can be chosen for one member. For more than that,"
        messages.error(request, f"{text} let them see every customer.")
    else:
        messages.success(request, f"{came} added, {went} taken away.")
    return redirect("team_customers", member_id=member.pk)


def _member(request: PartnerRequest, member_id: int) -> Member:
    return get_object_or_404(request.partner.members.select_related("user", "partner"), pk=member_id)


# --- Whoever is invited -----------------------------------------------------------------------------------------------
@never_cache
@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
@BEFORE_SIGN_IN
@leads_to_microsoft
@explains_refusals
def join(request: HttpRequest, link: str) -> HttpResponse:
    """Say who invites to what; a POST leads on to Microsoft. Looking never spends the invitation."""
    invitation = team.usable(link)
    if request.method == "POST":
        address = sign_in.begin(
            cloud=invitation.partner.cloud,
            browser=browser_secret(request, make=True),
            retry_path=reverse("join", args=[link]),
            invitation=invitation,
        )
        return HttpResponseRedirect(address)
    context = {
        "invitation": invitation,
        "partner": invitation.partner,
        "can": WORDS[invitation.role],
        "elsewhere": invitation.tenant_id != invitation.partner.tenant_id,
    }
    return render(request, "consent/join.html", context)
