"""Every refusal that Entra knows, made to happen to Microsoft's own library and to a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msal
import pytest
import requests

import sandbox
from sandbox.entraerrors import KINDS, SHOWN_HERE
from sandbox.world import World
from tests.sandbox.conftest import APP, LOGIN, PARTNER, PC, SECRET, Browser, returned

DOCUMENTED = {
    int(code)
    for row in re.findall(r"^\| ([\d, ]+) \|", (Path(sandbox.__file__).parents[1] / "docs/errors.md").read_text(), re.M)
    for code in row.split(", ")
}


def test_every_number_that_the_product_tells_about_is_said_here() -> None:
    assert len(DOCUMENTED) >= 60
    assert DOCUMENTED - set(KINDS) == set()


def test_every_number_comes_in_entras_shape(world: World, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    for code, kind in KINDS.items():
        world.heal()
        world.token_fault(f"AADSTS{code}", tenant=PARTNER)

        answer = browser.refresh(token)

        body = answer.json()
        assert (answer.status_code, body["error"], body["error_codes"]) == (kind.status, kind.error, [code])
        assert body["error_description"].startswith(f"AADSTS{code}: ")
        assert "{" not in body["error_description"], "no gap is left open"
        assert body.get("suberror") == kind.suberror
        assert ("claims" in body) == kind.claims


@pytest.mark.parametrize(
    ("code", "suberror", "claims"),
    [
        (50076, "basic_action", True),
        (53003, "message_only", True),
        (50173, "bad_token", False),
        (65001, "consent_required", False),
        (50055, "user_password_expired", False),
        (53005, "protection_policy_required", False),
        (700082, "token_expired", False),
    ],
)
def test_msal_passes_on_what_comes_with_a_number(
    world: World, http: requests.Session, browser: Browser, code: int, suberror: str, claims: bool
) -> None:
    token = browser.tokens()["refresh_token"]
    world.token_fault(f"AADSTS{code}")
    app: Any = msal.ConfidentialClientApplication(
        APP, authority=f"{LOGIN}/{PARTNER}", client_credential=SECRET, http_client=http
    )

    result = app.acquire_token_by_refresh_token(token, [f"{PC}/user_impersonation"])

    assert (result["error_codes"], result["suberror"]) == ([code], suberror)
    assert bool(result.get("claims") and json.loads(result["claims"])["access_token"]) == claims


def test_a_number_may_come_with_another_suberror(world: World, browser: Browser, http: requests.Session) -> None:
    token = browser.tokens()["refresh_token"]
    world.token_fault("AADSTS7654321", suberror="additional_action", times=1)
    assert browser.refresh(token).json()["suberror"] == "additional_action"

    params = {"code": 70000, "suberror": "client_mismatch", "operation": "refresh_token"}
    http.post("http://localhost:8400/_sandbox/scenario", json={"name": "entra-error", "params": params})

    assert browser.refresh(token).json()["suberror"] == "client_mismatch"
    assert browser.tokens()


@pytest.mark.parametrize("code", [50105, 53003, 90095, 7654321])
def test_a_browser_is_led_back_with_the_number(world: World, browser: Browser, code: int) -> None:
    world.fail("entra", f"AADSTS{code}", tenant=PARTNER)

    fields = returned(browser.post(browser.url(), "svc@contoso.test"))

    assert fields["state"] == "the-state"
    assert fields["error_description"].startswith(f"AADSTS{code}: ")
    assert "code" not in fields


@pytest.mark.parametrize("code", sorted(SHOWN_HERE))
def test_some_numbers_are_told_on_entras_own_page(world: World, browser: Browser, code: int) -> None:
    world.fail("entra", f"AADSTS{code}")

    answer = browser.post(browser.url(), "svc@contoso.test")

    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert f"AADSTS{code}: " in answer.text


def test_nobody_is_led_to_an_address_that_is_not_the_apps(world: World, browser: Browser) -> None:
    world.fail("entra", "AADSTS53003")

    answer = browser.post(browser.url(redirect_uri="https://evil.test/"), "svc@contoso.test")

    assert (answer.status_code, "AADSTS50011" in answer.text) == (400, True)


def test_an_administrators_approval_is_refused_as_one(world: World, browser: Browser) -> None:
    world.fail("entra", "AADSTS53003")
    url = browser.url(PARTNER).replace("/oauth2/v2.0/authorize", "/v2.0/adminconsent")

    assert returned(browser.post(url, "admin@contoso.test"))["admin_consent"] == "True"
