"""The gate: whether calls may leave for a partner right now. It is asked before every send, and fails closed."""

from __future__ import annotations

import datetime as dt
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import Exists
from django.utils import timezone

from tokens.errors import Permanent
from tokens.models import Halt, RefreshToken
from tokens.tenancy import system_scope

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
    if not _is_live(token):
        _snapshots.pop(key, None)
        raise Stopped("calls for this partner are stopped", code="stopped")
    if asked[1] == _epoch:  # or the answer is from before a stop that this process knows of by now
        _snapshots[key] = asked[0]


def _is_live(token: RefreshToken) -> bool:
    question, places = _question(connection.vendor)
    said, now = map(connection.ops.adapt_datetimefield_value, (_NOW, timezone.now()))
    asked = {_PK: token.pk, _GENERATION: token.generation, _PARTNER: token.partner_id, said: now}
    with connection.cursor() as cursor:
        cursor.execute(question, [asked.get(place, place) for place in places])
        return cursor.fetchone() is not None


# What stands in the question for what is asked about.
_PK, _GENERATION, _PARTNER, _NOW = 2**62, 2**31 - 2, 2**61, dt.datetime(9999, 1, 1, tzinfo=dt.UTC)


@cache
def _question(_vendor: str) -> tuple[str, tuple[Any, ...]]:
    """The statement of `live()`, said once: to build it for each send costs ten times what asking it does."""
    with system_scope("the gate's question is put into words"):
        of_one = RefreshToken.objects.filter(pk=_PK, generation=_GENERATION, partner=_PARTNER)
        sql, params = of_one.live(_NOW).query.exists().get_compiler(connection=connection).as_sql()
    return sql, tuple(params)


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
