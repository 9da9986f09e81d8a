"""Finds a secret in what was written, in whichever shape it got there."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import NamedTuple
from urllib.parse import quote

JWT = re.compile(rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.")
RUN = re.compile(rb"[\w.~-]{43,}")
PIECE = 40  # characters; long secrets are looked for in pieces, because a log may cut them


class Leak(NamedTuple):
    """A secret that is where it must not be."""

    sink: str
    what: str
    shape: str


def in_any_shape(secret: str, content: bytes) -> list[str]:
    """The shapes in which the secret, or a long piece of it, occurs."""
    found = {shape for piece in _pieces(secret) for shape, needle in _shapes(piece) if needle in content}
    return sorted(found)


def _pieces(secret: str) -> list[str]:
    if len(secret) < 2 * PIECE:
        return [secret]
    middle = len(secret) // 2
    return [secret[2 : 2 + PIECE], secret[middle : middle + PIECE], secret[-PIECE:]]


def _shapes(secret: str) -> list[tuple[str, bytes]]:
    raw = secret.encode()
    shapes = [
        ("raw", raw),
        ("hex", raw.hex().encode()),
        ("HEX", raw.hex().upper().encode()),
        ("url", quote(secret, safe="").encode()),
        ("json", json.dumps(secret)[1:-1].encode()),
        ("utf-16", secret.encode("utf-16-le")),
    ]
    for shift in range(3):  # base64 of a longer text that holds the secret somewhere
        whole = base64.b64encode(b"\0" * shift + raw)
        inner = whole[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]
        shapes += [("base64", inner), ("base64url", inner.replace(b"+", b"-").replace(b"/", b"_"))]
    known: dict[bytes, str] = {}
    for shape, needle in shapes:
        known.setdefault(needle, shape)
    return [(shape, needle) for needle, shape in known.items()]


def jwts(content: bytes) -> list[bytes]:
    """What has the shape of a signed token: access tokens, id tokens, client assertions."""
    return JWT.findall(content)


def verifiers(content: bytes, challenges: set[str]) -> list[str]:
    """PKCE verifiers, known by the challenges that were seen: any 43 characters whose hash is one of them."""
    wanted = {base64.urlsafe_b64decode(challenge + "=") for challenge in challenges}
    found = []
    for run in RUN.findall(content):
        for start in range(len(run) - 42):
            piece = run[start : start + 43]
            if hashlib.sha256(piece).digest() in wanted:
                found.append(piece.decode())
    return found
