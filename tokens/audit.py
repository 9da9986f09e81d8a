"""The append-only record of decisions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Q

from tokens.actors import SYSTEM, Actor
from tokens.models import AuditEvent, RefreshToken

if TYPE_CHECKING:
    from partners.models import Partner

NOT_SHOWN = "not shown: it is about a customer"
# What lines of these actions are about, and what came of it, is between a partner and its customer.
_CHANGES, _OTHERS = "change.", ("users.asked", "member.customers_chosen")
_OPENED = "access.used"  # names a page, and with some pages the customer
NAME_CUSTOMERS = Q(action__startswith=_CHANGES) | Q(action__in=[*_OTHERS, _OPENED])
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Told:
    """What a line says to one reader."""

    object: str
    detail: dict[str, Any]


def told(event: AuditEvent, *, sees_customers: bool) -> Told:
    """All of a line to whoever may see customers; to others none of what it says about one."""
    if not sees_customers and (event.action.startswith(_CHANGES) or event.action in _OTHERS):
        return Told("", {"detail": NOT_SHOWN})
    if not sees_customers and event.action == _OPENED:
        detail = {name: _without_ids(value) for name, value in event.detail.items()}
        return Told(_without_ids(event.object), detail)
    return Told(event.object, event.detail)


def _without_ids(value: Any) -> Any:
    return _ID.sub("(not shown)", value) if isinstance(value, str) else value


def record(
    action: str,
    *,
    actor: Actor,
    partner: Partner | None = None,
    object: object = "",
    request_id: str = "",
    **detail: Any,
) -> AuditEvent:
    """
    Write down who decided what; call it inside the transaction that carries the decision out.

    `detail` holds ids, codes and counts that a partner may read; never a token, a code or a mail's text.
    """
    return AuditEvent.objects.create(
        partner=partner,
        actor_kind=actor.kind,
        actor_id=actor.id[:150],
        actor_label=actor.label[:320],
        action=action,
        object=str(object)[:200],
        request_id=request_id[:64],
        detail=detail,
    )


def connection_refused(token: RefreshToken, refusal: str, *, code: str) -> None:
    """Microsoft takes a stored sign-in no more; `refusal` is one of `REFUSALS`."""
    record(
        "connection.refused", actor=SYSTEM, partner=token.partner, object=token.secret_name, refusal=refusal, code=code
    )


def connection_limited(token: RefreshToken, missing: Sequence[str], *, code: str) -> None:
    """Microsoft takes it still, but no longer for these permissions."""
    record(
        "connection.limited", actor=SYSTEM, partner=token.partner, object=token.secret_name, missing=list(missing),
        code=code,
    )  # fmt: skip


def wrong_holder(token: RefreshToken) -> None:
    """Microsoft answered for somebody else than the row names."""
    record("connection.wrong_holder", actor=SYSTEM, partner=token.partner, object=token.secret_name)
