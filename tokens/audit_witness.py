"""
What was sealed last, kept where it does not vanish with the anchors: so that a cut cannot be sealed over.

A row of its own says it, under a MAC that the next seal overwrites: nobody without the key can set it back, but to a
copy taken then. Each process that seals remembers it as well, as long as it lives, and the log has it for good. Whoever
owns the database and takes all of it, this row included, is found out by the last two only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from tokens.models import AuditAnchor, AuditLink, AuditWitness


@dataclass(frozen=True)
class Sealed:
    """An anchor that this process made."""

    number: int
    mac: str


_remembered: list[Sealed] = []  # the last one, or none


def macked(said: str) -> str:
    """The MAC of a text under the key that no database holds."""
    return hmac.new(settings.CPV_AUDIT_KEY.encode(), said.encode(), hashlib.sha256).hexdigest()


def doubts(newest: AuditAnchor | None) -> Iterator[str]:
    """Why the newest anchor cannot be the one that was sealed last."""
    witness = AuditWitness.objects.first()
    if newest is None and AuditLink.objects.exists():
        yield "there are links, and no anchor"
    if witness is None and newest is not None and newest.number:
        yield "the row that says what was sealed last is gone"
    if witness is not None and not _is_ours(witness):
        yield "the row that says what was sealed last was not made with our key"
    elif witness is not None and (newest is None or (newest.number, newest.mac) != (witness.number, witness.mac)):
        yield f"anchor {witness.number}, which was sealed last, is not the newest"
    yield from _not_as_remembered(newest)


def _not_as_remembered(newest: AuditAnchor | None) -> Iterator[str]:
    for last in _remembered:
        is_newest = newest is not None and (newest.number, newest.mac) == (last.number, last.mac)
        if not is_newest and not AuditAnchor.objects.filter(number=last.number, mac=last.mac).exists():
            yield f"anchor {last.number}, which this process made, is not here"


def follow(newest: AuditAnchor | None, *, in_doubt: bool) -> Sealed:
    """
    What the next anchor follows: number and MAC of the one sealed last, as far as anybody knows.

    After a doubt a number is left out at least, so that it shows for good that something was not as it was sealed.
    """
    found = Sealed(newest.number or 0, newest.mac) if newest else Sealed(0, "")
    witness = AuditWitness.objects.first()
    known = [Sealed(witness.number, witness.mac)] if witness is not None and _is_ours(witness) else []
    last = max([found, *known, *_remembered], key=lambda one: one.number)
    return Sealed(last.number + 1, last.mac) if in_doubt and last.number == found.number else last


def keep(anchor: AuditAnchor) -> None:
    """Write down that this anchor is the last; remembered from the commit on."""
    made = Sealed(anchor.number or 0, anchor.mac)
    AuditWitness.objects.update_or_create(
        pk=1, defaults={"number": made.number, "mac": made.mac, "proof": _proof(made.number, made.mac)}
    )
    transaction.on_commit(lambda: _remember(made))


def _remember(made: Sealed) -> None:
    _remembered[:] = [max([made, *_remembered], key=lambda one: one.number)]


def forget() -> None:
    """As a process that just began; for tests, whose databases begin anew while the process goes on."""
    _remembered.clear()


def breaks(witness: AuditWitness | None, *, is_numbered: bool) -> Iterator[str]:
    """What the row says against the anchors that are here; it was read before they were."""
    if witness is None:
        if is_numbered:
            yield "the row that says what was sealed last is gone"
    elif not _is_ours(witness):
        yield "the row that says what was sealed last was not made with our key"
    elif not AuditAnchor.objects.filter(number=witness.number, mac=witness.mac).exists():
        yield f"anchor {witness.number}, which was sealed last, is gone"


def _is_ours(witness: AuditWitness) -> bool:
    return hmac.compare_digest(witness.proof, _proof(witness.number, witness.mac))


def _proof(number: int, mac: str) -> str:
    return macked(f"cpv-audit-witness-1|{number}|{mac}")
