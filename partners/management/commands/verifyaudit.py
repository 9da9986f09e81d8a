"""Walks the audit chain: is every decision still there, as it was written down?"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from partners.commands import PanelCommand
from tokens import actors, alarms, audit, audit_chain

# Both forms a log has (JSON, key=value), whatever a collector writes before them; or a MAC alone.
LOGGED = re.compile(r"audit anchor.*\bmac\b|\bmac\b.*audit anchor")
MAC = re.compile(r"\bmac\b\W{1,5}([0-9a-f]{64})\b")
ALONE = re.compile(r"[0-9a-f]{64}")


class Command(PanelCommand):
    """Exit code 0: nothing was changed; 1: something was, or nobody seals; 2: wrong use."""

    help = "Verify the audit: each line, each link and each anchor."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--log", metavar="FILE", help="the workers' log, as it is; - reads it from stdin")
        parser.add_argument("--looked-into", action="store_true", help="close the alarm that the audit was changed")
        parser.add_argument("--reason", default="", help="with --looked-into: what it was; it goes into the audit")

    def handle(self, *args: Any, log: str | None, looked_into: bool, reason: str, **options: Any) -> None:
        if looked_into:
            self._close(self.reason(reason))
            return
        logged = self._macs(log) if log is not None else set()
        verdict = audit_chain.verify(logged=logged)
        lines = [*_lines(verdict), *([f"Compared with {len(logged):,} anchors of the log."] if log is not None else [])]
        self.answer(audit_chain.described(verdict) | {"logged": len(logged)}, lines, fine=verdict.intact)

    def _macs(self, log: str) -> set[str]:
        try:
            if log == "-":
                return self._found(sys.stdin)
            with Path(log).open(encoding="utf-8", errors="replace") as lines:
                return self._found(lines)
        except OSError:
            self.wrong_use(f"{log} cannot be read.")

    def _found(self, lines: Iterable[str]) -> set[str]:
        """The MACs of all anchors; a log without any would prove nothing."""
        macs = set()
        for line in map(str.strip, lines):
            found = MAC.search(line) if LOGGED.search(line) else None
            if found or ALONE.fullmatch(line):
                macs.add(found[1] if found else line)
        if not macs:
            self.wrong_use('This log has no anchor: its lines say "audit anchor", and workers write them.')
        return macs

    def _close(self, reason: str) -> None:
        if not alarms.close_audit():
            self.needs_a_person("There is no such alarm.")
        audit.record("audit.looked_into", actor=actors.command("verifyaudit"), reason=reason)
        self.answer(
            {"closed": True}, ["The alarm is closed. What is missing stays missing: verifyaudit goes on saying so."]
        )


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
