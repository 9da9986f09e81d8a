"""Lets a partner that was stopped for security connect again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from partners import lifecycle
from partners.commands import PanelCommand
from partners.standing import current_token, standing
from tokens import actors


class Command(PanelCommand):
    """Exit code 0: lifted; 1: it was not stopped; 2: wrong use."""

    help = "Lift a partner's stop. Its secrets stay disabled: work goes on after a new consent."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant_id", metavar="TID", nargs="?", help="the partner's tenant id")
        parser.add_argument("--all", action="store_true", help="not yet: it will take two people")
        parser.add_argument("--reason", required=True, help="why; it goes into the audit")

    def handle(self, *args: Any, tenant_id: str | None, reason: str, **options: Any) -> None:
        if options["all"]:
            self.wrong_use("Two different people will lift a stop of everything; this release cannot do that yet.")
        if not tenant_id:
            self.wrong_use("Name the partner's tenant id.")
        partner = self.partner(tenant_id)
        if not lifecycle.unkill(partner=partner, by=actors.command("unkill"), reason=self.reason(reason)):
            self.needs_a_person(f"{partner.name} was not stopped for security; `manage.py partners` tells its state.")
        stands = standing(partner, current_token(partner))
        self.answer(
            {"partner": str(partner.tenant_id), "state": stands.state},
            [f"{partner.name}: {stands.title}. {stands.reason} {stands.action}"],
        )
