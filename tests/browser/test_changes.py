"""Changing a subscription in Chromium, with a worker of its own: every page of the way is looked at."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from sandbox import subscriptions
from sandbox.customers import Customer
from tests.browser.looks import Looks
from tests.browser.visits import accept, choose, to_microsoft
from tests.live import Live, service_account

pytestmark = pytest.mark.browser
ACCOUNT = service_account("contoso")
MIRRORED = """
from partners.models import Customer, Subscription
present = Customer.objects.select_related("partner").filter(removed_at=None, partner__offboarded_at=None)
customer = present.get(tenant_id={customer!r})
for row in {rows!r}:
    Subscription.objects.update_or_create(
        partner=customer.partner, customer=customer, key=row["id"].lower(), defaults=dict(
            subscription_id=row["id"], friendly_name=row["friendlyName"], quantity=row["quantity"],
            status=row["status"], auto_renew=row["autoRenewEnabled"], content_hash=b"0" * 16,
            renewal="renews" if row["autoRenewEnabled"] else "extends", commitment_end_at=row["commitmentEndDate"],
        ),
    )
"""


@pytest.fixture(scope="module")
def listed(live: Live, page: Page) -> Page:
    """At the subscriptions of a customer, of which the first can have another number."""
    live.scenario("consent-removed", "Contoso")
    page.goto(live.invitation())
    to_microsoft(page, "Continue to Microsoft")
    choose(page, ACCOUNT, mfa=True)
    accept(page)
    page.wait_for_url("**/customers/", timeout=60_000)
    links = page.locator("tbody th a")
    for number in range(links.count()):
        tenant_id = re.findall(r"[0-9a-f-]{36}", links.nth(number).get_attribute("href") or "")[0]
        customer = Customer(index=0, tenant_id=tenant_id, company_name="", domain="", relationship="")
        rows = [subscriptions.at(customer, index) for index in range(subscriptions.count(customer, {}))]
        if len(rows) > 2 and rows[0]["billingType"] == "license":
            break
    live.python(MIRRORED.format(customer=tenant_id, rows=rows))
    links.nth(number).click()
    page.get_by_role("link", name="Subscriptions").click()
    return page


def test_a_number_is_changed_and_every_page_is_fit_to_be_seen(listed: Page, looks: Looks) -> None:
    page = listed
    expect(page.locator("h1")).to_have_text("Subscriptions")
    looks.at(page, "subscriptions")

    page.get_by_role("button", name=re.compile("^Change")).first.click()
    expect(page.get_by_role("heading", name="How it stands")).to_be_visible(timeout=60_000)
    looks.at(page, "change-choose")
    seats = int(page.get_by_label("Number of licences").input_value())
    page.get_by_label("Number of licences").fill("none")
    page.get_by_role("button", name="See what that means for the number").click()
    expect(page.get_by_text("Write a whole number")).to_be_visible()
    looks.at(page, "change-wrong", tab=False)

    page.get_by_label("Number of licences").fill(str(seats + 5))
    page.get_by_role("button", name="See what that means for the number").click()
    expect(page.get_by_text("5 more licences")).to_be_visible()
    looks.at(page, "change-preview")
    page.get_by_role("button", name="Yes, change it at Microsoft").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible(timeout=60_000)
    looks.at(page, "change-done")
    page.get_by_role("link", name="Subscriptions of").click()
    expect(page.get_by_text(f"→ {seats + 5:,} licences")).to_be_visible()
    looks.at(page, "subscriptions-changed", tab=False)


def test_what_microsoft_refuses_says_who_acts(listed: Page, looks: Looks) -> None:
    page = listed
    page.get_by_role("button", name=re.compile("^Change")).first.click()
    page.get_by_label("Number of licences").fill("20,000", timeout=60_000)
    page.get_by_role("button", name="See what that means for the number").click()
    page.get_by_role("button", name="Yes, change it at Microsoft").click()
    expect(page.get_by_role("heading", name="Microsoft does not allow that number")).to_be_visible(timeout=60_000)
    looks.at(page, "change-refused")


def test_turning_the_renewal_says_what_follows(listed: Page, looks: Looks) -> None:
    page = listed
    page.get_by_role("button", name="Look again").click()
    page.get_by_role("button", name=re.compile("See what turning it")).click(timeout=60_000)
    expect(page.get_by_role("heading", name="What would change")).to_be_visible()
    looks.at(page, "change-renewal", tab=False)


def test_without_complaints(looks: Looks) -> None:
    assert not looks.wrong, "\n".join(looks.wrong)
