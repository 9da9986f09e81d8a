"""
Leaving for Microsoft and being recognised on the way back: what consent, approval and both sign-ins share.

An attempt is a row with the hash of its state, tied to one browser, good for ten minutes and for one answer.
"""

from __future__ import annotations

import datetime as dt
import hmac
import json
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.utils import timezone

from consent.models import ATTEMPT_LIFE, ConsentAttempt, Invitation, MemberInvitation, PostedAnswer, digest
from consent.refusals import WAY_ON, Refused, of_answer, of_failure
from partners.models import Partner, User
from tokens import outside
from tokens.actors import Actor, ActorKind
from tokens.clouds import cloud_named
from tokens.entra import Identity
from tokens.errors import Failure
from tokens.id_token import LEEWAY
from tokens.secret import Secret

CALLBACKS = {
    "consent": "/connect/callback",
    "signin": "/signin/callback",
    "admin": "/connect/admin-consent/callback",
    "staff": "/admin/microsoft/callback",
}
KEEP = dt.timedelta(days=1)
VISITOR = Actor(ActorKind.VISITOR, label="visitor")


def callback_address(kind: str) -> str:
    return f"{settings.CPV_BASE_URL}{CALLBACKS[kind]}"


# --- Leaving ----------------------------------------------------------------------------------------------------------
def flow_to_microsoft(
    cloud: str,
    *,
    tenant: str,
    scopes: list[str],
    kind: str,
    retry_path: str,
    hint: str = "",
    offline_access: bool = True,
    claims: str = "",
    prompt: str = "select_account",
    max_age: int | None = None,
) -> dict[str, Any]:
    """
    What MSAL needs to know again on the way back: state, nonce, verifier, and the address to send the browser to.

    :raises Refused: Microsoft cannot be reached
    """
    try:
        flow = outside.entra(cloud).begin(
            tenant=tenant,
            scopes=scopes,
            redirect_uri=callback_address(kind),
            login_hint=hint or None,
            response_mode=settings.CPV_RESPONSE_MODE,
            prompt=prompt,
            offline_access=offline_access,
            claims=claims or None,
            max_age=max_age,
        )
    except Failure as failure:
        raise as_refusal(failure, retry_path) from failure
    return flow | {"retry_path": retry_path, "tenant": tenant}


def remember(
    flow: dict[str, Any],
    kind: str,
    cloud: str,
    browser: str,
    *,
    partner: Partner | None = None,
    invitation: Invitation | None = None,
    member_invitation: MemberInvitation | None = None,
    next_path: str = "",
) -> str:
    """Write the attempt down, sealed and tied to this browser; returns the address to send the browser to."""
    state_hash = digest(flow["state"])
    ConsentAttempt.objects.create(
        kind=kind,
        cloud=cloud,
        partner=partner,
        invitation=invitation,
        member_invitation=member_invitation,
        state_hash=state_hash,
        browser_hash=digest(browser),
        sealed_flow=outside.keyring().seal(Secret(json.dumps(flow)), aad=_attempt_aad(state_hash)),
        next_path=next_path,
        expires_at=timezone.now() + ATTEMPT_LIFE,
    )
    return str(flow["auth_uri"])


def _attempt_aad(state_hash: bytes) -> list[str]:
    return ["attempt", bytes(state_hash).hex()]


# --- The way back -----------------------------------------------------------------------------------------------------
def claimed(
    kind: ConsentAttempt.Kind, answer: Mapping[str, str], browser: str
) -> tuple[ConsentAttempt, dict[str, Any]]:
    """
    The attempt this answer belongs to, claimed and committed before anything leaves for Microsoft.

    :raises Refused: no such attempt, another browser's, too late, or answered already
    """
    state_hash = digest(answer.get("state", ""))
    known = ConsentAttempt.objects.select_related("partner", "invitation", "member_invitation__partner")
    attempt = known.filter(kind=kind, state_hash=state_hash).first()
    if attempt is None:
        raise Refused("unknown_attempt", retry_path=WAY_ON[kind])
    sealed = attempt.sealed_flow
    reason = _why_not(attempt, browser) or ("" if attempt.claim() else "replayed")
    if reason:
        by_link = attempt.invitation or attempt.member_invitation
        raise Refused(reason, retry_path="" if by_link else WAY_ON[kind] or "/")
    return attempt, json.loads(outside.keyring().open(sealed, aad=_attempt_aad(state_hash)).reveal())


def _why_not(attempt: ConsentAttempt, browser: str) -> str:
    if not browser or not hmac.compare_digest(bytes(attempt.browser_hash), digest(browser)):
        return "other_browser"
    if attempt.claimed_at:
        return "replayed"
    return "too_late" if attempt.expires_at <= timezone.now() else ""


def check_answer(answer: Mapping[str, str], cloud: str) -> None:
    """
    Let pass what is worth looking at further. An answer that says who sent it has to name this cloud; most say nothing.

    https://www.rfc-editor.org/rfc/rfc9207#section-2.4
    :raises Refused: somebody else sent it, or it is a no
    """
    named = cloud_named(cloud)
    senders = tuple(f"https://{host}/" for host in (named.login_host, *named.legacy_login_hosts))
    if "iss" in answer and not answer["iss"].startswith(senders):
        raise Refused("unverified", "another iss")
    if "error" in answer:
        raise of_answer(answer["error"], answer.get("error_description", ""))


def as_refusal(error: Refused | Failure, retry_path: str) -> Refused:
    """What a visitor is told about a failure, and where the way begins anew."""
    refused = error if isinstance(error, Refused) else of_failure(error)
    refused.retry_path = refused.retry_path or retry_path
    return refused


def proven_identity(cloud: str, id_token: Secret | None, flow: dict[str, Any]) -> Identity:
    """
    Who came back, by our own validation of the id_token.

    :raises Refused: no id_token came, or a guest's
    """
    if id_token is None:
        raise Refused("unverified", "no id_token")
    identity = outside.entra(cloud).validate(id_token, nonce=flow["nonce"])
    if identity.is_guest:
        raise Refused("guest")
    return identity


def check_no_staff(identity: Identity) -> None:
    """:raises Refused: one of the vendor's staff, who are nobody's members"""
    who = {"cloud": identity.cloud, "tid": identity.tenant_id, "oid": identity.object_id}
    if User.objects.filter(**who, is_staff=True).exists():
        raise Refused("one_of_the_staff")


def check_lately(identity: Identity, *, since: dt.datetime) -> None:
    """:raises Refused: Microsoft did not ask them anew, whatever became of our wish on its way through the browser"""
    if identity.authenticated_at is None or identity.authenticated_at < since.timestamp() - LEEWAY:
        raise Refused("not_anew")


# --- Tidying up -----------------------------------------------------------------------------------------------------
def forget_old() -> None:
    """Let go of answers nobody came for, and of attempts after a day; what was agreed stays in Consent."""
    now = timezone.now()
    PostedAnswer.objects.filter(expires_at__lte=now).delete()
    ConsentAttempt.objects.filter(expires_at__lt=now - KEEP).delete()
