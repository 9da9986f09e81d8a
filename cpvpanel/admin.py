"""What a library keeps and the desk shows in a form of ours: wrong passwords at the desk's door."""

from __future__ import annotations

from axes.models import AccessAttempt
from django.contrib import admin

from tokens.admin import ReadOnlyAdmin


@admin.register(AccessAttempt)
class WrongPasswordAdmin(ReadOnlyAdmin):
    list_display = ("attempt_time", "username", "ip_address", "failures_since_start")
    search_fields = ("username", "ip_address")
    ordering = ("-attempt_time",)
    fields = ("attempt_time", "username", "ip_address", "user_agent", "failures_since_start")
