"""The append-only record of decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokens.actors import Actor
from tokens.models import AuditEvent

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
