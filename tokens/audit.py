"""The append-only record of decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokens.actors import SYSTEM, Actor
from tokens.models import AuditEvent, RefreshToken

if TYPE_CHECKING:
    from partners.models import Partner


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
