"""Mint an access token and explain it: claims and expiry, never the token."""

from __future__ import annotations

import uuid
from argparse import ArgumentParser
from typing import Any

from partners.commands import PanelCommand
from tokens import actors, broker
from tokens.clouds import Audience
from tokens.errors import Failure
from tokens.models import RefreshToken


class Command(PanelCommand):
    help = "Test a partner's connection for one audience and say what came; no token is ever shown."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", help="the partner's tenant id")
        parser.add_argument("--audience", required=True, choices=[a.value for a in Audience])
        parser.add_argument("--reason", required=True, help="why; it goes into the partner's audit")
        parser.add_argument("--customer", default="", help="a customer's tenant id, to ask there instead")

    def handle(self, *args: Any, **options: Any) -> None:
        self.needs_the_vault()
        reason = self.reason(options["reason"])
        partner = self.partner(options["tenant"])
        token = RefreshToken.objects.current().select_related("partner").filter(partner=partner).first()
        if token is None:
            self.needs_a_person(f"{partner.name} has not connected yet")
        audience = Audience(options["audience"])
        try:
            customer = uuid.UUID(options["customer"]) if options["customer"] else None
        except ValueError:
            self.wrong_use("--customer is not a GUID")
        answer: dict[str, Any] = {"ok": True, "audience": audience, "expires_at": None, "mfa": None, "scopes": []}
        try:
            told = broker.explain(token, audience, reason=reason, actor=actors.command("token"), tenant=customer)
        except Failure as failure:
            answer |= {"ok": False, "error": f"{failure.code}: {failure}" if failure.code else str(failure)}
            self.answer(answer, [f"refused: {answer['error']}"], fine=False)
            return
        answer |= {"expires_at": told.expires_at.isoformat(), "mfa": told.mfa, "scopes": told.scopes, "error": None}
        self.answer(answer, [f"ok until {told.expires_at:%H:%M:%S} UTC, MFA {told.mfa}, {', '.join(told.scopes)}"])
