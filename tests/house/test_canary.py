"""The search for secrets finds what it says it finds."""

from __future__ import annotations

import base64
import hashlib

import pytest
from django.core import signing

from tests.canary import SHAPES, dressed, in_any_shape, jwts, unpacked, verifiers

SECRET = "1.Aab/c+d=e~f_g-h\"i'j" + "0123456789" * 9


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode], ids=["base64", "base64url"])
def test_a_secret_inside_an_encoded_text_is_found_wherever_it_begins(encode, shift):
    assert in_any_shape(SECRET, encode(b"x" * shift + SECRET.encode() + b"yy"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_a_secret_is_found_in_every_shape(shape, before):
    content = b"before " + dressed(f"{before}{SECRET} tail")[shape] + b" after"

    assert in_any_shape(SECRET, unpacked(content))


@pytest.mark.parametrize("cut", [slice(None, 60), slice(-60, None), slice(25, 85)], ids=["beginning", "end", "middle"])
def test_a_piece_of_a_long_secret_is_found(cut):
    assert in_any_shape(SECRET, b"before " + SECRET[cut].encode() + b" after")


def test_what_a_session_packs_is_unpacked():
    session = signing.dumps({"note": SECRET * 3, "more": "x" * 200}, compress=True)

    assert not in_any_shape(SECRET, session.encode())
    assert in_any_shape(SECRET, unpacked(session.encode()))


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
