"""
Trying what our application proves itself with, against Entra and for real, with nothing that could come of it.

Each proof asks for a token with a refresh token that never was. Entra looks at who asks before it looks at what for: a
certificate it does not accept is refused as such, and with one it does accept the refusal is about the refresh token.
That this order holds is checked each time, by asking with a certificate made a moment ago as well. No partner is
named, and no app-only token is asked for.
"""

from __future__ import annotations

import datetime as dt
import functools
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings
from django.utils import timezone

from tokens import ledger, outside
from tokens.aadsts import Kind
from tokens.actors import Actor
from tokens.clouds import Audience, cloud_named
from tokens.credential import AppRegistration, Proof
from tokens.errors import Failure, Transient
from tokens.models import Alarm, TokenUse
from tokens.refusals import Refused, is_about_credential
from tokens.secret import Secret

PURPOSE = "credential.drill"
NEVER_WAS = Secret("1.A-refresh-token-that-never-was")
SETTINGS = {
    "federated": "CPV_APP_FEDERATED",
    "certificate": "CPV_APP_CERTIFICATE",
    "next": "CPV_APP_CERTIFICATE_NEXT",
    "secret": "CPV_APP_SECRET",
}


class Result(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"  # nobody answered, or asks to wait
    UNCLEAR = "unclear"  # an answer that says nothing about the proof


@dataclass(frozen=True)
class Tried:
    """One proof and what Entra said; `in_use` by every process that was not told otherwise since it began."""

    setting: str
    proof: Proof
    in_use: bool
    result: Result
    code: str


def drill(cloud: str, *, actor: Actor) -> list[Tried]:
    """
    Try every proof that is configured for a cloud, in the order in which they are used.

    :raises ValueError: none is configured, or a certificate cannot work
    """
    app = outside.app_registration(cloud)
    rolled_over = Alarm.objects.filter(kind=Alarm.Kind.ROLLED_OVER, cloud=cloud, closed_at=None).exists()
    in_use = app.proofs[-1 if rolled_over else 0]
    unknown, _ = _asked(cloud, AppRegistration(app.client_id, certificate_pem=_made_now()), actor)
    tried = []
    for proof in app.proofs:
        result, code = _asked(cloud, _alone(app.client_id, proof), actor)
        if result is Result.ACCEPTED and unknown is not Result.REFUSED:
            result = Result.UNCLEAR  # Entra took a stranger's as well, so that it took ours says nothing
        setting = f"{SETTINGS[proof.kind]}{settings.CPV_CLOUD_SUFFIXES[cloud]}"
        tried.append(Tried(setting, proof, proof is in_use, result, code))
    return tried


def _alone(client_id: str, proof: Proof) -> AppRegistration:
    return AppRegistration(
        client_id,
        secret=None if proof.certificate else proof.secret,
        certificate_pem=proof.secret if proof.certificate else None,
        assertion=proof.assertion,
    )


def _asked(cloud: str, app: AppRegistration, actor: Actor) -> tuple[Result, str]:
    use = ledger.begin(None, Audience.PARTNER_CENTER, purpose=PURPOSE, actor=actor)
    scope = cloud_named(cloud).default_scope(Audience.PARTNER_CENTER)
    tenant = settings.CPV_APPS[cloud]["tenant_id"] or "organizations"
    try:
        outside.entra_as(cloud, app).redeem_refresh_token(refresh_token=NEVER_WAS, tenant=tenant, scopes=[scope])
    except Failure as failure:
        outcome = TokenUse.Outcome.UNAVAILABLE if isinstance(failure, Transient) else TokenUse.Outcome.REFUSED
        use.close(outcome, code=failure.code)
        return _meaning(failure), failure.code
    use.close(TokenUse.Outcome.GRANTED)
    return Result.UNCLEAR, ""  # no Entra hands out a token for this


def _meaning(failure: Failure) -> Result:
    if is_about_credential(failure):
        return Result.REFUSED
    if isinstance(failure, Transient):
        return Result.UNAVAILABLE
    is_about_grant = isinstance(failure, Refused) and failure.meaning.kind is Kind.REAUTH
    return Result.ACCEPTED if is_about_grant else Result.UNCLEAR


@functools.cache
def _made_now() -> Secret:
    """A key and a certificate that no registration knows, in memory only."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "unknown to everybody")])
    now = timezone.now()
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Secret((private + certificate.public_bytes(Encoding.PEM)).decode())
