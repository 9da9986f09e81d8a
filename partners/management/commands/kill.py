"""Stops one partner, or everything, at once; and proves it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from partners import lifecycle
from partners.commands import PanelCommand
from tokens import actors


class Command(PanelCommand):
    """Exit code 0: every living process stopped and the secrets are disabled; 1: somebody must look; 2: wrong use."""

    help = "Stop every call for a partner (or for all) at once, and have the stored secrets disabled."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant_id", metavar="TID", nargs="?", help="the partner's tenant id")
        parser.add_argument("--all", action="store_true", help="stop everything, for every partner")
        parser.add_argument("--reason", required=True, help="why; it goes into the audit")

    def handle(self, *args: Any, tenant_id: str | None, reason: str, **options: Any) -> None:
        if bool(tenant_id) == options["all"]:
            self.wrong_use("Name one partner's tenant id, or --all; not both and not neither.")
        reason = self.reason(reason)
        by = actors.command("kill")
        if tenant_id:
            halt = lifecycle.kill(partner=self.partner(tenant_id), by=by, reason=reason)
        else:
            halt = lifecycle.kill_all(by=by, reason=reason)
        proof = lifecycle.proof_of(halt)
        document = {
            "stopped": [str(partner.tenant_id) for partner in proof.stopped],
            "calls_stopped_s": proof.calls_stopped_s,
            "secrets_disabled_s": proof.secrets_disabled_s,
            "silent_workers": proof.silent_workers,
        }
        self.answer(document, _lines(proof), fine=proof.is_whole)


def _lines(proof: lifecycle.Proof) -> list[str]:
    lines = [f"Stopped: {', '.join(str(partner) for partner in proof.stopped) or 'there is no partner'}"]
    if proof.calls_stopped_s is None:
        lines.append(f"Not confirmed by: {', '.join(proof.silent_workers)}. Each stops by itself; end what hangs.")
    else:
        lines.append(f"No call leaves any more: after {proof.calls_stopped_s} s")
    if proof.secrets_disabled_s is None:
        lines.append("The secrets are not disabled yet: a worker does that, see that one runs.")
    else:
        lines.append(f"Every stored secret is disabled: after {proof.secrets_disabled_s} s")
    return lines
