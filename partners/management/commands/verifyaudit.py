"""Walks the audit chain: is every decision still there, as it was written down?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from partners.commands import PanelCommand
from tokens import audit_chain

MAC = 64  # letters


class Command(PanelCommand):
    """Exit code 0: nothing was changed; 1: something was, or nobody seals; 2: wrong use."""

    help = "Verify the audit: each line, each link and each anchor."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--logged", type=Path, help="a file with MACs of anchors from the log, one a line")

    def handle(self, *args: Any, logged: Path | None, **options: Any) -> None:
        verdict = audit_chain.verify(logged=self._macs(logged))
        self.answer(audit_chain.described(verdict), _lines(verdict), fine=verdict.intact)

    def _macs(self, logged: Path | None) -> list[str]:
        if logged is None:
            return []
        try:
            macs = logged.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            self.wrong_use(f"{logged} cannot be read; it holds one MAC a line, as the log says them.")
        if not all(len(mac) == MAC for mac in macs):
            self.wrong_use(f"{logged} holds something else than MACs of {MAC} letters.")
        return macs


def _lines(verdict: audit_chain.Verdict) -> list[str]:
    at = f", the newest of {verdict.anchored_at:%Y-%m-%d %H:%M:%S} UTC" if verdict.anchored_at else ""
    counted = f"{verdict.entries:,} lines under {verdict.anchors:,} anchors{at}"
    broken = verdict.first_broken
    if broken is None:
        return [f"Intact: {counted}. What came since is sealed within a minute."]
    where = "".join(
        (f", partner {broken.partner}" if broken.partner else "", f", line {broken.event}" if broken.event else "")
    )
    return [
        f"NOT INTACT: {broken.what}{where}.",
        counted,
        "Security acts: keep database and log as they are, and compare backups.",
    ]
