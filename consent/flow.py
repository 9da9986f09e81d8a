"""
The way to Microsoft and back: begin, complete, and sign in.

Every check happens before anything is stored. A refusal leaves no trace in the vault, and tells the visitor why.
"""

from __future__ import annotations

import datetime as dt
import hmac
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from consent import checks_at_consent as checks
from consent.models import ATTEMPT_LIFE, INVITATION_LIFE, Consent, ConsentAttempt, Invitation, PostedAnswer, digest
from consent.refusals import WAY_ON, Refused, of_answer, of_failure
from partners import jobs
from partners.models import Member, Partner, User
from partners.standing import current_token, standing
from tokens import audit, broker, custody, outside, permissions
from tokens.actors import Actor, ActorKind
from tokens.clouds import cloud_named
from tokens.entra import Identity
from tokens.errors import Failure
from tokens.models import RefreshToken
from tokens.secret import Secret

logger = logging.getLogger(__name__)

CALLBACKS = {
    "consent": "/connect/callback",
    "signin": "/signin/callback",
    "admin": "/connect/admin-consent/callback",
}
KEEP_ATTEMPTS = dt.timedelta(days=1)
KEEP_INVITATIONS = dt.timedelta(days=90)
TERMS_VERSION = "2026-11"
SIGN_IN_TENANT = "organizations"
VISITOR = Actor(ActorKind.VISITOR, label="visitor")


@dataclass(frozen=True)
class Connected:
    """A consent that was stored, and the person who gave it."""

    partner: Partner
    user: User


@dataclass(frozen=True)
class SignedIn:
    """An existing member who came back."""

    user: User
    partner: Partner
    next_path: str


def callback_address(kind: str) -> str:
    return f"{settings.CPV_BASE_URL}{CALLBACKS[kind]}"


# --- Begin ----------------------------------------------------------------------------------------------------------
def usable_invitation(link: str) -> Invitation:
    """
    The invitation behind a link, unspent and in time.

    :raises Refused: unknown, expired or used
    """
    invitation = Invitation.objects.select_related("partner").filter(link_hash=digest(link)).first()
    if invitation is None or invitation.partner.offboarded_at:
        raise Refused("unknown_invitation")
    if invitation.used_at:
        raise Refused("used_invitation")
    if invitation.is_expired:
        raise Refused("expired_invitation")
    return invitation


def begin(
    *, partner: Partner, browser: str, retry_path: str, invitation: Invitation | None = None, hint: str = ""
) -> str:
    """
    Start a consent; returns the address at Microsoft to send the browser to.

    `browser` is a secret of the visitor's session: only the browser that holds it can end the attempt.
    :raises Refused: the partner is stopped, or Microsoft cannot be reached
    """
    _check_open(partner, retry_path)
    if _works(partner, current_token(partner)):
        raise Refused("already_connected")
    flow = _flow(
        partner.cloud,
        tenant=str(partner.tenant_id),
        scopes=permissions.scopes(outside.asked_permissions(), cloud_named(partner.cloud)),
        kind=ConsentAttempt.Kind.CONSENT,
        retry_path=retry_path,
        hint=hint,
    )
    return _remember(flow, ConsentAttempt.Kind.CONSENT, partner.cloud, browser, partner=partner, invitation=invitation)


def begin_admin_consent(
    *, partner: Partner, browser: str, retry_path: str, invitation: Invitation | None = None
) -> str:
    """
    Start an administrator's approval; returns the address at Microsoft. No credential of anybody comes of it.

    :raises Refused: the partner is stopped, connected already, or Microsoft cannot be reached
    """
    _check_open(partner, retry_path)
    if _works(partner, current_token(partner)):
        raise Refused("already_connected")
    kind, state = ConsentAttempt.Kind.ADMIN_CONSENT, secrets.token_urlsafe(32)
    try:
        address = outside.entra(partner.cloud).admin_consent_address(
            tenant=str(partner.tenant_id),
            scopes=permissions.scopes(outside.asked_permissions(), cloud_named(partner.cloud)),
            redirect_uri=callback_address(kind),
            state=state,
        )
    except Failure as failure:
        raise _as_refusal(failure, retry_path) from failure
    flow = {"state": state, "auth_uri": address, "retry_path": retry_path}
    return _remember(flow, kind, partner.cloud, browser, partner=partner, invitation=invitation)


def _check_open(partner: Partner, retry_path: str) -> None:
    try:
        broker.check_open(partner)
    except broker.Stopped as stopped:
        raise Refused("stopped", retry_path=retry_path) from stopped


def begin_sign_in(*, cloud: str, browser: str, next_path: str) -> str:
    """Start a sign-in with `openid profile` only; returns the address at Microsoft."""
    kind = ConsentAttempt.Kind.SIGN_IN
    flow = _flow(cloud, tenant=SIGN_IN_TENANT, scopes=[], kind=kind, retry_path="/signin", openid_only=True)
    return _remember(flow, kind, cloud, browser, next_path=next_path)


def _flow(
    cloud: str, *, tenant: str, scopes: list[str], kind: str, retry_path: str, hint: str = "", openid_only: bool = False
) -> dict[str, Any]:
    try:
        flow = outside.entra(cloud).begin(
            tenant=tenant,
            scopes=scopes,
            redirect_uri=callback_address(kind),
            login_hint=hint or None,
            response_mode=settings.CPV_RESPONSE_MODE,
            openid_only=openid_only,
        )
    except Failure as failure:
        raise _as_refusal(failure, retry_path) from failure
    return flow | {"retry_path": retry_path}


def _remember(
    flow: dict[str, Any],
    kind: str,
    cloud: str,
    browser: str,
    *,
    partner: Partner | None = None,
    invitation: Invitation | None = None,
    next_path: str = "",
) -> str:
    state_hash = digest(flow["state"])
    ConsentAttempt.objects.create(
        kind=kind,
        cloud=cloud,
        partner=partner,
        invitation=invitation,
        state_hash=state_hash,
        browser_hash=digest(browser),
        sealed_flow=outside.keyring().seal(Secret(json.dumps(flow)), aad=_attempt_aad(state_hash)),
        next_path=next_path,
        expires_at=timezone.now() + ATTEMPT_LIFE,
    )
    return str(flow["auth_uri"])


def _attempt_aad(state_hash: bytes) -> list[str]:
    return ["attempt", bytes(state_hash).hex()]


# --- The way back ---------------------------------------------------------------------------------------------------
def _claimed(
    kind: ConsentAttempt.Kind, answer: Mapping[str, str], browser: str
) -> tuple[ConsentAttempt, dict[str, Any]]:
    """The attempt this answer belongs to, claimed and committed before anything leaves for Microsoft."""
    state_hash = digest(answer.get("state", ""))
    attempt = (
        ConsentAttempt.objects.select_related("partner", "invitation").filter(kind=kind, state_hash=state_hash).first()
    )
    if attempt is None:
        raise Refused("unknown_attempt", retry_path=WAY_ON[kind])
    sealed = attempt.sealed_flow
    reason = _why_not(attempt, browser) or ("" if attempt.claim() else "replayed")
    if reason:
        raise Refused(reason, retry_path="" if attempt.invitation else WAY_ON[kind] or "/")
    return attempt, json.loads(outside.keyring().open(sealed, aad=_attempt_aad(state_hash)).reveal())


def _why_not(attempt: ConsentAttempt, browser: str) -> str:
    if not browser or not hmac.compare_digest(bytes(attempt.browser_hash), digest(browser)):
        return "other_browser"
    if attempt.claimed_at:
        return "replayed"
    return "too_late" if attempt.expires_at <= timezone.now() else ""


def complete(*, answer: Mapping[str, str], browser: str) -> Connected:
    """
    End a consent: prove who came back, check everything, then store.

    :raises Refused: with the reason for the visitor; the vault was not touched, or what it holds is swept
    """
    attempt, flow = _claimed(ConsentAttempt.Kind.CONSENT, answer, browser)
    try:
        connected = _complete(attempt, flow, dict(answer))
    except (Refused, Failure) as error:
        refused = _as_refusal(error, flow["retry_path"])
        attempt.close(refused.reason)
        audit.record(
            "consent.refused",
            actor=VISITOR,
            partner=attempt.partner,
            reason=refused.reason,
            reference=refused.reference,
        )
        logger.info("consent refused", extra={"reason": refused.reason, "attempt": attempt.pk})
        raise refused from (None if refused is error else error)
    attempt.close("connected")
    return connected


def _as_refusal(error: Refused | Failure, retry_path: str) -> Refused:
    refused = error if isinstance(error, Refused) else of_failure(error)
    refused.retry_path = refused.retry_path or retry_path
    return refused


def _complete(attempt: ConsentAttempt, flow: dict[str, Any], answer: dict[str, str]) -> Connected:
    partner = attempt.partner
    if partner is None:
        raise AssertionError("a consent attempt names its partner")  # pragma: no cover - a constraint sees to it
    if "error" in answer:
        raise of_answer(answer["error"], answer.get("error_description", ""))
    _replaceable(attempt, partner)
    _check_open(partner, flow["retry_path"])
    grant = broker.redeem_code(partner=partner, flow=flow, answer=answer, actor=VISITOR)
    identity = _proven_identity(partner.cloud, grant.id_token, flow)
    if identity.tenant_id != partner.tenant_id:
        raise Refused("wrong_tenant")
    evidence = checks.everything(partner=partner, grant=grant, identity=identity)
    return _store(attempt, partner, identity, evidence, replaces=_replaceable(attempt, partner))


def _proven_identity(cloud: str, id_token: Secret | None, flow: dict[str, Any]) -> Identity:
    if id_token is None:
        raise Refused("unverified", "no id_token")
    identity = outside.entra(cloud).validate(id_token, nonce=flow["nonce"])
    if identity.is_guest:
        raise Refused("guest")
    return identity


def _replaceable(attempt: ConsentAttempt, partner: Partner) -> RefreshToken | None:
    """The generation in force that this consent may replace; the first success wins, a second tab is too late."""
    partner.refresh_from_db()  # another consent may have opened a new access period meanwhile
    spent = Invitation.objects.filter(pk=attempt.invitation_id or 0, used_at__isnull=False)
    token = current_token(partner)
    if spent.exists() or _works(partner, token):
        raise Refused("already_connected")
    return token


def _works(partner: Partner, token: RefreshToken | None) -> bool:
    """Whether a consent is in force that no further one may replace unasked."""
    return token is not None and standing(partner, token).is_live and not (token.limits or token.missing_scopes)


def _store(
    attempt: ConsentAttempt,
    partner: Partner,
    identity: Identity,
    evidence: checks.Evidence,
    *,
    replaces: RefreshToken | None,
) -> Connected:
    people: list[User] = []

    def on_pin(token: RefreshToken) -> None:
        people.append(_write_consent(attempt, token, identity, evidence))

    try:
        custody.store(
            partner=partner,
            refresh_token=evidence.refresh_token,
            oid=identity.object_id,
            upn=identity.username,
            limits=evidence.limits,
            missing_scopes=evidence.missing,
            replaces=replaces,
            on_pin=on_pin,
        )
    except custody.NotOpen as failure:
        raise Refused("already_connected" if failure.code == "already_connected" else "stopped") from failure
    return Connected(partner, people[0])


def _write_consent(attempt: ConsentAttempt, token: RefreshToken, identity: Identity, evidence: checks.Evidence) -> User:
    """Everything a success changes, inside the transaction that pins the token."""
    if attempt.invitation and not attempt.invitation.mark_used():
        raise custody.NotOpen("another tab was faster", code="already_connected")
    partner = token.partner
    Consent.objects.create(
        partner=partner,
        token=token,
        oid=identity.object_id,
        upn=identity.username,
        name=identity.name,
        role=evidence.role,
        scopes=sorted(evidence.scopes),
        mfa_evidence=evidence.mfa,
        terms_version=TERMS_VERSION,
    )
    partner.start_access_period(timezone.now())
    user = User.objects.member(
        cloud=partner.cloud,
        tenant_id=identity.tenant_id,
        object_id=identity.object_id,
        upn=identity.username,
        name=identity.name,
    )
    Member.objects.get_or_create(user=user, partner=partner, defaults={"role": Member.Role.OWNER})
    audit.record(
        "consent.given", actor=user.as_actor(), partner=partner, object=token.secret_name, generation=token.generation,
        role=evidence.role, scopes=sorted(evidence.scopes), missing=list(evidence.missing), mfa=evidence.mfa,
    )  # fmt: skip
    job = jobs.ensure(partner, "customers")
    jobs.make_due(partner)
    jobs.queue_now(job)
    return user


# --- An administrator's approval ------------------------------------------------------------------------------------
def complete_admin_consent(*, answer: Mapping[str, str], browser: str) -> str:
    """
    End an administrator's approval; returns the path where the service account goes on.

    The answer proves nothing: anybody could have typed it. It changes words on a page, and nothing else.
    :raises Refused: with the reason for the visitor
    """
    attempt, flow = _claimed(ConsentAttempt.Kind.ADMIN_CONSENT, answer, browser)
    refused = _approval_refused(attempt, answer)
    reason = refused.reason if refused else ""
    attempt.close(reason or "approved")
    audit.record("approval.answered", actor=VISITOR, partner=attempt.partner, reason=reason)
    if refused:
        raise _as_refusal(refused, flow["retry_path"])
    return str(flow["retry_path"])


def _approval_refused(attempt: ConsentAttempt, answer: Mapping[str, str]) -> Refused | None:
    if "error" in answer:
        return of_answer(answer["error"], answer.get("error_description", ""))
    if answer.get("admin_consent", "").lower() != "true":
        return Refused("unverified", "no admin_consent")
    named = answer.get("tenant", "").lower()
    return None if attempt.partner and named == str(attempt.partner.tenant_id) else Refused("approved_elsewhere")


# --- Sign in --------------------------------------------------------------------------------------------------------
def complete_sign_in(*, answer: Mapping[str, str], browser: str) -> SignedIn:
    """
    End a sign-in: admit somebody who is a member already, known by (cloud, tid, oid) and nothing else.

    :raises Refused: with the reason for the visitor
    """
    attempt, flow = _claimed(ConsentAttempt.Kind.SIGN_IN, answer, browser)
    try:
        signed_in = _complete_sign_in(attempt, flow, dict(answer))
    except (Refused, Failure) as error:
        refused = _as_refusal(error, flow["retry_path"])
        attempt.close(refused.reason)
        raise refused from (None if refused is error else error)
    attempt.close("signed in")
    audit.record("member.signed_in", actor=signed_in.user.as_actor(), partner=signed_in.partner)
    return signed_in


def _complete_sign_in(attempt: ConsentAttempt, flow: dict[str, Any], answer: dict[str, str]) -> SignedIn:
    if "error" in answer:
        raise of_answer(answer["error"], answer.get("error_description", ""))
    grant = broker.redeem_sign_in(cloud=attempt.cloud, flow=flow, answer=answer, actor=VISITOR)
    identity = _proven_identity(attempt.cloud, grant.id_token, flow)
    member = _member(attempt.cloud, identity.tenant_id, identity.object_id)
    if member is None:
        raise Refused("not_a_member")
    return SignedIn(member.user, member.partner, attempt.next_path)


def _member(cloud: str, tenant_id: UUID, object_id: UUID) -> Member | None:
    """The newest membership of this person."""
    of_person = Member.objects.filter(user__cloud=cloud, user__tid=tenant_id, user__oid=object_id, user__is_active=True)
    return of_person.filter(partner__offboarded_at=None).select_related("user", "partner").order_by("-pk").first()


# --- Tidying up ---------------------------------------------------------------------------------------------------
def forget_old() -> None:
    """
    Let go of answers nobody came for, of attempts after a day, and of invitations 90 days after their end.

    What was agreed stays in Consent. An invitation that was mailed and led to a connection stays too: its address is
    told when the connection breaks.
    """
    now = timezone.now()
    PostedAnswer.objects.filter(expires_at__lte=now).delete()
    ConsentAttempt.objects.filter(expires_at__lt=now - KEEP_ATTEMPTS).delete()
    mailed_and_used = Q(used_at__isnull=False, partner__offboarded_at=None) & ~Q(email="")
    Invitation.objects.filter(expires_at__lt=now - KEEP_INVITATIONS).exclude(mailed_and_used).delete()


# --- Invitations ----------------------------------------------------------------------------------------------------
@transaction.atomic
def invite(*, partner: Partner, by: Actor, email: str = "") -> tuple[Invitation, str]:
    """A new invitation and its address, which exists only now: we keep a hash of it."""
    link = Invitation.new_link()
    invitation = Invitation.objects.create(
        partner=partner,
        link_hash=digest(link),
        email=email,
        created_by=str(by),
        expires_at=timezone.now() + INVITATION_LIFE,
    )
    audit.record("invitation.made", actor=by, partner=partner, object=f"invitation {invitation.pk}")
    return invitation, f"{settings.CPV_BASE_URL}/connect/{link}"
