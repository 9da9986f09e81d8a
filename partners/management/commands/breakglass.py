"""Opens the account for emergencies, for when nobody of the staff can come in; works without Microsoft and mail."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.urls import reverse

from partners import staff
from partners.commands import PanelCommand
from tokens import actors


class Command(PanelCommand):
    """Exit code 0: it is open, or ended; 1: there was nothing to end; 2: wrong use."""

    help = "Open the account for emergencies for an hour; its use raises an alarm. With --end the emergency is over."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", required=True, help="why; it goes into the audit")
        parser.add_argument("--end", action="store_true", help="end the account at once, and close its alarm")

    def handle(self, *args: Any, reason: str, **options: Any) -> None:
        reason, by = self.reason(reason), actors.command("breakglass")
        if options["end"]:
            if not staff.mend_glass(by=by, reason=reason):
                self.needs_a_person("There is no emergency to end.")
            self.answer({"ended": True}, ["The account for emergencies is closed, and so is its alarm."])
            return
        try:
            user, password, codes = staff.break_glass(by=by, reason=reason)
        except staff.Refused as why:
            self.wrong_use(str(why))
        url = f"{settings.CPV_BASE_URL}{reverse('admin:index')}"
        document = {
            "url": url, "username": user.username, "password": password, "codes": codes,
            "valid_until": user.valid_until,
        }  # fmt: skip
        lines = [
            f"{url}  (user {user.username}, password {password})",
            f"Codes for the second step, each good once: {' '.join(codes)}",
            f"Good until {user.valid_until:%H:%M} UTC. Shown once; its use raises an alarm.",
            "When it is over: manage.py breakglass --end --reason R",
        ]
        self.answer(document, lines)
