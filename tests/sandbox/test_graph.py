from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.world import World
from tests.sandbox.conftest import GRAPH, Browser

GROUPS = f"{GRAPH}/v1.0/me/transitiveMemberOf/microsoft.graph.group"
FILTERED = f"{GROUPS}?$select=id,displayName&$filter=displayName eq 'AdminAgents'&$count=true"


@pytest.fixture
def token(browser: Browser) -> str:
    return browser.bearer(scope=f"{GRAPH}/User.Read.All {GRAPH}/GroupMember.Read.All")


def test_me_is_who_signed_in(browser: Browser, token: str) -> None:
    body = browser.get(f"{GRAPH}/v1.0/me", token).json()

    assert body["userPrincipalName"] == "svc@contoso.test"
    assert body["@odata.context"].endswith("$metadata#users/$entity")


def test_groups_are_filtered_by_name_and_counted(browser: Browser, token: str) -> None:
    body = browser.get(FILTERED, token, ConsistencyLevel="eventual").json()

    assert [group["displayName"] for group in body["value"]] == ["AdminAgents"]
    assert set(body["value"][0]) == {"id", "displayName"}
    assert body["@odata.count"] == 1


def test_a_sales_agent_is_not_an_admin_agent(browser: Browser) -> None:
    token = browser.bearer("sales@contoso.test", scope=f"{GRAPH}/GroupMember.Read.All")

    assert browser.get(FILTERED, token, ConsistencyLevel="eventual").json()["value"] == []


def test_counting_needs_the_consistency_header(browser: Browser, token: str) -> None:
    answer = browser.get(FILTERED, token)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "Request_UnsupportedQuery"
    assert browser.get(f"{GROUPS}?$count=true", token).status_code == 400


def test_the_plain_list_tells_what_each_entry_is(browser: Browser, token: str) -> None:
    (group,) = browser.get(f"{GRAPH}/v1.0/me/transitiveMemberOf", token).json()["value"]

    assert group["@odata.type"] == "#microsoft.graph.group"


def test_names_are_hidden_without_the_permission_to_read_groups(world: World, browser: Browser) -> None:
    world.tenants["bbbbbbbb-0000-4000-8000-000000000002"].withheld = {"GroupMember.Read.All"}
    token = browser.bearer(scope=f"{GRAPH}/User.Read.All")

    (group,) = browser.get(GROUPS, token).json()["value"]

    assert group["displayName"] is None
    assert group["id"]
    assert browser.get(FILTERED, token, ConsistencyLevel="eventual").json()["value"] == []


def test_a_token_for_something_else_is_refused(browser: Browser) -> None:
    answer = browser.get(f"{GRAPH}/v1.0/me", browser.bearer())

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "InvalidAuthenticationToken"


def test_no_token_is_refused(http: requests.Session) -> None:
    answer = http.get(f"{GRAPH}/v1.0/me")

    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "Access token is empty.")


@pytest.mark.parametrize(("query", "status"), [("$filter=startswith(displayName,'A')&$count=true", 400)])
def test_filters_it_does_not_know_are_refused(browser: Browser, token: str, query: str, status: int) -> None:
    assert browser.get(f"{GROUPS}?{query}", token, ConsistencyLevel="eventual").status_code == status


def test_other_addresses_and_methods_are_refused(browser: Browser, token: str) -> None:
    assert browser.get(f"{GRAPH}/v1.0/users", token).status_code == 404
    answer = browser.http.post(f"{GRAPH}/v1.0/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 405


@pytest.mark.parametrize(("kind", "status"), [("throttled", 429), ("503", 503), ("500", 500)])
def test_graph_can_fail(world: World, browser: Browser, token: str, kind: str, status: int) -> None:
    world.fail("graph", kind)

    answer = browser.get(f"{GRAPH}/v1.0/me", token)

    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_errors_have_the_recorded_shape(http: requests.Session, samples: Path) -> None:
    recorded: dict[str, Any] = json.loads((samples / "graph" / "error_body.json").read_text("utf-8"))["error"]

    ours = http.get(f"{GRAPH}/v1.0/me").json()["error"]

    assert set(ours) == set(recorded)
    assert set(recorded["innerError"]) <= set(ours["innerError"])
