"""Messages that nobody we trust signed are no messages."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.core.exceptions import ImproperlyConfigured
from kombu.exceptions import ContentDisallowed, DecodeError, SerializerNotInstalled
from kombu.serialization import dumps, loads, unregister

from cpvpanel import signing
from tests.pem import Pair, pair, pem_of

BODY = {"job_id": 7}


@pytest.fixture(scope="module")
def ours() -> Pair:
    return pair("ours")


@pytest.fixture(scope="module")
def theirs() -> Pair:
    return pair("theirs")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    unregister("auth") if _is_known() else None


def _is_known() -> bool:
    try:
        dumps({}, serializer="auth")
    except SerializerNotInstalled:
        return False
    return True


def take(message: tuple[str, str, bytes]) -> object:
    content_type, encoding, body = message
    return loads(body, content_type, encoding, accept=["auth"])


def test_what_we_signed_is_taken(ours):
    signing.use(key=ours.key, certificate=ours.certificate, trusted=ours.certificate)

    assert take(dumps(BODY, serializer="auth")) == BODY


def test_plain_messages_are_refused(ours):
    signing.use(key=ours.key, certificate=ours.certificate, trusted=ours.certificate)

    with pytest.raises(ContentDisallowed):
        take(dumps(BODY, serializer="json"))


def test_a_changed_body_is_refused(ours):
    signing.use(key=ours.key, certificate=ours.certificate, trusted=ours.certificate)
    content_type, encoding, body = dumps(BODY, serializer="auth")
    changed = b64encode(b64decode(body).replace(b"job_id", b"job_ix")).decode()
    assert changed != body

    with pytest.raises(DecodeError, match="Unable to deserialize"):
        take((content_type, encoding, changed))


def test_a_stranger_with_a_key_of_his_own_is_refused(ours, theirs):
    signing.use(key=theirs.key, certificate=theirs.certificate, trusted=theirs.certificate)
    forged = dumps(BODY, serializer="auth")

    signing.use(key=ours.key, certificate=ours.certificate, trusted=ours.certificate)

    with pytest.raises(DecodeError, match="Unknown certificate"):
        take(forged)


def test_while_keys_change_both_count(ours, theirs):
    signing.use(key=ours.key, certificate=ours.certificate, trusted=ours.certificate)
    earlier = dumps(BODY, serializer="auth")
    both = ours.certificate + "\n" + theirs.certificate

    signing.use(key=theirs.key, certificate=theirs.certificate, trusted=both)

    assert take(earlier) == take(dumps(BODY, serializer="auth")) == BODY


def test_paths_and_folders_do_as_well(ours, theirs, tmp_path: Path):
    (tmp_path / "key").write_text(ours.key)
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "ours.pem").write_text(ours.certificate)
    (tmp_path / "trusted" / "theirs.pem").write_text(theirs.certificate)

    signing.use(
        key=str(tmp_path / "key"),
        certificate=str(tmp_path / "trusted" / "ours*.pem"),
        trusted=str(tmp_path / "trusted"),
    )

    assert take(dumps(BODY, serializer="auth")) == BODY


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": "-----BEGIN nothing"}, "CPV_MESSAGE_KEY is no unencrypted RSA key"),
        ({"key": pem_of(ec.generate_private_key(ec.SECP256R1()))}, "CPV_MESSAGE_KEY is no unencrypted RSA key"),
        ({"key": "nowhere/at-all"}, "CPV_MESSAGE_KEY names no file"),
        ({"certificate": ""}, "CPV_MESSAGE_CERT is empty"),
        ({"certificate": "-----BEGIN CERTIFICATE-----"}, "CPV_MESSAGE_CERT is no RSA certificate"),
        ({"certificate": pair("late", days=-1).certificate}, "CPV_MESSAGE_CERT has expired"),
        ({"trusted": pair("another").certificate}, "CPV_MESSAGE_CERT is not in CPV_MESSAGE_CERT_STORE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_stops_the_start_with_its_name(ours, change, says):
    good = {"key": ours.key, "certificate": ours.certificate, "trusted": ours.certificate}

    with pytest.raises(ImproperlyConfigured, match=says):
        signing.use(**(good | change))
