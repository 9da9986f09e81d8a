"""
How a refresh token comes to rest: name first, vault second, pin third.

No PUT goes under a name that is not in a committed row, and no row points at a version the vault has not acknowledged.
A crash in between leaves a reserved name or an unknown version, never a wrong pointer; `sweep()` cleans those up.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Max, OuterRef, QuerySet
from django.utils import timezone

from tokens import alarms, outside
from tokens.envelope import NotOurs
from tokens.errors import Permanent, Transient
from tokens.faultpoints import reached
from tokens.models import BY_A_STOP, CONFIRM_WITHIN, RefreshToken, SecretVersion, open_to_consent
from tokens.secret import Secret
from tokens.vault import SecretMissing, StoredVersion, VersionDisabled

if TYPE_CHECKING:
    from uuid import UUID

    from partners.models import Partner

logger = logging.getLogger(__name__)

SWEEP_BATCH = 500  # rows in memory at a time
DAY = dt.timedelta(days=1)
ENOUGH_TROUBLE = 3


class NotOpen(Permanent):
    """The partner was stopped, or another consent was faster; the grant is thrown away."""


def additional_data(token: RefreshToken) -> list[str]:
    """What the envelope is bound to: a sealed value moved to another partner, name or generation does not open."""
    partner = token.partner
    client_id = settings.CPV_APPS[partner.cloud]["app_id"]
    return [partner.cloud, str(partner.tenant_id), client_id, token.secret_name, str(token.generation)]


# --- A new generation -----------------------------------------------------------------------------------------------
def store(
    *,
    partner: Partner,
    refresh_token: Secret,
    oid: UUID,
    upn: str,
    limits: str,
    missing_scopes: Sequence[str] = (),
    replaces: RefreshToken | None,
    on_pin: Callable[[RefreshToken], None],
    pending: bool = False,
) -> RefreshToken:
    """
    Put a consent's refresh token away as a new generation; `on_pin` runs inside the transaction that pins it.

    `replaces` is the generation that was in force when this consent was checked. If another is by now, the other
    consent was faster, and wins. With `pending` it stays in force until `confirm`, for half an hour.

    :raises NotOpen: stopped meanwhile, or another consent was faster
    :raises VaultUnavailable, VaultRefused: nothing is pinned; the reserved name is swept later
    """
    token = _reserve(partner, oid=oid, upn=upn, limits=limits, missing_scopes=missing_scopes)
    reached("after reserve")
    sealed = outside.keyring().seal(refresh_token, aad=additional_data(token))
    version = outside.vault(partner.cloud).put(token.secret_name, sealed, tags=_tags(token))
    reached("after first put")
    try:
        _pin(token, version, replaces, on_pin, pending=pending)
    except NotOpen:
        _note_version(token, version)  # the sweeper may have been there while we were on our way
        raise
    return token


@transaction.atomic
def _reserve(partner: Partner, *, oid: UUID, upn: str, limits: str, missing_scopes: Sequence[str] = ()) -> RefreshToken:
    _queue_up(partner)
    newest = partner.refresh_tokens.aggregate(newest=Max("generation"))["newest"] or 0
    return RefreshToken.objects.create(
        partner=partner,
        generation=newest + 1,
        oid=oid,
        upn=upn,
        limits=limits,
        missing_scopes=list(missing_scopes),
        secret_name=RefreshToken.new_secret_name(),
    )


def _queue_up(partner: Partner) -> None:
    """Let two consents at once take their turns: each a generation of its own, and the second sees the first's pin."""
    # "No key": a run being written refers to this row, and must not wait for us while we wait for its job.
    type(partner)._default_manager.select_for_update(no_key=True).get(pk=partner.pk)


def _tags(token: RefreshToken) -> dict[str, str]:
    return {
        "generation": str(token.generation),
        "fence": str(token.fence),
        "key": outside.keyring().active_kid,
    }


@transaction.atomic
def _pin(
    token: RefreshToken,
    version: str,
    replaces: RefreshToken | None,
    on_pin: Callable[[RefreshToken], None],
    *,
    pending: bool = False,
) -> None:
    _queue_up(token.partner)
    now = timezone.now()
    in_force = _in_force(token.partner_id, expected=replaces.generation if replaces else None)
    offered = token.partner.refresh_tokens.pending(now)
    offered.update(pending_until=now)  # one renewal at a time, and none beside a new generation in force
    until = now + CONFIRM_WITHIN if pending else None
    if not pending:
        in_force.update(superseded_at=now)
    waiting = RefreshToken.objects.filter(open_to_consent(), pk=token.pk, stored_at=None)
    pinned = waiting.filter(superseded_at=None, closed_at=None).update(
        pinned_version=version,
        stored_at=now,
        last_success_at=now,
        next_refresh_at=next_refresh_at(now),
        pending_until=until,
        checked_against=replaces.generation if replaces and pending else None,
    )
    if pinned != 1:
        raise NotOpen("the partner was stopped while it connected", code="stopped")
    token.refresh_from_db()
    SecretVersion.objects.create(partner_id=token.partner_id, token=token, version=version)
    if not pending:
        alarms.close_those_of(token.partner)
    on_pin(token)


def _in_force(partner: int, *, expected: int | None) -> QuerySet[RefreshToken]:
    """
    The generation in force, if it is the expected one; the caller has queued up.

    :raises NotOpen: another consent was faster
    """
    in_force = RefreshToken.objects.current().filter(partner=partner)
    if in_force.values_list("generation", flat=True).first() != expected:
        raise NotOpen("another consent was faster", code="already_connected")
    return in_force


@transaction.atomic
def confirm(token: RefreshToken, *, on_confirm: Callable[[RefreshToken], None]) -> None:
    """
    Bring a pending renewal in force in place of the generation it was checked against.

    :raises NotOpen: too late, stopped meanwhile, or another consent was faster; what is in force stays so
    """
    _queue_up(token.partner)
    now = timezone.now()
    _in_force(token.partner_id, expected=token.checked_against).update(superseded_at=now)
    waiting = RefreshToken.objects.pending(now).filter(open_to_consent(), pk=token.pk)
    if waiting.update(pending_until=None) != 1:
        raise NotOpen("this renewal is over", code="renewal-over")
    token.refresh_from_db()
    alarms.close_those_of(token.partner)
    on_confirm(token)


def decline(token: RefreshToken) -> None:
    """Let a pending renewal be over at once; the sweeper disables its secret."""
    now = timezone.now()
    RefreshToken.objects.filter(pk=token.pk, pending_until__gt=now).update(pending_until=now)


# --- Reading and rotating -------------------------------------------------------------------------------------------
def read(token: RefreshToken) -> Secret:
    """The refresh token of the pinned version, in memory."""
    sealed = outside.vault(token.partner.cloud).get(token.secret_name, token.pinned_version)
    return outside.keyring().open(sealed, aad=additional_data(token))


def read_for_rotation(token: RefreshToken) -> Secret:
    """
    The same, for whoever holds the lease; a version that an earlier holder stored and could not pin is pinned first.

    A crash or a lost answer may have left one we do not know. At most one ever is, and it is the newest. It counts when
    its fence is higher than the pinned one's: where refresh tokens work once, only that one still does.
    """
    try:
        newest = outside.vault(token.partner.cloud).newest(token.secret_name)
    except VersionDisabled:  # whatever is disabled was known
        return read(token)
    reached("after newest")
    if newest.version == token.pinned_version:
        return outside.keyring().open(newest.value, aad=additional_data(token))
    pinned = outside.vault(token.partner.cloud).look(token.secret_name, token.pinned_version)
    later = _ours(token, newest) if _fence(newest) > _fence(pinned) else None
    with transaction.atomic():
        _note_version(token, newest.version)
        adopted = later is not None and token.adopt(newest.version)
    if later is not None and adopted:
        return later
    return outside.keyring().open(pinned.value, aad=additional_data(token))


def _fence(stored: StoredVersion) -> int:
    """The fence under which a version was stored; less than any where somebody else than us stored it."""
    tag = stored.tags.get("fence", "")
    return int(tag) if tag.isdecimal() else -1


def _ours(token: RefreshToken, stored: StoredVersion) -> Secret | None:
    """The refresh token in a version; None where somebody else than us put something there."""
    try:
        return outside.keyring().open(stored.value, aad=additional_data(token))
    except NotOurs:
        logger.critical("the vault holds a version that is not ours", extra={"refresh_token": token.pk})
        return None


def store_interval() -> dt.timedelta:
    return dt.timedelta(seconds=settings.CPV_REFRESH_STORE_INTERVAL)


def next_refresh_at(now: dt.datetime) -> dt.datetime:
    """When a sign-in stored now is stored anew though nobody works: within a day, each at a time of its own."""
    spread = random.uniform(0.9, 1.0)  # noqa: S311 - spreads load, guards nothing
    return now + min(store_interval() or DAY, DAY) * spread


def is_single_use() -> bool:
    """Whether each refresh token works once here, so that every successor must be stored."""
    return not store_interval()


def is_store_due(token: RefreshToken) -> bool:
    return token.stored_at is not None and timezone.now() - token.stored_at >= store_interval()


def rotate(token: RefreshToken, successor: Secret) -> bool:
    """
    Store a successor under the same name and pin it while our lease's fence holds; False when we lost.

    Whoever has lost the lease by now stores nothing: nobody would look for it. Who loses it later leaves the version
    where it is: at Entra the earlier refresh token stays valid, so nothing is lost.
    """
    if not token.renew_lease():
        return False
    sealed = outside.keyring().seal(successor, aad=additional_data(token))
    reached("before put")
    version = outside.vault(token.partner.cloud).put(token.secret_name, sealed, tags=_tags(token))
    reached("after put")
    with transaction.atomic():
        _note_version(token, version)  # or the next holder saw it first
        reached("before pin")
        won = token.point_at(version, next_refresh_at=next_refresh_at(timezone.now()))
    reached("after pin")
    if won:
        token.refresh_from_db(fields=["pinned_version", "stored_at", "next_refresh_at"])
    return won


def keep_as_it_is(token: RefreshToken) -> None:
    """Entra took the stored one and sent no successor: it stays, and is used again within a day."""
    due = next_refresh_at(timezone.now())
    RefreshToken.objects.filter(pk=token.pk, fence=token.fence).update(next_refresh_at=due)


# --- Ends -----------------------------------------------------------------------------------------------------------
def sweep() -> int:
    """
    Disable what must not stay enabled: names reserved but never pinned, generations a later consent replaced, versions
    that later ones replaced more than a day ago; and end what a crash left half done.

    Safe at any time and twice. What cannot be closed now holds up no other. Returns how many versions it disabled.
    """
    now = timezone.now()
    _for_each(RefreshToken.objects.crashed(now), _end_rotation)
    return _for_each(RefreshToken.objects.over(now), _close) + _for_each(_with_aged_versions(now), _disable_aged)


def close_stopped() -> int:
    """
    Disable the secrets of partners that were killed or ended access, of all in an all-stop; safe at any time and twice.

    Such a generation is refused from then on: work may resume after a new consent only.
    """
    return _for_each(RefreshToken.objects.stopped(timezone.now()), _close)


def _for_each(tokens: QuerySet[RefreshToken], act: Callable[[RefreshToken], int]) -> int:
    """
    Act on row after row, each once; the sum of what it did. A vault that is down is not asked about every row.

    Batch follows batch by key until none is left, so that rows which fail each time hold up none behind them.
    """
    done, after, failed = 0, 0, 0
    troubles: Counter[str] = Counter()
    while batch := _batch(tokens, after=after, but=_given_up(troubles)):
        after = batch[-1].pk
        random.shuffle(batch)  # several workers may be at it; each begins elsewhere
        for token in batch:
            if token.partner.cloud in _given_up(troubles) or not tokens.filter(pk=token.pk).exists():
                continue
            try:
                done += act(token)
            except Transient:
                troubles[token.partner.cloud] += 1
            except (Permanent, ValueError) as failure:
                failed += 1
                if failed == 1:  # a vault that refuses us altogether would fill the log
                    logger.error("a secret could not be swept", extra={"refresh_token": token.pk, "why": str(failure)})
    if failed > 1:
        logger.error("further secrets could not be swept", extra={"number": failed - 1})
    return done


def _batch(tokens: QuerySet[RefreshToken], *, after: int, but: Sequence[str]) -> list[RefreshToken]:
    """The next rows behind one of them, in all clouds but these."""
    rows = tokens.filter(pk__gt=after).exclude(partner__cloud__in=but)
    return list(rows.select_related("partner").order_by("pk")[:SWEEP_BATCH])


def _given_up(troubles: Counter[str]) -> list[str]:
    return [cloud for cloud, times in troubles.items() if times >= ENOUGH_TROUBLE]


def _end_rotation(token: RefreshToken) -> int:
    """
    End what a crash left: pin the version it had stored under the fence of its lease, and give the lease back.

    A version of another fence is a loser's: it is noted, and aged out like every other.
    """
    crashed, newest = token.fence, None
    with contextlib.suppress(SecretMissing, VersionDisabled):  # nothing is there; whatever is disabled was known
        newest = outside.vault(token.partner.cloud).newest(token.secret_name)
    if not token.lease():
        return 0
    adopted = False
    if newest and token.fence == crashed + 1:  # or somebody rotated since we looked
        _note_version(token, newest.version)
        stored = newest.version != token.pinned_version and _fence(newest) == crashed and _ours(token, newest)
        if stored:
            adopted = token.point_at(newest.version, next_refresh_at=next_refresh_at(timezone.now()))
            logger.warning("a version that a crash left unpinned was adopted", extra={"refresh_token": token.pk})
    token.release()
    return int(adopted)


def _with_aged_versions(now: dt.datetime) -> QuerySet[RefreshToken]:
    aged = SecretVersion.objects.filter(token=OuterRef("pk"), disabled_at=None, seen_at__lt=now - DAY)
    return RefreshToken.objects.current().filter(Exists(aged)).order_by("pk")


def _disable_aged(token: RefreshToken) -> int:
    """Disable versions of more than a day ago, but for the one that is pinned and the two newest."""
    enabled = list(token.versions.filter(disabled_at=None).order_by("-seen_at", "-pk"))
    disabled = 0
    for version in enabled[2:]:
        if version.version != token.pinned_version and version.seen_at < timezone.now() - DAY:
            disabled += _disable(token, version)
    return disabled


def _close(token: RefreshToken) -> int:
    """Disable every version under a name that is over, the one we may not know of included."""
    reached("before close")
    vault = outside.vault(token.partner.cloud)
    with contextlib.suppress(SecretMissing, VersionDisabled):  # nothing arrived, or everything is known
        _note_version(token, vault.newest(token.secret_name).version)
    disabled = sum(_disable(token, version) for version in token.versions.filter(disabled_at=None))
    reached("after disable")
    RefreshToken.objects.filter(pk=token.pk).update(closed_at=timezone.now())
    reached("after close")
    token.mark_refused("needs_consent", code=BY_A_STOP)  # where it is in force still: a stop came before
    return disabled


def _disable(token: RefreshToken, version: SecretVersion) -> int:
    """Disable one version and write that down; 0 when the vault had it no more."""
    disabled = 0
    with contextlib.suppress(SecretMissing):  # purged by somebody
        outside.vault(token.partner.cloud).disable(token.secret_name, version.version)
        disabled = 1
    SecretVersion.objects.filter(pk=version.pk).update(disabled_at=timezone.now())
    return disabled


def _note_version(token: RefreshToken, version: str) -> None:
    SecretVersion.objects.get_or_create(token=token, version=version, defaults={"partner_id": token.partner_id})
