"""Who is calling the token endpoint: client secret or signed assertion."""

from __future__ import annotations

import hashlib
import hmac

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from sandbox import jose
from sandbox.asks import Ask
from sandbox.directory import App
from sandbox.entraerrors import EntraError

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def authenticated(ask: Ask, segment: str) -> App:
    """
    The app that proved who it is.

    :raises EntraError: 700016, 7000215, 7000218, 7000222, 700027
    """
    form = ask.request.form
    client_id = form.get("client_id", "").lower()
    app = ask.world.apps.get(client_id)
    if app is None or ask.place.cloud.name not in app.clouds:
        raise EntraError(700016, client_id, segment)
    ask.call.client = app.app_id
    if form.get("client_assertion"):
        ask.world.remember("client_assertion", form["client_assertion"])
        _check_assertion(ask, app, form["client_assertion"])
    elif form.get("client_secret"):
        ask.world.remember("client_secret", form["client_secret"])
        _check_secret(app, form["client_secret"])
    else:
        raise EntraError(7000218)
    return app


def _check_secret(app: App, given: str) -> None:
    if not any(hmac.compare_digest(given.encode(), secret.encode()) for secret in app.secrets):
        raise EntraError(7000215, app.app_id)
    if app.secret_expired:
        raise EntraError(7000222, app.app_id)


def _thumbprints(certificate: x509.Certificate) -> dict[str, str]:
    """What the header of an assertion may name a certificate by."""
    sha1 = hashes.SHA1()  # noqa: S303 - a name, not a proof; the legacy header has no other
    return {
        "x5t": jose.b64(certificate.fingerprint(sha1)),
        "x5t#S256": jose.b64(certificate.fingerprint(hashes.SHA256())),
    }


def _certificate(app: App, header: jose.Claims) -> x509.Certificate:
    for certificate in app.certificates:
        # some libraries leave the base64 padding on
        if any(str(header.get(name)).rstrip("=") == value for name, value in _thumbprints(certificate).items()):
            return certificate
    raise EntraError(700027, "the certificate is not registered on the application")


def _check_assertion(ask: Ask, app: App, assertion: str) -> None:
    """Microsoft's page "Application authentication certificate credentials"."""
    if ask.request.form.get("client_assertion_type") != ASSERTION_TYPE:
        raise EntraError(900144, "client_assertion_type")
    try:
        header, _ = jose.peek(assertion)
        if not header.keys() & {"x5t", "x5t#S256"}:
            return _check_federated(ask, app, assertion)
        certificate = _certificate(app, header)
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise EntraError(700027, "not an RSA key")
        claims = jose.verify(assertion, key)
    except jose.Invalid as error:
        raise EntraError(700027, str(error)) from error
    _check_claims(ask, app, certificate, claims)


def _check_federated(ask: Ask, app: App, assertion: str) -> None:
    """Microsoft's page "Configure an application to trust a managed identity": Entra's own token proves the app."""
    claims = jose.verify(assertion, ask.world.key(ask.place.cloud.name).public_key())
    if not ask.world.now() - 300 < claims.get("exp", 0):
        raise EntraError(700024)
    if claims.get("aud") != ask.place.cloud.federation:
        raise EntraError(700212, str(claims.get("aud")))
    if (claims.get("iss"), claims.get("sub")) not in app.federated:
        raise EntraError(700213, str(claims.get("sub")))


def _check_claims(ask: Ask, app: App, certificate: x509.Certificate, claims: jose.Claims) -> None:
    now = ask.world.now()
    if now > certificate.not_valid_after_utc.timestamp():
        raise EntraError(700027, "the certificate has expired")
    if not now - 300 < claims.get("exp", 0) < now + 86_400:
        raise EntraError(700027, "the assertion is not within its valid time range")
    if claims.get("aud") != f"https://{ask.place.host}{ask.request.path}":
        raise EntraError(700027, "the audience is not the token endpoint")
    if {claims.get("iss"), claims.get("sub")} != {app.app_id}:
        raise EntraError(700027, "issuer and subject are not the application")


def challenge_of(verifier: str) -> str:
    """The S256 challenge of RFC 7636."""
    return jose.b64(hashlib.sha256(verifier.encode()).digest())
