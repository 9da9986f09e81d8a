"""Signed tokens, made and read by hand, so that a deliberately broken one can be made as easily as a good one."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

Claims = dict[str, Any]


class Invalid(ValueError):
    """Not a token, or not signed by the key it should be signed by."""


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error) as error:
        raise Invalid("not base64url") from error


@functools.cache
def new_key(label: str) -> rsa.RSAPrivateKey:
    """One RSA key per label and process: making one costs a tenth of a second, and worlds in tests are many."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def to_pem(key: rsa.RSAPrivateKey) -> str:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()


def from_pem(pem: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Invalid("not an RSA key")
    return key


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def key_id(key: rsa.RSAPrivateKey) -> str:
    """Entra's key ids are thumbprints; ours is one of the public key."""
    return b64(hashlib.sha256(public_pem(key)).digest()[:20])


def jwk(key: rsa.RSAPrivateKey, issuer: str) -> dict[str, str]:
    """One entry of the key document, with Microsoft's own `issuer` field for multi-tenant checks."""
    numbers = key.public_key().public_numbers()
    return {
        "kty": "RSA",
        "use": "sig",
        "kid": key_id(key),
        "n": b64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
        "e": b64(numbers.e.to_bytes(3, "big")),
        "issuer": issuer,
    }


def _part(value: Claims) -> str:
    return b64(json.dumps(value, separators=(",", ":")).encode())


def sign(claims: Claims, key: rsa.RSAPrivateKey, kid: str | None = None) -> str:
    """An RS256 token as Entra makes them."""
    signed = _part({"typ": "JWT", "alg": "RS256", "kid": kid or key_id(key)}) + "." + _part(claims)
    return signed + "." + b64(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))


def unsigned(claims: Claims) -> str:
    return _part({"typ": "JWT", "alg": "none"}) + "." + _part(claims) + "."


def sign_hs256(claims: Claims, key: rsa.RSAPrivateKey) -> str:
    """The classic confusion attack: the public key used as if it were a shared secret."""
    signed = _part({"typ": "JWT", "alg": "HS256", "kid": key_id(key)}) + "." + _part(claims)
    return signed + "." + b64(hmac.new(public_pem(key), signed.encode(), hashlib.sha256).digest())


def _object(part: str) -> Claims:
    try:
        value = json.loads(unb64(part))
    except ValueError as error:
        raise Invalid("not a token") from error
    if not isinstance(value, dict):
        raise Invalid("not a token")
    return value


def peek(token: str) -> tuple[Claims, Claims]:
    """Header and claims, nothing checked."""
    parts = token.split(".")
    if len(parts) != 3:
        raise Invalid("not a token")
    return _object(parts[0]), _object(parts[1])


def verify(token: str, key: rsa.RSAPublicKey) -> Claims:
    """The claims of a token that carries this key's RS256 or PS256 signature. Times are the caller's to judge."""
    header, claims = peek(token)
    pads: dict[str, padding.AsymmetricPadding] = {
        "RS256": padding.PKCS1v15(),
        "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size),
    }
    pad = pads.get(str(header.get("alg")))
    if pad is None:
        raise Invalid("algorithm not accepted")
    signed, _, signature = token.rpartition(".")
    try:
        key.verify(unb64(signature), signed.encode(), pad, hashes.SHA256())
    except InvalidSignature as error:
        raise Invalid("signature does not fit") from error
    return claims
