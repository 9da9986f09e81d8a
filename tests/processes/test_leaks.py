"""The search for secrets finds what it says it finds."""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import quote

import pytest

from tests.processes.leaks import in_any_shape, jwts, verifiers

SECRET = "1.Aab/c+d=e~f_g-h\"i'j" + "0123456789" * 9


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode], ids=["base64", "base64url"])
def test_a_secret_inside_an_encoded_text_is_found_wherever_it_begins(encode, shift):
    assert in_any_shape(SECRET, encode(b"x" * shift + SECRET.encode() + b"yy"))


@pytest.mark.parametrize(
    "encode",
    [
        str.encode,
        lambda text: text.encode().hex().encode(),
        lambda text: text.encode().hex().upper().encode(),
        lambda text: quote(text, safe="").encode(),
        lambda text: json.dumps({"a": text}).encode(),
        lambda text: text[:60].encode(),
        lambda text: text[-60:].encode(),
    ],
    ids=["raw", "hex", "HEX", "url", "json", "its beginning", "its end"],
)
def test_a_secret_is_found_in_other_clothes(encode):
    assert in_any_shape(SECRET, b"before " + encode(SECRET) + b" after")


def test_nothing_is_found_where_nothing_is():
    assert in_any_shape(SECRET, b"0123456789" * 3 + b"an innocent text" * 100) == []


def test_a_token_is_known_by_its_shape():
    assert jwts(b"Bearer eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJhYmMifQ.c2ln")
    assert not jwts(b"eyJhbGciOiJSUzI1NiJ9:1vKabc:c2ln")


def test_a_verifier_is_known_by_its_challenge_even_amid_other_letters():
    verifier = "v" * 20 + "W" * 23
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()

    assert verifiers(b"noise" + verifier.encode() + b"more", {challenge}) == [verifier]
    assert verifiers(b"n" * 100, {challenge}) == []
