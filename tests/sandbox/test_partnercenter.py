from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote

import pytest
import requests

from sandbox.customers import Customers
from sandbox.directory import Tenant
from sandbox.world import World
from tests.sandbox.conftest import GRAPH, OTHER, PARTNER, PC, Browser, Clock
from tests.sandbox.reading import LIST, follow, keys


@pytest.fixture
def token(browser: Browser) -> str:
    return browser.bearer()


def test_the_list_comes_in_pages_of_500_and_is_complete(browser: Browser, partner: Tenant, token: str) -> None:
    pages = follow(browser, token)

    ids = [item["id"] for page in pages for item in page["items"]]
    assert [len(page["items"]) for page in pages] == [500, 500, 203]
    assert ids == [customer.tenant_id for customer in partner.customers]
    assert len(set(ids)) == 1203
    assert {page["totalCount"] for page in pages} == {1203}


def test_the_next_link_has_no_version_and_needs_its_header(browser: Browser, token: str) -> None:
    link = browser.get(LIST, token).json()["links"]["next"]

    assert link["uri"] == "/customers?size=500&seekOperation=Next"
    assert [header["key"] for header in link["headers"]] == ["MS-ContinuationToken"]
    assert browser.get(f"{PC}/v1{link['uri']}", token).status_code == 400


def test_a_switch_puts_the_version_into_the_next_link(world: World, browser: Browser, token: str) -> None:
    world.next_link_with_v1 = True

    assert browser.get(LIST, token).json()["links"]["next"]["uri"].startswith("/v1/customers?")


def test_a_page_never_has_more_than_500(browser: Browser, token: str) -> None:
    assert len(browser.get(f"{PC}/v1/customers?size=5000", token).json()["items"]) == 500
    assert len(browser.get(f"{PC}/v1/customers?size=2", token).json()["items"]) == 2
    assert browser.get(f"{PC}/v1/customers?size=many", token).status_code == 400


def test_a_continuation_token_is_good_for_its_own_partner_only(browser: Browser, token: str) -> None:
    value = browser.get(LIST, token).json()["links"]["next"]["headers"][0]["value"]
    other = browser.bearer("svc@fabrikam.test")

    answer = browser.get(f"{LIST}&seekOperation=Next", other, **{"MS-ContinuationToken": value})

    assert answer.status_code == 400
    assert browser.get(LIST, token, **{"MS-ContinuationToken": "garbage"}).status_code == 400


def test_customers_can_be_found_by_the_beginning_of_their_name(browser: Browser, partner: Tenant, token: str) -> None:
    wanted = [c.tenant_id for c in partner.customers if c.company_name.lower().startswith("fou")]
    query = quote(json.dumps({"Field": "CompanyName", "Value": "fou", "Operator": "starts_with"}))

    pages = follow(browser, token, f"{PC}/v1/customers?size=5&filter={query}")

    assert len(pages) > 1
    assert [item["id"] for page in pages for item in page["items"]] == wanted
    assert pages[0]["totalCount"] == len(wanted)


@pytest.mark.parametrize("text", ["nonsense", '{"Field":"Email","Value":"a","Operator":"starts_with"}', "[]"])
def test_a_filter_it_does_not_know_is_400(browser: Browser, token: str, text: str) -> None:
    assert browser.get(f"{PC}/v1/customers?filter={quote(text)}", token).status_code == 400


def test_one_customer_has_more_than_the_list_tells(browser: Browser, partner: Tenant, token: str) -> None:
    customer = partner.customers.at(700)

    body = browser.get(f"{PC}/v1/customers/{customer.tenant_id}", token).json()

    assert body["companyProfile"]["companyName"] == customer.company_name
    assert {"billingProfile", "commerceId", "customDomains"} <= set(body)
    assert browser.get(f"{PC}/v1/customers/{OTHER}", token).status_code == 404


def test_the_organization_profile_is_for_every_user(browser: Browser) -> None:
    answer = browser.get(f"{PC}/v1/profiles/organization", browser.bearer("help@contoso.test"))

    assert answer.status_code == 200
    body = answer.json()
    assert (body["tenantId"], body["companyName"]) == (PARTNER, "Contoso")
    assert body["attributes"] == {"objectType": "OrganizationProfile"}


@pytest.mark.parametrize(("account", "status"), [("sales@contoso.test", 200), ("help@contoso.test", 403)])
def test_customers_are_for_admin_and_sales_agents(browser: Browser, account: str, status: int) -> None:
    answer = browser.get(LIST, browser.bearer(account))

    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == 2032


def test_a_token_for_graph_is_refused_by_number(browser: Browser) -> None:
    answer = browser.get(LIST, browser.bearer(scope=f"{GRAPH}/User.Read.All"))

    assert (answer.status_code, answer.json()["code"]) == (401, "900420")
    assert answer.headers["WWW-Authenticate"].startswith("OAuth realm=")


def test_a_token_without_mfa_is_refused_by_number(world: World, browser: Browser, partner: Tenant) -> None:
    token = browser.bearer(mfa="no")

    answer = browser.get(LIST, token, ValidateMfa="true")

    assert (answer.status_code, answer.json()["code"]) == (401, "900421")
    assert answer.headers["isMfaCompliant"] == "false"
    partner.require_mfa = False
    assert browser.get(LIST, token).status_code == 200


def test_lost_mfa_counts_at_once_and_comes_back(world: World, browser: Browser, partner: Tenant, token: str) -> None:
    world.ledger.lose_mfa(partner)
    assert browser.get(LIST, token).json()["code"] == "900421"
    assert browser.get(LIST, browser.bearer()).status_code == 200

    world.ledger.regain_mfa(partner)

    assert browser.get(LIST, token).status_code == 200


def test_the_mfa_header_comes_only_when_asked_for(browser: Browser, token: str) -> None:
    assert browser.get(LIST, token, ValidateMfa="true").headers["isMfaCompliant"] == "true"
    assert "isMfaCompliant" not in browser.get(LIST, token).headers


@pytest.mark.parametrize("bad", ["garbage", "a.b.c", ""])
def test_garbage_is_401(browser: Browser, bad: str) -> None:
    assert browser.get(LIST, bad).status_code == 401


def test_a_changed_token_is_401(browser: Browser, token: str) -> None:
    head, body, signature = token.split(".")

    assert browser.get(LIST, f"{head}.{body}.{signature[:-8]}AAAAAAAA").status_code == 401


def test_an_expired_token_is_401(browser: Browser, token: str, clock: Clock) -> None:
    clock.now += 3600

    assert browser.get(LIST, token).status_code == 401


def test_request_ids_come_back(browser: Browser, token: str) -> None:
    answer = browser.get(LIST, token, **{"MS-RequestId": "r-1", "MS-CorrelationId": "c-1"})

    assert (answer.headers["MS-RequestId"], answer.headers["MS-CorrelationId"]) == ("r-1", "c-1")
    assert {"MS-CV", "MS-ServerId", "Request-Context"} <= set(answer.headers)
    assert browser.get(LIST, "garbage").headers["MS-RequestId"]


def test_partners_have_their_own_customers(browser: Browser, token: str) -> None:
    other = follow(browser, browser.bearer("svc@fabrikam.test"))

    mine = {item["id"] for page in follow(browser, token) for item in page["items"]}
    assert len(other[0]["items"]) == 40
    assert mine.isdisjoint(item["id"] for item in other[0]["items"])


# the computed customers


def test_the_same_seed_makes_the_same_customers_and_another_does_not() -> None:
    first, same, other = Customers(1, PARTNER, 9), Customers(1, PARTNER, 9), Customers(2, PARTNER, 9)

    assert list(first) == list(same)
    assert {c.tenant_id for c in first}.isdisjoint(c.tenant_id for c in other)


def test_a_customer_is_found_again_by_its_id() -> None:
    customers = Customers(1, PARTNER, 1000)

    assert all(customers.find(customers.at(i).tenant_id) == customers.at(i) for i in range(0, 1000, 37))
    assert customers.find(customers.at(1000).tenant_id) is None
    assert customers.find("not a guid") is None
    assert customers.find(customers.at(3).tenant_id.upper()) == customers.at(3)


@pytest.mark.parametrize("name", ["", "x" * 200, "\u0634\u0631\u0643\u0629 \u200f", "<b>&amp;\"'</b>"])
def test_single_customers_can_have_any_name(browser: Browser, partner: Tenant, token: str, name: str) -> None:
    partner.customer_overrides = {1: {"companyName": name}}

    items = browser.get(LIST, token).json()["items"]

    assert items[1]["companyProfile"]["companyName"] == name


def test_removed_customers_are_gone_and_the_others_stay_what_they_were(
    browser: Browser, partner: Tenant, token: str
) -> None:
    before = [item["id"] for page in follow(browser, token) for item in page["items"]]
    partner.customers.removed = {0, 600}

    pages = follow(browser, token)

    after = [item["id"] for page in pages for item in page["items"]]
    assert after == [one for index, one in enumerate(before) if index not in (0, 600)]
    assert pages[0]["totalCount"] == 1201
    assert browser.get(f"{PC}/v1/customers/{before[600]}", token).status_code == 404


def test_a_page_of_a_hundred_thousand_is_cheap(browser: Browser, partner: Tenant, token: str) -> None:
    partner.customers.count = 100_000
    browser.get(LIST, token)

    started = perf_counter()
    browser.get(LIST, token)

    # a few milliseconds here; the bound only catches a world that holds or walks the whole list
    assert perf_counter() - started < 0.1


# faults


def test_html_instead_of_data(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "html", tenant=PARTNER, times=1)

    answer = browser.get(LIST, token)

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert browser.get(LIST, token).json()["totalCount"] == 1203


def test_truncated_json(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "truncated")

    with pytest.raises(requests.exceptions.JSONDecodeError):
        browser.get(LIST, token).json()


def test_a_byte_order_mark(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "bom")

    assert browser.get(LIST, token).content.startswith(b"\xef\xbb\xbf{")


def test_throttling_has_the_gateways_shape(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "throttled", retry_after=57)

    answer = browser.get(LIST, token)

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "57")
    assert answer.json() == {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 57 seconds."}


@pytest.mark.parametrize(("kind", "status"), [("500", 500), ("503", 503), ("unauthorized", 401), ("forbidden", 403)])
def test_plain_failures(world: World, browser: Browser, token: str, kind: str, status: int) -> None:
    world.fail("partnercenter", kind)

    assert browser.get(LIST, token).status_code == status


def test_mfa_demanded_by_a_fault(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "mfa")

    assert browser.get(LIST, token).json()["code"] == "900421"


@pytest.mark.parametrize(
    ("kind", "uri"), [("foreign-next", "https://customers.evil.test/v1/customers"), ("v1-next", "/v1/customers?")]
)
def test_next_links_that_lead_astray(world: World, browser: Browser, token: str, kind: str, uri: str) -> None:
    world.fail("partnercenter", kind)

    assert browser.get(LIST, token).json()["links"]["next"]["uri"].startswith(uri)


def test_a_next_link_in_a_circle(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "cyclic-next")
    first = browser.get(LIST, token).json()
    header = first["links"]["next"]["headers"][0]

    second = browser.get(f"{LIST}&seekOperation=Next", token, **{header["key"]: header["value"]}).json()

    assert second["items"] == first["items"]
    assert second["links"]["next"] == first["links"]["next"]


def test_a_page_that_repeats_itself(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "duplicates")

    ids = [item["id"] for item in browser.get(LIST, token).json()["items"]]

    assert ids[500:] == ids[:10]


def test_another_partners_page(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "other-tenant")

    ids = {item["id"] for item in browser.get(LIST, token).json()["items"]}

    assert world.tenants[OTHER].customers.at(0).tenant_id in ids


def test_a_fault_of_one_partner_leaves_the_others_alone(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "500", tenant=OTHER)

    assert browser.get(LIST, token).status_code == 200
    assert browser.get(LIST, browser.bearer("svc@fabrikam.test")).status_code == 500


def test_healing_takes_faults_away(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "500")
    world.fail("graph", "500")

    world.heal("partnercenter")

    assert browser.get(LIST, token).status_code == 200
    assert [fault.service for fault in world.faults] == ["graph"]


def test_faults_that_do_not_exist_are_refused(world: World) -> None:
    for service, kind in (("partnercenter", "sulks"), ("exchange", "500"), ("vault", "foreign-next")):
        with pytest.raises(ValueError, match="no"):
            world.fail(service, kind)


def test_slowness_passes_time_on_the_worlds_clock(world: World, browser: Browser, token: str, clock: Clock) -> None:
    world.fail("partnercenter", "slow", seconds=7, times=1)
    world.tenants[PARTNER].latency = 1.5

    browser.get(LIST, token)
    browser.get(LIST, token)

    assert clock.slept == [8.5, 1.5]


# shapes


def test_the_list_has_what_the_recorded_list_has(browser: Browser, token: str, samples: Path) -> None:
    recorded = json.loads((samples / "bodies_2021" / "get-a-list-of-customers.01.json").read_text("utf-8-sig"))

    assert keys(recorded) <= keys(browser.get(f"{PC}/v1/customers?size=5", token).json())


def test_the_list_has_nothing_that_recorded_lists_lack(browser: Browser, token: str, samples: Path) -> None:
    recorded = json.loads((samples / "bodies_2021" / "get-a-customer-by-name.02.json").read_text("utf-8-sig"))

    paging = {name for name in keys(browser.get(LIST, token).json()) if name.startswith(".links")}
    assert keys(browser.get(LIST, token).json()) - paging <= keys(recorded)


def test_one_customer_has_the_recorded_parts(browser: Browser, partner: Tenant, token: str, samples: Path) -> None:
    recorded = json.loads((samples / "bodies_2021" / "get-a-customer-by-id.01.json").read_text("utf-8-sig"))

    ours = browser.get(f"{PC}/v1/customers/{partner.customers.at(1).tenant_id}", token).json()

    assert set(recorded) == set(ours)
    assert set(ours["companyProfile"]) == set(recorded["companyProfile"])


def test_errors_have_the_recorded_shapes(world: World, browser: Browser, token: str, samples: Path) -> None:
    recorded = json.loads((samples / "errors" / "error_samples_from_docs.json").read_text("utf-8"))
    bodies = {entry["page"]: json.loads(entry["raw"][entry["raw"].index("{") :]) for entry in recorded if _whole(entry)}

    classic = browser.get(f"{PC}/v1/customers/{OTHER}", token).json()
    world.fail("partnercenter", "throttled")
    gateway = browser.get(LIST, token).json()

    assert set(classic) == set(bodies["get-partner-by-mpn-id"])
    assert set(gateway) == set(bodies["api-throttling-guidance"])


def _whole(entry: dict[str, str]) -> bool:
    try:
        json.loads(entry["raw"][entry["raw"].index("{") :])
    except ValueError:
        return False
    return True


# users of a customer


def users_of(partner: Tenant, index: int = 7) -> str:
    return f"{PC}/v1/customers/{partner.customers.at(index).tenant_id}/users?size=500"


def body_of(answer: requests.Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.content.decode("utf-8-sig"))
    return found


def test_the_users_of_a_customer_are_the_same_every_time(browser: Browser, partner: Tenant, token: str) -> None:
    once, again = (body_of(browser.get(users_of(partner), token)) for _ in range(2))

    assert once == again
    assert once["totalCount"] == len(once["items"]) >= 3
    assert {"id", "userPrincipalName", "displayName", "state"} <= set(once["items"][0])
    assert {item["state"] for item in once["items"]} == {"active"}
    other = body_of(browser.get(users_of(partner, 8), token))
    assert {item["id"] for item in other["items"]}.isdisjoint(item["id"] for item in once["items"])


def test_users_come_behind_a_byte_order_mark(
    world: World, browser: Browser, partner: Tenant, token: str, http: requests.Session
) -> None:
    assert browser.get(users_of(partner), token).content.startswith(b"\xef\xbb\xbf{")
    world.bom_before_users = False
    assert browser.get(users_of(partner), token).content.startswith(b"{")
    world.reset()
    assert world.bom_before_users


def test_users_come_in_pages_of_their_own_customer(browser: Browser, partner: Tenant, token: str) -> None:
    partner.customer_overrides = {7: {"users": 1203}}
    sizes, url, headers = [], users_of(partner), {}
    while url:
        page = body_of(browser.get(url, token, **headers))
        sizes.append(len(page["items"]))
        link = page["links"].get("next")
        url = f"{PC}/v1{link['uri']}" if link else ""
        headers = {header["key"]: header["value"] for header in link["headers"]} if link else headers

    assert sizes == [500, 500, 203]
    assert browser.get(users_of(partner, 8), token, **headers).status_code == 400
    assert browser.get(LIST, token, **headers).status_code == 400


def test_the_users_of_somebody_elses_customer_are_not_found(browser: Browser, partner: Tenant, token: str) -> None:
    answer = browser.get(f"{PC}/v1/customers/{OTHER}/users", token)

    assert (answer.status_code, answer.json()["code"]) == (404, 3000)
    assert browser.get(f"{users_of(partner).partition('/users')[0]}/licenses", token).status_code == 404


def test_without_a_role_in_the_customer_its_users_are_refused(
    browser: Browser, partner: Tenant, token: str, http: requests.Session
) -> None:
    told = http.post("http://localhost:8400/_sandbox/scenario", json={"name": "gdap-missing", "tenant": PARTNER})
    assert told.status_code == 200

    answer = browser.get(users_of(partner), token)
    assert (answer.status_code, answer.json()["code"]) == (403, 900308)
    assert browser.get(LIST, token).status_code == 200

    http.post("http://localhost:8400/_sandbox/scenario", json={"name": "healthy", "tenant": PARTNER})
    assert browser.get(users_of(partner), token).status_code == 200
    assert browser.get(users_of(partner), browser.bearer("sales@contoso.test")).json()["code"] == 900308
