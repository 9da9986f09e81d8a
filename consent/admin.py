"""Consents and invitations at the desk, to read only. Links, states and bindings are hashes and stay out of sight."""

from django.contrib import admin

from consent.models import Consent, ConsentAttempt, Invitation, Notice
from tokens.admin import ReadOnlyAdmin


@admin.register(Consent)
class ConsentAdmin(ReadOnlyAdmin):
    list_display = ("at", "partner", "upn", "role", "terms_version")
    list_select_related = ("partner",)
    search_fields = ("partner__name", "=partner__tenant_id", "upn")
    ordering = ("-id",)


@admin.register(Invitation)
class InvitationAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "partner", "email", "expires_at", "used_at", "created_by")
    list_select_related = ("partner",)
    search_fields = ("partner__name", "=partner__tenant_id", "email")
    ordering = ("-id",)
    exclude = ("link_hash",)


@admin.register(ConsentAttempt)
class ConsentAttemptAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "kind", "partner", "cloud", "claimed_at", "outcome")
    list_select_related = ("partner",)
    list_filter = ("kind", "outcome")
    ordering = ("-id",)
    exclude = ("state_hash", "browser_hash", "sealed_flow")


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "partner", "kind", "to", "sent_at", "tries", "dropped_at")
    list_select_related = ("partner",)
    list_filter = ("kind",)
    search_fields = ("partner__name", "=partner__tenant_id", "to")
    ordering = ("-id",)
