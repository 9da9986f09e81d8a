"""Signing in: `openid profile` only, and only for somebody who is a member already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from consent import attempts
from consent.attempts import VISITOR
from consent.models import ConsentAttempt
from consent.refusals import Refused, of_answer
from partners.models import Member, Partner, User
from tokens import audit, broker
from tokens.errors import Failure

TENANT = "organizations"


@dataclass(frozen=True)
class SignedIn:
    """An existing member who came back."""

    user: User
    partner: Partner
    next_path: str


def begin(*, cloud: str, browser: str, next_path: str) -> str:
    """Start a sign-in with `openid profile` only; returns the address at Microsoft."""
    kind = ConsentAttempt.Kind.SIGN_IN
    flow = attempts.flow_to_microsoft(
        cloud, tenant=TENANT, scopes=[], kind=kind, retry_path="/signin", openid_only=True
    )
    return attempts.remember(flow, kind, cloud, browser, next_path=next_path)


def complete(*, answer: Mapping[str, str], browser: str) -> SignedIn:
    """
    End a sign-in: admit somebody who is a member already, known by (cloud, tid, oid) and nothing else.

    :raises Refused: with the reason for the visitor
    """
    attempt, flow = attempts.claimed(ConsentAttempt.Kind.SIGN_IN, answer, browser)
    try:
        signed_in = _complete(attempt, flow, dict(answer))
    except (Refused, Failure) as error:
        refused = attempts.as_refusal(error, flow["retry_path"])
        attempt.close(refused.reason)
        raise refused from (None if refused is error else error)
    attempt.close("signed in")
    audit.record("member.signed_in", actor=signed_in.user.as_actor(), partner=signed_in.partner)
    return signed_in


def _complete(attempt: ConsentAttempt, flow: dict[str, Any], answer: dict[str, str]) -> SignedIn:
    if "error" in answer:
        raise of_answer(answer["error"], answer.get("error_description", ""))
    grant = broker.redeem_sign_in(cloud=attempt.cloud, flow=flow, answer=answer, actor=VISITOR)
    identity = attempts.proven_identity(attempt.cloud, grant.id_token, flow)
    member = _member(attempt.cloud, identity.tenant_id, identity.object_id)
    if member is None:
        raise Refused("not_a_member")
    return SignedIn(member.user, member.partner, attempt.next_path)


def _member(cloud: str, tenant_id: UUID, object_id: UUID) -> Member | None:
    """The newest membership of this person."""
    of_person = Member.objects.filter(user__cloud=cloud, user__tid=tenant_id, user__oid=object_id, user__is_active=True)
    return of_person.filter(partner__offboarded_at=None).select_related("user", "partner").order_by("-pk").first()
