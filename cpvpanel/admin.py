"""What a library keeps and the desk shows in a form of ours: wrong passwords at the desk's door."""

from __future__ import annotations

from axes.models import AccessAttempt
from django.contrib import admin

from tokens.long_lists import ReadOnlyAdmin


@admin.register(AccessAttempt)
class WrongPasswordAdmin(ReadOnlyAdmin):
    list_display = ("attempt_time", "username", "ip_address", "failures_since_start")
    finds_newest = ("username", "ip_address")
    ordering = ("-id",)
    fields = ("attempt_time", "username", "ip_address", "user_agent", "failures_since_start")
