"""Finds a secret in what was written, in whichever shape it got there. One search for all tests that look."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

JWT = re.compile(rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.")
RUN = re.compile(rb"[\w.~-]{43,}")
PACKED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
ENCODED = re.compile(rb"[\w+/-]{40,}={0,2}")
SHAPES = ("raw", "hex", "HEX", "url", "json", "utf-16", "base64", "base64url", "reversed", "zlib", "gzip")
PIECE = 40  # characters; long secrets are looked for in pieces, because a log may cut them


class Leak(NamedTuple):
    """A secret that is where it must not be."""

    sink: str
    what: str
    shape: str


def unpacked(content: bytes) -> bytes:
    """The content with every packed stream in it also unpacked, those that lie in base64 (as sessions do) included."""
    inner = [content, *_streams(content)]
    for found in ENCODED.findall(content):
        with contextlib.suppress(ValueError):
            text = base64.urlsafe_b64decode(found.rstrip(b"=").translate(TO_URLSAFE) + b"==")
            inner += _streams(text)
    return b"\n".join(inner)


TO_URLSAFE = bytes.maketrans(b"+/", b"-_")


def _streams(content: bytes) -> Iterator[bytes]:
    for start in PACKED.finditer(content):
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(content[start.start() :], 50_000_000)


def dressed(text: str) -> dict[str, bytes]:
    """The text in every shape that the search knows."""
    raw = text.encode()
    return {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "url": quote(text, safe="").encode(),
        "json": json.dumps({"a": text}).encode(),
        "utf-16": text.encode("utf-16-le"),
        "base64": base64.b64encode(raw),
        "base64url": base64.urlsafe_b64encode(raw),
        "reversed": raw[::-1],
        "zlib": zlib.compress(raw),
        "gzip": gzip.compress(raw),
    }


def in_any_shape(secret: str, content: bytes) -> list[str]:
    """The shapes in which the secret, or a long piece of it, occurs; give it content that is unpacked already."""
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
        ("reversed", raw[::-1]),
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
