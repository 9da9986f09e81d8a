"""A way to a fresh consent for a partner."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.urls import reverse

from consent import invitations
from partners.commands import PanelCommand
from partners.standing import current_token, standing
from tokens import actors


class Command(PanelCommand):
    """Exit code 0: the link; 1: the partner is stopped by us; 2: wrong use."""

    help = "A fresh consent link; where a connection works, the page where an owner renews it and sees what changes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant_id", metavar="TID", help="the partner's tenant id")

    def handle(self, *args: Any, tenant_id: str, **options: Any) -> None:
        partner = self.partner(tenant_id)
        stands = standing(partner, current_token(partner))
        if stands.is_live and not stands.can_reconnect:
            url = f"{settings.CPV_BASE_URL}{reverse('connection')}"
            document = {"partner": str(partner.tenant_id), "url": url, "expires_at": None}
            self.answer(document, [url, f"{partner.name} is connected: an owner renews there, and sees what changes."])
            return
        if not stands.can_reconnect:
            self.needs_a_person(f"{partner.name}: {stands.title}. {stands.action}")
        invitation, url = invitations.invite(partner=partner, by=actors.command("renew"))
        document = {"partner": str(partner.tenant_id), "url": url, "expires_at": invitation.expires_at.isoformat()}
        self.answer(document, [url, f"for {partner.name}, good until {invitation.expires_at:%Y-%m-%d %H:%M} UTC"])
