"""Stands where Django's command of this name would be: it would make an account past roles, enrolment and audit."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from partners.commands import PanelCommand


class Command(PanelCommand):
    help = "Refused: `appoint` makes staff, `breakglass` is for emergencies."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ignored", nargs="*")

    def handle(self, *args: Any, **options: Any) -> None:
        self.wrong_use(
            "There are no superusers here: `manage.py appoint NAME --role admin --reason R` makes the first of the "
            "staff, and `manage.py breakglass --reason R` opens the desk in an emergency."
        )
