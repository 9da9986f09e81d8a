"""What a schedule has come to once the dust has settled; the stand-in's ledger and vault are the witnesses."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

from django.utils import timezone

from partners.models import Partner
from sandbox.vaultstore import Version
from tests.conftest import CONTOSO
from tests.tokens.schedules.play import GRACE, HOST, Play, cast, connected, playing
from tokens import broker, custody, outside, rotation, sweeping
from tokens.models import CONFIRM_WITHIN, LEASE, Alarm, AuditEvent, Halt, RefreshToken, SecretVersion, TokenUse

A_MOMENT = dt.timedelta(seconds=1)
REPORTED = "reported"

Change = Callable[[Play], None]


class Wrong(AssertionError):
    """A schedule went wrong; the message has the seed, what was found, and what happened in order."""


def through(
    world: Any, clock: Any, seed: str, mode: str, *, before: Change | None = None, after: Change | None = None
) -> str:
    """
    Play one schedule; "" or "reported", a loss in strict mode that the row tells of.

    `before` and `after` change the play, to see that it would be noticed.
    :raises Wrong: something is lost, stale, resurrected or stuck
    """
    begin(world, seed, mode)
    begun = timezone.now()
    rng = random.Random(seed)  # noqa: S311 - a draw, no secret
    play = Play(world, seed, mode, connected(world), rng)
    cast(play)
    if before:
        before(play)
    with playing(play):
        play.run()
        if after:
            after(play)
        found = settled(play, clock)
    clock.move_to(begun)
    if found not in ("", REPORTED):
        raise Wrong(f"seed {seed!r} in {mode}: {found}\n" + "\n".join(play.told))
    return found


def begin(world: Any, seed: str, mode: str) -> None:
    """An empty strong-room, and a Microsoft that knows nobody's sign-in."""
    for model in (Alarm, TokenUse, AuditEvent, SecretVersion, RefreshToken, Halt, Partner):
        rows = model._default_manager.all()
        rows._raw_delete(rows.db)
    world.heal()
    world.calls.clear()
    world.vault(HOST).secrets.clear()
    for table in (world.ledger.sessions, world.ledger.refreshes, world.ledger.codes):
        table.clear()
    world.refresh_tokens(mode, seconds=GRACE)
    broker.forget()
    random.seed(seed)


def settled(play: Play, clock: Any) -> str:
    """Nobody breaks anything any more, leases and offers run out, the sweeper comes twice, and somebody tries again."""
    broke = [actor.ended for actor in play.actors if actor.ended.startswith("broke")]
    if broke:
        return f"{broke[0]}"
    play.harmed |= any(fault.times == 0 for fault in play.world.faults)
    play.world.heal()
    play.actors.clear()
    broker.forget()
    whole = play.rng.random() < 0.05  # else what would find nothing, or what the ledger tells as well, is left out
    for wait in (LEASE + A_MOMENT, CONFIRM_WITHIN):
        clock.shift(wait)
        if whole or _something_is_left(_rows()):
            sweeping.sweep()
        if whole or play.killed:
            sweeping.close_stopped()
    rows = _rows()
    looks = (_stuck, _pins, _generations, _enabled)
    return next((wrong for look in looks if (wrong := look(play, rows))), "") or _next(play, rows, whole)


def _rows() -> list[RefreshToken]:
    return list(RefreshToken.objects.order_by("generation"))


def _is_current(row: RefreshToken) -> bool:
    return row.stored_at is not None and row.superseded_at is None and row.pending_until is None


def _something_is_left(rows: list[RefreshToken]) -> bool:
    """Whether a sweep has anything to look at: a lease, or a name that is not in force and was not closed."""
    return any(row.leased_until or not (_is_current(row) or row.closed_at) for row in rows)


def _versions(play: Play, name: str) -> list[Version]:
    return play.world.vault(HOST).secrets.get(name, [])


def _stuck(play: Play, rows: list[RefreshToken]) -> str:
    live = [row for row in rows if _is_current(row) and row.refused_at is None and not play.killed]
    return "stuck: a lease was left" if any(row.leased_until for row in live) else ""


def _pins(play: Play, rows: list[RefreshToken]) -> str:
    """Each pin names a version that was there, and carries a higher fence than the one before."""
    newest = {play.token.secret_name: 0}
    for name, version in play.pins:
        found = next((one for one in _versions(play, name) if one.version == version), None)
        if found is None:
            return "lost: the pin names what nobody can read"
        fence = int(found.tags["fence"])
        if fence <= newest.get(name, -1):
            return "stale: a pin went back"
        newest[name] = fence
    return ""


def _generations(play: Play, rows: list[RefreshToken]) -> str:
    current = [row.generation for row in rows if _is_current(row)]
    wanted = 2 if play.confirmed else 1
    return "" if current == [wanted] else f"stale: generation {current} in force, not {wanted}"


def _enabled(play: Play, rows: list[RefreshToken]) -> str:
    """Under a name that is over, nothing can be read; of one in force all versions but the newest are known."""
    in_force = {row.secret_name for row in rows if _is_current(row) and not play.killed}
    known = set(SecretVersion.objects.values_list("version", flat=True))
    for name, versions in play.world.vault(HOST).secrets.items():
        if name not in in_force and any(one.enabled for one in versions):
            return "resurrected: a version that must be disabled is enabled"
        if any(one.enabled and one.version not in known for one in versions[:-1]):
            return "resurrected: a version that nobody would find"
    return ""


def _next(play: Play, rows: list[RefreshToken], whole: bool) -> str:
    """The next attempt: it succeeds, or tells what strict mode has lost."""
    token = next(row for row in rows if _is_current(row))
    calls = len(play.world.calls)
    if play.killed:
        succeeded = rotation.rotate(token.pk)
        return "resurrected: a call left after the stop" if succeeded or len(play.world.calls) > calls else ""
    if token.refused_at is None:
        good = _good(play, token)
        if token.pinned_version in good and not whole:
            return ""  # the next attempt brings what it takes
        if rotation.rotate(token.pk):
            return (
                "" if RefreshToken.objects.get(pk=token.pk).pinned_version != token.pinned_version else "lost: no pin"
            )
        token.refresh_from_db()
        if good:
            return "lost: a good one lay in the vault"
    if play.mode != "strict":
        return f"lost: the sign-in in force is refused ({token.refusal_code or 'unsaid'})"
    if not play.harmed:
        return "lost: though nobody died, was frozen or went without an answer"
    return REPORTED if token.refused_at else "lost: and nobody was told"


def _good(play: Play, token: RefreshToken) -> list[str]:
    """The versions that can be read and hold a refresh token that works once more."""
    ledger, good = play.world.ledger, []
    for one in _versions(play, token.secret_name):
        opened = outside.keyring().open(one.value, aad=custody.additional_data(token)).reveal()
        refresh = ledger.refreshes[opened]
        over = ledger.is_over(refresh, play.world.grace_of(CONTOSO)) or ledger.sessions[refresh.sid].revoked
        if one.enabled and not over:
            good.append(one.version)
    return good
