"""The envelope a refresh token travels in before it reaches the vault: AES-256-GCM under a key of our own."""

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tokens.errors import Permanent
from tokens.secret import Secret

KEY_BYTES = 32
NONCE_BYTES = 12
WRONG_KEY = "envelope-tag"  # the code of a refusal: another key, another `aad`, or a text that was changed
# Shorter than 32 bytes of base64: a key pasted without its id must not pass for an id and show up in a message.
_KID = re.compile(r"[A-Za-z0-9._-]{1,32}")


class NotOurs(Permanent):
    """The sealed text was not made by this keyring for this purpose, or somebody changed it."""


class Keyring:
    """The keys of the envelope: the first one seals, all of them open."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """:raises ValueError: no key, a key that is not 32 bytes long, or a key id with other characters"""
        if not keys:
            raise ValueError("The keyring is empty.")
        for number, (kid, key) in enumerate(keys.items(), start=1):
            if not _KID.fullmatch(kid):
                raise ValueError("A key id is 1 to 32 letters, digits, dots, dashes or underscores.")
            if len(key) != KEY_BYTES:
                raise ValueError(f"Entry {number} of the keyring has {len(key)} bytes; it needs {KEY_BYTES}.")
        self._ciphers = {kid: AESGCM(key) for kid, key in keys.items()}

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(self._ciphers)}>"

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read "kid=base64,kid=base64".

        :raises ValueError: says which entry is wrong and never shows a key
        """
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
            kid, equals, encoded = entry.partition("=")
            if not equals or not _KID.fullmatch(kid):  # the text may be a bare key: name the place, not the text
                raise ValueError(f"Entry {number} of the keyring is not kid=base64.")
            if kid in keys:
                raise ValueError(f"Entry {number} of the keyring repeats a key id.")
            try:
                keys[kid] = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                raise ValueError(f"Entry {number} of the keyring is not base64.") from None
        return cls(keys)

    @property
    def active_kid(self) -> str:
        """The id of the key that seals from now on."""
        return next(iter(self._ciphers))

    def seal(self, plaintext: Secret, *, aad: Sequence[str]) -> str:
        """Return JSON text that only `open` with the same `aad` turns back."""
        kid, nonce = self.active_kid, os.urandom(NONCE_BYTES)
        sealed = self._ciphers[kid].encrypt(nonce, plaintext.reveal().encode(), _bound_to(kid, aad))
        envelope = {"v": 1, "alg": "A256GCM", "kid": kid, "nonce": _to_text(nonce), "ct": _to_text(sealed)}
        return json.dumps(envelope, separators=(",", ":"))

    def open(self, sealed: str, *, aad: Sequence[str]) -> Secret:
        """
        Return what was sealed.

        :raises NotOurs: unknown key, other `aad`, or a text that was changed
        """
        kid, nonce, ciphertext = _read(sealed)
        if kid not in self._ciphers:
            raise NotOurs("The keyring has no key of that id.", code="envelope-key")
        try:
            plaintext = self._ciphers[kid].decrypt(nonce, ciphertext, _bound_to(kid, aad))
        except InvalidTag:
            raise NotOurs("The envelope was sealed for something else, or changed.", code=WRONG_KEY) from None
        return Secret(plaintext.decode())


def key_id(sealed: str) -> str:
    """
    Return which key sealed this.

    :raises NotOurs: it is no envelope
    """
    kid = _read(sealed)[0]
    if not _KID.fullmatch(kid):
        raise NotOurs("The sealed text names no key.", code="envelope-format")
    return kid


def _bound_to(kid: str, aad: Sequence[str]) -> bytes:
    # A JSON list, because joined text would let ("a", "bc") open what was sealed for ("ab", "c").
    return json.dumps(["cpv1", kid, *aad], separators=(",", ":")).encode()


def _read(sealed: str) -> tuple[str, bytes, bytes]:
    try:
        fields = json.loads(sealed)
        if (fields["v"], fields["alg"]) != (1, "A256GCM"):
            raise ValueError
        nonce, ciphertext = (base64.b64decode(fields[name], validate=True) for name in ("nonce", "ct"))
        if len(nonce) != NONCE_BYTES:
            raise ValueError
        return str(fields["kid"]), nonce, ciphertext
    except (ValueError, TypeError, KeyError, RecursionError):
        raise NotOurs("The sealed text is not an envelope.", code="envelope-format") from None


def _to_text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
