"""What our application proves itself with, tried by somebody, and what comes next: for the command and the desk."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from tokens import audit, drill, expiry, outside
from tokens.actors import Actor
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


def configured_clouds(cloud: str | None = None) -> list[str]:
    """Those that are set up here, or the one that is asked for if it is."""
    return [name for name in CLOUDS if outside.is_configured(name) and cloud in (None, name)]


def tried(cloud: str, *, by: Actor, reason: str = "") -> dict[str, Any]:
    """
    Try what is configured for a cloud, and write down who did, and how it ended.

    :raises ValueError: what is configured cannot work; that is written down as well
    """
    why: dict[str, Any] = {"reason": reason[:200]} if reason else {}
    try:
        found = drill.drill(cloud, actor=by)
    except ValueError as wrong:
        audit.record("credential.tried", actor=by, object=cloud, results={}, fault=str(wrong)[:200], **why)
        raise
    rows = [_row(one, cloud) for one in found]
    step, fine = _next_step(found, is_ending=any(row["warning"] for row in rows))
    results = {row["setting"]: str(row["result"]) for row in rows}
    audit.record("credential.tried", actor=by, object=cloud, results=results, **why)
    return {"cloud": cloud, "credentials": rows, "next": step, "fine": fine}


def in_words(document: dict[str, Any]) -> list[str]:
    """The same for people, a line for each."""
    lines = []
    for row in document["credentials"]:
        ends = f", until {row['not_after']:%Y-%m-%d} ({row['days_left']} days)" if row["not_after"] else ""
        thumbprint = f" {row['thumbprint']}" if row["thumbprint"] else ""
        use = ", in use" if row["in_use"] else ""
        lines.append(f"{row['setting']}{thumbprint}: {row['result']} ({row['code']}){ends}{use}")
    return [*lines, f"Next: {document['next']}"]


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
