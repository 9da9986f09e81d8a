"""
The one door for partners' credentials.

`session()` gives something that sends requests for a partner: before every send it asks the gate, adds the bearer, and
notes each token request in the ledger first. `probe()` is the same door for a grant that is still in memory only.
`store()` puts a grant away for good. Nothing else mints, and nobody outside ever holds a token.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import Exists
from django.utils import timezone

from tokens import audit, custody, ledger, outside, permissions, rollover
from tokens.access_cache import AccessCache, Key
from tokens.actors import Actor
from tokens.clouds import CLOUDS, Audience, Cloud, cloud_named
from tokens.entra import BlockedByPartner, ConsentRequired, Grant, OurFault, Refused, authentication_methods
from tokens.errors import Failure, Permanent
from tokens.faultpoints import reached
from tokens.models import Halt, RefreshToken, TokenUse
from tokens.secret import Secret
from tokens.sessions import ApiSession, Probe

if TYPE_CHECKING:
    from partners.models import Partner

logger = logging.getLogger(__name__)

SNAPSHOT_AGE = 0.25  # seconds a "yes" of the gate may be reused within one process
NOT_CONSENTED = "AADSTS65001"
EARLY = 300  # seconds before its end at which an access token is no longer handed out


class Stopped(Permanent):
    """The gate is shut: the partner is not live, or all work is halted."""


class CustomerRefused(Permanent):
    """A customer's tenant refused. It says nothing about the partner's own connection."""


class WrongHolder(Permanent):
    """Entra answered for another tenant or account than the row says; nothing of that answer is used."""


class AudienceNotAsked(Permanent):
    """No partner was asked for anything at this audience, so no token for it is ever requested."""


@dataclass(frozen=True)
class Explanation:
    """What an access token says about itself, without the token."""

    expires_at: dt.datetime
    scopes: list[str]
    mfa: bool | None


class PurposeRefused(Permanent):
    """This purpose has no business at this audience; nothing was sent."""


_cache = AccessCache()
_snapshots: dict[tuple[int, int], float] = {}
_gate_epoch = 0  # rises when this process learns of a stop


def forget() -> None:
    """Drop what this process remembers: access tokens and the gate's last answers."""
    _cache.clear()
    _snapshots.clear()


# --- Sending --------------------------------------------------------------------------------------------------------
def session(
    token: RefreshToken, audience: Audience, *, purpose: str, actor: Actor, tenant: UUID | None = None
) -> ApiSession:
    """
    A session for one audience in the partner's name; `tenant` names a customer's tenant instead of the partner's own.

    `purpose` is a dotted word for the ledger, such as "sync.customers".
    """
    key = Key(token.pk, token.generation, audience, tenant)

    def mint(claims: str = "") -> tuple[Secret, float]:
        return _mint(token, audience, purpose=purpose, actor=actor, tenant=tenant, claims=claims)

    return ApiSession(
        cloud=token.partner.cloud,
        root=cloud_of(token.partner).root(audience),
        gate=lambda: check_gate(token),
        bearer=lambda: _cache.get_or_mint(key, mint),
        forget_bearer=lambda: _cache.drop(key),
        bearer_with=lambda refused, claims: _cache.replace(key, refused, lambda: mint(claims)),
    )


def probe(
    grant: Grant,
    audience: Audience,
    *,
    partner: Partner,
    actor: Actor,
    without: Collection[str] = (),
    purpose: str = "consent.check",
) -> Probe:
    """
    A session for one audience of a fresh grant; mints at once, so that a refusal shows here.

    `without` names permissions that are known to be missing, and not asked for.
    :raises ConsentRequired: a scope of this audience was not granted
    :raises Transient: Entra cannot be reached now
    """
    narrowed, scopes = grant, _scopes(cloud_of(partner), audience, without)
    if audience != Audience.PARTNER_CENTER:  # the code was redeemed for Partner Center already
        narrowed = _redeem_in_memory(grant, audience, scopes, partner=partner, actor=actor, purpose=purpose)

    def bearer_with(_refused: Secret, claims: str) -> Secret:
        return _redeem_in_memory(
            grant, audience, scopes, partner=partner, actor=actor, purpose=purpose, claims=claims
        ).access_token

    opened = Probe(
        cloud=partner.cloud,
        root=cloud_of(partner).root(audience),
        gate=lambda: check_open(partner),
        bearer=lambda: narrowed.access_token,
        forget_bearer=lambda: None,
        bearer_with=bearer_with,
    )
    opened.scopes = narrowed.scopes
    opened.authentication_methods = authentication_methods(narrowed.access_token)
    return opened


def cloud_of(partner: Partner) -> Cloud:
    return cloud_named(partner.cloud)


# --- The gate -------------------------------------------------------------------------------------------------------
def check_gate(token: RefreshToken) -> None:
    """
    Raise unless calls may leave for this generation right now; one query, or none within 250 ms of a "yes".

    :raises Stopped: the partner is not live, the generation is over, or all work is halted
    """
    key, asked = (token.pk, token.generation), (time.monotonic(), _gate_epoch)
    if asked[0] - _snapshots.get(key, float("-inf")) <= SNAPSHOT_AGE:
        return
    live = RefreshToken.objects.live(timezone.now()).filter(pk=token.pk, generation=token.generation)
    if not live.exists():
        _snapshots.pop(key, None)
        raise Stopped("calls for this partner are stopped", code="stopped")
    if asked[1] == _gate_epoch:  # or the answer is from before a stop that this process knows of by now
        _snapshots[key] = asked[0]


def forget_gate() -> None:
    """Let the next send of each partner ask the rows again."""
    global _gate_epoch
    _gate_epoch += 1
    _snapshots.clear()


def check_open(partner: Partner) -> None:
    """
    Raise unless this partner may (re)connect: the gate before there is a generation to ask about.

    :raises Stopped: we or security stopped it, or all work is halted
    """
    going = type(partner)._default_manager.filter(
        ~Exists(Halt.objects.in_force()), pk=partner.pk, suspended_at=None, killed_at=None, offboarded_at=None
    )
    if not going.exists():
        raise Stopped("calls for this partner are stopped", code="stopped")


# --- Minting --------------------------------------------------------------------------------------------------------
def _mint(
    token: RefreshToken, audience: Audience, *, purpose: str, actor: Actor, tenant: UUID | None, claims: str = ""
) -> tuple[Secret, float]:
    """An access token and the monotonic second until which it may be handed out."""
    grant = _mint_grant(token, audience, purpose=purpose, actor=actor, tenant=tenant, claims=claims)
    return grant.access_token, time.monotonic() + max(0, grant.expires_in - EARLY)


def keep(token: RefreshToken, audience: Audience, *, purpose: str, actor: Actor) -> None:
    """
    Spend the stored refresh token and store its successor, also when the stored one has not aged.

    :raises Stopped: the gate is shut
    :raises Transient, Permanent: no; what that means for the partner is noted already
    """
    _mint_grant(token, audience, purpose=purpose, actor=actor, tenant=None, store=True)


def clouds_in_use() -> list[str]:
    """The clouds in which somebody may have connected."""
    return [name for name in CLOUDS if outside.is_configured(name)]


def _mint_grant(
    token: RefreshToken,
    audience: Audience,
    *,
    purpose: str,
    actor: Actor,
    tenant: UUID | None,
    store: bool = False,
    claims: str = "",
) -> Grant:
    check_gate(token)
    use = ledger.begin(
        token.partner, audience, purpose=purpose, actor=actor, generation=token.generation, tenant=tenant
    )
    if audience not in permissions.audiences_for(purpose):
        use.close(TokenUse.Outcome.REFUSED, code="purpose")
        raise PurposeRefused(f"{purpose} may not ask for {audience}", code="purpose")
    try:
        grant = rollover.redeem(
            use, token.partner.cloud, lambda: _redeem(token, audience, tenant=tenant, store=store, claims=claims)
        )
    except Failure as failure:
        ledger.close_refused(use, failure, token.partner.cloud)
        if tenant is not None and isinstance(failure, Refused) and not isinstance(failure, OurFault):
            raise CustomerRefused(str(failure), code=failure.code, correlation_id=failure.correlation_id) from failure
        note_refusal(token, failure, audience)
        raise
    ledger.close_granted(use, grant, token.partner.cloud)
    token.mark_success()
    return grant


def _redeem(token: RefreshToken, audience: Audience, *, tenant: UUID | None, store: bool, claims: str) -> Grant:
    """The one redeem path; in the partner's own tenant it also stores the successor when the stored one has aged."""
    cloud = cloud_of(token.partner)
    entra = outside.entra(cloud.name)
    scopes = _scopes(cloud, audience, token.missing_scopes)
    if not scopes:
        raise AudienceNotAsked(f"no permission for {audience} was asked for and granted", code="audience-not-asked")
    reached("before lease")
    rotating = tenant is None and (store or custody.is_store_due(token)) and token.lease()
    reached("after lease")
    try:
        refresh_token = custody.read_for_rotation(token) if rotating else custody.read(token)
        check_gate(token)
        reached("before redeem")
        with outside.network(cloud.name).last_word(lambda: check_gate(token)):
            grant = entra.redeem_refresh_token(
                refresh_token=refresh_token,
                tenant=str(tenant or token.partner.tenant_id),
                scopes=scopes,
                claims=claims or None,
            )
        reached("after redeem")
        if tenant is None:
            _check_holder(token, grant)
        if rotating and grant.refresh_token:
            custody.rotate(token, grant.refresh_token)
            rotating = False
    finally:
        if rotating:
            token.release()
    return grant


def _scopes(cloud: Cloud, audience: Audience, without: Collection[str]) -> list[str]:
    """What is asked for at one audience; a scope that was not granted would have the whole request refused."""
    wanted = [permission for permission in outside.asked_permissions() if permission.name not in without]
    return permissions.scopes(wanted, cloud, audience)


def _check_holder(token: RefreshToken, grant: Grant) -> None:
    """An id_token that comes along must name the tenant and the account of the row."""
    if grant.id_token is None:
        return
    identity = outside.entra(token.partner.cloud).validate(grant.id_token, nonce=None)
    if (identity.tenant_id, identity.object_id) != (token.partner.tenant_id, token.oid):
        logger.critical("a refresh answered for another holder", extra={"refresh_token": token.pk})
        raise WrongHolder(f"refresh token {token.pk} answered for another holder", code="wrong-holder")


def explain(
    token: RefreshToken, audience: Audience, *, reason: str, actor: Actor, tenant: UUID | None = None
) -> Explanation:
    """Mint once and say what came: expiry, scopes and whether it carries MFA (None when it does not say)."""
    audit.record("token.explained", actor=actor, partner=token.partner, object=audience, reason=reason[:200])
    grant = _mint_grant(token, audience, purpose="token.explain", actor=actor, tenant=tenant)
    methods = authentication_methods(grant.access_token)
    return Explanation(
        expires_at=timezone.now() + dt.timedelta(seconds=grant.expires_in),
        scopes=sorted(grant.scopes),
        mfa=None if methods is None else "mfa" in methods,
    )


def redeem_code(
    *, partner: Partner, flow: dict[str, Any], answer: dict[str, str], actor: Actor, purpose: str = "consent.redeem"
) -> Grant:
    """Spend a consent's code for Partner Center; the grant stays in memory until `store()`."""
    cloud = cloud_of(partner)
    check_open(partner)
    use = ledger.begin(partner, Audience.PARTNER_CENTER, purpose=purpose, actor=actor)
    scopes = permissions.scopes(outside.asked_permissions(), cloud, Audience.PARTNER_CENTER)
    with outside.network(cloud.name).last_word(lambda: check_open(partner)):
        return ledger.noted(
            use,
            cloud.name,
            lambda: outside.entra(cloud.name).redeem_code(
                flow=flow, answer=answer, tenant=str(partner.tenant_id), scopes=scopes
            ),
        )


def _redeem_in_memory(
    grant: Grant,
    audience: Audience,
    scopes: list[str],
    *,
    partner: Partner,
    actor: Actor,
    purpose: str,
    claims: str = "",
) -> Grant:
    if grant.refresh_token is None:
        raise Permanent("the grant carries no refresh token", code="no-refresh-token")
    refresh_token, cloud = grant.refresh_token, cloud_of(partner)
    check_open(partner)
    use = ledger.begin(partner, audience, purpose=purpose, actor=actor)
    with outside.network(cloud.name).last_word(lambda: check_open(partner)):
        return ledger.noted(
            use,
            cloud.name,
            lambda: outside.entra(cloud.name).redeem_refresh_token(
                refresh_token=refresh_token, tenant=str(partner.tenant_id), scopes=scopes, claims=claims or None
            ),
        )


# --- What a refusal means for the partner ---------------------------------------------------------------------------
def note_refusal(token: RefreshToken, failure: Failure, audience: Audience) -> None:
    """Mark the row of the very generation that was refused; our own faults and passing trouble never touch it."""
    refusal = _refusal(failure)
    missing = _names(audience, token.missing_scopes) if failure.code == NOT_CONSENTED else []
    if refusal and token.mark_refused(refusal, code=failure.code, missing=missing):
        _cache.drop_token(token.pk)
        _snapshots.pop((token.pk, token.generation), None)
        custody.note_connection_refused(token, refusal, code=failure.code)


def _names(audience: Audience, without: Collection[str]) -> list[str]:
    """The permissions that were asked for at one audience."""
    asked = (permission for permission in outside.asked_permissions() if permission.audience == audience)
    return [permission.name for permission in asked if permission.name not in without]


def _refusal(failure: Failure) -> str:
    if isinstance(failure, BlockedByPartner):
        return "blocked"
    if isinstance(failure, ConsentRequired):
        return "mfa_missing" if failure.meaning.kind == "mfa" else "needs_consent"
    return ""


def redeem_sign_in(*, cloud: str, flow: dict[str, Any], answer: dict[str, str], actor: Actor) -> Grant:
    """Spend a sign-in's code, which carries `openid profile` only; nothing of the grant is kept."""
    use = ledger.begin(None, "openid", purpose="signin", actor=actor)
    return ledger.noted(
        use,
        cloud,
        lambda: outside.entra(cloud).redeem_code(flow=flow, answer=answer, tenant="organizations", scopes=[]),
    )
