"""Show what our application proves itself with, try it, and say what comes next."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from partners.commands import PanelCommand
from tokens import actors, drill, expiry, outside
from tokens.clouds import CLOUDS
from tokens.drill import Result, Tried

MAKE = "Make a new certificate, add its public part to the app registration, and set it as {next}."
NEXT_STEPS = {
    "all": "Move {next} into {first} and restart everything; when all is well, take the old one off the registration.",
    "rolled": "{first} is refused and {next} carries the work: move {next} into {first} and restart everything.",
    "not yet": "{next} is refused: add its public part to the app registration, wait some minutes, run this again.",
    "none": "Nothing is accepted, and no partner can be served: add the public part of {first} to the registration.",
    "no trust": "The machine's identity is refused: its object id belongs on the federated credential.",
    "unclear": "Entra's answers say nothing about what was tried: look the codes up in docs/errors.md, run this again.",
    "one": "Nothing to do now. A month before {first} ends, make another and set it as {next}.",
    "fine": "Nothing to do.",
}


class Command(PanelCommand):
    """Exit code 0: what is configured is accepted and ends in more than 30 days; 1: see `next`; 2: nothing to try."""

    help = "Try our application's certificates at Microsoft, touching no partner, and say what to do next."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--cloud", choices=list(CLOUDS), help="one cloud; without it, each that is set up")

    def handle(self, *args: Any, cloud: str | None, **options: Any) -> None:
        clouds = [name for name in CLOUDS if outside.is_configured(name) and cloud in (None, name)]
        if not clouds:
            lacking = ", ".join(outside.lacking(cloud or "global"))
            self.wrong_use(f"{cloud or 'no cloud'} is set up here: set {lacking} first")
        documents = [self._drilled(name) for name in clouds]
        lines = [line for document in documents for line in _lines(document)]
        self.answer(documents, lines, fine=all(document["fine"] for document in documents))

    def _drilled(self, cloud: str) -> dict[str, Any]:
        try:
            tried = drill.drill(cloud, actor=actors.command("rotatecredential"))
        except ValueError as wrong:
            self.wrong_use(f"{cloud}: {wrong}")
        credentials = [_row(one, cloud) for one in tried]
        step, fine = _next_step(tried, is_ending=any(row["warning"] for row in credentials))
        return {"cloud": cloud, "credentials": credentials, "next": step, "fine": fine}


def _row(one: Tried, cloud: str) -> dict[str, Any]:
    certificate, now = one.proof.certificate, timezone.now()
    ends = expiry.Configured(one.setting, cloud, certificate) if certificate else None
    return {
        "setting": one.setting,
        "thumbprint": certificate.thumbprint if certificate else None,
        "not_after": certificate.not_after if certificate else None,
        "days_left": (certificate.not_after - now).days if certificate else None,
        "warning": ends.warning(now) if ends else "",
        "in_use": one.in_use,
        "result": one.result,
        "code": one.code,
    }


def _next_step(tried: list[Tried], *, is_ending: bool) -> tuple[str, bool]:
    """What somebody does next, and whether that can wait."""
    results = [one.result for one in tried]
    first = tried[0].setting
    names = {"first": first, "next": first.replace("CERTIFICATE", "CERTIFICATE_NEXT")}
    is_certificate = tried[0].proof.certificate is not None
    if not set(results) <= {Result.ACCEPTED, Result.REFUSED}:
        step, fine = "unclear", False
    elif Result.ACCEPTED not in results:
        step, fine = ("no trust" if tried[0].proof.kind == "federated" else "none"), False
    elif len(results) == 1:
        step, fine = ("one" if is_certificate else "fine"), not is_ending
    else:
        step = {
            (Result.ACCEPTED, Result.ACCEPTED): "all",
            (Result.REFUSED, Result.ACCEPTED): "rolled",
            (Result.ACCEPTED, Result.REFUSED): "not yet",
        }[results[0], results[1]]
        fine = step == "all" and not is_ending
    text = MAKE if step == "one" and is_ending else NEXT_STEPS[step]
    return text.format(**names), fine


def _lines(document: dict[str, Any]) -> list[str]:
    lines = [f"{document['cloud']}:"]
    for row in document["credentials"]:
        ends = f", until {row['not_after']:%Y-%m-%d} ({row['days_left']} days)" if row["not_after"] else ""
        thumbprint = f" {row['thumbprint']}" if row["thumbprint"] else ""
        use = ", in use" if row["in_use"] else ""
        lines.append(f"  {row['setting']}{thumbprint}: {row['result']} ({row['code']}){ends}{use}")
    return [*lines, f"  Next: {document['next']}"]
