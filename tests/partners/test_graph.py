"""What Graph may answer about the person who agreed, and its lists. A pretended session stands for the broker's."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
import requests

from partners import graph
from partners.graph import AgentGroups, Graph, GraphLists, Person
from partners.partnercenter import (
    MAX_BYTES,
    AccessRefused,
    CallRejected,
    CursorRejected,
    Garbled,
    NotThere,
    SessionRefused,
    Throttled,
    Unavailable,
    Untrustworthy,
)
from partners.reading import ListedPage, parse
from tests.partners.pretended import Session, answer
from tokens.errors import Failure

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


# --- Lists ----------------------------------------------------------------------------------------------------------
PATH = "tenantRelationships/delegatedAdminRelationships"
LIST = f"{ROOT}/v1.0/{PATH}"


def listing(*ids: str, **more: Any) -> requests.Response:
    return answer({"value": [{"id": one} for one in ids]} | {f"@odata.{name}": value for name, value in more.items()})


def test_a_list_is_followed_by_its_next_link_as_it_stands() -> None:
    link = f"{LIST}?$top=300&$skiptoken=a%2Fb%3D&x=$y"
    session = Session(ROOT, listing("1", nextLink=link), listing("2"))
    lists = GraphLists(session, correlation_id=UUID(int=7))

    first = lists.listed(PATH)
    second = lists.listed(PATH, first.cursor)

    assert [parse(page.items) for page in (first, second)] == [[{"id": "1"}], [{"id": "2"}]]
    assert [url for url, _ in session.asked] == [f"{LIST}?$top=300", link]
    assert second.cursor is None
    assert session.asked[0][1]["client-request-id"] == str(UUID(int=7))


def test_where_the_list_goes_on_is_seen_however_it_is_written() -> None:
    link = f"{LIST}?$skiptoken=x"

    page = GraphLists(Session(ROOT, listing("1", NEXTLINK=link, count=700))).listed(PATH)

    assert (page.cursor, page.total) == ({"uri": link, "token": ""}, 700)


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.test/v1.0/tenantRelationships/delegatedAdminRelationships?$skiptoken=x",
        f"{ROOT}:8443/v1.0/{PATH}?$skiptoken=x",
        f"http://graph.microsoft.com/v1.0/{PATH}",
        f"{ROOT}/beta/{PATH}?$skiptoken=x",
        f"{ROOT}/v1.0/users?$skiptoken=x",
        f"{LIST}/../../users",
    ],
)
def test_a_list_is_not_followed_out_of_itself_whether_told_or_kept(link: str) -> None:
    lists = GraphLists(Session(ROOT, listing("1", nextLink=link)))

    for cursor in (None, {"uri": link, "token": ""}):
        with pytest.raises(Untrustworthy) as refused:
            lists.listed(PATH, cursor)
        assert refused.value.code == "foreign_link"


@pytest.mark.parametrize(
    ("response", "kind", "code"),
    [
        (error(401, "InvalidAuthenticationToken"), SessionRefused, "InvalidAuthenticationToken"),
        (error(403, "Authorization_RequestDenied"), AccessRefused, "Authorization_RequestDenied"),
        (error(404, "Request_ResourceNotFound"), NotThere, "Request_ResourceNotFound"),
        (error(400, "BadRequest"), CallRejected, "BadRequest"),
        (error(429, "TooManyRequests", Retry_After="9"), Throttled, "TooManyRequests"),
        (error(503, "serviceNotAvailable"), Unavailable, "serviceNotAvailable"),
        (answer(status=302, raw=b""), Garbled, "http_302"),
        (answer(raw=b"<html>"), Garbled, "html"),
        (answer(raw=b'{"value": ['), Garbled, "not_json"),
        (answer(raw=b'{"value": ' + b"[" * 100_000), Garbled, "not_json"),
        (answer([]), Untrustworthy, "wrong_shape"),
        (answer({"value": {"code": 0}}), Untrustworthy, "wrong_shape"),
        (answer({"items": []}), Untrustworthy, "wrong_shape"),
        (answer(raw=b'{"value": []}' + b" " * MAX_BYTES), Untrustworthy, "oversized_page"),
        (listing("1", nextLink=f"{LIST}?$skiptoken={'x' * 8_000}"), Untrustworthy, "wrong_shape"),
    ],
)
def test_what_goes_wrong_with_a_list_says_who_can_do_something(
    response: requests.Response, kind: type[Failure], code: str
) -> None:
    with pytest.raises(kind) as failed:
        GraphLists(Session(ROOT, response)).listed(PATH)

    assert type(failed.value) is kind
    assert (failed.value.code, bool(failed.value.correlation_id)) == (code, True)
    assert "secret words" not in str(failed.value)
    if isinstance(failed.value, Throttled):
        assert failed.value.retry_after == 9


def test_a_place_that_graph_forgot_starts_the_list_anew() -> None:
    lists = GraphLists(Session(ROOT, error(400, "BadRequest"), error(410, "resyncRequired"), error(503)))

    for kind in (CursorRejected, CursorRejected, Unavailable):
        with pytest.raises(kind):
            lists.listed(PATH, {"uri": f"{LIST}?$skiptoken=x", "token": ""})


def test_items_that_are_no_json_are_garbled() -> None:
    lists = GraphLists(Session(ROOT))

    with pytest.raises(Garbled):
        lists.understood(ListedPage(b"[nonsense", None, None), lambda page: parse(page.items))
