"""What was read beside the customers, and a removal that is undone, in Chromium."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looks import Looks
from tests.browser.visits import accept, choose, to_microsoft
from tests.live import CONTOSO, Live, service_account

pytestmark = pytest.mark.browser
ACCOUNT = service_account("contoso")
READ = """
from django.utils import timezone
from partners.models import Customer, CustomerUser, Job, ListState, SubscribedSku
customer = Customer.objects.select_related("partner").get(
    tenant_id={tenant_id!r}, removed_at=None, partner__offboarded_at=None
)
of_it = dict(partner=customer.partner, customer=customer, content_hash=b"0" * 16)
Job.objects.get_or_create(partner=customer.partner, kind="users", defaults=dict(next_run_at=None))
for kind in ("licences", "users"):
    for lane in range(4):
        at = dict(completed_at=timezone.now())
        ListState.objects.update_or_create(partner=customer.partner, kind=kind, lane=f"{{lane}}/4", defaults=at)
SubscribedSku.objects.filter(customer=customer).delete()
for number, name in enumerate(("Microsoft 365 Business Premium", "Teams Rooms Pro without audio conferencing")):
    SubscribedSku.objects.create(
        **of_it, key=name, sku_id=name, name=name, total_units=1200, consumed_units=1100 + number, available_units=None,
        capability_status="enabled" if number else "suspended",
    )
for number in range(60):
    CustomerUser.objects.create(
        **of_it, key=str(number), user_id=str(number), name=f"Somebody with a name {{number:02}}", state="active",
        sign_in_name=f"somebody.with.a.very.long.sign.in.name.{{number}}@customer.onmicrosoft.test",
    )
"""
TAKEN = """
from partners.models import Customer, ListState, Partner, Run, UnprovenPrincipal
partner = Partner.objects.get(tenant_id={tenant!r}, offboarded_at=None)
run = Run.objects.filter(partner=partner, job__kind="customers", outcome="done").latest("pk")
Run.objects.filter(pk=run.pk).update(removed=2)
gone = list(Customer.objects.filter(partner=partner).order_by("-pk").values_list("pk", flat=True)[:2])
Customer.objects.filter(pk__in=gone).update(removed_at=run.finished_at, removed_reason="absent")
ListState.objects.update_or_create(partner=partner, kind="mfa", lane="", defaults=dict(completed_at=run.finished_at))
UnprovenPrincipal.objects.create(
    partner=partner, key="old", sign_in_name="an.account.with.a.long.name@contoso.test", content_hash=b"0" * 16
)
"""
DELEGATED = """
import datetime as dt
from django.utils import timezone
from partners import gdap
from partners.models import Customer, ListState, Relationship
from partners.models.estate import NO_END
customer = Customer.objects.select_related("partner").get(
    tenant_id={tenant_id!r}, removed_at=None, partner__offboarded_at=None
)
partner, now = customer.partner, timezone.now()
Relationship.objects.filter(partner=partner).delete()
ListState.objects.update_or_create(partner=partner, kind="relationships", lane="", defaults=dict(completed_at=now))
one = " ".join(list(gdap.ROLES)[:9])
for number, (name, status, days, extends, roles) in enumerate((
    ("Care for everybody, in all of their services", "active", 12, "PT0S", one + " " + gdap.GLOBAL_ADMINISTRATOR),
    ("Read only", "active", 20, "PT0S", one),
    ("Goes on", "active", 200, "P180D", one),
    ("Waiting", "approvalpending", None, "PT0S", one + " dd4db9a0-cc4a-4213-9f9f-70242232d97e"),
    ("Old", "expired", -40, "PT0S", one),
)):
    end = now + dt.timedelta(days=days) if days else None
    lapses = end if status == "active" and extends == "PT0S" else None
    Relationship.objects.create(
        partner=partner, key=str(number), relationship_id="a-" + 70 * "b", name=name, status=status, roles=roles,
        customer_tenant_id=customer.tenant_id if number != 1 else partner.tenant_id, customer_name=customer.name,
        end_at=end, lists_by=end or NO_END, lapses_at=lapses, auto_extend=extends, duration="P730D",
        created_at=now, is_over=status == "expired", content_hash=b"0" * 16,
    )
"""


@pytest.fixture(scope="module")
def connected(live: Live, page: Page) -> Page:
    live.scenario("consent-removed", "Contoso")
    page.goto(live.invitation())
    to_microsoft(page, "Continue to Microsoft")
    choose(page, ACCOUNT, mfa=True)
    accept(page)
    page.wait_for_url("**/customers/", timeout=60_000)
    return page


def test_licences_and_users_stand_on_a_customers_page(connected: Page, live: Live, looks: Looks) -> None:
    page = connected
    page.locator("tbody th a").first.click()
    expect(page.get_by_role("heading", name="Licences")).to_be_visible()
    looks.at(page, "customer-unread", axe_everywhere=False, tab=False)
    live.python(READ.format(tenant_id=re.findall(r"[0-9a-f-]{36}", page.url)[0]))
    page.reload()
    expect(page.get_by_text("60 users")).to_be_visible()
    looks.at(page, "customer-holdings")
    page.get_by_role("link", name="List them").click()
    expect(page.locator("h1")).to_have_text("Users")
    looks.at(page, "customer-users-read", tab=False)
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_text("10 shown on this page")).to_be_visible()


def test_delegated_access_stands_on_a_customers_page_and_in_a_list_by_its_end(
    connected: Page, live: Live, looks: Looks
) -> None:
    page = connected
    page.goto(f"{live.url}/customers/")
    page.locator("tbody th a").first.click()
    expect(page.get_by_role("heading", name="Delegated access (GDAP)")).to_be_visible()
    live.python(DELEGATED.format(tenant_id=re.findall(r"[0-9a-f-]{36}", page.url)[0]))
    page.reload()
    expect(page.get_by_text("take Global Administrator out of it")).to_be_visible()
    looks.at(page, "customer-relationships")

    page.goto(live.url)
    expect(page.get_by_text("2 GDAP relationships end within 30 days")).to_be_visible()
    looks.at(page, "home-relationships", axe_everywhere=False, tab=False)
    page.get_by_role("link", name="see which, and what to do").click()
    expect(page.locator("h1")).to_have_text("GDAP relationships")
    looks.at(page, "relationships-soon")
    page.get_by_role("link", name="In force and to come").click()
    expect(page.get_by_text("4 shown on this page")).to_be_visible()
    looks.at(page, "relationships", axe_everywhere=False, tab=False)
    page.get_by_role("link", name="Ended", exact=True).click()
    expect(page.get_by_text("1 shown on this page")).to_be_visible()


def test_a_removal_is_undone_by_one_button(connected: Page, live: Live, looks: Looks) -> None:
    page = connected
    live.python(TAKEN.format(tenant=CONTOSO))
    page.get_by_role("link", name="Connection").click()
    expect(page.get_by_text("an.account.with.a.long.name")).to_be_visible()
    looks.at(page, "connection-without-mfa", axe_everywhere=False)

    page.goto(f"{live.url}/jobs/")
    looks.at(page, "jobs-with-users", tab=False)
    page.get_by_role("link", name=re.compile("^Bring them back")).click()
    expect(page.locator("h1")).to_have_text("Customers: taken away")
    looks.at(page, "removed")
    page.get_by_role("button", name="Bring them back").click()
    expect(page.get_by_text("2 are back.")).to_be_visible()
    looks.at(page, "jobs-brought-back", axe_everywhere=False, tab=False)


def test_without_complaints(looks: Looks) -> None:
    assert not looks.wrong, "\n".join(looks.wrong)
