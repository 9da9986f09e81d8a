"""How long access tokens live: each life stands in the ledger, and one that is longer than need be is warned about."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable
from typing import Any

from django.db.models import Max, QuerySet
from django.utils import timezone

from tokens import alarms
from tokens.models import LONGEST_LIFE, TokenUse

logger = logging.getLogger(__name__)

RECENT = dt.timedelta(days=2)  # a token of 28 hours is asked for once in that time at least, by who works at all


def warn(use: TokenUse, cloud: str) -> None:
    """Tell the log, and support by an alarm, of a token that lives too long: a thief would use it that long."""
    if use.partner_id is None or not use.lives_s or use.lives_s <= LONGEST_LIFE:
        return
    logger.warning(
        "an access token lives longer than need be",
        extra={"ledger": use.pk, "partner": use.partner_id, "audience": use.audience, "seconds": use.lives_s},
    )
    alarms.note_long_lived(cloud, _number(cloud))


def longest(cloud: str) -> list[dict[str, Any]]:
    """
    The partners of a cloud whose tokens outlived the limit in the last two days, with audience and longest life.

    Each is {"tenant_id", "name", "audience", "lives_s"}, lives_s in seconds, the longest first.
    """
    found = _long_lived(cloud).values("partner__tenant_id", "partner__name", "audience").annotate(life=Max("lives_s"))
    return [
        {
            "tenant_id": row["partner__tenant_id"],
            "name": row["partner__name"],
            "audience": row["audience"],
            "lives_s": row["life"],
        }
        for row in found.order_by("-life", "partner__name", "audience")
    ]


def watch(clouds: Iterable[str]) -> None:
    """Close the alarm of each cloud in which no such token was handed out for two days, and keep the others'."""
    for cloud in clouds:
        alarms.note_long_lived(cloud, _number(cloud))


def _number(cloud: str) -> int:
    return _long_lived(cloud).values("partner").distinct().count()


def _long_lived(cloud: str) -> QuerySet[TokenUse]:
    since = timezone.now() - RECENT
    return TokenUse.objects.filter(lives_s__gt=LONGEST_LIFE, at__gt=since, partner__cloud=cloud)
