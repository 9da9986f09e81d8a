"""Subscriptions at the pretended Partner Center: what a PATCH does, what it refuses, and how often it really did."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import requests

from sandbox.directory import Tenant
from sandbox.subscriptions import etag
from sandbox.world import World
from tests.sandbox.conftest import PC, Browser

SEATS = {
    "quantity": 10,
    "billingType": "license",
    "status": "active",
    "cancellationAllowedUntilDate": "2999-01-01T00:00:00Z",
}


@pytest.fixture
def token(browser: Browser) -> str:
    return browser.bearer()


@pytest.fixture
def override(partner: Tenant) -> dict[str, Any]:
    """What the first customer's subscription is like; a test may change it."""
    mine: dict[str, Any] = {"subscriptions": 1, "subscription": dict(SEATS)}
    partner.customer_overrides = {0: mine}
    return mine


@pytest.fixture
def listed(partner: Tenant, override: dict[str, Any]) -> str:
    return f"{PC}/v1/customers/{partner.customers.at(0).tenant_id}/subscriptions"


@pytest.fixture
def one(browser: Browser, token: str, listed: str) -> dict[str, Any]:
    found: dict[str, Any] = browser.get(listed, token).json()["items"][0]
    return found


@pytest.fixture
def patch(browser: Browser, token: str, listed: str, one: dict[str, Any]) -> Any:
    def send(body: Any, *, request_id: str = "", if_match: str | None = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}", "MS-RequestId": request_id or str(uuid.uuid4())}
        headers |= {"If-Match": f'"{one["attributes"]["etag"] if if_match is None else if_match}"'}
        return browser.http.patch(f"{listed}/{one['id']}", data=json.dumps(body), headers=headers | JSON)

    return send


JSON = {"Content-Type": "application/json"}


def test_one_of_the_list_is_read_alone_in_either_case(browser, token, listed, one):
    assert browser.get(f"{listed}/{one['id']}", token).json() == one
    assert browser.get(f"{listed}/{one['id'].upper()}", token).json() == one
    assert browser.get(f"{listed}/{uuid.uuid4()}", token).json()["code"] == 20003


def test_a_change_is_seen_has_a_new_etag_and_is_counted(browser, token, listed, one, patch, world):
    answer = patch(one | {"quantity": 12})

    assert answer.status_code == 200
    assert answer.json()["quantity"] == 12
    assert answer.json()["attributes"]["etag"] == etag(one["id"].lower(), 2)
    assert browser.get(listed, token).json()["items"] == [answer.json()]
    assert world.book.effects == {one["id"].lower(): 1}


def test_names_may_be_written_as_in_microsofts_samples(one, patch):
    assert (
        patch({name[0].upper() + name[1:]: value for name, value in (one | {"quantity": 12}).items()}).json()[
            "quantity"
        ]
        == 12
    )


def test_what_a_change_leaves_out_is_lost(browser, token, listed, one, patch):
    del one["pretendedExtra"], one["autoRenewEnabled"]
    patch(one)

    assert not {"pretendedExtra", "autoRenewEnabled"} & set(browser.get(listed, token).json()["items"][0])


def test_the_same_request_again_gets_the_first_answer_and_changes_nothing(one, patch, world):
    request_id = str(uuid.uuid4())
    first = patch(one | {"quantity": 12}, request_id=request_id)

    again = patch(one | {"quantity": 12}, request_id=request_id.upper())

    assert (again.status_code, again.json()) == (200, first.json())
    assert world.book.effects.total() == 1
    assert patch(one | {"quantity": 12}).json()["code"] == 2055
    world.book.forgets_requests = True
    assert patch(one | {"quantity": 12}, request_id=request_id).json()["code"] == 2055


def test_where_etags_are_not_enforced_the_later_one_wins(one, patch, world):
    world.book.enforces_etag = False
    patch(one | {"quantity": 12})

    assert patch(one | {"quantity": 13}).status_code == 200
    assert world.book.effects.total() == 2


@pytest.mark.parametrize(
    ("standing", "wanted", "status", "code"),
    [
        ({}, {"quantity": 0}, 400, 2002),
        ({}, {"quantity": 10_001}, 400, 2002),
        ({}, {"quantity": "many"}, 400, 2002),
        ({"cancellationAllowedUntilDate": "2020-01-01T00:00:00Z"}, {"quantity": 9}, 400, 800090),
        ({"cancellationAllowedUntilDate": None}, {"quantity": 9}, 400, 800090),
        ({"status": "suspended"}, {"quantity": 11}, 400, 800091),
        ({"billingType": "usage"}, {"quantity": 11}, 400, 800095),
        ({"isTrial": True, "autoRenewEnabled": False}, {"autoRenewEnabled": True}, 400, 800093),
    ],
)
def test_what_microsoft_would_refuse_is_refused_by_number(
    override, browser, token, listed, world, standing, wanted, status, code
):
    override["subscription"] |= standing
    one = browser.get(listed, token).json()["items"][0]
    headers = {"Authorization": f"Bearer {token}", "If-Match": f'"{one["attributes"]["etag"]}"'}

    answer = browser.http.patch(f"{listed}/{one['id']}", json=one | wanted, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not world.book.effects


def test_a_refusal_can_be_ordered(override, one, patch):
    override["refusal"] = [400, 900117]

    assert patch(one | {"quantity": 12}).json()["code"] == 900117


def test_a_slow_change_is_accepted_first_and_others_wait(override, browser, token, listed, one, patch, clock, world):
    override["slow"] = 60
    answer = patch(one | {"quantity": 12})

    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["Location"] == listed.removeprefix(f"{PC}/v1") + f"/{one['id']}"
    assert patch(one | {"quantity": 13}).json()["code"] == 900278
    assert browser.get(f"{listed}/{one['id']}", token).json()["quantity"] == 10
    clock.now += 61
    assert browser.get(f"{listed}/{one['id']}", token).json()["quantity"] == 12
    assert world.book.effects.total() == 1


def test_a_change_within_the_term_takes_a_scheduled_one_back(override, browser, token, listed, patch):
    override["subscription"]["scheduledNextTermInstructions"] = {"quantity": 3}
    one = browser.get(listed, token).json()["items"][0]

    renewed = patch(one | {"autoRenewEnabled": False}).json()
    assert "scheduledNextTermInstructions" in renewed
    more = patch(renewed | {"quantity": 12}, if_match=renewed["attributes"]["etag"])
    assert more.status_code == 200
    assert "scheduledNextTermInstructions" not in more.json()


def test_another_partners_subscription_is_not_there(browser, listed, one):
    other = browser.bearer("svc@fabrikam.test")

    assert browser.get(f"{listed}/{one['id']}", other).status_code == 404
    assert browser.get(listed, browser.bearer("help@contoso.test")).status_code == 403


def test_the_control_door_tells_how_often_each_was_changed(browser, one, patch, world: World):
    patch(one | {"quantity": 12})

    told = browser.http.get("http://localhost:8400/_sandbox/effects").json()
    assert told == {"subscriptions": {one["id"].lower(): 1}}
    world.reset()
    assert browser.http.get("http://localhost:8400/_sandbox/effects").json() == {"subscriptions": {}}
