"""
Signed messages: what a worker takes comes from a process that holds a key we trust.

It signs the body, which is not the whole message: so tasks only ever claim a row that is due, whoever asks.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

from celery.exceptions import SecurityError
from celery.security.certificate import Certificate, CertStore
from celery.security.key import PrivateKey
from celery.security.serialization import SecureSerializer
from django.core.exceptions import ImproperlyConfigured
from kombu.serialization import register

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def use(*, key: str, certificate: str, trusted: str) -> None:
    """
    Make Celery's serializer "auth" sign with our key and accept what holders of trusted certificates signed.

    Each is PEM, or the path of a file that holds it; `trusted` may hold several, or be a folder or a pattern of paths.

    :raises ImproperlyConfigured: one cannot be read, or our own certificate has expired or is not trusted
    """
    own = _certificate("CPV_MESSAGE_CERT", _text("CPV_MESSAGE_CERT", certificate))
    if own.has_expired():
        raise ImproperlyConfigured("CPV_MESSAGE_CERT has expired; make a new pair as docs/operations.md tells.")
    try:
        private = PrivateKey(_text("CPV_MESSAGE_KEY", key))
    except (SecurityError, ValueError, TypeError):
        raise ImproperlyConfigured("CPV_MESSAGE_KEY is no unencrypted RSA key in PEM.") from None
    store = CertStore()  # one that expired may stay there: what it signed is refused when it comes
    for pem in set(PEM.findall(_text("CPV_MESSAGE_CERT_STORE", trusted))):
        store.add_cert(_certificate("CPV_MESSAGE_CERT_STORE", pem))
    if own.get_id() not in {known.get_id() for known in store.itercerts()}:
        raise ImproperlyConfigured(
            "CPV_MESSAGE_CERT is not in CPV_MESSAGE_CERT_STORE: workers would refuse every message of this process."
        )
    serializer: Any = SecureSerializer(private, own, store)
    register(
        "auth", serializer.serialize, serializer.deserialize, content_type="application/data", content_encoding="utf-8"
    )


def _text(name: str, given: str) -> str:
    """The PEM itself, or what is in the files that are named."""
    if not given.strip():
        raise ImproperlyConfigured(f"{name} is empty, though messages are to be signed.")
    if "-----BEGIN" in given:
        return given.replace("\\n", "\n")
    path = Path(given)
    paths = sorted(path.iterdir()) if path.is_dir() else [Path(found) for found in sorted(glob.glob(given))]
    try:
        text = "\n".join(path.read_text() for path in paths if path.is_file())
    except OSError as error:
        raise ImproperlyConfigured(f"{name} cannot be read: {error.strerror}.") from None
    if not text.strip():
        raise ImproperlyConfigured(f"{name} names no file that holds anything.")
    return text


def _certificate(name: str, pem: str) -> Certificate:
    try:
        return Certificate(pem)
    except (SecurityError, ValueError):
        raise ImproperlyConfigured(f"{name} is no RSA certificate in PEM.") from None
