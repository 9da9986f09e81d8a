"""Microsoft's clocks against everybody else's: whatever carries a time follows them."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import msal
import pytest
import requests

from sandbox import demo
from sandbox.state import FileStore
from sandbox.world import World
from tests.sandbox.conftest import (
    APP,
    LOGIN,
    PARTNER,
    PC,
    Browser,
    Certificate,
    Clock,
    claims,
    secret_client,
)

DOOR = "http://localhost:8400/_sandbox/scenario"


@pytest.mark.parametrize("seconds", [0, 600, -600])
def test_headers_tokens_and_secrets_follow_a_clock_that_is_wrong(
    world: World, http: requests.Session, browser: Browser, clock: Clock, seconds: int
) -> None:
    world.skew_clock(seconds)
    now = int(clock.now + seconds)

    answer = browser.redeem(browser.code())
    body = answer.json()
    old = http.post(
        f"{LOGIN}/{PARTNER}/oauth2/token",
        data={
            "client_id": APP,
            "client_secret": "pretended",
            "grant_type": "refresh_token",
            "refresh_token": body["refresh_token"],
            "resource": PC,
        },
    ).json()
    secret = secret_client(http).set_secret("rt-one", "cipher").properties

    assert parsedate_to_datetime(answer.headers["Date"]).timestamp() == now
    for token in (body["access_token"], body["id_token"]):
        assert (claims(token)["iat"], claims(token)["nbf"]) == (now, now)
    assert claims(body["access_token"])["exp"] == now + body["expires_in"]
    assert int(old["expires_on"]) == now + int(old["expires_in"])
    assert secret.created_on
    assert secret.updated_on
    assert [int(at.timestamp()) for at in (secret.created_on, secret.updated_on)] == [now, now]


def test_a_clock_that_jumps_ends_what_was_still_good(world: World, http: requests.Session, browser: Browser) -> None:
    token = browser.bearer()
    assert browser.get(f"{PC}/v1/customers", token).status_code == 200

    http.post(DOOR, json={"name": "clock-skew", "params": {"seconds": 4000}})

    assert browser.get(f"{PC}/v1/customers", token).status_code == 401
    http.post(DOOR, json={"name": "healthy"})
    assert browser.get(f"{PC}/v1/customers", token).status_code == 200


@pytest.mark.parametrize(("seconds", "refused"), [(0, 9002313), (1200, 700027)])
def test_an_assertion_of_msal_is_too_old_for_a_clock_ahead(
    world: World, http: requests.Session, certificate: Certificate, seconds: int, refused: int
) -> None:
    world.app_registration(APP, certificates=[certificate.certificate])
    app = msal.ConfidentialClientApplication(
        APP,
        authority=f"{LOGIN}/{PARTNER}",
        client_credential={"private_key": certificate.key, "public_certificate": certificate.certificate},
        http_client=http,
    )
    world.skew_clock(seconds)

    result = app.acquire_token_by_refresh_token("garbage", [f"{PC}/user_impersonation"])

    assert result["error_codes"] == [refused]


def test_what_is_handed_out_by_a_wrong_clock_is_as_old_as_that_clock_says(world: World, browser: Browser) -> None:
    world.skew_clock(91 * 86_400)

    assert browser.refresh(browser.tokens()["refresh_token"]).status_code == 200


def test_the_vault_keeps_the_expiry_it_was_given(http: requests.Session, world: World, clock: Clock) -> None:
    """It is for information only: an expired secret is handed out all the same."""
    expires = datetime.fromtimestamp(int(clock.now) + 60, UTC)
    client = secret_client(http)
    client.set_secret("rt-one", "cipher", expires_on=expires)

    world.skew_clock(120)

    assert secret_client(http).get_secret("rt-one").properties.expires_on == expires


def test_a_wrong_clock_survives_a_restart(tmp_path: Path) -> None:
    demo.build(World(store=FileStore(tmp_path))).skew_clock(-90)

    again = World(store=FileStore(tmp_path))
    again.restore()

    assert again.clock_skew == -90
