"""
The one door for partners' credentials.

`session()` gives something that sends requests for a partner: before every send it asks the gate, adds the bearer, and
notes each token request in the ledger first. `probe()` is the same door for a grant that is still in memory only.
`custody.store()` puts a grant away for good. Nothing else mints, and nobody outside ever holds a token.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import requests
from django.utils import timezone

from tokens import audit, gate, ledger, minting, outside, permissions
from tokens.access_cache import Key, held
from tokens.actors import Actor
from tokens.clouds import CLOUDS, Audience, Cloud, cloud_named
from tokens.entra import Grant, authentication_methods
from tokens.errors import Permanent, Transient
from tokens.minting import Wish, cloud_of
from tokens.models import RefreshToken
from tokens.secret import Secret
from tokens.sessions import ApiSession, Probe, Traffic

if TYPE_CHECKING:
    from partners.models import Partner

EARLY = 300  # seconds before its end at which an access token is no longer handed out


@dataclass
class FreshGrant:
    """
    What a consent brought, in memory only while it is being checked.

    `refresh_token` is the newest: the one to spend next, and to store. Where refresh tokens work once, each check
    spends one and brings another.
    """

    grant: Grant
    refresh_token: Secret | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.refresh_token = self.grant.refresh_token


@dataclass(frozen=True)
class Explanation:
    """What an access token says about itself, without the token."""

    expires_at: dt.datetime
    scopes: list[str]
    mfa: bool | None


def forget() -> None:
    """Drop what this process remembers: access tokens and the gate's last answers."""
    held.clear()
    gate.forget()


# --- Sending --------------------------------------------------------------------------------------------------------
def session(
    token: RefreshToken,
    audience: Audience,
    *,
    purpose: str,
    actor: Actor,
    tenant: UUID | None = None,
    traffic: Traffic | None = None,
    is_stale: Callable[[requests.Response], bool] | None = None,
    also: Callable[[], None] | None = None,
) -> ApiSession:
    """
    A session for one audience in the partner's name; `tenant` names a customer's tenant instead of the partner's own.

    `purpose` is a dotted word for the ledger, such as "sync.customers". `traffic` paces what leaves, tokens included.
    `is_stale` says of which 401 to reads a new token may help. `also` is asked where the gate is, before each send and
    once a connection was opened for it: what it raises sends nothing.
    """
    key = Key(token.pk, token.generation, audience, tenant)

    def wish(claims: str = "") -> Wish:
        return Wish(token, audience, purpose, actor, tenant=tenant, claims=claims)

    def may_leave() -> None:
        gate.check(token)
        if also is not None:
            also()

    def bearer() -> Secret:
        minting.refuse_purpose(wish())  # what is there already was had for another purpose
        return held.get_or_mint(key, lambda: _paced_mint(wish(), traffic))

    return ApiSession(
        cloud=token.partner.cloud,
        root=cloud_of(token.partner).root(audience),
        gate=may_leave,
        bearer=bearer,
        forget_bearer=lambda: held.drop(key),
        bearer_with=lambda refused, claims: held.replace(key, refused, lambda: _paced_mint(wish(claims), traffic)),
        traffic=traffic,
        is_stale=is_stale,
    )


def probe(
    fresh: FreshGrant,
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
    narrowed, scopes = fresh.grant, _scopes(cloud_of(partner), audience, without)
    if audience != Audience.PARTNER_CENTER:  # the code was redeemed for Partner Center already
        narrowed = _redeem_in_memory(fresh, audience, scopes, partner=partner, actor=actor, purpose=purpose)

    def bearer_with(_refused: Secret, claims: str) -> Secret:
        return _redeem_in_memory(
            fresh, audience, scopes, partner=partner, actor=actor, purpose=purpose, claims=claims
        ).access_token

    opened = Probe(
        cloud=partner.cloud,
        root=cloud_of(partner).root(audience),
        gate=lambda: gate.check_open(partner),
        bearer=lambda: narrowed.access_token,
        forget_bearer=lambda: None,
        bearer_with=bearer_with,
    )
    opened.scopes = narrowed.scopes
    opened.authentication_methods = authentication_methods(narrowed.access_token)
    return opened


def _scopes(cloud: Cloud, audience: Audience, without: Collection[str]) -> list[str]:
    """What is asked for at one audience, but for permissions that are known to be missing."""
    wanted = [permission for permission in outside.asked_permissions() if permission.name not in without]
    return permissions.scopes(wanted, cloud, audience)


# --- Minting --------------------------------------------------------------------------------------------------------
def _mint(wish: Wish) -> tuple[Secret, float]:
    """An access token and the monotonic second until which it may be handed out."""
    granted = minting.grant(wish)
    return granted.access_token, time.monotonic() + max(0, granted.expires_in - EARLY)


def _paced_mint(wish: Wish, traffic: Traffic | None) -> tuple[Secret, float]:
    if traffic is None:
        return _mint(wish)
    traffic.before_token()
    try:
        minted = _mint(wish)
    except Transient as failure:
        traffic.after_token(failure)
        raise
    traffic.after_token(None)
    return minted


def keep(token: RefreshToken, audience: Audience, *, purpose: str, actor: Actor) -> None:
    """
    Spend the stored refresh token and store its successor, also when the stored one has not aged.

    An answer without a successor is fine: then the stored one stays the one to use.

    :raises Stopped: the gate is shut
    :raises InOtherHands: somebody else does this just now, or was faster
    :raises Transient, Permanent: no; what that means for the partner is noted already
    """
    minting.grant(Wish(token, audience, purpose, actor, store=True))


def clouds_in_use() -> list[str]:
    """The clouds in which somebody may have connected."""
    return [name for name in CLOUDS if outside.is_configured(name)]


def explain(
    token: RefreshToken, audience: Audience, *, reason: str, actor: Actor, tenant: UUID | None = None
) -> Explanation:
    """Mint once and say what came: expiry, scopes and whether it carries MFA (None when it does not say)."""
    audit.record("token.explained", actor=actor, partner=token.partner, object=audience, reason=reason[:200])
    grant = minting.grant(Wish(token, audience, permissions.BY_A_PERSON, actor, tenant=tenant))
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
    gate.check_open(partner)
    use = ledger.begin(partner, Audience.PARTNER_CENTER, purpose=purpose, actor=actor)
    scopes = permissions.scopes(outside.asked_permissions(), cloud, Audience.PARTNER_CENTER)
    with outside.network(cloud.name).last_word(lambda: gate.check_open(partner)):
        return ledger.noted(
            use,
            cloud.name,
            lambda: outside.entra(cloud.name).redeem_code(
                flow=flow,
                answer=answer,
                tenant=str(partner.tenant_id),
                scopes=scopes,
                leaving=use.note_leaving,
            ),
        )


def _redeem_in_memory(
    fresh: FreshGrant,
    audience: Audience,
    scopes: list[str],
    *,
    partner: Partner,
    actor: Actor,
    purpose: str,
    claims: str = "",
) -> Grant:
    if fresh.refresh_token is None:
        raise Permanent("the grant carries no refresh token", code="no-refresh-token")
    refresh_token, cloud = fresh.refresh_token, cloud_of(partner)
    gate.check_open(partner)
    use = ledger.begin(partner, audience, purpose=purpose, actor=actor)
    with outside.network(cloud.name).last_word(lambda: gate.check_open(partner)):
        redeemed = ledger.noted(
            use,
            cloud.name,
            lambda: outside.entra(cloud.name).redeem_refresh_token(
                refresh_token=refresh_token,
                tenant=str(partner.tenant_id),
                scopes=scopes,
                claims=claims or None,
                leaving=use.note_leaving,
            ),
        )
    fresh.refresh_token = redeemed.refresh_token or refresh_token
    return redeemed


def redeem_sign_in(*, cloud: str, tenant: str, flow: dict[str, Any], answer: dict[str, str], actor: Actor) -> Grant:
    """Spend a sign-in's code, which carries `openid profile` only; nothing of the grant is kept."""
    use = ledger.begin(None, "openid", purpose="signin", actor=actor)
    return ledger.noted(
        use,
        cloud,
        lambda: outside.entra(cloud).redeem_code(
            flow=flow, answer=answer, tenant=tenant, scopes=[], leaving=use.note_leaving
        ),
    )


def mfa_scopes(cloud: str) -> list[str]:
    """What a sign-in asks for where only an access token can tell of MFA; without offline access."""
    return permissions.scopes([permissions.PARTNER_CENTER], cloud_named(cloud))


def redeem_mfa_proof(
    *, partner: Partner, tenant: str, flow: dict[str, Any], answer: dict[str, str], actor: Actor
) -> Grant:
    """
    Spend the code of a sign-in that asked for `mfa_scopes`; the access token is read and dropped, never used or kept.

    :raises Stopped: the gate is shut
    """
    gate.check_open(partner)
    use = ledger.begin(partner, Audience.PARTNER_CENTER, purpose="signin.mfa", actor=actor)
    with outside.network(partner.cloud).last_word(lambda: gate.check_open(partner)):
        return ledger.noted(
            use,
            partner.cloud,
            lambda: outside.entra(partner.cloud).redeem_code(
                flow=flow,
                answer=answer,
                tenant=tenant,
                scopes=mfa_scopes(partner.cloud),
                leaving=use.note_leaving,
            ),
        )
