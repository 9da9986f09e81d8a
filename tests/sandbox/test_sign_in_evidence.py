"""How the stand-in tells how and when somebody signed in, and answers in silence."""

from __future__ import annotations

import json

import pytest

from sandbox.world import World
from tests.sandbox.conftest import OTHER, PARTNER, PARTNER_CENTER, Browser, Clock, claims, returned

OPENID = "openid profile"
CONTEXT = json.dumps({"id_token": {"acrs": {"essential": True, "value": "c1"}}})


def told(browser: Browser, code: str, segment: str = "organizations") -> dict:
    return claims(browser.redeem(code, segment, scope=OPENID).json()["id_token"])


def silently(browser: Browser, segment: str = PARTNER, **changes: str) -> dict[str, str]:
    url = browser.url(segment, prompt="none", **({"scope": OPENID} | changes))
    return returned(browser.http.get(url, allow_redirects=False))


def test_an_id_token_tells_neither_how_nor_when_unless_asked(browser: Browser) -> None:
    assert not {"amr", "acrs", "auth_time"} & set(told(browser, browser.code(scope=OPENID)))


@pytest.mark.parametrize(("mfa", "contexts"), [("yes", ["c1"]), ("no", None)])
def test_a_context_that_is_asked_for_comes_with_mfa_only(browser: Browser, mfa: str, contexts: object) -> None:
    assert told(browser, browser.code(scope=OPENID, claims=CONTEXT, mfa=mfa)).get("acrs") == contexts


def test_with_max_age_it_tells_when_somebody_proved_who_they_are(browser: Browser, clock: Clock) -> None:
    assert told(browser, browser.code(scope=OPENID, max_age="600"))["auth_time"] == int(clock.now)


def test_amr_comes_in_id_tokens_where_a_world_has_it_so(browser: Browser, world: World) -> None:
    world.amr_in_id_tokens = True

    assert told(browser, browser.code(scope=OPENID))["amr"] == ["pwd", "mfa"]
    assert told(browser, browser.code(scope=OPENID, mfa="no"))["amr"] == ["pwd"]


def test_a_browser_that_signed_in_before_is_answered_in_silence(browser: Browser, clock: Clock) -> None:
    browser.code(scope=OPENID)
    proved = int(clock.now)
    clock.sleep(60)

    answer = silently(browser, max_age="600")

    assert told(browser, answer["code"], PARTNER)["auth_time"] == proved


def test_one_that_did_not_or_not_lately_is_not(browser: Browser, clock: Clock) -> None:
    assert "AADSTS50058" in silently(browser)["error_description"]
    browser.code(scope=OPENID)
    clock.sleep(601)

    assert "AADSTS50058" in silently(browser, max_age="600")["error_description"]


def test_silence_agrees_to_nothing(browser: Browser) -> None:
    browser.code(scope=OPENID)

    assert "AADSTS65001" in silently(browser, scope=PARTNER_CENTER)["error_description"]


def test_a_silent_sign_in_has_the_mfa_of_the_one_it_rests_on(browser: Browser) -> None:
    browser.code(mfa="no")
    code = silently(browser, scope=PARTNER_CENTER)["code"]

    assert claims(browser.redeem(code, PARTNER).json()["access_token"])["amr"] == ["pwd"]


def test_silence_brings_nobody_into_another_tenant(browser: Browser) -> None:
    browser.code(scope=OPENID)

    answer = browser.http.get(browser.url(OTHER, prompt="none", scope=OPENID), allow_redirects=False)

    assert answer.status_code != 302


def test_an_access_token_may_keep_to_itself_how_somebody_signed_in(browser: Browser, world: World) -> None:
    world.amr_in_access_tokens = False

    assert "amr" not in claims(browser.bearer())
