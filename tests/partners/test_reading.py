"""What the bytes of Microsoft's lists say, in every shape they were seen in."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from partners import mirrored_kinds
from partners.mirrored_kinds import CUSTOMERS, LICENCES, MFA, SUBSCRIPTIONS, USERS, renewal
from partners.reading import ListedPage, envelope, moment, number, text, whole
from tests.partners.streams import item


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2019-01-16T00:45:41.6062996Z", utc(2019, 1, 16, 0, 45, 41, 606299)),
        ("2021-10-15T21:28:19+00:00", utc(2021, 10, 15, 21, 28, 19)),
        ("2021-07-14T18:02:00-08:00", utc(2021, 7, 15, 2, 2)),
        ("2018-03-16T00:00:00", utc(2018, 3, 16)),
        ("2015-11-25T06: 41: 12Z", utc(2015, 11, 25, 6, 41, 12)),
        ("2020-04-21T22:09:53.051", utc(2020, 4, 21, 22, 9, 53, 51000)),
        ("2026-05-04", utc(2026, 5, 4)),
        ("0001-01-01T00:00:00", None),
        ("0001-01-01T00:00:00-08:00", None),
        ("9999-12-14T00:00:00Z", None),
        ("9999-12-31T23:59:59-11:00", None),
        ("2026-02-30T00:00:00Z", None),
        ("2026-01-01T00:00:00+99:99", None),
        ("", None),
        ("soon", None),
        (17, None),
        (None, None),
    ],
)
def test_a_time_is_read_in_each_form_and_never_and_no_end_are_none(written: Any, read: dt.datetime | None) -> None:
    assert moment(written) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("28.82860766744404945074", Decimal("28.82860766744404945074")),
        (25, Decimal(25)),
        (0.5, Decimal("0.5")),
        (" 12 ", Decimal(12)),
        ("NaN", None),
        ("Infinity", None),
        ("1" * 100, None),
        (True, None),
        ("many", None),
        (None, None),
        ([1], None),
    ],
)
def test_a_number_may_be_a_string(written: Any, read: Decimal | None) -> None:
    assert number(written) == read


@pytest.mark.parametrize(
    ("written", "read"), [("25", 25), (25.0, 25), (2.5, None), (2**31, None), (-1, -1), ("x", None)]
)
def test_a_whole_number_fits_its_column(written: Any, read: int | None) -> None:
    assert whole(written) == read


def test_a_text_is_one_that_a_database_takes() -> None:
    assert (text(" A\x00B\ud800 "), text(None), text("abc", 2)) == ("AB?", "", "ab")


# --- Pages ----------------------------------------------------------------------------------------------------------
def page(body: Any, *, bom: bool = False) -> bytes:
    return (b"\xef\xbb\xbf" if bom else b"") + json.dumps(body).encode()


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("name", ["links", "Links", "LINKS"])
def test_where_a_list_goes_on_is_found_in_whatever_case(name: str, bom: bool) -> None:
    found = envelope(page({"totalCount": 3, "items": [{"id": 1}], name: {"next": {"uri": "/x"}}}, bom=bom))

    assert found
    assert (found.total, found.links) == (3, {"next": {"uri": "/x"}})
    assert found.items is not None
    assert json.loads(found.items) == [{"id": 1}]


@pytest.mark.parametrize("total", [-1, 2**31, "-3", "٣", "3.0", "", "9" * 11, 1.5, True, None, [3]])
def test_a_total_that_is_no_count_is_none(total: Any) -> None:
    found = envelope(page({"items": [], "totalCount": total}))

    assert found
    assert found.total is None


@pytest.mark.parametrize("name", ["totalCount", "TotalCount"])
def test_a_total_may_be_written_as_a_string(name: str) -> None:
    found = envelope(page({"items": [], name: "20"}))

    assert found
    assert found.total == 20


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"items":[1', b'{"items":[]} and more', b"[" * 100_000])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whoever asked says what it means
        envelope(content)


# --- Items ----------------------------------------------------------------------------------------------------------
def shouted(node: Any) -> Any:
    if isinstance(node, dict):
        return {name.upper(): shouted(value) for name, value in node.items()}
    return [shouted(one) for one in node] if isinstance(node, list) else node


def listed(*items: Any) -> ListedPage:
    return ListedPage(json.dumps(items).encode(), None, None)


def test_an_odd_customer_is_the_same_row_as_a_usual_one() -> None:
    usual = CUSTOMERS.reader.items(listed(item(7, "Äpfel & Co")).items)
    for odd in (shouted(item(7, "Äpfel & Co")), item(7, "Äpfel & Co") | {"new": [None, {"a": 1}], "id": None}):
        [found] = CUSTOMERS.reader.items(listed(odd).items)
        assert (CUSTOMERS.key(found), CUSTOMERS.values(found)) == (
            7,
            ("Äpfel & Co", "äpfel & co", "d7.test", "reseller"),
        )
    [patiently] = CUSTOMERS.reader.items(listed(shouted(item(7, "Äpfel & Co"))).items)
    assert CUSTOMERS.content_hash(usual[0]) == CUSTOMERS.content_hash(patiently)


def test_what_is_missing_or_of_another_kind_is_empty() -> None:
    profile = {"tenantId": str(UUID(int=7)), "companyName": None, "domain": 12}

    [found] = CUSTOMERS.reader.items(listed({"companyProfile": profile}).items)

    assert CUSTOMERS.values(found) == ("", "", "", "")


def test_a_page_that_is_as_it_was_is_not_read() -> None:
    first = CUSTOMERS.take(listed(item(1), item(2)), collection=0, number=1, known=None)
    known = mirrors_known(first.digest, 2)

    again = CUSTOMERS.take(listed(item(1), item(2)), collection=0, number=1, known=known)
    other = CUSTOMERS.take(listed(item(1), item(3)), collection=0, number=1, known=known)

    assert (again.is_clean, again.count, again.rows) == (True, 2, {})
    assert (other.is_clean, sorted(other.rows)) == (False, [1, 3])


def mirrors_known(digest: bytes, count: int) -> Any:
    from partners.mirrors import Known

    return Known(digest, count)


def test_other_fields_of_a_kind_make_every_page_another() -> None:
    class Fewer(mirrored_kinds.Customers):
        columns = ("name", "name_key", "domain")

    class Newer(mirrored_kinds.Customers):
        version = 2

    assert len({CUSTOMERS.salt, Fewer().salt, Newer().salt, USERS.salt}) == 4


def test_other_fields_of_a_kind_and_a_raised_version_make_every_row_another() -> None:
    class Fewer(mirrored_kinds.Customers):
        columns = ("name", "name_key", "domain")

    class Newer(mirrored_kinds.Customers):
        version = 2

    [found] = CUSTOMERS.reader.items(listed(item(7)).items)
    assert len({kind.content_hash(found) for kind in (CUSTOMERS, Fewer(), Newer())}) == 3


def test_of_an_item_that_is_listed_twice_the_last_one_counts() -> None:
    found = CUSTOMERS.take(listed(item(1, "A"), item(2), item(1, "B")), collection=0, number=1, known=None)

    assert (found.count, len(found.rows), len(found.keys)) == (2, 2, 12)
    assert CUSTOMERS.values(found.rows[1][1])[0] == "B"


# --- Kinds, by Microsoft's own examples -----------------------------------------------------------------------------
# https://learn.microsoft.com/partner-center/developer/get-all-of-a-customer-s-subscriptions
SUBSCRIPTION = {
    "id": "83EF9D05-4169-4ef9-9657-0e86b1eab1de", "friendlyName": "nickname", "quantity": "1", "unitType": "none",
    "creationDate": "2015-11-25T06: 41: 12Z", "effectiveStartDate": "2015-11-24T08: 00: 00Z",
    "commitmentEndDate": "2016-12-12T08: 00: 00Z", "status": "Active", "autoRenewEnabled": False,
    "billingType": "none", "contractType": "subscription", "orderId": "6183db3d-6318-4e52-877e-25806e4971be",
}  # fmt: skip
# https://learn.microsoft.com/partner-center/developer/get-a-list-of-available-licenses
SKU = {
    "availableUnits": 4, "activeUnits": 5, "consumedUnits": 1, "suspendedUnits": 0, "totalUnits": 5, "warningUnits": 0,
    "productSku": {"id": "EFCCB6F7-5641-4e0e-bd10-b4976e1bf68e", "name": "Mobility E3", "skuPartNumber": "EMS"},
    "capabilityStatus": "Enabled",
}  # fmt: skip


def row(kind: Any, made: Any) -> dict[str, Any]:
    [found] = kind.reader.items(listed(made).items)
    return {"key": kind.key(found), **dict(zip(kind.columns, kind.values(found), strict=True))}


@pytest.mark.parametrize("how", [lambda made: made, shouted], ids=["usual", "shouted"])
def test_a_subscription_becomes_a_row(how: Any) -> None:
    found = row(SUBSCRIPTIONS, how(SUBSCRIPTION))

    assert found["key"] == found["subscription_id"].lower()
    assert found["subscription_id"] == SUBSCRIPTION["id"]  # as it is written
    assert (found["friendly_name"], found["offer_name"], found["quantity"], found["status"]) == (
        "nickname", "", 1, "active",
    )  # fmt: skip
    assert found["created_at"] == utc(2015, 11, 25, 6, 41, 12)
    assert (found["commitment_end_at"], found["cancellable_until"]) == (utc(2016, 12, 12, 8), None)
    assert (found["auto_renew"], found["renewal"]) == (False, "ends")


@pytest.mark.parametrize(
    ("kind", "made", "name", "column"),
    [
        (SUBSCRIPTIONS, SUBSCRIPTION, "AutoRenewEnabled", "auto_renew"),
        (SUBSCRIPTIONS, SUBSCRIPTION, "FriendlyName", "friendly_name"),
        (LICENCES, SKU, "TotalUnits", "total_units"),
        (LICENCES, SKU, "CONSUMEDUNITS", "consumed_units"),
        (LICENCES, SKU, "productSku.SkuPartNumber", "part_number"),
        (
            USERS,
            {"id": "A9", "userPrincipalName": "d@c.test", "displayName": "D", "state": "on"},
            "DisplayName",
            "name",
        ),
        (USERS, {"id": "A9", "userPrincipalName": "d@c.test", "displayName": "D", "state": "on"}, "State", "state"),
        (MFA, {"objectId": "ADC7", "upn": "p@c.test"}, "Upn", "sign_in_name"),
    ],
)
def test_a_property_that_may_be_missing_is_found_in_another_case_on_one_item_of_many(
    kind: Any, made: Any, name: str, column: str
) -> None:
    odd = json.loads(json.dumps(made))
    *outer, name = name.split(".")
    inside = odd[outer[0]] if outer else odd
    inside[name] = inside.pop(next(key for key in inside if key.lower() == name.lower()))

    usual, other = (kind.values(one)[kind.columns.index(column)] for one in kind.reader.items(listed(made, odd).items))

    assert other == usual
    assert usual not in (None, "")


def test_what_is_in_the_usual_case_is_read_the_quick_way() -> None:
    for kind, made in ((CUSTOMERS, item(7)), (SUBSCRIPTIONS, SUBSCRIPTION), (LICENCES, SKU)):
        content = listed(made, made).items
        assert not kind.reader._overlooks(content, 2), kind


def test_licences_become_a_row() -> None:
    found = row(LICENCES, SKU)

    assert (found["key"], found["part_number"], found["capability_status"]) == (
        SKU["productSku"]["id"].lower(), "EMS", "enabled",  # type: ignore[index]
    )  # fmt: skip
    assert (found["total_units"], found["consumed_units"], found["available_units"]) == (5, 1, 4)


def test_of_a_user_no_more_is_kept_than_is_shown() -> None:
    made = {"id": "A9", "userPrincipalName": "d@c.test", "displayName": "D", "state": "Active", "phoneNumber": "1"}

    assert row(USERS, made) == {
        "key": "a9",
        "user_id": "A9",
        "name": "D",
        "sign_in_name": "d@c.test",
        "state": "active",
    }


def test_somebody_without_mfa_becomes_a_row() -> None:
    made = {"objectId": "ADC7", "upn": "p@c.test", "lastNonMfaCompliantRequestDateTime": "2020-04-21T22:09:53.051"}

    assert row(MFA, made) == {
        "key": "adc7", "sign_in_name": "p@c.test", "last_request_at": utc(2020, 4, 21, 22, 9, 53, 51000),
    }  # fmt: skip


NEW = {
    "autoRenewEnabled": False, "unitType": "Licenses", "productType": {"id": "OnlineServicesNCE"},
    "creationDate": "2025-06-01T00:00:00Z", "commitmentEndDate": "2026-06-01T00:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "extends"),
        ({"autoRenewEnabled": True}, "renews"),
        ({"autoRenewEnabled": None}, "unknown"),
        ({"creationDate": "2025-03-31T23:59:59Z"}, "ends"),
        ({"commitmentEndDate": "2026-05-03T00:00:00Z"}, "ends"),
        ({"commitmentEndDate": None}, "unknown"),
        ({"commitmentEndDateTime": "2026-05-03T23:59:59Z"}, "ends"),
        ({"isTrial": True}, "ends"),
        ({"unitType": "Usage-based"}, "ends"),
        ({"productType": None}, "ends"),
    ],
)
def test_the_end_of_a_term_is_told_as_far_as_microsoft_tells(changed: dict[str, Any], expected: str) -> None:
    [found] = SUBSCRIPTIONS.reader.items(listed(SUBSCRIPTION | NEW | changed).items)

    assert renewal(found) == expected
