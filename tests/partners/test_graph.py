"""What Graph may answer about the person who agreed. A pretended session stands for the broker's."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
import requests

from partners import graph
from partners.graph import AgentGroups, Graph, Person
from tests.partners.pretended import Session, answer

ROOT = "https://graph.microsoft.com"
GROUPS = f"{ROOT}/v1.0/me/transitiveMemberOf/microsoft.graph.group"


def groups(*names: str | None, following: str | None = None) -> requests.Response:
    body: dict[str, Any] = {"value": [{"id": str(UUID(int=1)), "displayName": name} for name in names]}
    return answer(body | ({"@odata.nextLink": following} if following else {}))


def error(status: int, code: str = "Some_Code", **headers: str) -> requests.Response:
    return answer({"error": {"code": code, "message": "secret words"}}, status=status, **headers)


def test_me_is_who_the_session_speaks_for() -> None:
    session = Session(
        ROOT, answer({"id": str(UUID(int=9)).upper(), "userPrincipalName": "svc@a.test", "displayName": None})
    )

    assert Graph(session).me() == Person(UUID(int=9), "svc@a.test", "")


def test_agent_groups_are_picked_from_all_groups_on_all_pages() -> None:
    session = Session(ROOT, groups("Staff", "AdminAgents", following=f"{GROUPS}?$skiptoken=x"), groups("SalesAgents"))

    found = Graph(session).agent_groups()

    assert found == AgentGroups(frozenset({"AdminAgents", "SalesAgents"}), names_hidden=False)
    assert session.asked[0][0] == f"{GROUPS}?$select=id,displayName&$count=true&$top=999"
    assert session.asked[0][1]["ConsistencyLevel"] == "eventual"
    assert session.asked[1][0] == f"{GROUPS}?$skiptoken=x"


def test_groups_without_names_are_said_to_be_hidden() -> None:
    assert Graph(Session(ROOT, groups(None, None))).agent_groups() == AgentGroups(frozenset(), names_hidden=True)


@pytest.mark.parametrize("link", ["https://evil.test/v1.0/me", "//evil.test/v1.0/me", f"{ROOT}/beta/me"])
def test_a_next_link_that_leads_elsewhere_is_not_followed(link: str) -> None:
    session = Session(ROOT, groups("Staff", following=link))

    with pytest.raises(graph.GraphRefused) as refused:
        Graph(session).agent_groups()

    assert refused.value.code == "foreign_link"
    assert len(session.asked) == 1


def test_a_list_of_groups_that_never_ends_ends() -> None:
    endless = [groups("Staff", following=GROUPS) for _ in range(graph.MAX_PAGES)]

    with pytest.raises(graph.GraphRefused) as refused:
        Graph(Session(ROOT, *endless)).agent_groups()

    assert refused.value.code == "cyclic_link"


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (error(429, "TooManyRequests", Retry_After="7"), "TooManyRequests"),
        (error(503), "Some_Code"),
        (answer(raw=b"<html>"), "not_json"),
        (answer(raw=b'{"value": ['), "not_json"),
        (answer([]), "wrong_shape"),
    ],
)
def test_what_passes_is_tried_again_later(response: requests.Response, code: str) -> None:
    with pytest.raises(graph.GraphUnavailable) as unavailable:
        Graph(Session(ROOT, response)).me()

    assert unavailable.value.code == code
    assert unavailable.value.retry_after == (7 if code == "TooManyRequests" else None)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_keeps_graphs_code_and_none_of_its_words(status: int) -> None:
    with pytest.raises(graph.GraphRefused) as refused:
        Graph(Session(ROOT, error(status, "Authorization_RequestDenied"))).agent_groups()

    assert refused.value.code == "Authorization_RequestDenied"
    assert "secret words" not in str(refused.value)


def test_a_person_without_an_id_is_nobody() -> None:
    with pytest.raises(graph.GraphRefused) as refused:
        Graph(Session(ROOT, answer({"id": None}))).me()

    assert refused.value.code == "wrong_shape"
