"""What our application proves itself to Entra with, and which of two certificates is in use."""

import base64
import datetime as dt
import functools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msal
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate, load_pem_x509_certificates

from tokens.secret import Secret

SIGNED_SERVES = 300  # seconds; an assertion lives twice as long
MOST_SIGNED = 2_000  # tenants; about 4 MB


@dataclass(frozen=True)
class Certificate:
    """A certificate as people know it: `thumbprint` is the SHA-1 one in capitals, as Entra's pages show it."""

    thumbprint: str
    not_after: dt.datetime


@dataclass(frozen=True)
class Proof:
    """One way for our application to prove itself; `kind` is "federated", "certificate", "next" or "secret"."""

    kind: str
    certificate: Certificate | None = None
    secret: Secret | None = field(default=None, repr=False)  # a PEM with private key, where there is a certificate
    assertion: Callable[[], str] | None = field(default=None, repr=False)

    def for_msal(self) -> str | dict[str, Any]:
        """Return what MSAL calls `client_credential`."""
        if self.assertion:
            return {"client_assertion": self.assertion}
        if self.certificate:
            return {"client_assertion": self._signer}
        return (self.secret or Secret("")).reveal()

    @functools.cached_property
    def _signer(self) -> Callable[[dict[str, str]], str]:
        """What MSAL asks for an assertion; the key is read once, not at each redemption."""
        signer = Signer(self.secret or Secret(""))
        return lambda asked: signer.assertion(client_id=asked["client_id"], audience=asked["token_endpoint"])


class Signer:
    """
    Signs for one certificate in the form Entra documents: PS256, x5t#S256, ten minutes; safe between threads.

    Reading a key costs more than a whole redemption, and signing half of one. So the key is read once, and what was
    signed for a tenant serves for half of its life, as MSAL itself does within one application object.
    https://learn.microsoft.com/entra/identity-platform/certificate-credentials
    """

    def __init__(self, pem: Secret, *, most: int = MOST_SIGNED) -> None:
        """`most` is how many tenants' assertions are kept at a time."""
        text = pem.reveal().encode()
        certificates = load_pem_x509_certificates(text)
        der = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode() for certificate in certificates]
        self._creator = msal.oauth2cli.JwtAssertionCreator(
            load_pem_private_key(text, password=None),
            algorithm="PS256",
            headers={"x5c": der},
            sha256_thumbprint=certificates[0].fingerprint(SHA256()).hex(),
        )
        self._lock, self._most = threading.Lock(), most
        self._signed: dict[tuple[str, str], tuple[float, str]] = {}

    def assertion(self, *, client_id: str, audience: str) -> str:
        """A signed JWT that proves us at one token endpoint."""
        key, now = (client_id, audience), time.time()
        with self._lock:
            made_at, signed = self._signed.get(key, (0.0, ""))
        if signed and 0 <= now - made_at < SIGNED_SERVES:
            return signed
        signed = _text(self._creator.create_normal_assertion(audience=audience, issuer=client_id))
        with self._lock:
            if len(self._signed) >= self._most:
                self._signed.clear()
            self._signed[key] = (now, signed)
        return signed


def _text(signed: bytes) -> str:
    return signed.decode()


@dataclass(frozen=True)
class AppRegistration:
    """
    Our app registration in one cloud; of several proofs the best is used: assertion, then certificate, then secret.

    `certificate_pem` holds a private key and its certificate first, then any chain, and so does `next_certificate_pem`,
    which steps in where the first is refused. `assertion` returns a fresh federated token for each call and raises a
    `Failure` when it has none.
    https://learn.microsoft.com/entra/identity-platform/certificate-credentials
    """

    client_id: str
    secret: Secret | None = None
    certificate_pem: Secret | None = None
    next_certificate_pem: Secret | None = None
    assertion: Callable[[], str] | None = field(default=None, repr=False)
    proofs: tuple[Proof, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """:raises ValueError: no proof is given, or private key and certificate do not fit"""
        object.__setattr__(self, "proofs", tuple(self._proofs()))
        if not self.proofs:
            raise ValueError("The app registration needs a federated identity, a certificate or a secret.")

    def _proofs(self) -> list[Proof]:
        """What may be used, in the order in which it is tried: more than one only where there are two certificates."""
        # Certificates are read whatever is used: MSAL would find out only at the first token request.
        pems = {"certificate": self.certificate_pem, "next": self.next_certificate_pem}
        certificates = [Proof(kind, read_certificate(pem), pem) for kind, pem in pems.items() if pem]
        if self.assertion:
            return [Proof("federated", assertion=self.assertion)]
        return certificates or ([Proof("secret", secret=self.secret)] if self.secret else [])


class InUse:
    """
    Which proof this process uses; safe between threads.

    One that Entra refuses gives way to the other, and that one back to the first should it be refused as well.
    """

    def __init__(self, proofs: Sequence[Proof]) -> None:
        self._proofs, self._lock, self._index = tuple(proofs), threading.Lock(), 0

    @property
    def proof(self) -> Proof:
        return self._proofs[self._index]

    @property
    def is_first(self) -> bool:
        return self._index == 0

    @property
    def has_other(self) -> bool:
        return len(self._proofs) > 1

    def give_way(self, refused: Proof) -> None:
        """Use the other from now on, unless another thread has seen to that already."""
        with self._lock:
            if self.proof is refused:
                self._index = (self._index + 1) % len(self._proofs)


def read_certificate(pem: Secret) -> Certificate:
    """
    Return the first certificate of a PEM that also holds its private key.

    :raises ValueError: something is missing, or the two do not fit
    """
    text = pem.reveal().encode()
    try:
        # Not checked for primes, which takes a tenth of a second: the key is our own, and MSAL checks it when it signs.
        key = load_pem_private_key(text, password=None, unsafe_skip_rsa_key_validation=True).public_key()
        certificate = load_pem_x509_certificate(text)
        certified = certificate.public_key()
        if not isinstance(key, RSAPublicKey):
            raise ValueError
    except (ValueError, TypeError):
        raise ValueError(
            "The certificate needs a PEM RSA private key without password and a PEM certificate."
        ) from None
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_bytes(*spki) != certified.public_bytes(*spki):
        raise ValueError("The private key does not belong to the first certificate.")
    thumbprint = certificate.fingerprint(SHA1()).hex().upper()  # noqa: S303 - a name, not a proof
    return Certificate(thumbprint, certificate.not_valid_after_utc)
