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
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from tokens import alarms, outside
from tokens.envelope import NotOurs
from tokens.errors import Permanent
from tokens.faultpoints import reached
from tokens.models import CONFIRM_WITHIN, RefreshToken, SecretVersion, open_to_consent
from tokens.secret import Secret
from tokens.vault import SecretMissing, StoredVersion, VaultRefused, VaultUnavailable, VersionDisabled

if TYPE_CHECKING:
    from uuid import UUID

    from partners.models import Partner

logger = logging.getLogger(__name__)

DAY = dt.timedelta(days=1)
SAID_NO = ("vault-429", "vault-500", "vault-503")  # the vault's own; a 408 or 504 says that nobody knows


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
    with _noting_refusals(partner.cloud):
        version = outside.vault(partner.cloud).put(token.secret_name, sealed, tags=_tags(token))
    reached("after first put")
    try:
        _pin(token, version, replaces, on_pin, pending=pending)
    except NotOpen:
        note_version(token, version)  # the sweeper may have been there while we were on our way
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
    later = ours_of(token, newest) if fence_of(newest) > fence_of(pinned) else None
    with transaction.atomic():
        note_version(token, newest.version)
        adopted = later is not None and token.adopt(newest.version)
    if later is not None and adopted:
        return later
    return outside.keyring().open(pinned.value, aad=additional_data(token))


def fence_of(stored: StoredVersion) -> int:
    """The fence under which a version was stored; less than any where somebody else than us stored it."""
    tag = stored.tags.get("fence", "")
    return int(tag) if tag.isdecimal() else -1


def ours_of(token: RefreshToken, stored: StoredVersion) -> Secret | None:
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
    with _noting_refusals(token.partner.cloud):
        version = _put(token, sealed)
    reached("after put")
    with transaction.atomic():
        note_version(token, version)  # or the next holder saw it first
        reached("before pin")
        won = token.point_at(version, next_refresh_at=next_refresh_at(timezone.now()))
    reached("after pin")
    if won:
        token.refresh_from_db(fields=["pinned_version", "stored_at", "next_refresh_at"])
    return won


@contextlib.contextmanager
def _noting_refusals(cloud: str) -> Iterator[None]:
    try:
        yield
    except VaultRefused as failure:
        alarms.note_vault(failure, cloud=cloud)
        raise
    alarms.vault_stores(cloud)


def _put(token: RefreshToken, sealed: str) -> str:
    """
    Store, and once more where the vault answered that it could not; without an answer, the first may still arrive.

    What the first stored in spite of its answer is taken as it is.
    """
    vault = outside.vault(token.partner.cloud)
    try:
        return vault.put(token.secret_name, sealed, tags=_tags(token))
    except VaultUnavailable as failure:
        if failure.code not in SAID_NO or not token.renew_lease():
            raise
    with contextlib.suppress(SecretMissing, VersionDisabled):
        newest = vault.newest(token.secret_name)
        if fence_of(newest) == token.fence:
            return newest.version
    return vault.put(token.secret_name, sealed, tags=_tags(token))


def keep_as_it_is(token: RefreshToken) -> None:
    """Entra took the stored one and sent no successor: it stays, and is used again within a day."""
    due = next_refresh_at(timezone.now())
    RefreshToken.objects.filter(pk=token.pk, fence=token.fence).update(next_refresh_at=due)


def note_version(token: RefreshToken, version: str) -> None:
    SecretVersion.objects.get_or_create(token=token, version=version, defaults={"partner_id": token.partner_id})
