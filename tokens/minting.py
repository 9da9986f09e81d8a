"""
From a stored refresh token to an access token: who may, whose turn it is, what a refusal means for the partner.

There is one way here, for every audience and for the daily renewal alike; a line of the ledger begins each request.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from tokens import access_cache, alarms, audit, custody, gate, ledger, outside, permissions, rollover
from tokens.aadsts import Kind
from tokens.actors import Actor
from tokens.clouds import Audience, Cloud, cloud_named
from tokens.entra import BlockedByPartner, Grant, OurFault, Refused
from tokens.envelope import NotOurs
from tokens.errors import Failure, Permanent, Transient
from tokens.faultpoints import reached
from tokens.id_token import BadIdToken
from tokens.models import RefreshToken, TokenUse
from tokens.refusals import WrongHolder
from tokens.secret import Secret
from tokens.vault import SecretMissing, VersionDisabled

if TYPE_CHECKING:
    from partners.models import Partner

logger = logging.getLogger(__name__)

NOT_CONSENTED = "AADSTS65001"
TURN_TAKES = 5.0  # seconds after which whoever found the sign-in in another's hands should ask again


class CustomerRefused(Permanent):
    """A customer's tenant refused. It says nothing about the partner's own connection."""


class AudienceNotAsked(Permanent):
    """No partner was asked for anything at this audience, so no token for it is ever requested."""


class PurposeRefused(Permanent):
    """This purpose has no business at this audience; nothing was sent."""


class InOtherHands(Transient):
    """Somebody else spends the stored refresh token just now, or came before us with its successor."""


@dataclass(frozen=True)
class Wish:
    """
    An access token that somebody wants; `tenant` names a customer's, in place of the partner's own.

    With `store` it is wanted for the sake of the refresh token's successor.
    """

    token: RefreshToken
    audience: Audience
    purpose: str
    actor: Actor
    tenant: UUID | None = None
    claims: str = ""
    store: bool = False

    @property
    def cloud(self) -> Cloud:
        return cloud_of(self.token.partner)

    def names(self) -> list[str]:
        """What is asked for at this audience; what was not granted would have the whole request refused."""
        asked = (permission for permission in outside.asked_permissions() if permission.audience == self.audience)
        return [permission.name for permission in asked if permission.name not in self.token.missing_scopes]


def cloud_of(partner: Partner) -> Cloud:
    return cloud_named(partner.cloud)


def grant(wish: Wish) -> Grant:
    """
    What Entra hands out for a wish; what a refusal means for the partner is noted already.

    Where only this audience is refused, the rest of the connection goes on, with what is granted here still.

    :raises Stopped: the gate is shut
    :raises PurposeRefused, AudienceNotAsked: nothing was sent
    :raises CustomerRefused: the customer's tenant said no
    :raises InOtherHands: it is another's turn
    :raises Transient, Permanent: no
    """
    try:
        return _request(wish, wish.names())
    except Refused as refused:
        if isinstance(refused, OurFault):
            raise
        if _ends_connection(wish, refused):
            _note_refused(wish, refused)
            raise
        if wish.purpose == permissions.BY_A_PERSON:  # a test of a connection changes none
            raise
        return _with_less(wish, refused)


# --- What a refusal means for the partner ---------------------------------------------------------------------------
def _ends_connection(wish: Wish, refused: Refused) -> bool:
    """Whether nothing works any more: the sign-in itself is over, or Partner Center is what was refused."""
    of_the_sign_in = refused.meaning.kind in (Kind.REAUTH, Kind.TENANT)
    return of_the_sign_in or wish.audience == Audience.PARTNER_CENTER


def _note_refused(wish: Wish, refused: Refused) -> None:
    """Mark the row of the very generation that was refused."""
    refusal, token = _refusal(refused), wish.token
    missing = wish.names() if refused.code == NOT_CONSENTED else []
    if token.mark_refused(refusal, code=refused.code, missing=missing, claims=refused.claims or wish.claims):
        access_cache.held.drop_token(token.pk)
        gate.forget_one(token)
        audit.connection_refused(token, refusal, code=refused.code)


def _refusal(refused: Refused) -> str:
    if isinstance(refused, BlockedByPartner):
        return "blocked"
    return "mfa_missing" if refused.meaning.kind is Kind.MFA else "needs_consent"


def _with_less(wish: Wish, refused: Refused) -> Grant:
    """
    Find out which permissions of this audience are refused, write that down, and go on without them.

    Entra refuses the whole request for one scope and does not say which; a policy refuses all of them.
    :raises Refused: nothing is left of this audience
    """
    names = missing = wish.names()
    if refused.meaning.kind is Kind.CONSENT and len(names) > 1:
        missing = [name for name in names if not _is_granted(wish, name)]
    if missing and wish.token.note_missing(missing, code=refused.code, claims=refused.claims or wish.claims):
        audit.connection_limited(wish.token, missing, code=refused.code)
    left = [name for name in names if name not in missing]
    if not (missing and left):
        raise refused
    return _request(wish, left)


def _is_granted(wish: Wish, name: str) -> bool:
    try:
        _request(wish, [name])
    except Refused as refused:
        if refused.meaning.kind is not Kind.CONSENT:
            raise
        return False
    return True


# --- One request ----------------------------------------------------------------------------------------------------
def _request(wish: Wish, names: Sequence[str]) -> Grant:
    """One token request for these permissions, from the gate to its line's end and the successor's place."""
    token = wish.token
    gate.check(token)
    refuse_purpose(wish)
    _refuse_unasked(wish, names)
    leased = _take_turn(wish)
    try:
        use = _begin(wish)
        try:
            granted = rollover.redeem(use, wish.cloud.name, lambda: _redeem(wish, names, use, leased=leased))
        except Failure as failure:
            ledger.close_refused(use, failure, wish.cloud.name)
            if wish.tenant is not None and isinstance(failure, Refused) and not isinstance(failure, OurFault):
                said = {"code": failure.code, "correlation_id": failure.correlation_id}
                raise CustomerRefused(str(failure), **said) from failure
            raise
        ledger.close_granted(use, granted, wish.cloud.name)
        token.mark_success()
        if leased and granted.refresh_token:
            # The pin ends the lease. Where the vault gives no answer it runs out: what was sent may arrive still, and
            # whoever looked before that would not find it.
            leased = False
            if not custody.rotate(token, granted.refresh_token) and wish.store:
                raise InOtherHands("somebody else stored a successor", code="lease-lost", retry_after=TURN_TAKES)
        elif wish.store:
            custody.keep_as_it_is(token)
    finally:
        if leased:
            token.release()
    return granted


def refuse_purpose(wish: Wish) -> None:
    """:raises PurposeRefused: this purpose has no business there; that is written down, and nothing is sent"""
    if wish.audience not in permissions.audiences_for(wish.purpose):
        _begin(wish).close(TokenUse.Outcome.WITHHELD, code="purpose")
        raise PurposeRefused(f"{wish.purpose} may not ask for {wish.audience}", code="purpose")


def _refuse_unasked(wish: Wish, names: Sequence[str]) -> None:
    """:raises AudienceNotAsked: nothing is left to ask for; that is written down, and nothing is sent"""
    if not names:
        _begin(wish).close(TokenUse.Outcome.WITHHELD, code="audience-not-asked")
        raise AudienceNotAsked(
            f"no permission for {wish.audience} was asked for and granted", code="audience-not-asked"
        )


def _begin(wish: Wish) -> TokenUse:
    return ledger.begin(
        wish.token.partner,
        wish.audience,
        purpose=wish.purpose,
        actor=wish.actor,
        generation=wish.token.generation,
        tenant=wish.tenant,
    )


def _take_turn(wish: Wish) -> bool:
    """
    Whether this request holds the lease, and stores the successor; whoever else asks meanwhile only reads.

    :raises InOtherHands: without the lease this one may not be sent: where refresh tokens work once, two who spend the
        same one lose the sign-in, whichever tenant they ask
    """
    needed = wish.store or custody.is_single_use()
    if not needed and (wish.tenant is not None or not custody.is_store_due(wish.token)):
        return False
    reached("before lease")
    leased = wish.token.lease()
    reached("after lease")
    if needed and not leased:
        gate.check_anew(wish.token)
        raise InOtherHands("somebody else spends this sign-in just now", code="lease-held", retry_after=TURN_TAKES)
    return leased


def _redeem(wish: Wish, names: Sequence[str], use: TokenUse, *, leased: bool) -> Grant:
    """The one place where a stored refresh token is spent."""
    token, cloud = wish.token, wish.cloud
    entra = outside.entra(cloud.name)
    refresh_token = _read(token, leased=leased)
    if wish.tenant is None:
        entra.ready_to_validate()
    _check_turn(token, leased=leased)
    reached("before redeem")
    asked = [permission for permission in outside.asked_permissions() if permission.name in names]
    with outside.network(cloud.name).last_word(lambda: gate.check(token)):
        granted = entra.redeem_refresh_token(
            refresh_token=refresh_token,
            tenant=str(wish.tenant or token.partner.tenant_id),
            scopes=permissions.scopes(asked, cloud, wish.audience),
            claims=wish.claims or None,
            leaving=use.note_leaving,
        )
    reached("after redeem")
    if wish.tenant is None:
        _check_holder(token, granted)
    return granted


def _check_turn(token: RefreshToken, *, leased: bool) -> None:
    """
    The gate right before the request; whoever has the lease makes sure that it lasts until the answer.

    :raises Stopped: the gate is shut
    :raises InOtherHands: the lease was over meanwhile, and somebody else may have spent what we have read
    """
    if not leased:
        gate.check(token)
    elif not token.renew_lease():
        gate.check_anew(token)
        raise InOtherHands("the lease was over", code="lease-lost", retry_after=TURN_TAKES)


def _read(token: RefreshToken, *, leased: bool) -> Secret:
    """
    The stored refresh token. One that nobody can read any more is ours to repair, and never the partner's fault.

    :raises Stopped: it was disabled because of a stop
    """
    try:
        return custody.read_for_rotation(token) if leased else custody.read(token)
    except (SecretMissing, VersionDisabled, NotOurs) as failure:
        gate.check_anew(token)
        alarms.note_unreadable(token, failure)
        raise


def _check_holder(token: RefreshToken, granted: Grant) -> None:
    """An id_token that comes along must name the tenant and the account of the row."""
    if granted.id_token is None:
        return
    try:
        identity = outside.entra(token.partner.cloud).validate(granted.id_token, nonce=None)
    except BadIdToken as failure:
        alarms.note_bad_proof(failure, cloud=token.partner.cloud)
        raise
    if (identity.tenant_id, identity.object_id) != (token.partner.tenant_id, token.oid):
        alarms.note_wrong_holder(token)
        audit.wrong_holder(token)
        raise WrongHolder(f"refresh token {token.pk} answered for another holder", code="wrong-holder")
