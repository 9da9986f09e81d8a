"""A small Microsoft for tests of the wire: an adapter that answers from a function, and a signer of id_tokens."""

import datetime as dt
import io
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from requests.adapters import BaseAdapter

PARTNER = "11111111-1111-4111-8111-111111111111"
OTHER_PARTNER = "22222222-2222-4222-8222-222222222222"
USER = "33333333-3333-4333-8333-333333333333"
APP = "44444444-4444-4444-8444-444444444444"
TRACE = "55555555-5555-4555-8555-555555555555"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class FakeServer(BaseAdapter):
    """Answers what `answer` returns, (status, body[, headers]), raises it when it is an exception, and remembers."""

    def __init__(self, answer: Callable[[requests.PreparedRequest], Answer | Exception]) -> None:
        super().__init__()
        self.answer, self.seen, self.options = answer, [], []

    def send(self, request, **options):
        self.seen.append(request)
        self.options.append(options)
        answer = self.answer(request)
        if isinstance(answer, Exception):
            raise answer
        status, body, *rest = answer
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = requests.Response()
        response.status_code, response.request, response.url = status, request, request.url
        response.headers.update(rest[0] if rest else {})
        response.raw = urllib3.HTTPResponse(
            io.BytesIO(raw), headers=dict(response.headers), status=status, preload_content=False
        )
        return response

    def close(self):
        pass

    def posts(self) -> list[dict[str, str]]:
        """The forms that were posted, one value for each field."""
        return [
            {name: values[0] for name, values in parse_qs(sent.body).items()}
            for sent in self.seen
            if sent.method == "POST"
        ]

    def gets(self) -> list[str]:
        return [sent.url for sent in self.seen if sent.method == "GET"]


def jwks_entry(key=KEY, kid="k1", **more):
    return jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig"} | more


class FakeEntra:
    """Entra's three endpoints; set `token`, `discovery` or `jwks` to make them answer otherwise."""

    def __init__(self) -> None:
        self.token: Any = (200, {"access_token": "AT", "expires_in": 3600, "scope": "s1 s2", "token_type": "Bearer"})
        self.discovery: Any = None
        self.jwks: Any = (200, {"keys": [jwks_entry(issuer="https://login.microsoftonline.com/{tenantid}/v2.0")]})

    def __call__(self, request):
        address = urlsplit(request.url)
        if address.path.endswith("/discovery/v2.0/keys"):
            return self.jwks
        if request.method == "POST":
            return self.token
        tenant = address.path.split("/")[1]
        base = f"https://{address.netloc}/{tenant}/oauth2/v2.0"
        return self.discovery or (
            200,
            {"authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token", "issuer": "unused"},
        )


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {
        "iss": f"https://login.microsoftonline.com/{PARTNER}/v2.0",
        "aud": APP,
        "tid": PARTNER,
        "oid": USER,
        "sub": "pairwise",
        "exp": now + 3600,
        "iat": now,
        "nbf": now,
        "preferred_username": "admin@partner.example",
        "name": "Ada Admin",
    } | changes
    return {name: value for name, value in made.items() if value is not ...}


def signed(made: dict[str, Any], *, key=KEY, kid: str | None = "k1", alg: str = "RS256") -> str:
    return jwt.encode(made, key, algorithm=alg, headers={"kid": kid} if kid else None)


def pem(key=KEY, certified=None) -> str:
    """A private key and a certificate, which belongs to another key when `certified` says so."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cpv")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key((certified or key).public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(certified or key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode()


def elliptic_pem() -> str:
    return pem(ec.generate_private_key(ec.SECP256R1()))
