"""
What must not stay enabled in the vault is disabled, and what a crash left half done comes to its end.

Every part is safe at any time and twice, and several processes may be at it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence

from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from tokens import alarms, custody, outside
from tokens.errors import Permanent, Transient
from tokens.faultpoints import reached
from tokens.models import BY_A_STOP, RefreshToken, SecretVersion
from tokens.tenancy import partner_scope, system_scope
from tokens.vault import SecretMissing, VersionDisabled

logger = logging.getLogger(__name__)

SWEEP_BATCH = 500  # rows in memory at a time
ENOUGH_TROUBLE = 3


@system_scope("sweeping")
def sweep() -> int:
    """
    Disable what must not stay enabled: names reserved but never pinned, generations a later consent replaced, versions
    that later ones replaced more than a day ago; and end what a crash left half done.

    Safe at any time and twice. What cannot be closed now holds up no other. Returns how many versions it disabled.
    """
    now = timezone.now()
    _for_each(RefreshToken.objects.crashed(now), _end_rotation)
    return _for_each(RefreshToken.objects.over(now), _close) + _for_each(_with_aged_versions(now), _disable_aged)


@system_scope("sweeping after a stop")
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
    refused: dict[str, str] = {}  # by cloud, why something could not be swept
    acted: set[str] = set()
    while batch := _batch(tokens, after=after, but=_given_up(troubles)):
        after = batch[-1].pk
        random.shuffle(batch)  # several workers may be at it; each begins elsewhere
        for token in batch:
            if token.partner.cloud in _given_up(troubles) or not tokens.filter(pk=token.pk).exists():
                continue
            try:
                with partner_scope(token.partner):
                    done += act(token)
                acted.add(token.partner.cloud)
            except Transient:
                troubles[token.partner.cloud] += 1
            except (Permanent, ValueError) as failure:
                failed += 1
                refused[token.partner.cloud] = getattr(failure, "code", "") or "unexpected"
                if failed == 1:  # a vault that refuses us altogether would fill the log
                    logger.error("a secret could not be swept", extra={"refresh_token": token.pk, "why": str(failure)})
    for cloud in acted | set(refused):
        alarms.note_disabling(cloud, refused.get(cloud, ""))
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
        custody.note_version(token, newest.version)
        stored = (
            newest.version != token.pinned_version
            and custody.fence_of(newest) == crashed
            and custody.ours_of(token, newest)
        )
        if stored:
            adopted = token.point_at(newest.version, next_refresh_at=custody.next_refresh_at(timezone.now()))
            logger.warning("a version that a crash left unpinned was adopted", extra={"refresh_token": token.pk})
    token.release()
    return int(adopted)


def _with_aged_versions(now: dt.datetime) -> QuerySet[RefreshToken]:
    aged = SecretVersion.objects.filter(token=OuterRef("pk"), disabled_at=None, seen_at__lt=now - custody.DAY)
    return RefreshToken.objects.current().filter(Exists(aged)).order_by("pk")


def _disable_aged(token: RefreshToken) -> int:
    """Disable versions of more than a day ago, but for the one that is pinned and the two newest."""
    enabled = list(token.versions.filter(disabled_at=None).order_by("-seen_at", "-pk"))
    disabled = 0
    for version in enabled[2:]:
        if version.version != token.pinned_version and version.seen_at < timezone.now() - custody.DAY:
            disabled += _disable(token, version)
    return disabled


def _close(token: RefreshToken) -> int:
    """Disable every version under a name that is over, the one we may not know of included."""
    reached("before close")
    vault = outside.vault(token.partner.cloud)
    with contextlib.suppress(SecretMissing, VersionDisabled):  # nothing arrived, or everything is known
        custody.note_version(token, vault.newest(token.secret_name).version)
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
