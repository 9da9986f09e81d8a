"""What Partner Center may answer, and what we make of it. A pretended session stands for the broker's."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import requests

from partners import partnercenter
from partners.following import MAX_PAGES, Start, read_list
from partners.mirrored_kinds import CUSTOMERS
from partners.mirrors import ReadPage
from partners.partnercenter import PartnerCenter
from tests.partners.pretended import Session, answer

ROOT = "https://api.partnercenter.microsoft.com"
FIRST = f"{ROOT}/v1/customers?size=500"
CONTINUE = "continue-here"


def tenant(number: int) -> str:
    return str(UUID(int=number))


def customer(number: int, **profile: Any) -> dict[str, Any]:
    company = {"tenantId": tenant(number), "domain": "a.test", "companyName": "A", **profile}
    return {"id": tenant(number), "companyProfile": company, "relationshipToPartner": "reseller"}


def page(*numbers: int, uri: str | None = None, token: str = CONTINUE) -> dict[str, Any]:
    link = {"uri": uri, "method": "GET", "headers": [{"key": "MS-ContinuationToken", "value": token}]}
    return {
        "totalCount": len(numbers),
        "items": [customer(number) for number in numbers],
        "links": {"next": link} if uri else {},
    }


def pages(session: Session) -> Iterator[ReadPage]:
    return read_list(PartnerCenter(session), CUSTOMERS, "customers", known={})


def first_page(body: Any = None, **how: Any) -> ReadPage:
    return next(pages(Session(ROOT, answer(body, **how))))


def customers(session: Session) -> list[int]:
    return [key for found in pages(session) for key in found.rows]


def rows(found: ReadPage) -> list[tuple[Any, ...]]:
    return [(key, *CUSTOMERS.values(item)) for key, (_, item) in found.rows.items()]


def test_a_page_becomes_customers_with_the_fields_we_use() -> None:
    found = first_page({"totalCount": 1, "items": [customer(7, companyName="Äpfel & Co")]})

    assert rows(found) == [(7, "Äpfel & Co", "äpfel & co", "a.test", "reseller")]
    assert (found.total, found.cursor) == (1, None)


def test_every_call_says_what_microsofts_support_asks_for() -> None:
    session = Session(ROOT, answer(page(1)))

    PartnerCenter(session, correlation_id=UUID(int=5)).listed("customers")

    url, headers = session.asked[0]
    assert url == FIRST
    assert headers["MS-CorrelationId"] == str(UUID(int=5))
    assert UUID(headers["MS-RequestId"])
    assert (headers["Accept"], headers["X-Locale"]) == ("application/json", "en-US")


def test_a_byte_order_mark_other_case_and_missing_fields_are_read() -> None:
    shouted = {"Items": [{"Id": tenant(1).upper(), "CompanyProfile": {"CompanyName": None}}], "TotalCount": None}

    found = first_page(raw=b"\xef\xbb\xbf" + json.dumps(shouted).encode())

    assert rows(found) == [(1, "", "", "", "")]
    assert found.total is None


def test_an_empty_list_is_a_good_answer() -> None:
    assert first_page({"totalCount": 0, "items": None}).rows == {}


def test_names_are_stripped_of_what_a_database_refuses() -> None:
    found = first_page(raw=json.dumps(page(1)).replace('"A"', '"A\\u0000B\\ud800"').encode())

    assert rows(found)[0][1] == "AB?"


@pytest.mark.parametrize(
    "uri",
    [
        "/customers?size=500&seekOperation=Next",
        "/v1/customers?size=500&seekOperation=Next",
        "/v1//v1/customers?size=500&seekOperation=Next",
        "customers?size=500&seekOperation=Next",
        "/customers?size=500?seekOperation=Next",
        f"{ROOT}/v1/customers?size=500&seekOperation=Next",
    ],
)
def test_the_next_page_is_asked_for_with_its_token_however_its_address_is_written(uri: str) -> None:
    session = Session(ROOT, answer(page(1, uri=uri, token="abc+/=")), answer(page(2)))

    assert customers(session) == [1, 2]
    assert session.asked[1][0] == f"{ROOT}/v1/customers?size=500&seekOperation=Next"
    assert session.asked[1][1]["MS-ContinuationToken"] == "abc+/="


def test_a_token_in_the_body_alone_continues_the_list() -> None:
    session = Session(ROOT, answer(page(1) | {"continuationToken": "body"}), answer(page(2)))

    assert customers(session) == [1, 2]
    assert session.asked[1][1]["MS-ContinuationToken"] == "body"


def test_a_cursor_survives_being_stored_as_json() -> None:
    found = first_page(page(1, uri="/customers?size=500&seekOperation=Next", token="t"))
    session = Session(ROOT, answer(page(2)))

    PartnerCenter(session).listed("customers", json.loads(json.dumps(found.cursor)))

    assert session.asked[0][1]["MS-ContinuationToken"] == "t"


@pytest.mark.parametrize(
    "uri",
    [
        "https://customers.evil.test/v1/customers?size=500",
        "//customers.evil.test/v1/customers",
        "http://api.partnercenter.microsoft.com/v1/customers",
        "https://api.partnercenter.microsoft.com@evil.test/customers",
        "https://api.partnercenter.microsoft.com:8443/v1/customers",
        "\\\\evil.test\\customers",
        "https://[evil/customers",
        "/v1/invoices?size=500",
        "/v1/customers/../invoices",
        "/v1/customers%2f..%2finvoices",
    ],
)
def test_a_next_link_that_leads_elsewhere_is_refused_before_anything_is_sent_there(uri: str) -> None:
    session = Session(ROOT, answer(page(1, uri=uri)))

    with pytest.raises(partnercenter.Untrustworthy) as refused:
        customers(session)

    assert refused.value.code == "foreign_link"
    assert [url for url, _ in session.asked] == [FIRST]


def test_a_stored_cursor_that_leads_elsewhere_is_refused_as_well() -> None:
    session = Session(ROOT)

    with pytest.raises(partnercenter.Untrustworthy):
        PartnerCenter(session).listed("customers", {"uri": "https://evil.test/customers", "token": "t"})

    assert session.asked == []


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "ü", "x" * 9_000])
def test_a_token_that_cannot_be_a_header_is_refused(token: str) -> None:
    with pytest.raises(partnercenter.Untrustworthy) as refused:
        first_page(page(1, uri="/customers", token=token))

    assert refused.value.code == "wrong_shape"


@pytest.mark.parametrize(
    "answers",
    [
        [page(1, uri="/customers?size=500", token="")],
        [page(1, uri="/customers?s=1", token="a"), page(2, uri="/customers?s=1", token="a")],
        [page(1, uri="/customers?s=1", token="a"), page(1, uri="/customers?s=1", token="b")],
        [page(n, uri="/customers?s=1", token=token) for n, token in ((1, "a"), (2, "b"), (3, "a"))],
    ],
    ids=["to the start", "to itself", "the same page under a new token", "to an earlier page"],
)
def test_a_list_that_leads_in_a_circle_ends(answers: list[Any]) -> None:
    with pytest.raises(partnercenter.Untrustworthy) as refused:
        customers(Session(ROOT, *map(answer, answers)))

    assert refused.value.code == "cyclic_link"


def test_a_list_without_end_ends() -> None:
    endless = (page(number, uri="/customers", token=f"t{number}") for number in range(10))
    client = PartnerCenter(Session(ROOT, *map(answer, endless)))

    with pytest.raises(partnercenter.Untrustworthy) as refused:
        list(read_list(client, CUSTOMERS, "customers", Start(number=MAX_PAGES - 3), known={}))

    assert refused.value.code == "endless_list"


def turns(pages: Iterator[Any], most: int, start: Start | None = None) -> None:
    """Read one page a turn, each turn knowing what the one before kept."""
    start = start or Start()
    for _ in range(most):
        client = PartnerCenter(Session(ROOT, answer(next(pages))))
        read = next(read_list(client, CUSTOMERS, "customers", start, known={}))
        start = Start(read.cursor, read.number, start.seen + read.count, tuple(json.loads(json.dumps(read.mark))))


@pytest.mark.parametrize("before", [0, 5])
def test_a_circle_longer_than_a_turn_ends(before: int) -> None:
    around = itertools.chain(range(before), itertools.cycle(range(before, before + 7)))
    pages = (page(number, uri="/customers?s=1", token=f"t{number}") for number in around)

    with pytest.raises(partnercenter.Untrustworthy) as refused:
        turns(pages, before + 3 * 7)

    assert refused.value.code == "cyclic_link"


def test_a_circle_of_fresh_tokens_is_known_by_its_items() -> None:
    pages = (page(number % 7, uri="/customers?s=1", token=f"t{number}") for number in itertools.count())

    with pytest.raises(partnercenter.Untrustworthy) as refused:
        turns(pages, 3 * 7)

    assert refused.value.code == "cyclic_link"


def test_a_list_without_end_ends_over_turns_too() -> None:
    pages = (page(number, uri="/customers", token=f"t{number}") for number in itertools.count())

    with pytest.raises(partnercenter.Untrustworthy) as refused:
        turns(pages, 10, Start(number=MAX_PAGES - 3))

    assert refused.value.code == "endless_list"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "wrong_shape"),
        ("text", "wrong_shape"),
        ({}, "wrong_shape"),
        ({"items": {}}, "wrong_shape"),
        ({"items": ["text"]}, "wrong_shape"),
        ({"items": [{"id": "<guid>"}]}, "wrong_shape"),
        ({"items": [{}] * 1001}, "oversized_page"),
    ],
)
def test_json_of_another_shape_is_not_used(body: Any, code: str) -> None:
    with pytest.raises(partnercenter.Untrustworthy) as refused:
        first_page(body)

    assert refused.value.code == code


def test_an_answer_too_large_to_be_a_page_is_not_read() -> None:
    with pytest.raises(partnercenter.Untrustworthy) as refused:
        first_page(raw=b" " * (partnercenter.MAX_BYTES + 1))

    assert refused.value.code == "oversized_page"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"<!doctype html><p>Sign in", "html"),
        (b'\xef\xbb\xbf\r\n<html lang="en">', "html"),
        (b'{"totalCount":3,"items":[{"id":"0000', "not_json"),
        (b"", "not_json"),
        (b"\xff\xfe{}", "not_json"),
        (b"[" * 100_000, "not_json"),
    ],
)
def test_what_is_no_answer_of_partner_centers_is_tried_again_later(raw: bytes, code: str) -> None:
    with pytest.raises(partnercenter.Garbled) as garbled:
        first_page(raw=raw)

    assert garbled.value.code == code


@pytest.mark.parametrize(
    ("response", "seconds"),
    [
        (answer({"statusCode": 429, "message": "…"}, status=429, Retry_After="57"), 57),
        (answer({"statusCode": 429, "message": "Rate limit is exceeded. Try again in 9 seconds."}, status=429), 9),
        (answer({"code": "429", "description": "Too many"}, status=429, Retry_After="3"), 3),
        (answer(raw=b"", status=429), None),
        (answer({"code": 900192}, status=500), None),
        (answer(raw=b"<html>", status=503, Retry_After="5"), 5),
        (answer(raw=b"", status=408), None),
        (answer(raw=b"", status=202, Retry_After="2"), 2),
    ],
)
def test_throttling_and_outages_say_how_long_to_wait(response: requests.Response, seconds: float | None) -> None:
    with pytest.raises(partnercenter.Unavailable) as unavailable:
        PartnerCenter(Session(ROOT, response)).listed("customers")

    assert unavailable.value.retry_after == seconds


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "900421", partnercenter.MfaMissing),
        (401, 900421, partnercenter.MfaMissing),
        (401, "900420", partnercenter.AudienceRefused),
        (401, 400, partnercenter.SessionRefused),
        (403, 2032, partnercenter.AccessRefused),
        (400, 2000, partnercenter.CallRejected),
        (404, 1000, partnercenter.NotThere),
        (302, "", partnercenter.Garbled),
    ],
)
def test_a_refusal_is_named_for_who_acts(caplog: Any, status: int, code: Any, error: type[Exception]) -> None:
    caplog.set_level("INFO")
    session = Session(ROOT, answer({"code": code, "description": "secret words"}, status=status))

    with pytest.raises(error) as refused:
        PartnerCenter(session, correlation_id=UUID(int=5)).listed("customers")

    assert type(refused.value) is error
    assert refused.value.code == (str(code) or "http_302")  # type: ignore[attr-defined]
    assert refused.value.correlation_id == str(UUID(int=5))  # type: ignore[attr-defined]
    assert session.asked[0][1]["MS-RequestId"] in {getattr(line, "ms_request_id", "") for line in caplog.records}
    assert "secret words" not in str(refused.value)


def test_a_cursor_that_is_no_longer_known_is_told_apart() -> None:
    session = Session(ROOT, answer({"code": 2000}, status=400))

    with pytest.raises(partnercenter.CursorRejected):
        PartnerCenter(session).listed("customers", {"uri": "customers?size=500&seekOperation=Next", "token": "old"})


@pytest.mark.parametrize(
    ("said", "compliant"),
    [("true", True), ("True,True", True), ("false", False), ("", None), ("perhaps", None)],
)
def test_the_organisation_comes_with_whether_the_sign_in_carries_mfa(said: str, compliant: bool | None) -> None:
    body = {"companyName": "Fabrikam", "domain": "fabrikam.test", "tenantId": tenant(3)}
    session = Session(ROOT, answer(body, isMfaCompliant=said))

    report = PartnerCenter(session).organization()

    assert session.asked[0][0] == f"{ROOT}/v1/profiles/organization"
    assert session.asked[0][1]["ValidateMfa"] == "true"
    assert report.is_compliant is compliant
    assert report.organization == partnercenter.Organization("Fabrikam", "fabrikam.test", UUID(int=3))


# --- users of a customer --------------------------------------------------------------------------------------------
USERS = f"{ROOT}/v1/customers/{tenant(7)}/users"


def users(*items: Any, uri: str | None = None) -> dict[str, Any]:
    return page(uri=uri) | {"items": list(items), "totalCount": len(items)}


def users_of(body: Any = None, **how: Any) -> partnercenter.UserPage:
    return PartnerCenter(Session(ROOT, answer(body, **how))).users_page(UUID(int=7))


def test_users_have_the_three_fields_we_show() -> None:
    anna = {"displayName": "Anna B", "userPrincipalName": "anna@a.test", "state": "Active", "immutableId": "x"}
    parts = {"FirstName": "Åsa", "lastName": None, "UserPrincipalName": "asa@a.test"}

    raw = b"\xef\xbb\xbf" + json.dumps(users(anna, parts, "odd")).encode()

    assert users_of(raw=raw).items == [
        partnercenter.UserInfo("Anna B", "anna@a.test", "active"),
        partnercenter.UserInfo("Åsa", "asa@a.test", ""),
        partnercenter.UserInfo("", "", ""),
    ]


def test_the_first_page_of_users_is_asked_for_as_microsoft_documents_it() -> None:
    session = Session(ROOT, answer(users()))

    PartnerCenter(session, correlation_id=UUID(int=5)).users_page(UUID(int=7))

    url, headers = session.asked[0]
    assert url == f"{USERS}?size=500"
    assert headers["MS-CorrelationId"] == str(UUID(int=5))
    assert UUID(headers["MS-RequestId"])
    assert (headers["Accept"], headers["X-Locale"]) == ("application/json", "en-US")


def test_users_go_on_where_the_page_says_whatever_the_case_of_the_id() -> None:
    link = f"/customers/{tenant(7).upper()}/users?size=500&seekOperation=Next"
    session = Session(ROOT, answer(users(uri=link)), answer(users()))
    client = PartnerCenter(session)

    client.users_page(UUID(int=7), client.users_page(UUID(int=7)).cursor)

    assert session.asked[1][0] == f"{USERS}?size=500&seekOperation=Next"
    assert session.asked[1][1]["MS-ContinuationToken"] == CONTINUE


@pytest.mark.parametrize(
    "uri", [f"/customers/{UUID(int=8)}/users?size=500", "/customers?size=500", "https://evil.test/"]
)
def test_users_never_go_on_at_another_customer(uri: str) -> None:
    with pytest.raises(partnercenter.Untrustworthy) as refused:
        users_of(users(uri=uri))

    assert refused.value.code == "foreign_link"


def test_a_customer_that_is_not_the_partners_is_told_from_a_rejected_call() -> None:
    with pytest.raises(partnercenter.NotThere):
        users_of({"code": 3000, "description": "gone"}, status=404)
    with pytest.raises(partnercenter.AccessRefused) as refused:
        users_of({"code": 900308, "description": "no"}, status=403)

    assert refused.value.code == "900308"
