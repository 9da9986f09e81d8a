"""A way to a fresh consent for a partner."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from consent import invitations
from partners.commands import PanelCommand
from tokens import actors


class Command(PanelCommand):
    """Exit code 0: the link; 1: the partner is stopped by us; 2: wrong use."""

    help = "A fresh consent link; where a connection works, what comes of it waits until an owner has said yes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant_id", metavar="TID", help="the partner's tenant id")
        parser.add_argument(
            "--owner", action="store_true", help="whoever agrees becomes an owner: where no owner can sign in any more"
        )
        parser.add_argument("--reason", default="", help="why; it goes into the audit, and --owner needs one")

    def handle(self, *args: Any, tenant_id: str, owner: bool, reason: str, **options: Any) -> None:
        partner = self.partner(tenant_id)
        reason = self.reason(reason) if owner or reason else ""
        try:
            invitation, url = invitations.invite_again(
                partner=partner, by=actors.command("renew"), reason=reason, makes_owner=owner
            )
        except invitations.NoLinkNow as why:
            self.needs_a_person(str(why))
        lines = [url, f"for {partner.name}, good until {invitation.expires_at:%Y-%m-%d %H:%M} UTC"]
        if owner:
            lines.append("Whoever agrees becomes an owner: hand it to nobody else, and the activity tells of it.")
        if invitation.renews:
            lines.append("What works goes on working until an owner has seen what would change and said yes.")
        document = {"partner": str(partner.tenant_id), "url": url, "expires_at": invitation.expires_at.isoformat()}
        self.answer(document, lines)
