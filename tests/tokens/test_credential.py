"""What our application proves itself with: signed once for a tenant, and anew before it is too old."""

from __future__ import annotations

import datetime as dt

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate
from jwt.utils import base64url_encode

from tests.pem import Pair, pair
from tokens.credential import AppRegistration, Signer
from tokens.secret import Secret

CLIENT, HERE, THERE = "a-client", "https://login.example/one/token", "https://login.example/two/token"
NOW = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def both() -> Pair:
    return pair("signer")


@pytest.fixture
def signer(both: Pair) -> Signer:
    return Signer(Secret(both.key + both.certificate), most=2)


def test_an_assertion_has_the_form_entra_documents(signer, both):
    with time_machine.travel(NOW):
        signed = signer.assertion(client_id=CLIENT, audience=HERE)

    certificate = load_pem_x509_certificate(both.certificate.encode())
    header = jwt.get_unverified_header(signed)
    assert (header["alg"], len(header["x5c"])) == ("PS256", 1)
    assert header["x5t#S256"].rstrip("=") == base64url_encode(certificate.fingerprint(SHA256())).decode()
    with time_machine.travel(NOW):
        claims = jwt.decode(signed, certificate.public_key(), algorithms=["PS256"], audience=HERE)
    assert (claims["iss"], claims["sub"]) == (CLIENT, CLIENT)
    assert claims["exp"] - claims["iat"] == 600


@pytest.mark.parametrize(("minutes", "again"), [(4.9, False), (5.1, True), (-1, True)])
def test_an_assertion_serves_for_half_of_its_life_and_never_before_it_was_made(signer, minutes, again):
    with time_machine.travel(NOW, tick=False):
        first = signer.assertion(client_id=CLIENT, audience=HERE)
    with time_machine.travel(NOW + dt.timedelta(minutes=minutes), tick=False):
        second = signer.assertion(client_id=CLIENT, audience=HERE)

    assert (second != first) == again


def test_each_tenant_has_its_own(signer):
    assert signer.assertion(client_id=CLIENT, audience=HERE) != signer.assertion(client_id=CLIENT, audience=THERE)


def test_no_more_are_kept_than_so_many(signer):
    first = signer.assertion(client_id=CLIENT, audience=HERE)
    for number in range(2):
        signer.assertion(client_id=CLIENT, audience=f"{THERE}{number}")

    assert signer.assertion(client_id=CLIENT, audience=HERE) != first


def test_what_msal_is_given_shows_neither_key_nor_assertion(both):
    [proof] = AppRegistration(client_id=CLIENT, certificate_pem=Secret(both.key + both.certificate)).proofs

    given = proof.for_msal()

    assert isinstance(given, dict)
    signed = given["client_assertion"]({"client_id": CLIENT, "token_endpoint": HERE})
    assert signed == given["client_assertion"]({"client_id": CLIENT, "token_endpoint": HERE})
    assert "PRIVATE" not in repr(given) + repr(proof)
