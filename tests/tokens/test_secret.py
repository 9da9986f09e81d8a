import copy
import json
import pickle

import pytest

from tokens.secret import Secret


def test_a_secret_shows_its_value_to_reveal_and_to_nobody_else():
    secret = Secret("hunter2")

    shown = f"{secret} {secret!r} {secret:>40} {secret!s} {[secret]} {str(secret)[:8]}"

    assert secret.reveal() == "hunter2"
    assert "hunter2" not in shown
    assert repr(secret).startswith("<Secret sha256:")


def test_the_fingerprint_tells_two_secrets_apart_and_is_the_same_for_the_same_value():
    assert repr(Secret("a")) == repr(Secret("a"))
    assert repr(Secret("a")) != repr(Secret("b"))
    assert repr(Secret("")) == "<Secret empty>"


@pytest.mark.parametrize(
    "leak",
    [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, hash, vars, lambda secret: secret + "x"],
    ids=["pickle", "copy", "deepcopy", "json", "hash", "vars", "concatenation"],
)
def test_a_secret_cannot_be_carried_away(leak):
    with pytest.raises(TypeError):
        leak(Secret("hunter2"))


def test_a_secret_does_not_change():
    secret = Secret("hunter2")

    with pytest.raises(AttributeError, match="does not change"):
        secret._value = "other"
    with pytest.raises(AttributeError, match="does not change"):
        del secret._value


def test_secrets_are_equal_by_value_and_never_equal_to_the_bare_text():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("ä")
    assert Secret("a") != "a"


def test_an_empty_secret_is_false():
    assert Secret("a")
    assert not Secret("")


def test_only_text_becomes_a_secret_and_the_complaint_does_not_quote_it():
    with pytest.raises(TypeError, match="not bytes") as caught:
        Secret(b"hunter2")

    assert "hunter2" not in str(caught.value)
