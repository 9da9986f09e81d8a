"""Partners and their work at the desk, to read only. Customers are the partner's own and are not shown here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from partners import lifecycle
from partners.models import Job, Member, Partner, Run, User
from partners.standing import current_token, standing, with_tokens
from tokens.admin import ReadOnlyAdmin

admin.site.unregister(Group)  # staff's roles come from code, not from groups somebody edits


class Reason(forms.Form):
    reason = forms.CharField(max_length=200, help_text="The partner and an auditor read it.")


@admin.register(Partner)
class PartnerAdmin(ReadOnlyAdmin):
    change_form_template = "admin/partners/partner.html"
    change_list_template = "admin/partners/partners.html"
    list_display = ("name", "tenant_id", "cloud", "state", "who_acts", "next_action", "connected_as", "customer_count")
    list_filter = ("cloud",)
    search_fields = ("name", "=tenant_id")
    ordering = ("name", "id")
    readonly_fields = ("state", "why", "who_acts", "next_action", "connected_as")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Partner]:
        present = Count("customers", filter=Q(customers__removed_at=None))
        return with_tokens(super().get_queryset(request)).annotate(customers_present=present)

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

    @admin.display(description="customers")
    def customer_count(self, partner: Any) -> int:
        return int(partner.customers_present)

    # --- Stops for security -----------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        own = [
            path("stop-everything/", self.admin_site.admin_view(self.stop_everything), name="stop_everything"),
            path("<int:pk>/stop/", self.admin_site.admin_view(self.stop), name="stop_partner"),
            path("<int:pk>/lift/", self.admin_site.admin_view(self.lift), name="lift_stop"),
        ]
        return own + super().get_urls()

    def stop(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Stop one partner, once somebody has said why."""
        partner = get_object_or_404(Partner, pk=pk)

        def act(reason: str) -> str:
            lifecycle.kill(partner=partner, by=request.user.as_actor(), reason=reason)  # type: ignore[union-attr]
            return f"{partner.name} is stopped: no call leaves any more, and a worker disables its secrets now."

        return self._with_reason(request, act, f"Stop {partner.name} for security", STOPS_ONE, partner)

    def lift(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Let a stopped partner connect again."""
        partner = get_object_or_404(Partner, pk=pk)

        def act(reason: str) -> str:
            lifted = lifecycle.unkill(partner=partner, by=request.user.as_actor(), reason=reason)  # type: ignore[union-attr]
            return f"{partner.name} may connect again." if lifted else f"{partner.name} was not stopped."

        return self._with_reason(request, act, f"Lift the stop of {partner.name}", LIFTS, partner)

    def stop_everything(self, request: HttpRequest) -> HttpResponse:
        """Stop all work for all partners, once somebody has said why."""

        def act(reason: str) -> str:
            lifecycle.kill_all(by=request.user.as_actor(), reason=reason)  # type: ignore[union-attr]
            return "Everything is stopped: no call leaves for anybody, and workers disable all secrets now."

        return self._with_reason(request, act, "Stop everything", STOPS_ALL, None)

    def _with_reason(
        self, request: HttpRequest, act: Callable[[str], str], title: str, what: list[str], partner: Partner | None
    ) -> HttpResponse:
        """A page that says what will happen and asks why; the POST does it and leads back."""
        if not request.user.has_perm("partners.kill_partner"):
            raise PermissionDenied
        form = Reason(request.POST or None)
        if request.method == "POST" and form.is_valid():
            messages.success(request, act(form.cleaned_data["reason"]))
            there = ("admin:partners_partner_change", partner.pk) if partner else ("admin:partners_partner_changelist",)
            return redirect(*there)
        context = self.admin_site.each_context(request) | {
            "title": title, "what": what, "form": form, "partner": partner, "opts": self.model._meta,
        }  # fmt: skip
        return TemplateResponse(request, "admin/partners/stop.html", context)


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


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    list_display = ("started_at", "partner", "kind", "outcome", "pages", "seen", "created", "updated", "error_code")
    list_select_related = ("partner", "job")
    list_filter = ("outcome",)
    search_fields = ("partner__name", "=partner__tenant_id", "error_code", "=correlation_id")
    ordering = ("-id",)

    @admin.display(description="kind")
    def kind(self, run: Run) -> str:
        return run.job.kind


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ("partner", "kind", "next_run_at", "leased_until", "failures", "paused_at")
    list_select_related = ("partner",)
    list_filter = ("kind",)
    search_fields = ("partner__name", "=partner__tenant_id")
    ordering = ("-id",)


@admin.register(Member)
class MemberAdmin(ReadOnlyAdmin):
    list_display = ("user", "partner", "role", "created_at")
    list_select_related = ("user", "partner")
    list_filter = ("role",)
    search_fields = ("user__upn", "partner__name", "=partner__tenant_id")
    ordering = ("-id",)


@admin.register(User)
class UserAdmin(ReadOnlyAdmin):
    list_display = ("username", "name", "is_staff", "is_active", "last_login")
    list_filter = ("is_staff", "is_active")
    search_fields = ("username", "upn", "name")
    ordering = ("-id",)
    fields = ("username", "upn", "name", "cloud", "tid", "oid", "is_staff", "is_active", "last_login", "created_at")
    readonly_fields = fields
