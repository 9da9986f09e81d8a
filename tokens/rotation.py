"""
Keeping stored sign-ins alive: each is used and stored anew once a day at the latest, whether anybody works or not.

The clock claims due rows in one statement, a few at a time; so after an outage they come back one after another. A
claim is a later due time, which a success replaces by the next day's and a failure leaves as the pause before the next
try; and a mark that one message takes away, so that a doubled or replayed one finds nothing to do.
"""

from __future__ import annotations

import datetime as dt
import logging

from django.db import connection
from django.utils import timezone

from tokens import alarms, broker
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.errors import Failure, Transient
from tokens.models import RefreshToken
from tokens.tenancy import partner_scope, system_scope

logger = logging.getLogger(__name__)

AT_ONCE = 10  # rows a tick claims; a tick comes every two seconds, so no second sees more than ten
SHORTEST_PAUSE, SPREAD = 300, 600  # seconds until a row that failed is due again, and how far apart they fall
LONGEST_PAUSE = 24 * 3600.0  # seconds; whatever Microsoft asks, a sign-in is tried again the next day
IDLE_TOO_LONG = dt.timedelta(days=14)
PURPOSE = "token.keep"

# The spread comes from the row itself, so that both databases can write it in one statement, and two ticks agree.
CLAIM_DUE = """
UPDATE tokens_refreshtoken SET claimed_at = %(now)s, next_refresh_at = CASE id %% 4
    WHEN 0 THEN %(in_one)s WHEN 1 THEN %(in_two)s WHEN 2 THEN %(in_three)s ELSE %(in_four)s END
WHERE id IN (
    SELECT t.id FROM tokens_refreshtoken t JOIN partners_partner p ON p.id = t.partner_id
    WHERE t.next_refresh_at <= %(now)s AND t.stored_at IS NOT NULL AND t.superseded_at IS NULL
        AND t.pending_until IS NULL AND t.refused_at IS NULL AND p.suspended_at IS NULL AND p.killed_at IS NULL
        AND p.withdrawn_at IS NULL AND p.offboarded_at IS NULL AND (p.lapses_at IS NULL OR p.lapses_at > %(now)s)
        AND NOT EXISTS (SELECT 1 FROM tokens_halt h WHERE h.ended_at IS NULL AND h.partner_id IS NULL)
    ORDER BY t.next_refresh_at, t.id LIMIT %(limit)s
)
AND next_refresh_at <= %(now)s
RETURNING id
"""


@system_scope("sign-ins that are due")
def claim_due(limit: int = AT_ONCE) -> list[int]:
    """Claim rows that are due, in one statement; each id goes to one caller only."""
    now = timezone.now()
    pauses = {
        name: connection.ops.adapt_datetimefield_value(now + dt.timedelta(seconds=SHORTEST_PAUSE + SPREAD * part / 4))
        for part, name in enumerate(("in_one", "in_two", "in_three", "in_four"))
    }
    with connection.cursor() as cursor:
        asked = pauses | {"now": connection.ops.adapt_datetimefield_value(now), "limit": limit}
        cursor.execute(CLAIM_DUE, asked)
        return [row[0] for row in cursor.fetchall()]


@system_scope("a sign-in is claimed")
def rotate_claimed(token_id: int) -> bool:
    """The same as `rotate`, once for each claim; False too for whoever comes with a message that was used."""
    claimed = RefreshToken.objects.filter(pk=token_id, claimed_at__isnull=False)
    return claimed.update(claimed_at=None) == 1 and rotate(token_id)


def rotate(token_id: int) -> bool:
    """Use and store one stored sign-in anew; False when it could not be. What that means for the partner is noted."""
    token = RefreshToken.objects.live(timezone.now()).select_related("partner").filter(pk=token_id).first()
    if token is None:
        return False
    try:
        with partner_scope(token.partner):
            broker.keep(token, Audience.PARTNER_CENTER, purpose=PURPOSE, actor=SYSTEM)
    except Failure as failure:
        logger.warning("a sign-in was not stored anew", extra={"refresh_token": token_id, "code": failure.code})
        if isinstance(failure, Transient) and failure.retry_after:
            _postpone(token_id, failure.retry_after)
        return False
    return True


def _postpone(token_id: int, seconds: float) -> None:
    """Wait as long as Microsoft asks, where that is longer than our own pause."""
    until = timezone.now() + dt.timedelta(seconds=min(seconds, LONGEST_PAUSE))
    RefreshToken.objects.filter(pk=token_id, next_refresh_at__lt=until).update(next_refresh_at=until)


@system_scope("sign-ins nobody uses")
def watch_idle() -> None:
    """Raise an alarm for sign-ins that nobody has used for long, far from the 90 days after which they die."""
    now = timezone.now()
    live = RefreshToken.objects.live(now)
    for cloud in broker.clouds_in_use():
        idle = live.filter(partner__cloud=cloud, last_success_at__lt=now - IDLE_TOO_LONG)
        alarms.note_idle(cloud, idle.count())
