"""Partners and their work at the desk, to read only. Customers are the partner's own and are not shown here."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest

from partners.models import Job, Member, Partner, Run, User
from partners.standing import current_token, standing, with_tokens
from tokens.admin import ReadOnlyAdmin

admin.site.unregister(Group)  # staff's roles come from code, not from groups somebody edits


@admin.register(Partner)
class PartnerAdmin(ReadOnlyAdmin):
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
