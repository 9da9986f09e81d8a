"""What belongs to one customer, and the partner's standing: shapes against recorded bodies."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from sandbox import licences, subscriptions
from sandbox.directory import Tenant
from sandbox.world import World
from tests.sandbox.conftest import GRAPH, OTHER, PARTNER, PC, Browser
from tests.sandbox.reading import Body, body_of, keys, recorded

GDAP = f"{GRAPH}/v1.0/tenantRelationships/delegatedAdminRelationships"
INSIGHTS = f"{GRAPH}/beta/security/partner/securityScore/customerInsights"


@pytest.fixture
def token(browser: Browser) -> str:
    return browser.bearer()


@pytest.fixture
def graph_token(browser: Browser) -> str:
    return graph_bearer(browser)


def graph_bearer(browser: Browser, account: str = "svc@contoso.test") -> str:
    """A token that may read GDAP and the security score."""
    scopes = f"{GRAPH}/DelegatedAdminRelationship.Read.All {GRAPH}/PartnerSecurity.Read.All"
    code = browser.code(account, scope=f"{scopes} openid")
    return str(browser.redeem(code, scope=scopes).json()["access_token"])


def url(partner: Tenant, rest: str, index: int = 7) -> str:
    return f"{PC}/v1/customers/{partner.customers.at(index).tenant_id}/{rest}"


def listed(answer: requests.Response) -> list[Body]:
    assert answer.status_code == 200, answer.text
    body = body_of(answer.content)
    assert body["totalCount"] == len(body["items"])
    items: list[Body] = body["items"]
    return items


# subscriptions


def test_the_subscriptions_of_a_customer_come_in_one_reply_and_singly(
    browser: Browser, partner: Tenant, token: str
) -> None:
    partner.customer_overrides = {7: {"subscriptions": 4}}

    found = listed(browser.get(url(partner, "subscriptions"), token))

    assert len(found) == 4
    assert browser.get(url(partner, f"subscriptions/{found[2]['id'].upper()}"), token).json() == found[2]
    assert browser.get(url(partner, "subscriptions/none"), token).json()["code"] == 20003


def test_a_subscription_has_what_recorded_ones_have(partner: Tenant, samples: Path) -> None:
    theirs = keys(recorded(samples, "get-all-of-a-customer-s-subscriptions.02")["items"][0])
    theirs |= keys(recorded(samples, "get-a-subscription-by-id.03"))

    ours = keys(next(one for one in _many(partner) if one["unitType"] == "Licenses"))

    documented = {".billingCycleEndDate", ".attributes.etag"}
    invented = {".pretendedExtra", ".pretendedExtra.note"}
    assert theirs <= ours
    assert {name for name in ours - theirs - invented if "scheduledNextTerm" not in name} <= documented


def test_licences_are_in_a_term_that_has_begun_and_not_ended_and_azure_plans_never_end(partner: Tenant) -> None:
    many = _many(partner)

    seats = [one for one in many if one["unitType"] == "Licenses"]
    begun = subscriptions._BEGUN.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert {one["effectiveStartDate"] <= begun <= one["commitmentEndDate"] for one in seats} == {True}
    assert {one["termDuration"] for one in seats} == {"P1M", "P1Y", "P3Y"}
    assert {one["autoRenewEnabled"] for one in seats} == {True, False}
    assert any("scheduledNextTermInstructions" in one for one in seats)
    assert {one["commitmentEndDate"][:4] for one in many if one["unitType"] == "Usage-based"} == {"9999"}


@pytest.mark.parametrize("days", [30, 365, 1095])
def test_on_whatever_day_and_at_whatever_time_a_term_is_under_way(days: int) -> None:
    begin = datetime(2026, 11, 28, tzinfo=UTC)
    for hours in range(0, 24 * days, 7):
        at = begin + timedelta(hours=hours)
        for number in (hours % days, 0, days - 1, hours // 24 % days):
            start, end = subscriptions.term_under_way(number, days, at)
            assert start <= at <= end, (at, number)
            assert end - start == timedelta(days=days - 1)


def _many(partner: Tenant) -> list[Body]:
    customers = [partner.customers.at(index) for index in range(100)]
    return [subscriptions.at(one, place) for one in customers for place in range(subscriptions.count(one, {}))]


# SKUs and licences


def test_subscribed_skus_have_the_recorded_shape_and_add_up(
    browser: Browser, partner: Tenant, token: str, samples: Path
) -> None:
    answer = browser.get(url(partner, "subscribedskus"), token)

    assert keys(body_of(answer.content)) == keys(recorded(samples, "get-a-list-of-available-licenses.01"))
    for sku in (one for index in range(50) for one in licences.every(partner, partner.customers.at(index))):
        assert sku["totalUnits"] == sku["activeUnits"] + sku["warningUnits"]
        assert sku["availableUnits"] == sku["totalUnits"] - sku["consumedUnits"] >= 0


def test_a_users_licence_is_one_of_the_customers_skus(
    browser: Browser, partner: Tenant, token: str, samples: Path
) -> None:
    skus = {one["productSku"]["id"] for one in listed(browser.get(url(partner, "subscribedskus"), token))}
    first, _, third = body_of(browser.get(url(partner, "users?size=3"), token).content)["items"]

    answer = browser.get(url(partner, f"users/{first['id']}/licenses"), token)

    assert keys(body_of(answer.content)) == keys(recorded(samples, "check-which-licenses-are-assigned-to-a-user.01"))
    assert {one["productSku"]["id"] for one in listed(answer)} <= skus
    assert listed(browser.get(url(partner, f"users/{third['id']}/licenses"), token)) == []
    assert browser.get(url(partner, f"users/{OTHER}/licenses"), token).json()["code"] == 60002
    assert browser.get(url(partner, f"users/{first['id']}"), token).json() == first


@pytest.mark.parametrize("rest", ["subscribedskus", "users", f"users/{OTHER}", f"users/{OTHER}/licenses"])
def test_without_a_role_in_the_customer_its_people_and_licences_are_refused(
    browser: Browser, partner: Tenant, token: str, rest: str
) -> None:
    partner.gdap_missing = True

    assert browser.get(url(partner, rest), token).json()["code"] == 900308
    assert browser.get(url(partner, "subscriptions"), token).status_code == 200


def test_profiles_and_resellers_of_a_customer(browser: Browser, partner: Tenant, token: str, samples: Path) -> None:
    company = browser.get(url(partner, "profiles/company"), token).json()
    resellers = browser.get(url(partner, "relationships", 9), token)

    whole = browser.get(url(partner, ""), token).json()
    assert company == whole["companyProfile"]
    assert browser.get(url(partner, "profiles/billing"), token).json() == whole["billingProfile"]
    assert keys(resellers.json()) == keys(recorded(samples, "get-indirect-resellers-of-a-customer.01"))
    assert listed(browser.get(url(partner, "relationships"), token)) == []


@pytest.mark.parametrize("rest", ["orders", "users/a/b", "subscriptions/a/b", "profiles"])
def test_what_is_not_pretended_is_not_found(browser: Browser, partner: Tenant, token: str, rest: str) -> None:
    assert browser.get(url(partner, rest), token).status_code == 404


# how the partner stands


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("partnerRequests", "get-api-request-details.01"),
        ("nonMfaCompliantPartnerPrincipals", "get-portal-requests-without-mfa.01"),
        ("applicationmfaadoptionstatus?startDate=2026-01-01", "get-api-request-summary.01"),
    ],
)
def test_lists_of_mfa_have_the_recorded_shapes(
    browser: Browser, token: str, samples: Path, name: str, sample: str
) -> None:
    browser.get(f"{PC}/v1/profiles/organization", token)

    assert keys(browser.get(f"{PC}/v1/{name}", token).json()) == keys(recorded(samples, sample))


def test_requests_tell_who_came_with_mfa(browser: Browser, partner: Tenant, token: str) -> None:
    partner.require_mfa = False
    browser.get(f"{PC}/v1/profiles/organization", browser.bearer("nomfa@contoso.test", mfa="no"))

    newest = listed(browser.get(f"{PC}/v1/partnerRequests", token))[0]
    without = listed(browser.get(f"{PC}/v1/nonMfaCompliantPartnerPrincipals", token))

    assert (newest["upn"], newest["mfaCompliant"]) == ("nomfa@contoso.test", False)
    assert [one["upn"] for one in without] == ["nomfa@contoso.test"]


# Graph


def follow(browser: Browser, token: str, url: str) -> list[Body]:
    pages = [browser.get(url, token).json()]
    while "@odata.nextLink" in pages[-1]:
        pages.append(browser.get(pages[-1]["@odata.nextLink"], token).json())
    return pages


def test_gdap_relationships_are_followed_by_their_next_link(
    browser: Browser, partner: Tenant, graph_token: str, samples: Path
) -> None:
    theirs = (samples / "graph" / "gdap_relationships_list.response.http").read_text("utf-8")

    pages = follow(browser, graph_token, f"{GDAP}?$top=300")

    found = [one for page in pages for one in page["value"]]
    assert [len(page["value"]) for page in pages] == [300, 300, 300, 300, 3]
    assert {one["customer"]["tenantId"] for one in found} == {one.tenant_id for one in partner.customers}
    assert len({one["id"] for one in found}) == len({one["displayName"] for one in found}) == 1203
    assert keys(pages[0]) - {".@odata.nextLink"} == keys(json.loads(theirs[theirs.index("{") :]))


def test_gdap_relationships_are_filtered_by_status(browser: Browser, graph_token: str) -> None:
    pages = follow(browser, graph_token, f"{GDAP}?$filter=status eq 'terminated'")

    found = [one for page in pages for one in page["value"]]
    assert {one["status"] for one in found} == {"terminated"}
    assert len(found) == 1203 // 11
    assert browser.get(f"{GDAP}?$filter=displayName eq 'x'", graph_token).status_code == 400


def test_gdap_customers_and_insights_have_the_recorded_shapes(
    browser: Browser, graph_token: str, samples: Path
) -> None:
    theirs = (samples / "graph" / "gdap_customers_list.response.http").read_text("utf-8")
    insights = json.loads((samples / "graph" / "security_customer_insights.json").read_text("utf-8"))

    ours = browser.get(f"{GRAPH}/v1.0/tenantRelationships/delegatedAdminCustomers", graph_token)
    pages = follow(browser, graph_token, INSIGHTS)

    assert keys(ours.json()) - {".@odata.nextLink"} == keys(json.loads(theirs[theirs.index("{") :]))
    assert keys(pages[-1]) - {".@odata.context"} == keys(insights)
    assert sum(len(page["value"]) for page in pages) == 1203


def test_the_security_score_falls_with_each_account_without_mfa(
    browser: Browser, partner: Tenant, graph_token: str
) -> None:
    address = f"{GRAPH}/beta/security/partner/securityScore"
    before = browser.get(address, graph_token).json()

    partner.add_account("another@contoso.test", mfa_possible=False)

    assert before["maxScore"] == 100
    assert browser.get(address, graph_token).json()["currentScore"] == before["currentScore"] - 12.5


@pytest.mark.parametrize("address", [GDAP, INSIGHTS, f"{GRAPH}/beta/security/partner/securityScore"])
def test_lists_of_graph_take_their_own_permission(browser: Browser, address: str) -> None:
    assert browser.get(address, browser.bearer(scope=f"{GRAPH}/User.Read.All")).status_code == 403


def test_a_skip_token_is_good_for_its_own_partner_only(browser: Browser, graph_token: str) -> None:
    link = browser.get(f"{GDAP}?$top=10", graph_token).json()["@odata.nextLink"]
    stranger = graph_bearer(browser, "svc@fabrikam.test")

    assert browser.get(link, stranger).status_code == 400
    assert browser.get(f"{GDAP}?$skiptoken=nonsense", graph_token).status_code == 400


@pytest.mark.parametrize("kind", ["foreign-next", "cyclic-next"])
def test_next_links_of_graph_can_lead_astray(world: World, browser: Browser, graph_token: str, kind: str) -> None:
    sound = browser.get(f"{GDAP}?$top=10", graph_token).json()["@odata.nextLink"]
    world.fail("graph", kind, tenant=PARTNER)

    link = browser.get(sound, graph_token).json()["@odata.nextLink"]

    assert link.startswith("https://graph.evil.test/") if kind == "foreign-next" else link == sound


@pytest.mark.parametrize(
    ("kind", "seen"),
    [("duplicates", 310), ("holes", 300), ("other-tenant", 40), ("circle-next", 1203)],
)
def test_pages_of_graph_can_be_wrong(world: World, browser: Browser, graph_token: str, kind: str, seen: int) -> None:
    world.fail("graph", kind, tenant=PARTNER, times=5)
    link = GDAP
    found: list[Body] = []

    for _ in range(5 if kind == "circle-next" else 1):
        body = browser.get(link, graph_token).json()
        link = body.get("@odata.nextLink", "")
        found += body["value"]

    assert len(found) == seen
    assert len({one["id"] for one in found}) == (300 if kind == "duplicates" else seen)
    assert sum("status" not in one for one in found) == (42 if kind == "holes" else 0)
    assert kind != "circle-next" or link


def test_a_customer_may_have_several_relationships_or_none(
    world: World, browser: Browser, partner: Tenant, graph_token: str
) -> None:
    partner.customer_overrides = {
        0: {"relationships": []},
        1: {"relationships": [{"status": "expired"}, {"endsInDays": 12, "displayName": "Another"}]},
    }

    found = [one for page in follow(browser, graph_token, f"{GDAP}?$top=2") for one in page["value"]]

    theirs = [one for one in found if one["customer"]["tenantId"] == partner.customers.at(1).tenant_id]
    assert [(one["status"], one["displayName"] == "Another") for one in theirs] == [
        ("expired", False),
        ("active", True),
    ]
    assert not any("endsInDays" in one for one in theirs)
    assert len({one["id"] for one in found}) == len(found) == 1203
    assert partner.customers.at(0).tenant_id not in {one["customer"]["tenantId"] for one in found}
