"""How one subscription is read, whichever way Microsoft writes it, and what goes back when it is changed."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from partners import subscriptions
from partners.partnercenter import CallRejected, Garbled, PartnerCenter, Throttled, Unavailable, Untrustworthy
from tests.partners.pretended import Session, answer

ROOT = "https://api.partnercenter.microsoft.com"
CUSTOMER, ID = uuid.uuid4(), "A356AC8C-E310-44F4-BF85-C7F29044AF99"
BODY = {
    "id": ID, "offerName": "Basic", "friendlyName": "For all", "quantity": 10, "billingType": "license",
    "status": "active", "autoRenewEnabled": True, "termDuration": "P1Y", "billingCycle": "monthly",
    "commitmentEndDate": "2027-03-01T00:00:00.1234567Z", "cancellationAllowedUntilDate": None,
    "attributes": {"etag": "abc", "objectType": "Subscription"},
}  # fmt: skip


def read(body: Any = None, **how: Any) -> subscriptions.Subscription:
    client = PartnerCenter(Session(ROOT, answer(body, **how)))
    return subscriptions.read(client, CUSTOMER, ID)


def change(*answers: Any, etag: str = "abc") -> tuple[Session, Any]:
    session, request_id = Session(ROOT, *answers), uuid.uuid4()
    after = subscriptions.change(PartnerCenter(session), CUSTOMER, ID, request=b"{}", etag=etag, request_id=request_id)
    assert session.asked[0][1]["MS-RequestId"] == str(request_id)
    return session, after


def test_the_facts_are_what_a_person_decides_by():
    found = read(BODY)

    assert (found.id, found.title) == (ID, "For all")
    assert found.facts == {
        "quantity": 10, "auto_renew": True, "status": "active", "billing": "license", "term": "P1Y", "cycle": "monthly",
        "term_ends": "2027-03-01T00:00:00+00:00", "fewer_until": "", "next_term": False, "etag": "abc",
    }  # fmt: skip
    json.dumps(found.facts)


def test_pascal_case_and_a_byte_order_mark_are_read_alike():
    pascal = {name[0].upper() + name[1:]: value for name, value in BODY.items()}
    pascal["Attributes"] = {"Etag": "abc"}

    assert read(raw=b"\xef\xbb\xbf" + json.dumps(pascal).encode()).facts == read(BODY).facts


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-03-01T00:00:00", "2027-03-01T00:00:00+00:00"),
        ("2027-03-01T00:00:00-08:00", "2027-03-01T08:00:00+00:00"),
        ("2027-03-01", "2027-03-01T00:00:00+00:00"),
        ("9999-12-14T00:00:00Z", ""),
        ("0001-01-01T00:00:00", ""),
        ("soon", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_times_are_read_in_every_form_microsoft_writes(text, moment):
    assert read(BODY | {"commitmentEndDate": text}).facts["term_ends"] == moment


def test_what_is_missing_or_odd_is_not_made_up():
    facts = read({"quantity": "10", "autoRenewEnabled": "yes", "status": 7, "attributes": []}).facts

    assert (facts["quantity"], facts["auto_renew"], facts["status"], facts["etag"]) == (None, None, "", "")


def test_one_property_changes_and_every_other_byte_stays():
    raw = b'{"Quantity": 10,"money":28.82860766744404945074,"deep":{"a" : [1.0, 1e5, "\\u00e9"]},"odd":null}'

    request = read(raw=raw).with_changed("quantity", 12)

    assert request == b'{"Quantity":12,"money":28.82860766744404945074,"deep":{"a" : [1.0, 1e5, "\\u00e9"]},"odd":null}'
    assert json.loads(read(raw=b"{}").with_changed("auto_renew", False)) == {"autoRenewEnabled": False}


def test_a_change_brings_how_it_stands_then():
    session, after = change(answer(BODY | {"quantity": 12}))

    assert after.facts["quantity"] == 12
    assert session.asked[0][0] == f"{ROOT}/v1/customers/{CUSTOMER}/subscriptions/{ID}"
    assert session.asked[0][1]["If-Match"] == '"abc"'


def test_a_change_that_is_accepted_has_no_answer_yet():
    assert change(answer(raw=b"", status=202, Location="/customers/x"))[1] is None


def test_without_a_mark_none_is_sent():
    assert "If-Match" not in change(answer(BODY), etag="")[0].asked[0][1]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, {"statusCode": 429, "message": "Try again in 57 seconds."}, Throttled),
        (503, {}, Unavailable),
        (504, {}, Unavailable),
        (204, {}, Unavailable),
        (400, {"code": 2055}, CallRejected),
        (409, {"code": 900278}, CallRejected),
        (302, {}, Garbled),
        (200, [], Untrustworthy),
    ],
)
def test_what_goes_wrong_is_told_apart(status, body, kind):
    with pytest.raises(kind) as failure:
        change(answer(body, status=status))
    assert type(failure.value) is kind


def test_reading_takes_no_202_for_an_answer():
    with pytest.raises(Unavailable):
        subscriptions.read(PartnerCenter(Session(ROOT, answer({}, status=202))), CUSTOMER, ID)
