"""Answers that look otherwise than documented and mean the same."""

from __future__ import annotations

from datetime import datetime

import pytest

from sandbox.directory import Tenant
from sandbox.quirks import QUIRKS, check, spoil
from tests.sandbox.conftest import PC, Browser
from tests.sandbox.reading import LIST, Body, body_of, follow, ids


@pytest.fixture
def token(browser: Browser) -> str:
    return browser.bearer()


def subscriptions(browser: Browser, partner: Tenant, token: str, *quirks: str) -> Body:
    partner.quirks = list(quirks)
    partner.customer_overrides = {1: {"subscriptions": 6}}
    url = f"{PC}/v1/customers/{partner.customers.at(1).tenant_id}/subscriptions"
    return body_of(browser.get(url, token).content)


def test_a_byte_order_mark_comes_first(browser: Browser, partner: Tenant, token: str) -> None:
    partner.quirks = ["bom"]

    assert browser.get(LIST, token).content.startswith(b"\xef\xbb\xbf{")


def test_pascal_case_is_of_names_and_not_of_values(browser: Browser, partner: Tenant, token: str) -> None:
    plain = subscriptions(browser, partner, token)
    ours = subscriptions(browser, partner, token, "pascal")

    assert set(ours) == {"TotalCount", "Items", "Links", "Attributes"}
    assert ours["Items"][0]["ProductType"]["Id"] == plain["items"][0]["productType"]["id"]
    assert set(ours["Items"][0]) == {name[0].upper() + name[1:] for name in plain["items"][0]}


def test_optional_properties_are_left_out_but_the_list_still_leads_on(
    browser: Browser, partner: Tenant, token: str
) -> None:
    partner.quirks = ["sparse"]

    pages = follow(browser, token)

    assert len(ids(pages)) == 1203
    assert set(pages[0]["items"][0]) == {"id", "companyProfile", "relationshipToPartner"}
    assert "totalCount" not in pages[0]


def test_unknown_properties_and_nulls_stand_beside_the_known_ones(
    browser: Browser, partner: Tenant, token: str
) -> None:
    plain = subscriptions(browser, partner, token)
    ours = subscriptions(browser, partner, token, "extra", "nulls")

    assert "pretendedLater" in ours["items"][0]["productType"]
    assert ours["items"][0]["associatedPartnerId"] is None
    assert {name: ours["items"][0][name] for name in ("id", "quantity")} == {
        name: plain["items"][0][name] for name in ("id", "quantity")
    }


def test_dates_come_in_four_forms_and_mean_the_same_moment(browser: Browser, partner: Tenant, token: str) -> None:
    plain = subscriptions(browser, partner, token)
    ours = subscriptions(browser, partner, token, "dates")

    forms = set()
    for before, after in zip(plain["items"], ours["items"], strict=True):
        for name in ("creationDate", "effectiveStartDate", "commitmentEndDate"):
            forms.add(after[name][19:])
            if after[name][19:] in ("+00:00", "-08:00"):
                moment = datetime.fromisoformat(before[name][:19] + "+00:00")
                assert datetime.fromisoformat(after[name]) == moment
    assert forms - {"Z"} == {".6062996Z", "+00:00", "-08:00", ""}


def test_sentinels_of_never_stay_what_they_are() -> None:
    never = b'{"end":"9999-12-14T00:00:00Z","last":"0001-01-01T00:00:00Z"}'

    assert spoil(never, ["dates"]) == never


def test_numbers_can_be_strings_and_booleans_are_none(browser: Browser, partner: Tenant, token: str) -> None:
    ours = subscriptions(browser, partner, token, "numbers-as-text")

    assert ours["totalCount"] == "6"
    assert ours["items"][0]["quantity"].isdigit()
    assert ours["items"][0]["isTrial"] is False


def test_guids_can_be_in_capitals(browser: Browser, partner: Tenant, token: str) -> None:
    plain = subscriptions(browser, partner, token)
    ours = subscriptions(browser, partner, token, "upper-ids")

    assert ours["items"][0]["id"] == plain["items"][0]["id"].upper()


def test_ids_in_headers_can_come_twice(browser: Browser, partner: Tenant, token: str) -> None:
    partner.quirks = ["doubled-headers"]

    assert browser.get(LIST, token, **{"MS-RequestId": "one"}).headers["MS-RequestId"] == "one,one"


@pytest.mark.parametrize(
    ("quirk", "uri"),
    [
        ("v1-next", "/v1/customers?size=500&seekOperation=Next"),
        ("second-question-mark", "/customers?size=500?seekOperation=Next"),
    ],
)
def test_next_links_take_other_forms(browser: Browser, partner: Tenant, token: str, quirk: str, uri: str) -> None:
    partner.quirks = [quirk]

    assert browser.get(LIST, token).json()["links"]["next"]["uri"] == uri


def test_the_token_can_stand_in_the_body_alone(browser: Browser, partner: Tenant, token: str) -> None:
    partner.quirks = ["body-token"]

    pages = follow(browser, token)

    assert len(ids(pages)) == 1203
    assert all("next" not in page["links"] for page in pages)
    assert ["continuationToken" in page for page in pages] == [True, True, False]


def test_all_quirks_together_are_still_json(browser: Browser, partner: Tenant, token: str) -> None:
    partner.quirks = list(QUIRKS)

    body = body_of(browser.get(LIST, token).content)

    assert len(body["Items"]) == 500


def test_quirks_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no quirk loud"):
        check(["bom", "loud"])
