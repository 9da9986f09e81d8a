"""For a first look: the six digits that an authenticator app would show for a seeded member of staff."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django_otp.oath import TOTP
from django_otp.plugins.otp_totp.models import TOTPDevice

from partners.commands import PanelCommand


class Command(PanelCommand):
    """Exit code 0: the code; 1: both codes that count now were used, so wait; 2: no such person, or no DEBUG."""

    help = "Print the code that opens the desk next, for a first look under DEBUG."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", metavar="NAME", nargs="?", default="security", help="whose (default: security)")

    def handle(self, *args: Any, username: str, **options: Any) -> None:
        if not settings.DEBUG:
            self.wrong_use("Codes come from people's own apps; this is for a first look and needs DEBUG=true.")
        device = TOTPDevice.objects.filter(user__username=username, confirmed=True).order_by("pk").first()
        if device is None:
            self.wrong_use(f"{username} has no authenticator app here.")
        now = TOTP(device.bin_key, device.step, device.t0, device.digits, device.drift)
        now.time = time.time()
        ahead = max(0, device.last_t + 1 - now.t())  # a code counts once: after its use the next one is due
        if ahead > device.tolerance:
            self.needs_a_person(f"The codes that count now were used: wait {device.step} seconds.")
        now.drift += ahead
        code = f"{now.token():0{device.digits}}"
        self.answer({"username": username, "code": code}, [code])
