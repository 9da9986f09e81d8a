"""The gate: whether calls may leave for a partner right now. It is asked before every send, and fails closed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.db.models import Exists
from django.utils import timezone

from tokens.errors import Permanent
from tokens.models import Halt, RefreshToken

if TYPE_CHECKING:
    from partners.models import Partner

SNAPSHOT_AGE = 0.25  # seconds a "yes" may be reused within one process

_snapshots: dict[tuple[int, int], float] = {}
_epoch = 0  # rises when this process learns of a stop


class Stopped(Permanent):
    """The gate is shut: the partner is not live, or all work is halted."""


def check(token: RefreshToken) -> None:
    """
    Raise unless calls may leave for this generation right now; one query, or none within 250 ms of a "yes".

    :raises Stopped: the partner is not live, the generation is over, or all work is halted
    """
    key, asked = (token.pk, token.generation), (time.monotonic(), _epoch)
    if asked[0] - _snapshots.get(key, float("-inf")) <= SNAPSHOT_AGE:
        return
    live = RefreshToken.objects.live(timezone.now()).filter(pk=token.pk, generation=token.generation)
    if not live.exists():
        _snapshots.pop(key, None)
        raise Stopped("calls for this partner are stopped", code="stopped")
    if asked[1] == _epoch:  # or the answer is from before a stop that this process knows of by now
        _snapshots[key] = asked[0]


def check_anew(token: RefreshToken) -> None:
    """
    The same, whatever was answered a moment ago.

    :raises Stopped: as `check` does
    """
    forget_one(token)
    check(token)


def check_open(partner: Partner) -> None:
    """
    Raise unless this partner may (re)connect: the gate before there is a generation to ask about.

    :raises Stopped: we or security stopped it, or all work is halted
    """
    going = type(partner)._default_manager.filter(
        ~Exists(Halt.objects.in_force()), pk=partner.pk, suspended_at=None, killed_at=None, offboarded_at=None
    )
    if not going.exists():
        raise Stopped("calls for this partner are stopped", code="stopped")


def forget() -> None:
    """Let the next send of each partner ask the rows again: this process has learned of a stop."""
    global _epoch
    _epoch += 1
    _snapshots.clear()


def forget_one(token: RefreshToken) -> None:
    """Let the next send of this generation ask its row again."""
    _snapshots.pop((token.pk, token.generation), None)
