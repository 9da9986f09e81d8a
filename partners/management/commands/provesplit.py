"""Proves that custody is split: each part alone is tried, and must be refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from partners.commands import PanelCommand
from tokens import actors, split
from tokens.gate import Stopped
from tokens.models import RefreshToken


class Command(PanelCommand):
    """Exit code 0: each part alone was refused; 1: one was not, or nothing was proved; 2: unknown tenant, or role."""

    help = "Try the database's rows, the vault's content and the application's credential, each alone. All must fail."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant_id", nargs="?", metavar="TID", help="a connected partner (default: the first)")

    def handle(self, *args: Any, tenant_id: str | None, **options: Any) -> None:
        self.needs_the_vault()
        token = self._token(tenant_id)
        try:
            attempts = split.prove(token, actor=actors.command("provesplit"))
        except Stopped:
            self.needs_a_person(f"{token.partner.name} is not connected now; `manage.py partners` says why.")
        held = all(attempt.refused for attempt in attempts)
        document = {
            "tenant_id": token.partner.tenant_id,
            "name": token.partner.name,
            "held": held,
            "attempts": [asdict(attempt) for attempt in attempts],
        }
        self.answer(document, [line for attempt in attempts for line in _lines(attempt)], fine=held)

    def _token(self, tenant_id: str | None) -> RefreshToken:
        tokens = RefreshToken.objects.select_related("partner").order_by("partner_id")
        if tenant_id is None:
            token = tokens.live(timezone.now()).first()
        else:
            token = tokens.current().filter(partner=self.partner(tenant_id)).first()
        if token is None:
            self.needs_a_person("Nobody is connected there, so there is nothing to try; `manage.py partners` says why.")
        return token


def _lines(attempt: split.Attempt) -> list[str]:
    verdict = "refused    " if attempt.refused else "NOT REFUSED"
    lines = [f"{verdict}  {attempt.holds} alone: {attempt.tried}; {attempt.answered}"]
    return lines if attempt.refused else [*lines, f"             {attempt.owner} acts: {attempt.action}"]
