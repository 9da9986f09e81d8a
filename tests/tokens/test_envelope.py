import base64
import json

import pytest

from tokens.envelope import Keyring, NotOurs
from tokens.secret import Secret

OLD = base64.b64encode(b"o" * 32).decode()
NEW = base64.b64encode(b"n" * 32).decode()
AAD = ["global", "tenant", "7"]
TOKEN = Secret("0.AXoA-refresh-tökén")


@pytest.fixture
def keyring():
    return Keyring.parse(f"new={NEW}, old={OLD}")


def test_what_was_sealed_opens_with_the_same_keyring_and_purpose(keyring):
    assert keyring.open(keyring.seal(TOKEN, aad=AAD), aad=AAD) == TOKEN


def test_the_sealed_text_names_key_and_algorithm_and_shows_nothing_else(keyring):
    sealed = json.loads(keyring.seal(TOKEN, aad=AAD))

    assert (sealed["v"], sealed["alg"], sealed["kid"]) == (1, "A256GCM", "new")
    assert set(sealed) == {"v", "alg", "kid", "nonce", "ct"}
    assert "refresh" not in base64.b64decode(sealed["ct"]).decode("latin-1")


def test_the_same_token_sealed_twice_looks_different(keyring):
    assert keyring.seal(TOKEN, aad=AAD) != keyring.seal(TOKEN, aad=AAD)


def test_an_earlier_key_still_opens_after_a_new_one_took_over(keyring):
    sealed = Keyring.parse(f"old={OLD}").seal(TOKEN, aad=AAD)

    assert keyring.active_kid == "new"
    assert keyring.open(sealed, aad=AAD) == TOKEN


def test_a_key_that_is_gone_opens_nothing(keyring):
    with pytest.raises(NotOurs) as caught:
        Keyring.parse(f"old={OLD}").open(keyring.seal(TOKEN, aad=AAD), aad=AAD)

    assert caught.value.code == "envelope-key"


@pytest.mark.parametrize(
    "aad",
    [["global", "tenant", "8"], ["global", "tenant7", ""], ["global", "tenant", "7", ""], ["globaltenant", "7"], []],
)
def test_an_envelope_opens_for_its_own_purpose_only(keyring, aad):
    with pytest.raises(NotOurs, match="something else"):
        keyring.open(keyring.seal(TOKEN, aad=AAD), aad=aad)


@pytest.mark.parametrize("field", ["nonce", "ct"])
def test_a_changed_envelope_does_not_open(keyring, field):
    sealed = json.loads(keyring.seal(TOKEN, aad=AAD))
    raw = bytearray(base64.b64decode(sealed[field]))
    raw[0] ^= 1

    with pytest.raises(NotOurs):
        keyring.open(json.dumps(sealed | {field: base64.b64encode(raw).decode()}), aad=AAD)


def test_relabelling_the_key_id_does_not_open_an_envelope_even_where_the_key_is_the_same():
    twins = Keyring.parse(f"a={NEW},b={NEW}")

    with pytest.raises(NotOurs):
        twins.open(twins.seal(TOKEN, aad=AAD).replace('"kid":"a"', '"kid":"b"'), aad=AAD)


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"alg": "none"}, {"nonce": "AAAA"}, {"nonce": "*"}, {"ct": 5}, {"kid": ...}],
    ids=["version", "algorithm", "short nonce", "not base64", "not text", "no key id"],
)
def test_an_envelope_of_another_form_is_refused(keyring, change):
    sealed = json.loads(keyring.seal(TOKEN, aad=AAD)) | change

    with pytest.raises(NotOurs, match="not an envelope"):
        keyring.open(json.dumps({name: value for name, value in sealed.items() if value is not ...}), aad=AAD)


@pytest.mark.parametrize("text", ["", "0.AXoA-bare-token", "[]", "null", "7"])
def test_text_that_is_no_envelope_is_refused_without_being_quoted(keyring, text):
    with pytest.raises(NotOurs) as caught:
        keyring.open(text, aad=AAD)

    assert "AXoA" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" , ", "empty"),
        (NEW, "Entry 1 .* is not kid=base64"),
        (f"new={NEW},{OLD}", "Entry 2 .* is not kid=base64"),
        (f"new={NEW},new={OLD}", "Entry 2 .* repeats"),
        ("new=!!!", "Entry 1 .* not base64"),
        ("new=c2hvcnQ=", "5 bytes; it needs 32"),
    ],
)
def test_a_keyring_that_cannot_be_read_says_which_entry_and_shows_no_key(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        Keyring.parse(text)

    assert NEW[:-1] not in str(caught.value)
    assert OLD[:-1] not in str(caught.value)


def test_a_key_id_with_other_characters_is_refused():
    with pytest.raises(ValueError, match="key id"):
        Keyring({"a b": b"n" * 32})


def test_a_keyring_shows_its_key_ids_and_no_key(keyring):
    assert repr(keyring) == "<Keyring new, old>"
