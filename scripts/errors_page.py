"""Writes docs/errors.md from the table of Microsoft's answers: `make errors`. A test holds the page to the table."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tokens.aadsts import MEANINGS, Kind, Meaning  # noqa: E402 - found by the line above

PAGE = ROOT / "docs" / "errors.md"
HEAD = """\
# What Microsoft's sign-in answers mean

Each refusal of Microsoft Entra carries a number. This page is made from `tokens/aadsts.py` by `make errors`; what the
product does with a number is written there and nowhere else. A number that is not here is handled by its `suberror`,
then its `error`, then the HTTP status, and stands at the desk under "Unknown answers" for somebody to look up and add.

A refusal in a *customer's* tenant is the customer's: it never marks the partner. A refusal of *our own* application
opens one alarm (at the desk, in `manage.py partners`, in the log); the next token closes it. It touches no partner.
"""
REACTIONS = {
    Kind.REAUTH: ("The partner signs in again", "partner", "state `needs_consent`, work is parked"),
    Kind.MFA: ("The partner signs in with a second factor", "partner", "state `mfa_missing`, work is parked"),
    Kind.CONSENT: ("The partner agrees again", "partner", "state `needs_consent`, work is parked"),
    Kind.PARTNER_ADMIN: ("The partner's administrator acts", "partner", "state `blocked`, work is parked"),
    Kind.APP_CREDENTIAL: ("Our credential", "support", "one alarm, no partner is marked, work comes again by itself"),
    Kind.CONFIG: ("Our registration or request", "support", "one alarm, no partner is marked"),
    Kind.TENANT: (
        "The tenant is not there",
        "support",
        "that partner's work is parked; no alarm, nobody else is concerned",
    ),
    Kind.RETRY: ("It passes", "nobody", "the run waits and comes again by itself"),
}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, (title, owner, reaction) in REACTIONS.items():
        of_kind = [meaning for meaning in MEANINGS.values() if meaning.kind is kind]
        parts += [f"\n## {title}\n\nWho acts: {owner}. What happens: {reaction}.\n\n", *_table(of_kind)]
    return "".join(parts)


def _table(meanings: list[Meaning]) -> list[str]:
    lines = ["| AADSTS | meaning | what to do |\n|---|---|---|\n"]
    for (summary, advice), group in groupby(meanings, key=lambda one: (one.summary, one.advice)):
        lines.append(f"| {', '.join(str(one.code) for one in group)} | {summary} | {advice} |\n")
    return lines


if __name__ == "__main__":
    PAGE.write_text(page())
