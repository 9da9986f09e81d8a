"""
Custody is split: whoever holds one part alone gets nothing. Here each part alone is tried, for real.

The parts are the rows (where a refresh token lies), the vault's content (the sealed token) and the application's
credential. Each try goes through the one door to the network, and each token request has its line in the ledger.
Nothing is kept or changed: no refusal is noted at the partner.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from django.conf import settings

from tokens import aadsts, audit, broker, custody, envelope, gate, ledger, outside
from tokens.actors import Actor
from tokens.clouds import Audience, cloud_named
from tokens.entra import Grant, OurFault, Refused
from tokens.errors import Failure, Transient
from tokens.models import RefreshToken, TokenUse
from tokens.secret import Secret
from tokens.vault import API_VERSION, SecretMissing, Vault, VaultIdentity, VaultRefused, VersionDisabled

PURPOSE = "custody.prove"
DUMP, CONTENT, CREDENTIAL = "database dump", "vault's content", "application's credential"
INVENTED_BYTES = 900  # about as long as a real one: Entra answers another number to what is no token at all


@dataclass(frozen=True)
class Attempt:
    """One try with one part alone; `owner` and `action` say who acts where it was not refused."""

    holds: str
    tried: str
    answered: str
    refused: bool
    owner: str = "nobody"
    action: str = ""


def prove(token: RefreshToken, *, actor: Actor) -> list[Attempt]:
    """
    Try each part alone against this generation, in the order of `DUMP`, `CONTENT`, `CREDENTIAL`.

    :raises Stopped: calls for this partner are stopped, so nothing is tried
    """
    gate.check(token)
    attempts = [
        _read_as_a_stranger(token),
        *_with_the_content(token, actor),
        _redeem_an_invention(token, actor),
        _open_the_vault_as_the_application(token, actor),
    ]
    refused = sum(attempt.refused for attempt in attempts)
    audit.record("custody.tried", actor=actor, partner=token.partner, refused=refused, tried=len(attempts))
    return attempts


# --- The rows alone -------------------------------------------------------------------------------------------------
def _read_as_a_stranger(token: RefreshToken) -> Attempt:
    """The rows name vault, secret and version; without an identity the vault must not answer."""
    tried = "read the secret that the row names, without an identity"
    address = f"{_vault_url(token)}/secrets/{token.secret_name}/{token.pinned_version}"
    try:
        response = outside.network(token.partner.cloud).request("GET", address, params={"api-version": API_VERSION})
    except Failure as failure:
        return _unproved(DUMP, tried, failure)
    if response.status_code in (401, 403):
        return Attempt(DUMP, tried, f"the vault: {response.status_code}", refused=True)
    if response.status_code == 200:
        action = "The vault answers strangers. Close it to the public now, then kill and reconnect every partner in it."
        return Attempt(DUMP, tried, "the vault: the secret", refused=False, owner="security", action=action)
    return _unproved(DUMP, tried, Transient("", code=f"vault-{response.status_code}"))


def _vault_url(token: RefreshToken) -> str:
    return str(settings.CPV_VAULTS[token.partner.cloud]["url"]).rstrip("/")


# --- The vault's content alone --------------------------------------------------------------------------------------
def _with_the_content(token: RefreshToken, actor: Actor) -> list[Attempt]:
    tried = ("open the envelope with a key that is not ours", "redeem what lies in the vault as it is")
    try:
        sealed = outside.vault(token.partner.cloud).get(token.secret_name, token.pinned_version)
    except Failure as failure:
        return [_unproved(CONTENT, each, failure) for each in tried]
    return [_open_with_another_key(token, sealed, tried[0]), _redeem(token, actor, Secret(sealed), CONTENT, tried[1])]


def _open_with_another_key(token: RefreshToken, sealed: str, tried: str) -> Attempt:
    """All that the envelope is bound to is given away here; only the key is missing."""
    answered = "opened"
    try:
        stranger = envelope.Keyring({envelope.key_id(sealed): os.urandom(envelope.KEY_BYTES)})
        stranger.open(sealed, aad=custody.additional_data(token))
    except envelope.NotOurs as no:
        answered = no.code
    if answered == envelope.WRONG_KEY:
        return Attempt(CONTENT, tried, f"the envelope: {answered}", refused=True)
    action = "What lies in the vault is not sealed by us. Kill this partner and find out who wrote it."
    return Attempt(CONTENT, tried, f"the envelope: {answered}", refused=False, owner="security", action=action)


# --- The application's credential alone -----------------------------------------------------------------------------
def _redeem_an_invention(token: RefreshToken, actor: Actor) -> Attempt:
    invented = Secret(f"1.A{os.urandom(INVENTED_BYTES).hex()}")
    return _redeem(token, actor, invented, CREDENTIAL, "redeem an invented refresh token at the partner's tenant")


def _redeem(token: RefreshToken, actor: Actor, thing: Secret, holds: str, tried: str) -> Attempt:
    """Our own credential goes along, also for whoever would not have it: even so it must be refused."""
    alone = Grant(thing, Secret(""), None, frozenset(), 0, "")
    partner, without = token.partner, token.missing_scopes
    try:
        broker.probe(
            broker.FreshGrant(alone), Audience.GRAPH, partner=partner, actor=actor, without=without, purpose=PURPOSE
        )
    except Failure as failure:
        if isinstance(failure, Refused) and not isinstance(failure, OurFault):
            return Attempt(holds, tried, f"Entra: {failure.code}", refused=True)
        return _unproved(holds, tried, failure)
    action = "Entra gave a token for it. Kill this partner, change the application's credential, and tell Microsoft."
    return Attempt(holds, tried, "Entra: a token", refused=False, owner="security", action=action)


def _open_the_vault_as_the_application(token: RefreshToken, actor: Actor) -> Attempt:
    """The application has no rights in the vault: either Entra gives it no token for one, or the vault says no."""
    tried = "read the secret as the application itself"
    use = ledger.begin(None, "vault", purpose=PURPOSE, actor=actor)  # no partner's credential is used here
    answered = "the vault: the secret"
    try:
        _vault_of_the_application(token).get(token.secret_name, token.pinned_version)
    except (SecretMissing, VersionDisabled) as failure:  # who may not look is not told that either
        answered = f"the vault: {failure.code}"
    except Failure as failure:
        _close(use, failure)
        if not _says_no(failure):
            return _unproved(CREDENTIAL, tried, failure)
        by = "Entra" if failure.code.startswith("AADSTS") else "the vault"
        return Attempt(CREDENTIAL, tried, f"{by}: {failure.code}", refused=True)
    use.close(TokenUse.Outcome.GRANTED)
    action = "The application may read the vault. Take that right away now; the vault has identities of its own."
    return Attempt(CREDENTIAL, tried, answered, refused=False, owner="security", action=action)


def _vault_of_the_application(token: RefreshToken) -> Vault:
    cloud = token.partner.cloud
    tenant_id = settings.CPV_VAULTS[cloud]["tenant_id"] or settings.CPV_APPS[cloud]["tenant_id"]
    app = outside.app_registration(cloud)
    identity = VaultIdentity(tenant_id, app.client_id, app.secret, app.certificate_pem, app.assertion)
    return Vault(network=outside.network(cloud), cloud=cloud_named(cloud), url=_vault_url(token), identity=identity)


def _says_no(failure: Failure) -> bool:
    """A clear no to this identity; that our credential does not work at all would prove nothing."""
    if not isinstance(failure, VaultRefused):
        return False
    numbers = aadsts.codes_in(failure.code)
    if numbers:
        return aadsts.classify(numbers, "", "", 0).kind is not aadsts.Kind.APP_CREDENTIAL
    return failure.code in ("vault-401", "vault-403")


def _close(use: TokenUse, failure: Failure) -> None:
    """A no of the vault comes after Entra's yes."""
    if isinstance(failure, Transient):
        use.close(TokenUse.Outcome.UNAVAILABLE, code=failure.code)
    elif failure.code in ("vault-401", "vault-403"):
        use.close(TokenUse.Outcome.GRANTED)
    else:
        use.close(TokenUse.Outcome.REFUSED, code=failure.code)


def _unproved(holds: str, tried: str, failure: Failure) -> Attempt:
    """No yes and no clear no: not a refusal, and nobody got in either."""
    action = "Nothing is proved. Repair what is named, or wait until it answers, and try again."
    answered = f"no clear answer: {failure.code or failure}"
    return Attempt(holds, tried, answered, refused=False, owner="support", action=action)
