"""The gate: whether calls may leave for a partner right now. It is asked before every send, and fails closed."""

from __future__ import annotations

import datetime as dt
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connection
from django.db.models import Exists
from django.utils import timezone

from tokens.errors import Permanent
from tokens.models import Halt, RefreshToken
from tokens.tenancy import system_scope

if TYPE_CHECKING:
    from partners.models import Partner

SNAPSHOT_AGE = 0.25  # seconds a "yes" may be reused within one process
EARLY = 0.15  # seconds after which one thread asks anew where several partners are in use, so that nobody has to wait
IN_USE = 5.0  # seconds after a check for which its generation is asked about whenever another one is
AT_ONCE = 16  # generations that one query asks about


class Asked(NamedTuple):
    """The generation of a sign-in that somebody wants to send for."""

    pk: int
    generation: int
    partner_id: int


_asking = threading.Lock()
_snapshots: dict[Asked, float] = {}  # when there was a "yes"
_used: dict[Asked, float] = {}  # when somebody last wanted to send
_epoch = 0  # rises when this process learns of a stop


class Stopped(Permanent):
    """The gate is shut: the partner is not live, or all work is halted."""


def check(token: RefreshToken) -> None:
    """
    Raise unless calls may leave for this generation right now; one query, or none within 250 ms of a "yes".

    The query asks about the others that are in use, too: a worker with many partners asks a few times a second, not a
    few times for each; and one thread does so before what the others know is too old.

    :raises Stopped: the partner is not live, the generation is over, or all work is halted
    """
    key = Asked(token.pk, token.generation, token.partner_id)
    _used[key] = now = time.monotonic()
    age = now - _snapshots.get(key, float("-inf"))
    if age <= (EARLY if len(_used) > 1 else SNAPSHOT_AGE):
        return
    asked = now, _epoch
    is_first = _asking.acquire(blocking=False)
    if not is_first and age <= SNAPSHOT_AGE:
        return
    try:  # while one asks about all, whoever comes asks for itself: nobody waits for another's answer
        about = _together(key, now) if is_first else [key]
        live = _live(about)
        if asked[1] == _epoch:  # or the answer is from before a stop that this process knows of by now
            _snapshots.update(dict.fromkeys(live, asked[0]))
        for stopped in set(about) - live:  # it asks for itself, or those that are stopped would crowd out the others
            _let_go(stopped)
    finally:
        if is_first:
            _asking.release()
    if key not in live:
        raise Stopped("calls for this partner are stopped", code="stopped")


def _together(key: Asked, now: float) -> list[Asked]:
    """This one, and those in use whose last "yes" is oldest; what is in use no more is let go of."""
    for other, last in list(_used.items()):
        if now - last > IN_USE:
            _let_go(other)
    others = sorted((_snapshots.get(other, 0.0), other) for other in list(_used) if other != key)
    return [key, *(other for _, other in others[: AT_ONCE - 1])]


def _let_go(key: Asked) -> None:
    _used.pop(key, None)
    _snapshots.pop(key, None)


@system_scope("whether calls may leave")
def _live(asked: list[Asked]) -> set[Asked]:
    """Those of them that are live, of which there may be `AT_ONCE` at most."""
    question, places = _question(connection.vendor)
    said, now = map(connection.ops.adapt_datetimefield_value, (_NOW, timezone.now()))
    filled = asked + asked[:1] * (AT_ONCE - len(asked))
    given = {_PK + place: one.pk for place, one in enumerate(filled)} | {said: now}
    with connection.cursor() as cursor:
        cursor.execute(question, [given.get(place, place) for place in places])
        return {Asked(*row) for row in cursor.fetchall()} & set(asked)


# What stands in the question for what is asked about: a number for each generation, and a moment.
_PK, _NOW = 2**62, dt.datetime(9999, 1, 1, tzinfo=dt.UTC)


@cache
def _question(_vendor: str) -> tuple[str, tuple[Any, ...]]:
    """The statement of `live()`, said once: to build it for each send costs ten times what asking it does."""
    with system_scope("the gate's question is put into words"):
        some = RefreshToken.objects.filter(pk__in=[_PK + place for place in range(AT_ONCE)])
        sql, params = some.live(_NOW).values_list(*Asked._fields).query.get_compiler(connection=connection).as_sql()
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
    _snapshots.pop(Asked(token.pk, token.generation, token.partner_id), None)
