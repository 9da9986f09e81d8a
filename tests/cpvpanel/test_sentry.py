"""A report to Sentry says where something broke, and no value."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from django.core.checks import run_checks
from django.test import RequestFactory

from cpvpanel import sentry
from tests.canary import in_any_shape
from tests.sentryevents import event_of

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"
LINK = "9HpThzZYhoZTh2Gw8R-IMGFjFn5-UQroSQd4wm3UcE4"
BARE = "a-verifier-of-no-known-shape-0123456789abcdef"


def record_of_a_crash() -> logging.LogRecord:
    """An error in a view, with secrets in a variable, the address, the form, a cookie, a header and the texts."""
    request = RequestFactory().post(
        f"/connect/{LINK}?code={JWT}&state=a-state-of-22-characters", {"answer": BARE, "code": JWT}
    )
    request.COOKIES["cpv_session"] = BARE
    request.META["HTTP_AUTHORIZATION"] = f"Bearer {JWT}"
    try:
        verifier = BARE
        assert verifier
        try:
            raise KeyError(JWT)
        except KeyError:
            raise RuntimeError(f"broke at ?code={JWT}") from None
    except RuntimeError:
        exc_info = sys.exc_info()
    record = logging.LogRecord("django.request", logging.ERROR, __file__, 1, "failed for %s", (JWT,), exc_info)
    record.request, record.code, record.token, record.run = request, "AADSTS50173", BARE, 7
    return record


@pytest.fixture
def event():
    crumbs = [
        {
            "type": "http",
            "category": "httplib",
            "level": "info",
            "timestamp": 1,
            "message": BARE,
            "data": {"url": BARE},
        },
        {"type": "default", "category": "query", "message": f"INSERT … {BARE}"},
        {"type": "log", "category": "tokens.broker", "message": f"minted ?code={JWT}", "data": {"token": BARE}},
        {"type": "navigation", "category": "x"},
        "no breadcrumb",
    ]
    return event_of(record_of_a_crash(), crumbs)


def test_no_secret_is_left_in_whatever_part_it_was(event):
    before, after = json.dumps(event).encode(), json.dumps(sentry.scrubbed(event, {})).encode()

    for secret in (JWT, LINK, BARE):
        assert in_any_shape(secret, before), "or this test would find nothing"
        assert not in_any_shape(secret, after)
    assert b"a-state-of-22" not in after
    assert b"somebody@contoso.test" not in after


def test_where_it_broke_is_left(event):
    sent = sentry.scrubbed(event, {})

    error = sent["exception"]["values"][-1]
    assert error["type"] == "RuntimeError"
    assert error["value"].startswith("broke at")
    frame = error["stacktrace"]["frames"][-1]
    assert (frame["function"], frame["filename"]) == ("record_of_a_crash", __file__)
    assert "raise RuntimeError" in frame["context_line"]
    assert "vars" not in frame
    assert sent["extra"] == {"code": "AADSTS50173", "run": 7}
    assert sent["request"]["method"] == "POST"
    assert sent["request"]["url"] == "http://testserver/connect/[masked]"
    assert set(sent["request"]["headers"]) == {"Content-Type", "Content-Length"}
    assert sent["contexts"] == {"runtime": {"name": "CPython", "version": "3.11"}}
    assert [crumb.get("message") for crumb in sent["breadcrumbs"]["values"]] == [
        None, None, "minted ?code=[masked]", None,
    ]  # fmt: skip
    assert (sent["level"], sent["logger"], sent["server_name"]) == ("error", "django.request", "worker-1")


def test_a_field_nobody_has_looked_at_stays_out():
    unknown = {"event_id": "1", "threads": {"values": [BARE]}, "spans": [BARE], "anything_new": BARE, "_meta": BARE}

    assert sentry.scrubbed(unknown, {}) == {"event_id": "1"}


@pytest.mark.parametrize("part", ["exception", "breadcrumbs", "logentry", "request", "contexts", "extra", "tags"])
@pytest.mark.parametrize("odd", [None, BARE, [BARE], 7, {"values": None}])
def test_a_part_of_another_shape_is_no_way_out(part, odd):
    assert BARE not in json.dumps(sentry.scrubbed({part: odd}, {}))


def test_an_exception_without_frames_and_a_list_of_texts_are_fine():
    given = {
        "exception": [
            {"type": "F", "value": "no frames"},
            {"type": "E", "value": JWT, "stacktrace": {"frames": [BARE, {"lineno": 1, "vars": {"a": BARE}}]}},
        ],
        "fingerprint": ["{{ default }}", JWT],
        "request": {"url": "http://x/y", "headers": [["Content-Type", "text/html"], ["Cookie", BARE]]},
    }

    sent = sentry.scrubbed(given, {})

    assert sent["exception"]["values"][1]["stacktrace"] == {"frames": [{"lineno": 1}]}
    assert sent["fingerprint"] == ["{{ default }}", "[masked]"]
    assert sent["request"]["headers"] == {"Content-Type": "text/html"}
    assert sentry.scrubbed_breadcrumb({"category": "query", "message": BARE, "data": BARE}, {}) == {"category": "query"}


# --- Starting -------------------------------------------------------------------------------------------------------
def test_without_an_address_or_without_the_sdk_nothing_starts(settings):
    assert not sentry.start("")
    if not sentry.is_installed():
        assert not sentry.start("https://key@sentry.example/1")


def test_with_both_it_starts_with_the_scrubber_and_without_what_it_would_collect(tmp_path, monkeypatch):
    (tmp_path / "sentry_sdk.py").write_text("told = {}\n\ndef init(**options):\n    told.update(options)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sentry_sdk", raising=False)

    assert sentry.start("https://key@sentry.example/1")

    told = sys.modules.pop("sentry_sdk").told
    assert (told["before_send"], told["before_breadcrumb"]) == (sentry.scrubbed, sentry.scrubbed_breadcrumb)
    assert told["before_send_transaction"]({"transaction": BARE}, {}) is None
    assert told["include_local_variables"] is told["send_default_pii"] is False
    assert (told["max_request_body_size"], told["traces_sample_rate"]) == ("never", 0)


def test_an_address_without_the_sdk_is_said_at_the_start(settings):
    settings.SENTRY_DSN, settings.CPV_SENTRY_STARTED = "https://key@sentry.example/1", False
    assert "tokens.W001" in {finding.id for finding in run_checks()}

    settings.CPV_SENTRY_STARTED = True
    assert "tokens.W001" not in {finding.id for finding in run_checks()}
