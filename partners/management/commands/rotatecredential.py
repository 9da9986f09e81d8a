"""Show what our application proves itself with, try it, and say what comes next."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from partners import certificates
from partners.commands import PanelCommand
from tokens import actors, outside
from tokens.clouds import CLOUDS


class Command(PanelCommand):
    """Exit code 0: what is configured is accepted and ends in more than 30 days; 1: see `next`; 2: nothing to try."""

    help = "Try our application's certificates at Microsoft, touching no partner, and say what to do next."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--cloud", choices=list(CLOUDS), help="one cloud; without it, each that is set up")

    def handle(self, *args: Any, cloud: str | None, **options: Any) -> None:
        clouds = certificates.configured_clouds(cloud)
        if not clouds:
            lacking = ", ".join(outside.lacking(cloud or "global"))
            self.wrong_use(f"{cloud or 'no cloud'} is set up here: set {lacking} first")
        documents = [self._tried(name) for name in clouds]
        lines = [line for document in documents for line in _lines(document)]
        self.answer(documents, lines, fine=all(document["fine"] for document in documents))

    def _tried(self, cloud: str) -> dict[str, Any]:
        try:
            return certificates.tried(cloud, by=actors.command("rotatecredential"))
        except ValueError as wrong:
            self.wrong_use(f"{cloud}: {wrong}")


def _lines(document: dict[str, Any]) -> list[str]:
    return [f"{document['cloud']}:", *(f"  {line}" for line in certificates.in_words(document))]
