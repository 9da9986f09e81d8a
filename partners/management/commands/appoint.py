"""Gives somebody a place at the desk; the way to the first of the staff."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from partners import second_factor, staff
from partners.commands import PanelCommand
from partners.models import User
from tokens import actors


class Command(PanelCommand):
    """Exit code 0: appointed; 2: the name is none, or taken."""

    help = "Appoint one of the vendor's staff, or give one another role; prints the link of whoever has to enrol."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", metavar="NAME", help="small letters, digits, dots, hyphens")
        parser.add_argument("--role", required=True, choices=User.StaffRole.values)
        parser.add_argument("--reason", required=True, help="why; it goes into the audit")

    def handle(self, *args: Any, username: str, role: str, reason: str, **options: Any) -> None:
        try:
            user = staff.appoint(username=username, role=role, by=actors.command("appoint"), reason=self.reason(reason))
        except staff.Refused as why:
            self.wrong_use(str(why))
        url = None if second_factor.is_enrolled(user) else staff.welcome(user)
        lines = [f"{username} is {role} at the desk."]
        if url:
            lines += [f"To choose a password and enrol a second factor, once, within a day: {url}"]
        self.answer({"username": username, "role": role, "url": url}, lines)
