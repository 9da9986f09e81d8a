"""The ledger of token requests: a line before each request leaves, and its end; kept for 400 days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from django.utils import timezone

from tokens import alarms, lifetimes, rollover
from tokens.actors import Actor
from tokens.clouds import Audience
from tokens.entra import Grant
from tokens.errors import Failure, Transient
from tokens.gate import Stopped
from tokens.id_token import BadIdToken
from tokens.models import TokenUse
from tokens.refusals import WrongHolder

if TYPE_CHECKING:
    from partners.models import Partner

KEEP_LEDGER = dt.timedelta(days=400)


def begin(
    partner: Partner | None,
    audience: Audience | str,
    *,
    purpose: str,
    actor: Actor,
    generation: int | None = None,
    tenant: UUID | None = None,
) -> TokenUse:
    """Write the line before the request leaves."""
    return TokenUse.objects.create(
        partner=partner,
        audience=str(audience),
        purpose=purpose,
        generation=generation,
        customer_tenant=tenant,
        actor_kind=actor.kind,
        actor_id=actor.id[:150],
        actor_label=actor.label[:320],
    )


def noted(use: TokenUse, cloud: str, redeem: Callable[[], Grant]) -> Grant:
    try:
        grant = rollover.redeem(use, cloud, redeem)
    except Failure as failure:
        close_refused(use, failure, cloud)
        raise
    close_granted(use, grant, cloud)
    return grant


def close_granted(use: TokenUse, grant: Grant, cloud: str) -> None:
    use.close(TokenUse.Outcome.GRANTED, lives_s=grant.expires_in)
    lifetimes.warn(use, cloud)
    of_stored = use.generation is not None
    rollover.all_clear(cloud, audience=use.audience, partner_id=use.partner_id if of_stored else None)


def close_refused(use: TokenUse, failure: Failure, cloud: str) -> None:
    alarms.note(failure, cloud=cloud, audience=use.audience)
    use.close(_outcome(use, failure), code=failure.code)


def _outcome(use: TokenUse, failure: Failure) -> TokenUse.Outcome:
    if not use.has_left or isinstance(failure, Stopped):  # a stop comes before the first byte
        return TokenUse.Outcome.WITHHELD
    if isinstance(failure, BadIdToken | WrongHolder):  # a token was handed out, and we use nothing of it
        return TokenUse.Outcome.GRANTED
    return TokenUse.Outcome.UNAVAILABLE if isinstance(failure, Transient) else TokenUse.Outcome.REFUSED


def forget_old() -> None:
    """Let go of ledger lines after 400 days."""
    TokenUse.objects.filter(at__lt=timezone.now() - KEEP_LEDGER).delete()
