"""Who acts: the same few facts in the ledger, the audit and the gate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ActorKind(StrEnum):
    VISITOR = "visitor"  # somebody on the way through consent, not signed in yet
    MEMBER = "member"
    STAFF = "staff"
    COMMAND = "command"
    RUN = "run"
    SYSTEM = "system"


@dataclass(frozen=True)
class Actor:
    """Kind, opaque id and a label for people; no foreign key, so that a line outlives whoever it names."""

    kind: ActorKind
    id: str = ""
    label: str = ""

    def __str__(self) -> str:
        return self.label or f"{self.kind} {self.id}".strip()


SYSTEM = Actor(ActorKind.SYSTEM, label="CPV Panel")


def command(name: str) -> Actor:
    """Somebody at the terminal of our own machine, through a management command."""
    return Actor(ActorKind.COMMAND, id=name, label=f"manage.py {name}")
