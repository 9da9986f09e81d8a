"""What our application proves itself to Entra with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from tokens.secret import Secret


@dataclass(frozen=True)
class AppRegistration:
    """
    Our app registration in one cloud; of several proofs the best is used: assertion, then certificate, then secret.

    `certificate_pem` holds a private key and its certificate first, then any chain; `assertion` returns a fresh
    federated token for each call and raises a `Failure` when it has none.
    https://learn.microsoft.com/entra/identity-platform/certificate-credentials
    """

    client_id: str
    secret: Secret | None = None
    certificate_pem: Secret | None = None
    assertion: Callable[[], str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """:raises ValueError: no proof is given, or private key and certificate do not fit"""
        if not (self.secret or self.certificate_pem or self.assertion):
            raise ValueError("The app registration needs a federated identity, a certificate or a secret.")
        if self.certificate_pem:
            _check_pair(self.certificate_pem.reveal())  # MSAL would find out only at the first token request

    def msal_credential(self) -> str | dict[str, Any]:
        """Return what MSAL calls `client_credential`."""
        if self.assertion:
            return {"client_assertion": self.assertion}
        if self.certificate_pem:
            pem = self.certificate_pem.reveal()
            # Without a thumbprint MSAL signs PS256 with x5t#S256, the form Entra documents.
            return {"private_key": pem, "public_certificate": pem}
        return (self.secret or Secret("")).reveal()


def _check_pair(pem: str) -> None:
    try:
        key = load_pem_private_key(pem.encode(), password=None).public_key()
        certified = load_pem_x509_certificate(pem.encode()).public_key()
        if not isinstance(key, RSAPublicKey):
            raise ValueError
    except (ValueError, TypeError):
        raise ValueError(
            "The certificate needs a PEM RSA private key without password and a PEM certificate."
        ) from None
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_bytes(*spki) != certified.public_bytes(*spki):
        raise ValueError("The private key does not belong to the first certificate.")
