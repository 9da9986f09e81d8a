"""
Stopping, ending and resuming work for a partner. Rows only: the vault is a worker's business, which finds it there.

What each does is one transaction. The gate reads the same rows before every send.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from partners import borrowed
from partners.models import LiftRequest, Partner
from tokens import audit, watch
from tokens.actors import Actor
from tokens.models import Halt, RefreshToken

CALLS_WITHIN = 5.0  # seconds a stop waits for every living process to say that it has seen it
SECRETS_WITHIN = 10.0  # seconds it waits for a worker to disable the secrets
LOOK_EVERY = 0.05  # seconds
STOPS = 0x53544F50  # which of PostgreSQL's advisory locks is the one for stops


# --- Stopping -------------------------------------------------------------------------------------------------------
@transaction.atomic
def kill(*, partner: Partner, by: Actor, reason: str) -> Halt:
    """Stop every call for this partner at once and have its secrets disabled; a second kill is written down only."""
    Partner.objects.select_for_update().get(pk=partner.pk)  # of two at once, the second finds the first's
    stopped = partner.halts.filter(ended_at=None).order_by("-pk").first()
    if stopped is not None:
        _say_again("partner.killed", stopped, by=by, reason=reason)
        return stopped
    partner.mark_killed()
    halt = _write_down(partner, by=by, reason=reason)
    audit.record("partner.killed", actor=by, partner=partner, object=f"stop {halt.pk}", reason=reason[:200])
    return halt


@transaction.atomic
def kill_all(*, by: Actor, reason: str) -> Halt:
    """
    Stop every call for everybody at once and have all secrets disabled.

    A second one finds it so; it voids what waits to lift the first, as whoever asked did not know why it came.
    """
    one_stop_at_a_time()  # of two at once, the second finds the first's
    stopped = Halt.objects.in_force().order_by("-pk").first()
    if stopped is not None:
        voided = LiftRequest.objects.mark_voided()
        _say_again("everything.killed", stopped, by=by, reason=reason, voided=voided)
        return stopped
    halt = _write_down(None, by=by, reason=reason)
    audit.record("everything.killed", actor=by, object=f"stop {halt.pk}", reason=reason[:200])
    return halt


def _say_again(action: str, halt: Halt, *, by: Actor, reason: str, **more: Any) -> None:
    """Why somebody stops what is stopped already: it may be another thief."""
    audit.record(
        action, actor=by, partner=halt.partner, object=f"stop {halt.pk}", reason=reason[:200], again=True, **more
    )


def _write_down(partner: Partner | None, *, by: Actor, reason: str) -> Halt:
    """
    The row of a stop. Of several at once each gets its number when the one before is committed.

    So whoever sees a number sees every stop below it, which is what a process says when it reports that number.
    """
    one_stop_at_a_time()
    return Halt.objects.create(partner=partner, reason=reason[:500], started_by=str(by)[:320])


def one_stop_at_a_time() -> None:
    """Until this transaction ends, nobody else makes a stop or lifts the one of everything."""
    if connection.vendor == "postgresql":  # elsewhere writers take turns anyway
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [STOPS])


@transaction.atomic
def unkill(*, partner: Partner, by: Actor, reason: str) -> bool:
    """
    Let this partner connect again; False when it was not killed.

    What was disabled stays disabled: work goes on after a new consent.
    """
    if not partner.unmark_killed():
        return False
    for halt in partner.halts.filter(ended_at=None):
        halt.end(by=str(by))
    RefreshToken.objects.filter(partner=partner).end_all()
    audit.record("partner.unkilled", actor=by, partner=partner, reason=reason[:200])
    return True


@dataclass
class Proof:
    """How long it took, in seconds from the stop; None where it has not come to that yet."""

    stopped: list[Partner]
    calls_stopped_s: float | None = None
    secrets_disabled_s: float | None = None
    silent_workers: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return self.calls_stopped_s is not None and self.secrets_disabled_s is not None


def proof_of(
    halt: Halt, *, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
) -> Proof:
    """Wait until every living process acts upon a stop (5 s at most) and the secrets are disabled (10 s at most)."""
    partners = [halt.partner] if halt.partner else list(Partner.objects.living())
    proof, begun = Proof(partners), clock()
    while True:
        passed = clock() - begun
        if proof.calls_stopped_s is None:
            proof.silent_workers = watch.silent(halt.pk)
            proof.calls_stopped_s = None if proof.silent_workers else round(passed, 2)
        if proof.secrets_disabled_s is None and not _open_secrets(halt):
            proof.secrets_disabled_s = round(passed, 2)
        calls_are_over = proof.calls_stopped_s is not None or passed > CALLS_WITHIN
        if calls_are_over and (proof.secrets_disabled_s is not None or passed > SECRETS_WITHIN):
            return proof
        sleep(LOOK_EVERY)


def _open_secrets(halt: Halt) -> bool:
    rows = RefreshToken.objects.filter(partner=halt.partner) if halt.partner else RefreshToken.objects.all()
    return rows.still_open().exists()


# --- Ending ---------------------------------------------------------------------------------------------------------
@transaction.atomic
def revoke(*, partner: Partner, by: Actor, reason: str) -> bool:
    """End the vendor's access by the partner's own will; False when it ended already. A new consent opens it again."""
    if not partner.mark_withdrawn():
        return False
    borrowed.end_those_of(partner=partner, by=by, why="access was ended")
    audit.record("partner.withdrawn", actor=by, partner=partner, reason=reason[:200])
    return True


class WouldEndAccess(ValueError):
    """The consent in force is older than the period chosen: choosing it would end access, which nobody asked for."""


@transaction.atomic
def choose_period(*, partner: Partner, by: Actor, days: int) -> None:
    """
    How long a consent of this partner opens access; it counts from the newest consent on, at once.

    :raises WouldEndAccess: renew first, or revoke
    """
    earlier = partner.access_days
    consented = RefreshToken.objects.current().filter(partner=partner).values_list("reserved_at", flat=True).first()
    is_open = partner.lapses_at is not None and partner.lapses_at > timezone.now()
    if is_open and consented and consented + dt.timedelta(days=days) <= timezone.now():
        raise WouldEndAccess(f"the consent in force is older than {days} days")
    partner.set_access_period(days, since=consented)
    audit.record("period.chosen", actor=by, partner=partner, days=days, earlier=earlier)
