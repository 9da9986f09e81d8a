"""
A consent on its way to Microsoft and back, and an administrator's approval before it.

Every check happens before anything is stored. A refusal leaves no trace in the vault, and tells the visitor why.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from consent import attempts, team
from consent import checks_at_consent as checks
from consent.attempts import VISITOR
from consent.models import Consent, ConsentAttempt, Invitation
from consent.refusals import Refused
from partners import jobs
from partners.models import Member, Partner, User
from partners.presence import FRESH
from partners.standing import current_token, standing
from tokens import audit, broker, custody, gate, outside, permissions
from tokens.actors import Actor, ActorKind
from tokens.clouds import cloud_named
from tokens.entra import Identity
from tokens.entra import Refused as EntraRefused
from tokens.errors import Failure
from tokens.models import RefreshToken

logger = logging.getLogger(__name__)

TERMS_VERSION = "2026-11"


@dataclass(frozen=True)
class Connected:
    """
    A consent that was stored, and the person who gave it where they are a member.

    A renewal is `pending` until an owner says yes; whoever gave it and is no owner stays nobody.
    """

    partner: Partner
    user: User | None
    pending: bool
    mfa: dict[str, Any]
    proved_at: int | None


# --- Begin ------------------------------------------------------------------------------------------------------------
def begin(
    *,
    partner: Partner,
    browser: str,
    retry_path: str,
    invitation: Invitation | None = None,
    hint: str = "",
    renewal: bool = False,
) -> str:
    """
    Start a consent; returns the address at Microsoft to send the browser to.

    `browser` is a secret of the visitor's session: only the browser that holds it can end the attempt. A `renewal` may
    be of a connection that works; it then waits for an owner to confirm it.
    :raises Refused: the partner is stopped, or Microsoft cannot be reached
    """
    _check_open(partner, retry_path)
    token = current_token(partner)
    if _works(partner, token) and not renewal:
        raise Refused("already_connected")
    flow = attempts.flow_to_microsoft(
        partner.cloud,
        tenant=str(partner.tenant_id),
        scopes=permissions.scopes(outside.asked_permissions(), cloud_named(partner.cloud)),
        kind=ConsentAttempt.Kind.CONSENT,
        retry_path=retry_path,
        hint=hint,
        claims=_wanted_claims(partner, token),
        max_age=FRESH if renewal else None,  # whoever renews proves themselves, and may then say yes
    )
    flow["renewal"] = _is_live(partner, token)  # what is in force is replaced only when an owner has seen by what
    return attempts.remember(
        flow, ConsentAttempt.Kind.CONSENT, partner.cloud, browser, partner=partner, invitation=invitation
    )


def _wanted_claims(partner: Partner, token: RefreshToken | None) -> str:
    """What Entra said the next sign-in must bring: to the sign-in in force, or else to the last one that was tried."""
    if token and token.wanted_claims:
        return token.wanted_claims
    tried = partner.consent_attempts.filter(kind=ConsentAttempt.Kind.CONSENT).exclude(outcome="").order_by("-pk")
    return tried.values_list("wanted_claims", flat=True).first() or ""


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
            redirect_uri=attempts.callback_address(kind),
            state=state,
        )
    except Failure as failure:
        raise attempts.as_refusal(failure, retry_path) from failure
    flow = {"state": state, "auth_uri": address, "retry_path": retry_path}
    return attempts.remember(flow, kind, partner.cloud, browser, partner=partner, invitation=invitation)


def _check_open(partner: Partner, retry_path: str) -> None:
    try:
        gate.check_open(partner)
    except gate.Stopped as stopped:
        raise Refused("stopped", retry_path=retry_path) from stopped


# --- The way back -----------------------------------------------------------------------------------------------------
def complete(*, answer: Mapping[str, str], browser: str) -> Connected:
    """
    End a consent: prove who came back, check everything, then store.

    :raises Refused: with the reason for the visitor; the vault was not touched, or what it holds is swept
    """
    attempt, flow = attempts.claimed(ConsentAttempt.Kind.CONSENT, answer, browser)
    try:
        connected = _complete(attempt, flow, dict(answer))
    except (Refused, Failure) as error:
        refused = attempts.as_refusal(error, flow["retry_path"])
        attempt.close(refused.reason, claims=error.claims if isinstance(error, EntraRefused) else "")
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


def _complete(attempt: ConsentAttempt, flow: dict[str, Any], answer: dict[str, str]) -> Connected:
    partner = attempt.partner
    if partner is None:
        raise AssertionError("a consent attempt names its partner")  # pragma: no cover - a constraint sees to it
    attempts.check_answer(answer, attempt.cloud)
    renewal = bool(flow.get("renewal"))
    _replaceable(attempt, partner, renewal=renewal)
    _check_open(partner, flow["retry_path"])
    grant = broker.redeem_code(partner=partner, flow=flow, answer=answer, actor=VISITOR)
    identity = attempts.proven_identity(partner.cloud, grant.id_token, flow)
    if identity.tenant_id != partner.tenant_id:
        raise Refused("wrong_tenant")
    attempts.check_no_staff(identity)
    evidence = checks.everything(partner=partner, grant=grant, identity=identity)
    replaces = _replaceable(attempt, partner, renewal=renewal)
    pending = _is_live(partner, replaces)
    return _store(attempt, partner, identity, evidence, replaces=replaces, pending=pending)


def _replaceable(attempt: ConsentAttempt, partner: Partner, *, renewal: bool) -> RefreshToken | None:
    """The generation in force that this consent may replace; the first success wins, a second tab is too late."""
    partner.refresh_from_db()  # another consent may have opened a new access period meanwhile
    spent = Invitation.objects.filter(pk=attempt.invitation_id or 0, used_at__isnull=False)
    token = current_token(partner)
    if spent.exists() or (_works(partner, token) and not renewal):
        raise Refused("already_connected")
    return token


def _is_live(partner: Partner, token: RefreshToken | None) -> bool:
    """Whether a consent is in force and calls leave under it, be it with limits."""
    return token is not None and standing(partner, token).is_live


def _works(partner: Partner, token: RefreshToken | None) -> bool:
    """The same without limits: an invitation has nothing to add to that."""
    return token is not None and _is_live(partner, token) and not (token.limits or token.missing_scopes)


def _store(
    attempt: ConsentAttempt,
    partner: Partner,
    identity: Identity,
    evidence: checks.Evidence,
    *,
    replaces: RefreshToken | None,
    pending: bool,
) -> Connected:
    people: list[User | None] = []
    as_owner = attempt.invitation is not None and attempt.invitation.makes_owner

    def on_pin(token: RefreshToken) -> None:
        if attempt.invitation and not attempt.invitation.mark_used():
            raise custody.NotOpen("another tab was faster", code="already_connected")
        consent = _write_consent(token, identity, evidence)
        if pending:
            audit.record("renewal.offered", actor=VISITOR, partner=partner, **_in_short(consent))
            if as_owner:
                team.admit(consent, as_owner=True)
        else:
            people.append(_take_effect(consent, as_owner=as_owner))

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
            pending=pending,
        )
    except custody.NotOpen as failure:
        raise Refused("already_connected" if failure.code == "already_connected" else "stopped") from failure
    user = people[0] if people else _owner(partner, identity)
    return Connected(partner, user, pending, evidence.mfa, _proved_at(attempt, identity))


def _proved_at(attempt: ConsentAttempt, identity: Identity) -> int | None:
    """When whoever connects proved themselves: a first consent is a proof by itself, a renewal only with a time."""
    if attempt.invitation and not attempt.invitation.renews:
        return int(timezone.now().timestamp())
    return identity.authenticated_at


def _owner(partner: Partner, identity: Identity) -> User | None:
    """Whoever gave this consent, where an owner of the partner did."""
    member = Member.objects.filter(
        partner=partner,
        role=Member.Role.OWNER,
        user__cloud=partner.cloud,
        user__tid=identity.tenant_id,
        user__oid=identity.object_id,
    )
    found = member.select_related("user").first()
    return found.user if found else None


def _write_consent(token: RefreshToken, identity: Identity, evidence: checks.Evidence) -> Consent:
    """Who agreed to what, inside the transaction that pins the token."""
    return Consent.objects.create(
        partner=token.partner,
        token=token,
        oid=identity.object_id,
        upn=identity.username,
        name=identity.name,
        role=evidence.role,
        scopes=sorted(evidence.scopes),
        mfa_evidence=evidence.mfa,
        terms_version=TERMS_VERSION,
    )


def _in_short(consent: Consent) -> dict[str, Any]:
    token = consent.token
    return {
        "generation": token.generation, "role": consent.role, "scopes": consent.scopes,
        "missing": token.missing_scopes, "mfa": consent.mfa_evidence,
    }  # fmt: skip


def _take_effect(consent: Consent, *, as_owner: bool = False) -> User | None:
    """Everything else a consent changes, in the transaction that brings its token in force; who gave it, if known."""
    partner = consent.partner
    partner.start_access_period(timezone.now())
    user = team.admit(consent, as_owner=as_owner)
    actor = user.as_actor() if user else Actor(ActorKind.VISITOR, label=consent.upn or str(consent.oid))
    name = consent.token.secret_name
    audit.record("consent.given", actor=actor, partner=partner, object=name, **_in_short(consent))
    job = jobs.ensure(partner, "customers")
    jobs.make_due(partner)
    jobs.queue_now(job)
    return user


# --- A renewal that waits for an owner ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Renewal:
    """What is in force and what would replace it, side by side."""

    token: RefreshToken
    before: Consent | None
    after: Consent
    by_member: bool  # whether the account that agreed may see our pages; confirming makes nobody a member

    @property
    def gained(self) -> list[str]:
        return sorted(set(self.after.scopes) - set(self.before.scopes if self.before else []))

    @property
    def lost(self) -> list[str]:
        return sorted(set(self.before.scopes if self.before else []) - set(self.after.scopes))

    @property
    def is_other_account(self) -> bool:
        return self.before is None or self.before.oid != self.after.oid


def renewal_of(partner: Partner) -> Renewal | None:
    """The renewal that waits for this partner's owner; None when there is none, or it is too late."""
    pending = partner.refresh_tokens.pending(timezone.now()).select_related("consent", "partner").first()
    if pending is None:
        return None
    by_member = team.known(pending.consent).exists()
    return Renewal(pending, getattr(current_token(partner), "consent", None), pending.consent, by_member)


def confirm_renewal(*, partner: Partner, by: User) -> bool:
    """Bring the waiting renewal in force; False when it is over, and what was in force stays so."""
    renewal = renewal_of(partner)
    if renewal is None:
        return False

    def on_confirm(token: RefreshToken) -> None:
        audit.record(
            "renewal.confirmed", actor=by.as_actor(), partner=token.partner, object=token.secret_name,
            generation=token.generation,
        )  # fmt: skip
        _take_effect(token.consent)

    try:
        custody.confirm(renewal.token, on_confirm=on_confirm)
    except custody.NotOpen:
        return False
    return True


def decline_renewal(*, partner: Partner, by: User) -> None:
    """Let the waiting renewal be over; what is in force stays so."""
    renewal = renewal_of(partner)
    if renewal is not None:
        custody.decline(renewal.token)
        audit.record("renewal.declined", actor=by.as_actor(), partner=partner, generation=renewal.token.generation)


# --- An administrator's approval ------------------------------------------------------------------------------------
def complete_admin_consent(*, answer: Mapping[str, str], browser: str) -> str:
    """
    End an administrator's approval; returns the path where the service account goes on.

    The answer proves nothing: anybody could have typed it. It changes words on a page, and nothing else.
    :raises Refused: with the reason for the visitor
    """
    attempt, flow = attempts.claimed(ConsentAttempt.Kind.ADMIN_CONSENT, answer, browser)
    refused = _approval_refused(attempt, answer)
    reason = refused.reason if refused else ""
    attempt.close(reason or "approved")
    audit.record("approval.answered", actor=VISITOR, partner=attempt.partner, reason=reason)
    if refused:
        raise attempts.as_refusal(refused, flow["retry_path"])
    return str(flow["retry_path"])


def _approval_refused(attempt: ConsentAttempt, answer: Mapping[str, str]) -> Refused | None:
    try:
        attempts.check_answer(answer, attempt.cloud)
    except Refused as refused:
        return refused
    if answer.get("admin_consent", "").lower() != "true":
        return Refused("unverified", "no admin_consent")
    named = answer.get("tenant", "").lower()
    return None if attempt.partner and named == str(attempt.partner.tenant_id) else Refused("approved_elsewhere")
