"""
Partners and their work at the desk, to read; and what may be done for them, each act with its role, reason and audit.

Customers are the partner's own and are not shown here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse, reverse_lazy

from partners import lifecycle, lifting, presence
from partners.desk_access import borrowed_access
from partners.desk_acts import Doer, NotDone, Page, PartnersReason, Reason, confirmed
from partners.desk_certificates import try_certificates
from partners.desk_roles import Act, may
from partners.job_admin import JobAdmin, RunAdmin
from partners.models import Job, LiftRequest, Member, Partner, Run, User
from partners.staff_admin import UserAdmin
from partners.standing import current_token, standing, with_tokens
from tokens.long_lists import ReadOnlyAdmin


@admin.register(Partner)
class PartnerAdmin(ReadOnlyAdmin):
    change_form_template = "admin/partners/partner.html"
    change_list_template = "admin/partners/partners.html"
    list_display = ("name", "tenant_id", "cloud", "state", "who_acts", "next_action", "connected_as", "customer_count")
    list_filter = ("cloud",)
    finds, finds_parts = ("tenant_id",), ("name",)
    ordering = ("name", "id")
    readonly_fields = ("state", "why", "who_acts", "next_action", "connected_as")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Partner]:
        read = Run.objects.filter(partner=OuterRef("pk"), job__kind="customers", outcome=Run.Outcome.DONE)
        listed = Subquery(read.order_by("-started_at").values("seen")[:1])
        return with_tokens(super().get_queryset(request)).annotate(customers_listed=listed)

    @admin.display(description="state")
    def state(self, partner: Partner) -> str:
        return standing(partner, current_token(partner)).title

    @admin.display(description="why")
    def why(self, partner: Partner) -> str:
        stands = standing(partner, current_token(partner))
        return f"{stands.reason} (reference {stands.code})" if stands.code else stands.reason

    @admin.display(description="who acts")
    def who_acts(self, partner: Partner) -> str:
        return standing(partner, current_token(partner)).owner

    @admin.display(description="next action")
    def next_action(self, partner: Partner) -> str:
        return standing(partner, current_token(partner)).action

    @admin.display(description="connected as", empty_value="nobody yet")
    def connected_as(self, partner: Partner) -> str | None:
        token = current_token(partner)
        return token.upn if token else None

    @admin.display(description="customers at the last sync", empty_value="not read yet")
    def customer_count(self, partner: Any) -> int | None:
        """How many Microsoft listed; the customers themselves are not read here."""
        return partner.customers_listed  # type: ignore[no-any-return]

    # --- Stops for security -----------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        own = [
            path("stop-everything/", self.admin_site.admin_view(stop_everything), name="stop_everything"),
            path("certificates/", self.admin_site.admin_view(try_certificates), name="try_certificates"),
            path("lift-everything/ask/", self.admin_site.admin_view(ask_to_lift), name="ask_to_lift"),
            path("lift-everything/agree/", self.admin_site.admin_view(agree_to_lift), name="agree_to_lift"),
            path("<int:pk>/stop/", self.admin_site.admin_view(stop), name="stop_partner"),
            path("<int:pk>/access/", self.admin_site.admin_view(borrowed_access), name="borrowed_access"),
            path("<int:pk>/lift/", self.admin_site.admin_view(lift), name="lift_stop"),
        ]
        return own + super().get_urls()


PARTNERS = reverse_lazy("admin:partners_partner_changelist")


def _of(partner: Partner) -> str:
    return reverse("admin:partners_partner_change", args=[partner.pk])


def stop(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop one partner, once somebody has said why."""
    partner = get_object_or_404(Partner, pk=pk)

    def do(user: User, said: dict[str, Any]) -> str:
        lifecycle.kill(partner=partner, by=user.as_actor(), reason=said["reason"])
        return f"{partner.name} is stopped: no call leaves any more, and a worker disables its secrets now."

    title = f"Stop {partner.name} for security"
    return confirmed(request, Page(Act.STOP, title, STOPS_ONE, _of(partner), PartnersReason), do)


def lift(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a stopped partner connect again."""
    partner = get_object_or_404(Partner, pk=pk)

    def do(user: User, said: dict[str, Any]) -> str:
        lifted = lifecycle.unkill(partner=partner, by=user.as_actor(), reason=said["reason"])
        return f"{partner.name} may connect again." if lifted else f"{partner.name} was not stopped."

    title = f"Lift the stop of {partner.name}"
    return confirmed(request, Page(Act.STOP, title, LIFTS, _of(partner), PartnersReason), do)


def stop_everything(request: HttpRequest) -> HttpResponse:
    """Stop all work for all partners, once somebody has said why."""

    def do(user: User, said: dict[str, Any]) -> str:
        lifecycle.kill_all(by=user.as_actor(), reason=said["reason"])
        return "Everything is stopped: no call leaves for anybody, and workers disable all secrets now."

    return confirmed(request, Page(Act.STOP, "Stop everything", STOPS_ALL, str(PARTNERS)), do)


class Code(forms.Form):
    code = forms.CharField(
        max_length=40,
        label="Your code",
        help_text="The newest six digits from your authenticator app, or one of your recovery codes.",
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code"}),
    )


class Read(forms.Form):
    read = forms.IntegerField(widget=forms.HiddenInput)  # the request that is before the reader's eyes


class ReadAndCode(Read, Code):
    """What the second of two people sends."""


class ReasonAndCode(Reason, Code):
    field_order = ("reason", "code")


def _is_from_entra(request: HttpRequest) -> bool:
    return isinstance(request.user, User) and request.user.is_from_entra


def _at_microsoft(request: HttpRequest) -> bool:
    """Whether somebody who has no code here proved who they are at Microsoft within the last ten minutes."""
    return _is_from_entra(request) and presence.is_fresh(request.session)


def _with_proof(request: HttpRequest, page: Page, do: Doer, *, without_code: type[forms.Form]) -> HttpResponse:
    """The page with its form, which asks for a code; who has none comes to it by a proof at Microsoft."""
    if not _is_from_entra(request):
        return confirmed(request, page, do)
    if may(request.user, page.act) and not _at_microsoft(request):
        return presence.ask_anew(request, doing=page.title, back=request.path)
    return confirmed(request, replace(page, form=without_code), do)


def ask_to_lift(request: HttpRequest) -> HttpResponse:
    """The first of two people."""

    def do(user: User, said: dict[str, Any]) -> str:
        try:
            asked = lifting.request(by=user, at_microsoft=_at_microsoft(request), **said)
        except lifting.Refused as why:
            raise NotDone(str(why)) from why
        return f"Another one of security must agree until {asked.ends_at:%H:%M} UTC."

    title = "Ask to lift the stop of everything"
    page = Page(Act.LIFT_ALL, title, ASKS, str(PARTNERS), ReasonAndCode)
    return _with_proof(request, page, do, without_code=Reason)


def agree_to_lift(request: HttpRequest) -> HttpResponse:
    """The second."""
    asked = lifting.waiting_for(request.user) if isinstance(request.user, User) else None
    if asked is None:
        said = "Nobody else asks for it now."
    else:
        said = f"{asked.asked_by} asked at {asked.asked_at:%H:%M} UTC: {asked.reason}"

    def do(user: User, said: dict[str, Any]) -> str:
        try:
            lifting.approve(by=user, at_microsoft=_at_microsoft(request), **said)
        except lifting.Refused as why:
            raise NotDone(str(why)) from why
        return "The stop of everything is lifted. Partners connect anew, each for itself."

    title = "Agree to lift the stop of everything"
    page = Page(Act.LIFT_ALL, title, [said, *AGREES], str(PARTNERS), ReadAndCode, {"read": asked and asked.pk})
    return _with_proof(request, page, do, without_code=Read)


STOPS_ONE = [
    "No call leaves for this partner any more, from the moment you press the button, whatever runs.",
    "A worker disables every secret we hold for it within seconds, and looks once more two minutes later.",
    "The partner sees that it is stopped. To go on it needs your lift and a new consent.",
]
LIFTS = ["The partner may connect again. Its secrets stay disabled: work goes on after a new consent."]
STOPS_ALL = [
    "No call leaves for any partner any more, from the moment you press the button, whatever runs.",
    "Workers disable every secret we hold. Every partner will have to consent anew.",
    "Two different people will have to lift it.",
]
ASKS = [
    "Nothing, until another one of security agrees within an hour; here, or with `unkill --all approve`.",
    "Then partners may connect again. What was disabled stays disabled.",
]
AGREES = [
    "Partners may connect again. What was disabled stays disabled: work goes on after new consents.",
    "The audit names both of you.",
]


@admin.register(Member)
class MemberAdmin(ReadOnlyAdmin):
    list_display = ("user", "partner", "role", "created_at")
    list_select_related = ("user", "partner")
    list_filter = ("role",)
    finds_of = ("partner", "user")
    ordering = ("-id",)


@admin.register(LiftRequest)
class LiftRequestAdmin(ReadOnlyAdmin):
    list_display = ("asked_at", "halt", "asked_by", "reason", "approved_by", "approved_at")
    list_select_related = ("halt", "asked_by", "approved_by")
    ordering = ("-id",)


admin.site.register(User, UserAdmin)
admin.site.register(Job, JobAdmin)
admin.site.register(Run, RunAdmin)
