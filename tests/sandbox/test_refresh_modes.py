"""What becomes of a spent refresh token: it stays good, works a while longer, or betrays who brings it again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msal
import pytest
import requests

from sandbox import demo
from sandbox.directory import Tenant
from sandbox.state import FileStore
from sandbox.world import World
from tests.sandbox.conftest import APP, LOGIN, OTHER, PARTNER, PC, SECRET, Browser, Clock

DOOR = "http://localhost:8400/_sandbox"


def play(http: requests.Session, name: str, tenant: str | None = None, **params: object) -> requests.Response:
    return http.post(f"{DOOR}/scenario", json={"name": name, "tenant": tenant, "params": params})


def refreshed(browser: Browser, token: str, segment: str = PARTNER) -> int | str:
    """The successor, or the number of the refusal."""
    body = browser.refresh(token, segment).json()
    found: int | str = body.get("refresh_token") or body["error_codes"][0]
    return found


def test_at_entra_a_spent_token_stays_as_good_as_it_was(browser: Browser, clock: Clock) -> None:
    token = browser.tokens()["refresh_token"]
    refreshed(browser, token)

    clock.now += 80 * 86_400

    assert browser.refresh(token).status_code == 200


def test_with_grace_a_spent_token_works_a_minute_longer_and_its_successor_on(
    world: World, browser: Browser, clock: Clock
) -> None:
    world.refresh_tokens("grace")
    token = browser.tokens()["refresh_token"]
    successor = str(refreshed(browser, token))
    clock.now += 59
    assert browser.refresh(token).status_code == 200

    clock.now += 1

    assert refreshed(browser, token) == 70000
    assert browser.refresh(successor).status_code == 200


def test_the_time_of_grace_is_the_tests_to_choose(world: World, browser: Browser, clock: Clock) -> None:
    world.refresh_tokens("grace", seconds=5)
    token = browser.tokens()["refresh_token"]
    refreshed(browser, token)

    clock.now += 5

    assert refreshed(browser, token) == 70000


def test_strictly_a_token_works_once_and_its_reuse_ends_the_sign_in(world: World, browser: Browser) -> None:
    world.refresh_tokens("strict")
    token, untouched = browser.tokens()["refresh_token"], browser.tokens()["refresh_token"]
    successor = str(refreshed(browser, str(refreshed(browser, token))))

    assert refreshed(browser, token) == 70000

    assert refreshed(browser, successor) == 50173
    assert browser.refresh(untouched).status_code == 200, "another sign-in of the same person is another family"


def test_a_refused_request_spends_nothing(world: World, browser: Browser, partner: Tenant) -> None:
    world.refresh_tokens("strict")
    token = browser.tokens()["refresh_token"]
    partner.unconsented.add("user_impersonation")
    assert refreshed(browser, token) == 65001
    partner.unconsented.clear()
    world.fail("entra", "AADSTS50076", times=1)
    assert refreshed(browser, token) == 50076

    assert browser.refresh(token).status_code == 200


def test_of_many_who_bring_a_token_at_once_one_is_first(world: World, browser: Browser) -> None:
    world.refresh_tokens("strict")
    token, together = browser.tokens()["refresh_token"], threading.Barrier(8)
    issued, answers = len(world.ledger.refreshes), []

    def bring() -> None:
        together.wait()
        answers.append(browser.refresh(token).status_code)

    threads = [threading.Thread(target=bring) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [200] + [400] * 7
    assert len(world.ledger.refreshes) == issued + 1


def test_whoever_was_let_in_but_spends_second_is_refused_all_the_same(world: World, browser: Browser) -> None:
    """Between looking at a token and spending it others may spend it: only the spending itself decides."""
    token = world.ledger.refreshes[browser.tokens()["refresh_token"]]
    assert not world.ledger.is_over(token, 0)

    assert [world.ledger.spend(token, 0) for _ in range(2)] == [True, False]


def test_the_notes_tell_when_a_spent_token_was_brought(world: World, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    refreshed(browser, token)
    refreshed(browser, token)

    assert [call.detail.get("spent", False) for call in world.calls_to("entra", "/token")] == [False, False, True]


@pytest.mark.parametrize(("mode", "end"), [("entra", None), ("strict", [70000])])
@pytest.mark.parametrize("kind", ["timeout_after", "lost", "504_after"])
def test_an_answer_that_is_lost_has_spent_the_token(
    world: World, browser: Browser, mode: str, end: list[int] | None, kind: str
) -> None:
    world.refresh_tokens(mode)
    token, issued = browser.tokens()["refresh_token"], len(world.ledger.refreshes)
    world.token_fault(kind, tenant=PARTNER, times=1)

    try:
        assert browser.refresh(token).status_code == 504
    except requests.RequestException:
        assert kind != "504_after"

    assert len(world.ledger.refreshes) == issued + 1
    assert browser.refresh(token).json().get("error_codes") == end


@pytest.mark.parametrize("kind", ["timeout_before", "down", "throttled", "500", "503"])
def test_a_request_that_failed_before_its_effect_has_spent_nothing(world: World, browser: Browser, kind: str) -> None:
    world.refresh_tokens("strict")
    token, issued = browser.tokens()["refresh_token"], len(world.ledger.refreshes)
    world.token_fault(kind, retry_after=9, times=1)

    try:
        answer = browser.refresh(token)
        assert (answer.status_code, answer.headers.get("Retry-After")) in [(429, "9"), (500, None), (503, None)]
    except requests.RequestException:
        assert kind in ("timeout_before", "down")

    assert len(world.ledger.refreshes) == issued
    assert browser.refresh(token).status_code == 200


def test_a_fault_of_one_grant_leaves_the_others_alone(world: World, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    world.token_fault("503")

    assert browser.refresh(token).status_code == 503
    assert browser.tokens()["refresh_token"]

    world.token_fault("503", grant="authorization_code")
    assert browser.redeem(browser.code()).status_code == 503


# who says which mode


def test_one_tenant_may_be_stricter_than_the_rest(world: World, browser: Browser) -> None:
    world.refresh_tokens("strict", tenant=PARTNER)
    mine, other = browser.tokens()["refresh_token"], browser.tokens("svc@fabrikam.test")["refresh_token"]
    refreshed(browser, mine)
    refreshed(browser, other, OTHER)

    assert refreshed(browser, mine) == 70000
    assert browser.refresh(other, OTHER).status_code == 200

    world.refresh_tokens(None, tenant=PARTNER)
    assert world.refresh_mode_of(PARTNER) == "entra"


def test_the_mode_is_changed_and_changed_back_by_scenario(world: World, http: requests.Session) -> None:
    assert play(http, "refresh-tokens", PARTNER, mode="strict").json()["undo"].endswith(PARTNER)
    play(http, "refresh-tokens", mode="grace", seconds=7)
    assert [world.grace_of(tenant) for tenant in (PARTNER, OTHER)] == [0, 7]

    play(http, "healthy", PARTNER)
    assert [world.refresh_mode_of(tenant) for tenant in (PARTNER, OTHER)] == ["grace", "grace"]
    play(http, "healthy")
    assert [world.refresh_mode_of(tenant) for tenant in (PARTNER, OTHER)] == ["entra", "entra"]

    refused = play(http, "refresh-tokens", mode="lenient")
    assert refused.status_code == 400
    assert "there are entra, grace, strict" in refused.json()["error"]


def test_a_world_that_began_strict_is_healthy_when_it_is_strict(clock: Clock) -> None:
    world = World(clock=clock, usual_refresh_mode="strict")
    world.refresh_tokens("entra")

    world.refresh_tokens(None)

    assert world.refresh_mode == "strict"


def test_the_mode_survives_a_restart_and_ends_with_a_reset(tmp_path: Path) -> None:
    world = demo.build(World(store=FileStore(tmp_path)))
    world.refresh_tokens("grace", seconds=3)
    world.refresh_tokens("strict", tenant=demo.CONTOSO)

    again = demo.build(World(store=FileStore(tmp_path)))
    again.restore()

    assert [again.grace_of(tenant) for tenant in (demo.CONTOSO, demo.FABRIKAM)] == [0, 3]
    again.reset()
    assert [again.grace_of(tenant) for tenant in (demo.CONTOSO, demo.FABRIKAM)] == [None, None]


# Microsoft's own library


@pytest.mark.parametrize(("mode", "end"), [("entra", None), ("grace", None), ("strict", [70000])])
def test_msal_meets_each_mode(
    world: World, http: requests.Session, browser: Browser, mode: str, end: list[int] | None
) -> None:
    world.refresh_tokens(mode)
    first = browser.tokens()["refresh_token"]
    app: Any = msal.ConfidentialClientApplication(
        APP, authority=f"{LOGIN}/{PARTNER}", client_credential=SECRET, http_client=http
    )
    scope = [f"{PC}/user_impersonation"]

    second = app.acquire_token_by_refresh_token(first, scope)["refresh_token"]
    third = app.acquire_token_by_refresh_token(second, scope)["refresh_token"]

    assert len({first, second, third}) == 3
    assert app.acquire_token_by_refresh_token(first, scope).get("error_codes") == end
