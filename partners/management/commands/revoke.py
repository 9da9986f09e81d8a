"""Ends the vendor's access to a partner."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from partners import lifecycle
from partners.commands import PanelCommand
from partners.standing import current_token, standing
from tokens import actors


class Command(PanelCommand):
    """Exit code 0: ended now, or earlier; 2: wrong use."""

    help = "End the vendor's access to a partner; a worker disables the stored secrets. A new consent opens it again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant_id", metavar="TID", help="the partner's tenant id")
        parser.add_argument("--reason", required=True, help="why; it goes into the audit")

    def handle(self, *args: Any, tenant_id: str, reason: str, **options: Any) -> None:
        partner = self.partner(tenant_id)
        lifecycle.revoke(partner=partner, by=actors.command("revoke"), reason=self.reason(reason))
        stands = standing(partner, current_token(partner))
        self.answer(
            {"partner": str(partner.tenant_id), "state": stands.state, "since": stands.since},
            [f"{partner.name}: {stands.title} since {stands.since:%Y-%m-%d %H:%M} UTC."],
        )
