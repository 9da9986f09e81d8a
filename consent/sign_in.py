"""
Signing in: `openid profile` only, and only with MFA that we can see.

It is for somebody who is a member already, or was invited to be one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from consent import attempts, mfa_at_sign_in, team
from consent.attempts import VISITOR
from consent.models import ConsentAttempt, MemberInvitation
from consent.refusals import Refused, of_failure
from partners.models import Member, Partner, User
from partners.presence import FRESH
from tokens import audit, broker, gate
from tokens.entra import Identity
from tokens.entra import Refused as EntraRefused
from tokens.errors import Failure

TENANT = "organizations"
KIND = ConsentAttempt.Kind.SIGN_IN
# Words of a refusal that speak of an invitation, and what is said instead to somebody who signs in.
AT_SIGN_IN = {"guest": "guest_at_sign_in", "personal": "personal_at_sign_in", "no_mfa": "no_mfa_at_sign_in"}


@dataclass(frozen=True)
class SignedIn:
    """
    A member who came, or, with `again`, proved once more who they are.

    Without a `partner` they are a member of several and have still to choose. `proved_at` is when they proved
    themselves (seconds since 1970), where Microsoft said so.
    """

    user: User
    partner: Partner | None
    next_path: str
    mfa: dict[str, Any] = field(default_factory=dict)
    proved_at: int | None = None
    again: bool = False


@dataclass(frozen=True)
class GoOn:
    """Who it is we know; how they signed in Microsoft has still to say, at this address."""

    address: str


def begin(
    *,
    cloud: str,
    browser: str,
    next_path: str = "",
    retry_path: str = "/signin",
    invitation: MemberInvitation | None = None,
    again: Member | None = None,
) -> str:
    """
    Start a sign-in with `openid profile` only; returns the address at Microsoft.

    With an `invitation` it makes whoever comes back a member, if they are of the organisation it is for. `again` is
    somebody who is signed in and has to prove it anew: Microsoft asks them whatever it remembers.
    """
    tenant, hint = (str(again.user.tid), again.user.upn) if again else (TENANT, "")
    flow = attempts.flow_to_microsoft(
        cloud,
        tenant=tenant,
        scopes=[],
        kind=KIND,
        retry_path="/signin/again" if again else retry_path,
        hint=hint,
        offline_access=False,
        claims=mfa_at_sign_in.claims(settings.CPV_SIGN_IN_CONTEXT),
        prompt="login" if again else "select_account",
        max_age=FRESH if again else None,
    )
    flow["again"] = again.pk if again else None
    return attempts.remember(
        flow, KIND, cloud, browser, partner=again.partner if again else None, member_invitation=invitation,
        next_path=next_path,
    )  # fmt: skip


def complete(*, answer: Mapping[str, str], browser: str) -> SignedIn | GoOn:
    """
    End a sign-in: admit somebody who is a member, or becomes one now, known by (cloud, tid, oid) and nothing else.

    `browser` is a secret of the session, which ends when somebody else signs in: what one member began to prove,
    nobody can end for another.
    :raises Refused: with the reason for the visitor
    """
    attempt, flow = attempts.claimed(KIND, answer, browser)
    try:
        attempts.check_answer(answer, attempt.cloud)
        ended = (_second if "so_far" in flow else _first)(attempt, flow, dict(answer), browser)
    except (Refused, Failure) as error:
        refused = _in_words(attempts.as_refusal(error, flow["retry_path"]), silent="so_far" in flow)
        attempt.close(refused.reason)
        raise refused from (None if refused is error else error)
    attempt.close("signed in" if isinstance(ended, SignedIn) else "asked how")
    if isinstance(ended, SignedIn):
        _write_down(ended)
    return ended


def _write_down(ended: SignedIn) -> None:
    actor = ended.user.as_actor()
    if ended.again:
        audit.record("member.confirmed", actor=actor, partner=ended.partner, mfa=ended.mfa)
    else:
        audit.record("member.signed_in", actor=actor, partner=ended.partner, mfa=ended.mfa)


def _in_words(refused: Refused, *, silent: bool) -> Refused:
    """What it means here: where we asked in silence how somebody had signed in, a no leaves that unknown."""
    reason = AT_SIGN_IN.get(refused.reason, refused.reason)
    if silent and reason not in mfa_at_sign_in.FINAL:
        reason = "mfa_unknown"
    return Refused(reason, refused.reference, retry_path=refused.retry_path)


# --- Who it is ------------------------------------------------------------------------------------------------------
def _first(attempt: ConsentAttempt, flow: dict[str, Any], answer: dict[str, str], browser: str) -> SignedIn | GoOn:
    grant = broker.redeem_sign_in(
        cloud=attempt.cloud, tenant=flow.get("tenant", TENANT), flow=flow, answer=answer, actor=VISITOR
    )
    identity = attempts.proven_identity(attempt.cloud, grant.id_token, flow)
    if attempt.member_invitation is None:
        _known(attempt, flow, identity.tenant_id, identity.object_id)
    elif identity.tenant_id != attempt.member_invitation.tenant_id:
        raise Refused("not_of_the_team")
    else:
        attempts.check_no_staff(identity)
    if flow.get("again"):
        attempts.check_lately(identity, since=attempt.created_at)
    evidence = mfa_at_sign_in.in_id_token(identity, settings.CPV_SIGN_IN_CONTEXT)
    if evidence is None:
        return _ask_how(attempt, flow, identity, browser)
    return _signed_in(attempt, flow, identity, evidence, identity.authenticated_at)


def _known(attempt: ConsentAttempt, flow: dict[str, Any], tenant_id: UUID, object_id: UUID) -> list[Member]:
    """
    The memberships of this person, the newest first; of somebody who proves themselves again the one in question.

    :raises Refused: they have none, or are not who has to prove themselves again
    """
    of_person = Member.objects.filter(
        user__cloud=attempt.cloud, user__tid=tenant_id, user__oid=object_id, user__is_active=True
    )
    mine = of_person.filter(partner__offboarded_at=None).select_related("user", "partner").order_by("-pk")
    if flow.get("again"):
        mine = mine.filter(pk=flow["again"])
    found = list(mine)
    if not found:
        raise Refused("another_person" if flow.get("again") else "not_a_member")
    return found


def _signed_in(
    attempt: ConsentAttempt, flow: dict[str, Any], identity: Identity, evidence: dict[str, Any], proved_at: int | None
) -> SignedIn:
    evidence = evidence | {"at": timezone.now().isoformat()}
    if attempt.member_invitation:
        joined = team.join(invitation=attempt.member_invitation, identity=identity)
        return SignedIn(joined.user, joined.partner, "", evidence, proved_at)
    mine = _known(attempt, flow, identity.tenant_id, identity.object_id)
    partner = mine[0].partner if len(mine) == 1 else None
    return SignedIn(mine[0].user, partner, attempt.next_path, evidence, proved_at, bool(flow.get("again")))


# --- How they signed in, where the id_token does not say -------------------------------------------------------------
def _ask_how(attempt: ConsentAttempt, flow: dict[str, Any], identity: Identity, browser: str) -> GoOn:
    """Lead on in silence for an access token that tells: nobody is asked to agree to anything at a sign-in."""
    more = attempts.flow_to_microsoft(
        attempt.cloud,
        tenant=str(identity.tenant_id),
        scopes=broker.mfa_scopes(attempt.cloud),
        kind=KIND,
        retry_path=flow["retry_path"],
        hint=identity.username,
        offline_access=False,
        prompt="none",
    )
    more["again"] = flow.get("again")
    more["so_far"] = {
        "tid": str(identity.tenant_id), "oid": str(identity.object_id), "proved_at": identity.authenticated_at
    }  # fmt: skip
    address = attempts.remember(
        more, KIND, attempt.cloud, browser, member_invitation=attempt.member_invitation, next_path=attempt.next_path
    )
    return GoOn(address)


def _one_that_goes_on(mine: list[Member]) -> Partner:
    """Of somebody's partners one that nobody stopped, if there is one: the stop of one closes no other's door."""
    for member in mine:
        with contextlib.suppress(gate.Stopped):
            gate.check_open(member.partner)
            return member.partner
    return mine[0].partner


def _second(attempt: ConsentAttempt, flow: dict[str, Any], answer: dict[str, str], browser: str) -> SignedIn:
    so_far = flow["so_far"]
    invitation = attempt.member_invitation
    mine = [] if invitation else _known(attempt, flow, UUID(so_far["tid"]), UUID(so_far["oid"]))
    partner = invitation.partner if invitation else _one_that_goes_on(mine)
    try:
        grant = broker.redeem_mfa_proof(
            partner=partner, tenant=flow.get("tenant", TENANT), flow=flow, answer=answer, actor=VISITOR
        )
    except EntraRefused as refused:
        raise of_failure(refused) from refused
    identity = attempts.proven_identity(attempt.cloud, grant.id_token, flow)
    if (str(identity.tenant_id), str(identity.object_id)) != (so_far["tid"], so_far["oid"]):
        raise Refused("another_person")
    evidence = mfa_at_sign_in.in_access_token(grant.access_token, of=identity)
    return _signed_in(attempt, flow, identity, evidence, so_far["proved_at"])
