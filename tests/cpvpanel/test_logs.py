"""The last net: whatever reaches the log, what looks like a secret is masked there."""

from __future__ import annotations

import io
import logging

import pytest
from django.test import RequestFactory, override_settings
from gunicorn.config import Config

from cpvpanel import logs
from cpvpanel.accesslog import AccessLogger

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"
LINK = "9HpThzZYhoZTh2Gw8R-IMGFjFn5-UQroSQd4wm3UcE4"


def written(**extra: object) -> str:
    """The line that a message with these extras becomes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure(debug=True)
    [handler] = [handler for handler in root.handlers if handler not in handlers]
    lines = io.StringIO()
    handler.setStream(lines)  # type: ignore[attr-defined]
    try:
        logging.getLogger("somewhere").warning("a message", extra=extra)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return lines.getvalue()


@pytest.mark.parametrize(
    "carried",
    [
        f"Bearer {JWT}",
        {"kwargs": {"token": JWT}},
        ["one", JWT],
        ValueError(f"bad {JWT}"),
        RequestFactory().get(f"/connect/callback?code={JWT}&state=a-state-of-22-characters"),
    ],
    ids=["text", "nested", "list", "exception", "request"],
)
def test_a_token_is_masked_whatever_carries_it(carried):
    line = written(what=carried)

    assert "a message" in line
    assert "c2lnbmF0dXJl" not in line
    assert "a-state-of-22" not in line


def test_an_invitations_link_is_masked():
    line = written(request=RequestFactory().get(f"/connect/{LINK}"))

    assert LINK not in line
    assert "/connect/" in line


def test_numbers_and_words_stay():
    line = written(run=7, outcome="done", fine=True, nothing=None)

    assert "run=7" in line
    assert "outcome=done" in line


def test_the_access_log_masks_invitations_too():
    class Answer:
        status, sent, headers = "200 OK", 10, ()

    class Asked:
        headers = ()

    environ = {
        "SERVER_PROTOCOL": "HTTP/1.1",
        "RAW_URI": f"/connect/{LINK}?x=1",
        "PATH_INFO": f"/connect/{LINK}",
        "REQUEST_METHOD": "GET",
    }
    import datetime as dt

    atoms = AccessLogger(Config()).atoms(Answer(), Asked(), environ, dt.timedelta(seconds=1))

    assert atoms["U"] == "/connect/[masked]"


@override_settings(DEBUG=True)
@pytest.mark.django_db
def test_while_developing_what_is_not_there_has_the_same_page(client):
    answer = client.get("/no/such/address")

    assert answer.status_code == 404
    assert b"URLconf" not in answer.content


@override_settings(DEBUG=True)
@pytest.mark.django_db
def test_while_developing_a_refusal_of_ours_keeps_its_words(client):
    answer = client.get("/connect/never-was")

    assert answer.status_code == 404
    assert b"This invitation does not exist" in answer.content
