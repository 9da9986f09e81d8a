"""The strong-room at the desk: pointers, uses and decisions, to read only. There is no token here to show."""

from __future__ import annotations

import json
from typing import ClassVar

from django.contrib import admin
from django.db.models import Model, Q
from django.http import HttpRequest

from tokens import audit
from tokens.long_lists import ReadOnlyAdmin
from tokens.models import Alarm, AuditEvent, Halt, RefreshToken, SecretVersion, TokenUse, UnknownAnswer


class SecretVersionInline(admin.TabularInline):  # type: ignore[type-arg]
    model = SecretVersion
    fields = ("version", "seen_at", "disabled_at")
    readonly_fields = fields
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(RefreshToken)
class RefreshTokenAdmin(ReadOnlyAdmin):
    list_display = (
        "partner",
        "generation",
        "upn",
        "secret_name",
        "stored_at",
        "last_success_at",
        "refusal",
        "is_current",
    )
    list_select_related = ("partner",)
    list_filter = ("refusal",)
    finds, finds_of, finds_newest = ("secret_name",), ("partner",), ("upn",)
    ordering = ("-id",)
    inlines: ClassVar = [SecretVersionInline]

    @admin.display(boolean=True, description="in force")
    def is_current(self, token: RefreshToken) -> bool:
        return token.stored_at is not None and token.superseded_at is None


@admin.register(TokenUse)
class TokenUseAdmin(ReadOnlyAdmin):
    list_display = (
        "at",
        "partner",
        "purpose",
        "audience",
        "outcome",
        "code",
        "lives_s",
        "actor_label",
        "correlation_id",
    )
    list_select_related = ("partner",)
    list_filter = ("outcome", "audience", "purpose")
    finds, finds_of, finds_newest = ("correlation_id",), ("partner",), ("code",)
    ordering = ("-id",)
    exclude = ("customer_tenant",)


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """Here nobody sees what a line says about a customer, and no search finds it by that."""

    list_display = ("at", "partner", "action", "actor_label", "about")
    list_select_related = ("partner",)
    list_filter = ("action", "actor_kind")
    finds_of, finds_newest = ("partner",), ("action", "object", "actor_label")
    ordering = ("-id",)
    fields = (
        "at", "partner", "action", "actor_kind", "actor_id", "actor_label", "about", "details", "request_id"
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description="object", empty_value="")
    def about(self, event: AuditEvent) -> str:
        return audit.told(event, sees_customers=False).object

    @admin.display(description="detail")
    def details(self, event: AuditEvent) -> str:
        detail = audit.told(event, sees_customers=False).detail
        return json.dumps(detail, ensure_ascii=False, sort_keys=True)

    def found_in(self, name: str, text: str) -> Q:
        found = super().found_in(name, text)
        return found & ~audit.NAME_CUSTOMERS if name == "object" else found


@admin.register(Halt)
class HaltAdmin(ReadOnlyAdmin):
    list_display = ("started_at", "started_by", "reason", "ended_at", "ended_by")
    ordering = ("-id",)


@admin.register(Alarm)
class AlarmAdmin(ReadOnlyAdmin):
    list_display = ("opened_at", "kind", "cloud", "partner", "code", "times", "last_at", "closed_at", "trace_id")
    list_select_related = ("partner",)
    list_filter = ("kind", "cloud")
    ordering = ("-id",)


@admin.register(UnknownAnswer)
class UnknownAnswerAdmin(ReadOnlyAdmin):
    list_display = ("code", "suberror", "taken_for", "times", "first_at", "last_at", "trace_id", "correlation_id")
    finds_newest = ("code", "trace_id", "correlation_id")
    ordering = ("-last_at",)
