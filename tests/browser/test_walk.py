"""The whole story in Chromium, under the real Content-Security-Policy: every page on the way is looked at."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.looks import Looks
from tests.browser.visits import accept, choose, new_page, to_microsoft
from tests.live import CONTOSO, Live, service_account, until

pytestmark = pytest.mark.browser

ACCOUNT = service_account("contoso")


@pytest.fixture(scope="module")
def arrived(live: Live, page: Page, looks: Looks) -> Page:
    """From the invitation to the list of customers; every page on the way is looked at."""
    live.scenario("consent-removed", "Contoso")  # whoever walked before agreed already, and would not be asked
    live.scenario("latency", "Contoso", seconds=1.5)  # so that a number on the way can be seen
    page.goto(live.invitation())
    looks.at(page, "invitation")

    to_microsoft(page, "Continue to Microsoft")
    choose(page, ACCOUNT, mfa=False)
    accept(page)
    expect(page.locator("h1")).to_have_text(re.compile("MFA"))
    expect(page.get_by_text("Nothing was stored.")).to_be_visible()
    looks.at(page, "refused")

    page.get_by_role("link", name="Open the invitation again").click()
    to_microsoft(page, "Continue to Microsoft")
    looks.at(page, "pretended-picker")
    choose(page, ACCOUNT, mfa=True)
    page.wait_for_url("**/connect/connected")
    assert page.evaluate("location.search") == ""

    progress = page.locator("#progress")
    expect(progress).to_contain_text(re.compile(r"(500|1,000) / 1,200 customers"), timeout=60_000)
    held: list[Route] = []
    # The page asks each second; while it waits for the answer it stands still.
    page.route("**/progress?*", lambda route: held.append(route))
    looks.at(page, "connected-counting", tab=False)
    live.scenario("latency", "Contoso", seconds=0)
    for route in held:
        route.continue_()
    page.unroute("**/progress?*")
    page.wait_for_url("**/customers/")
    return page


# --- The walk -------------------------------------------------------------------------------------------------------
def test_the_visitor_arrives_at_the_customers_by_itself(arrived, looks):
    expect(arrived.locator("h1")).to_have_text("Customers")
    expect(arrived.get_by_text("1,200 customers")).to_be_visible()
    looks.at(arrived, "customers")


def test_search_finds_a_customer_and_its_page(arrived, looks):
    name = arrived.locator("tbody th a").nth(3).inner_text()
    arrived.get_by_role("searchbox").fill(name)
    arrived.get_by_role("button", name="Search").click()
    expect(arrived.locator("tbody tr").first).to_contain_text(name)
    looks.at(arrived, "search", tab=False)

    arrived.get_by_role("link", name=name, exact=True).first.click()
    expect(arrived.locator("h1")).to_have_text(name)
    looks.at(arrived, "customer")


def test_search_that_finds_nothing_says_so(live, arrived, looks):
    arrived.goto(f"{live.url}/customers/?q=no-such-customer")
    expect(arrived.get_by_role("heading", name="Nothing found for")).to_be_visible()
    looks.at(arrived, "search-nothing")


def test_home_says_how_things_stand(arrived, looks):
    arrived.get_by_role("link", name="Home", exact=True).click()
    expect(arrived.get_by_role("heading", name="Connection: Connected")).to_be_visible()
    looks.at(arrived, "home")


def test_the_connected_page_stays_readable_after_the_sync(live, arrived, looks):
    arrived.goto(f"{live.url}/connect/connected")
    expect(arrived.locator("#progress")).to_contain_text("1,200 customers read")
    looks.at(arrived, "connected-done")


def test_names_of_every_kind_stay_text_and_break_nothing(live, arrived, looks):
    live.python(NASTY_NAMES)
    arrived.goto(f"{live.url}/customers/?q=zznasty")
    expect(arrived.locator("tbody tr")).to_have_count(4)
    expect(arrived.get_by_text(MARKUP, exact=True).first).to_be_visible()
    looks.at(arrived, "nasty-list", tab=False)

    for number in range(4):
        arrived.goto(f"{live.url}/customers/00000000-0000-4000-8000-00000000000{number}/")
        expect(arrived.locator("h1")).not_to_be_empty()
        looks.at(arrived, f"nasty-customer-{number}", axe_everywhere=False, tab=False)
    assert arrived.locator("img[src=x]").count() == 0


def test_a_partner_with_a_nasty_name_still_has_a_home(live, arrived, looks):
    for number, name in enumerate((MARKUP, "\u0634\u0631\u0643\u0629 (\u202eABC\u202c) 12", "W" * 200)):
        live.python(f"from partners.models import Partner; Partner.objects.filter({ITS_ROW}).update(name={name!r})")
        arrived.goto(live.url)
        expect(arrived.locator("h1")).to_have_text(name)
        looks.at(arrived, f"nasty-home-{number}", axe_everywhere=False, tab=False)
    live.python(f"from partners.models import Partner; Partner.objects.filter({ITS_ROW}).update(name='Contoso')")


def test_pressing_sync_now_shows_at_once_that_something_happens(live, arrived):
    arrived.goto(live.url)
    arrived.get_by_role("button", name="Sync now").click()

    expect(arrived.locator("#progress")).to_contain_text(re.compile("Sync (queued|running)"))
    expect(arrived.get_by_role("button", name="Sync now")).to_be_visible()  # it ended, and the page read itself again


def test_the_jobs_are_told_in_words_in_whatever_state_they_are(live, arrived, looks):
    live.python(JOBS_IN_EVERY_STATE)
    arrived.goto(f"{live.url}/jobs/")
    for state in ("Running", "Paused", "Waiting", "Held", "Failed"):
        expect(arrived.get_by_text(state, exact=True).first).to_be_visible()
    looks.at(arrived, "jobs")

    # Who walks by keyboard stays where they are when the list is read anew.
    arrived.get_by_role("button", name="Resume Subscriptions").focus()
    arrived.evaluate("window.__focused = document.activeElement")
    until(lambda: not arrived.evaluate("document.body.contains(window.__focused)"), 15, what="it was read anew")
    expect(arrived.get_by_role("button", name="Resume Subscriptions")).to_be_focused()

    arrived.get_by_role("button", name="Resume Subscriptions").click()
    expect(arrived.get_by_text("It goes on from where it was.")).to_be_visible()
    live.python("from partners.models import Job; Job.objects.exclude(kind='customers').delete()")
    live.python("from partners.models import Job; Job.objects.update(leased_until=None)")


def test_an_owner_reads_the_evidence_and_takes_it_along(live, arrived, looks):
    arrived.goto(f"{live.url}/evidence/")
    expect(arrived.get_by_text("Generation 1")).to_be_visible()
    looks.at(arrived, "evidence")
    with arrived.expect_download() as taken:
        arrived.get_by_role("button", name="As JSON").click()
    assert taken.value.suggested_filename.endswith(".json")


def test_going_red_and_reconnecting(live, arrived, looks):
    live.scenario("mfa-missing", "Contoso")
    red = arrived.get_by_role("heading", name="Connection: MFA missing")
    running = arrived.get_by_text(re.compile("Sync (queued|running)"))
    arrived.goto(live.url)
    sync_now = arrived.get_by_role("button", name="Sync now")
    if sync_now.is_visible():  # else other work of this partner was told already
        sync_now.click()
    until(lambda: arrived.goto(live.url) and red.is_visible(), 15, what="home says that MFA is missing")
    # While work is under way the page reads itself again, maybe just as it is looked at.
    until(lambda: arrived.goto(live.url) and not running.is_visible(), what="that work has ended")
    looks.at(arrived, "home-red")
    arrived.goto(f"{live.url}/customers/")
    looks.at(arrived, "customers-stale", tab=False)

    arrived.goto(live.url)
    to_microsoft(arrived, "Reconnect with Microsoft")
    choose(arrived, ACCOUNT, mfa=True)
    arrived.wait_for_url("**/customers/")
    arrived.goto(live.url)
    expect(arrived.get_by_role("heading", name="Connection: Connected")).to_be_visible()


def test_signing_out_and_in_again(live, arrived, looks):
    arrived.get_by_role("button", name="Sign out").click()
    expect(arrived.locator("h1")).to_have_text("You are signed out of CPV Panel")
    looks.at(arrived, "signed-out")

    arrived.get_by_role("link", name="Sign in again").click()
    looks.at(arrived, "signin")
    to_microsoft(arrived, "Sign in with Microsoft")
    choose(arrived, ACCOUNT, mfa=True)
    expect(arrived.get_by_role("heading", name="Connection: ")).to_be_visible()


def test_a_form_without_its_cookie_has_expired(live, arrived, looks):
    arrived.goto(live.url)
    arrived.context.clear_cookies(name="cpv_csrf")
    arrived.get_by_role("button", name="Sign out").click()

    expect(arrived.locator("h1")).to_have_text("This form has expired")
    looks.at(arrived, "form-expired")


def test_an_address_that_is_nowhere_has_a_page_of_its_own(live, arrived, looks):
    arrived.goto(f"{live.url}/no/such/page")

    expect(arrived.locator("h1")).to_have_text("There is nothing at this address")
    looks.at(arrived, "missing")


def test_an_unknown_invitation_says_who_acts(live, arrived, looks):
    arrived.goto(f"{live.url}/connect/never-was")

    expect(arrived.get_by_text("Who acts:")).to_be_visible()
    looks.at(arrived, "unknown-invitation", axe_everywhere=False)


@pytest.mark.parametrize("status", ["403", "404", "500"])
def test_pages_for_what_goes_wrong_are_fit_too(live, arrived, looks, status):
    """Shown from their template, under the policy of the real pages: a running stack does not fail on demand."""
    policy = arrived.request.get(f"{live.url}/signin").headers["content-security-policy"]
    html = live.python(
        "import json; from django.template.loader import render_to_string as render; from cpvpanel import views;"
        "known = {'sandbox': True, 'vendor_name': 'Panel Vendor'};"
        f"page = views.plain_page(500).content.decode() if {status} == 500 else render('{status}.html', known);"
        "print(json.dumps(page))"
    )
    headers = {"content-security-policy": policy, "content-type": "text/html; charset=utf-8"}
    arrived.route("**/shown/*", lambda route: route.fulfill(status=int(status), headers=headers, body=html))
    arrived.goto(f"{live.url}/shown/{status}")

    expect(arrived.get_by_role("link", name="Go to Home")).to_be_visible()
    looks.at(arrived, f"template-{status}", axe_everywhere=False)
    arrived.unroute("**/shown/*")


# --- Without JavaScript ---------------------------------------------------------------------------------------------
def test_everything_works_without_javascript(live, chromium, looks):
    context = chromium.new_context(java_script_enabled=False)
    page = new_page(context, looks)
    page.goto(live.invitation())
    to_microsoft(page, "Continue to Microsoft")
    choose(page, ACCOUNT, mfa=True)
    page.wait_for_url("**/connect/connected")

    progress = page.locator("#progress")
    expect(progress).to_contain_text(re.compile("First sync (queued|running)"))
    expect(progress).to_contain_text(re.compile(r"(500|1,000) / 1,200 customers"))  # the page read itself again
    expect(progress).to_contain_text("1,200 customers read")
    page.get_by_role("link", name="Show the customers").click()
    expect(page.locator("tbody tr")).to_have_count(50)

    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("h1")).to_have_text("You are signed out of CPV Panel")
    context.close()


# --- All of it ------------------------------------------------------------------------------------------------------
def test_every_page_on_the_way_is_fit_for_every_screen_and_the_browser_never_complained(arrived, looks):
    assert len(looks.seen) > 15
    assert not looks.wrong, "\n".join(looks.wrong)


MARKUP = '<img src=x onerror=alert(1)> zznasty & "quoted" {{ 7 }}'
ITS_ROW = f"tenant_id='{CONTOSO}', offboarded_at=None"
NASTY_NAMES = f"""
from partners.models import Customer, Partner
partner = Partner.objects.get({ITS_ROW})
names = ["", "zznasty" + "W" * 193, "\u0634\u0631\u0643\u0629 zznasty (\u05e9\u05dc\u05d5\u05dd) 12", {MARKUP!r}]
for number, name in enumerate(names):
    Customer.objects.create(
        partner=partner, tenant_id=f"00000000-0000-4000-8000-00000000000{{number}}", name=name,
        name_key=name.casefold(), domain="" if number == 2 else f"zznasty{{number}}" + "-long" * 30 + ".example",
        content_hash=bytes(16), relationship=["reseller", "", "none", "something_new"][number],
    )
"""
JOBS_IN_EVERY_STATE = f"""
import datetime as dt
from django.utils import timezone
from partners.models import Job, ListState, Partner, Run
partner, now = Partner.objects.get({ITS_ROW}), timezone.now()
later = now + dt.timedelta(hours=3)
def has(kind, outcome, error="", code="", **fields):
    job, _ = Job.objects.update_or_create(partner=partner, kind=kind, lane=0, defaults=fields)
    counts = {{"pages": 3, "seen": 1100, "expected": 1200}}
    Run.objects.create(partner=partner, job=job, fence=9, outcome=outcome, error=error, error_code=code, **counts)
has("customers", "running", next_run_at=now, leased_until=later)
has("subscriptions", "waiting", "Somebody paused it.", "paused", next_run_at=later, paused_at=now)
has("licences", "waiting", next_run_at=later, wait_code="asked_to_wait")
has("users", "waiting", "Partner Center asks to wait or is down.", "http_500", quarantined_at=now, failures=10)
has("mfa", "failed", "The list of customers leads in a circle.", "cyclic_link", next_run_at=later)
ListState.objects.update_or_create(partner=partner, kind="mfa", lane="", defaults={{"held_at": now, "missing": 213}})
"""
