"""Consent as it happens in real firms, what a member looks up, and the mails: in Chromium, as people meet them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser.visits import choose, new_page, to_microsoft
from tests.live import FABRIKAM, ROOT, Live, free_port, service_account, until

pytestmark = pytest.mark.browser

ACCOUNT, BOSS = service_account("contoso"), "admin@contoso.onmicrosoft.test"


@pytest.fixture(scope="module")
def member(live: Live, page: Page) -> Page:
    """Somebody of Fabrikam, who is signed in."""
    page.goto(f"{live.url}/signin")
    to_microsoft(page, "Sign in with Microsoft")
    choose(page, service_account("fabrikam"), mfa=True)
    expect(page.get_by_role("heading", name="Connection: Connected")).to_be_visible()
    confirm(page, live)
    return page


def confirm(page: Page, live: Live) -> None:
    """Prove once more who one is, as what cannot be undone wants it."""
    page.goto(f"{live.url}/signin/again")
    to_microsoft(page, "Confirm with Microsoft")
    choose(page, service_account("fabrikam"), mfa=True)
    expect(page.get_by_role("heading", name="Connection: Connected")).to_be_visible()


# --- What a member looks at -----------------------------------------------------------------------------------------
def test_the_permissions_page_is_found_and_fit(member, looks):
    member.get_by_role("link", name="Permissions", exact=True).first.click()

    expect(member.locator("h1")).to_have_text("Permissions")
    expect(member.get_by_text("4 of 4")).to_be_visible()
    looks.at(member, "permissions")


def test_the_activity_page_is_found_fit_and_taken_along(member, looks):
    member.get_by_role("link", name="Activity", exact=True).click()
    expect(member.locator("h1")).to_have_text("Activity")
    looks.at(member, "activity")
    member.get_by_label("What", exact=True).select_option("Consent given")
    member.get_by_role("button", name="Show", exact=True).click()
    expect(member.get_by_role("rowheader", name="Consent given")).to_be_visible()
    expect(member.get_by_role("rowheader", name="Signed in")).to_have_count(0)

    with member.expect_download() as download:
        member.get_by_role("button", name="As CSV").click()

    assert download.value.suggested_filename.endswith(".csv")


def test_the_connection_page_and_a_renewal_that_waits_for_a_yes(live, member, looks):
    member.get_by_role("link", name="Connection", exact=True).click()
    expect(member.locator("h1")).to_have_text("Connection")
    looks.at(member, "connection")

    to_microsoft(member, "Renew with Microsoft")
    choose(member, service_account("fabrikam"), mfa=True)
    expect(member.locator("h1")).to_have_text("Confirm the renewal")
    looks.at(member, "renewal", axe_everywhere=False)
    member.goto(f"{live.url}/connection/")
    looks.at(member, "connection-pending", axe_everywhere=False, tab=False)
    member.get_by_role("link", name="look at what would change").click()
    member.get_by_role("button", name="Yes, use the new one").click()
    expect(member.get_by_text("The new connection is in force")).to_be_visible()


def test_an_owner_invites_and_limits_somebody_on_the_team_page(live, member, looks):
    colleague = """
from consent import team; from partners.models import Member, Partner, User
partner = Partner.objects.get(name="Fabrikam"); owner = partner.members.get(role="owner")
user = User.objects.create_user("rita", name="Rita Reader", upn="rita@fabrikam.test")
Member.objects.create(user=user, partner=partner, role="reader")
print('"' + team.invite(email="nils@fabrikam.test", role="operator", by=owner)[1] + '"')
"""
    link = live.python(colleague)
    member.get_by_role("link", name="Team", exact=True).click()
    expect(member.locator("h1")).to_have_text("Team")
    member.get_by_label("Mail address").fill("ann@fabrikam.test")
    member.get_by_role("button", name="Invite", exact=True).click()
    expect(member.get_by_text("An invitation is on its way to ann@fabrikam.test.")).to_be_visible()
    looks.at(member, "team")
    member.locator("summary", has_text="Rita Reader").click()
    looks.at(member, "team-open", axe_everywhere=False, tab=False)

    member.get_by_role("link", name="limit to some for Rita Reader").click()
    member.get_by_role("button", name="Limit to some customers").click()
    member.locator("input[name=add]").first.check()
    member.get_by_role("button", name="Add the ticked ones").click()
    expect(member.get_by_text("1 added, 0 taken away.")).to_be_visible()
    looks.at(member, "team-customers")
    member.goto(link)
    expect(member.locator("h1")).to_have_text("Join Fabrikam")
    looks.at(member, "join", axe_everywhere=False)


def test_a_customers_users_come_while_one_waits(live, member, looks):
    member.goto(f"{live.url}/customers/")
    member.locator("tbody th a").first.click()
    live.scenario("slow", "Fabrikam", seconds=1.5)
    member.get_by_role("button", name="Show the users").click()
    expect(member.get_by_text("Asking Microsoft")).to_be_visible()
    looks.at(member, "customer-asking", axe_everywhere=False, tab=False)
    expect(member.get_by_text("Nothing of it is stored.")).to_be_visible()
    live.scenario("healthy", "Fabrikam")

    expect(member.get_by_role("table").get_by_role("row").nth(1)).to_be_visible()
    looks.at(member, "customer-users")


def test_a_missing_role_is_named_where_the_users_would_be(live, member, looks):
    live.scenario("gdap-missing", "Fabrikam")
    member.get_by_role("button", name="Ask again").click()

    expect(member.get_by_text("Who acts:")).to_be_visible()
    looks.at(member, "customer-users-refused", axe_everywhere=False)
    live.scenario("healthy", "Fabrikam")


def test_without_javascript_the_page_asks_again_by_itself(live, chromium, looks):
    context = chromium.new_context(java_script_enabled=False)
    page = new_page(context, looks)
    page.goto(f"{live.url}/signin")
    to_microsoft(page, "Sign in with Microsoft")
    choose(page, service_account("fabrikam"), mfa=True)
    page.goto(f"{live.url}/customers/")
    page.locator("tbody th a").first.click()
    page.get_by_role("button", name="Show the users").click()

    expect(page.get_by_text("Nothing of it is stored.")).to_be_visible()
    context.close()


# --- Where only administrators approve ------------------------------------------------------------------------------
def test_an_administrator_approves_and_the_service_account_signs_in_after(live, chromium, looks):
    live.scenario("consent-removed", "Contoso")
    live.scenario("admin-approval", "Contoso")
    context = chromium.new_context(reduced_motion="reduce")
    page = new_page(context, looks)
    page.goto(live.invitation())
    to_microsoft(page, "Continue to Microsoft")
    choose(page, ACCOUNT, mfa=True)
    expect(page.locator("h1")).to_have_text(re.compile("administrator", re.IGNORECASE))
    looks.at(page, "administrator-needed", axe_everywhere=False)

    page.get_by_role("link", name="approval by an administrator").click()
    expect(page.locator("h1")).to_have_text(re.compile("^Approve"))
    looks.at(page, "administrator-approves", axe_everywhere=False)
    to_microsoft(page, "Continue to Microsoft")
    choose(page, BOSS, mfa=True)
    expect(page.locator("h1")).to_have_text(re.compile("Approved"))
    looks.at(page, "administrator-approved", axe_everywhere=False)

    to_microsoft(page, "Continue to Microsoft")
    choose(page, ACCOUNT, mfa=True)
    page.wait_for_url("**/connect/connected")
    live.scenario("healthy", "Contoso")
    context.close()


# --- With the answer in a form --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def posting(live: Live) -> Iterator[str]:
    """A second portal on the same data that asks for Microsoft's answer in a form; its address."""
    port = free_port()
    url = f"http://localhost:{port}"
    env = live.env | {"CPV_PORT": str(port), "CPV_BASE_URL": url, "CPV_RESPONSE_MODE": "form_post", "CPV_ROLE": "web"}
    command = [sys.executable, "-m", "gunicorn", "cpvpanel.wsgi:application", "--bind", f"127.0.0.1:{port}"]
    with open(live.folder / "posting.log", "ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    until(lambda: _answers(f"{url}/healthz"), 30, what="the second portal answers")
    yield url
    process.terminate()
    process.wait(20)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def test_an_answer_in_a_form_comes_home_with_no_code_in_any_address(live, posting, chromium, looks):
    addresses: list[str] = []
    context = chromium.new_context()
    page = new_page(context, looks)
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(live.invitation().replace(live.url, posting))
    to_microsoft(page, "Continue to Microsoft")
    choose(page, ACCOUNT, mfa=True)
    expect(page.locator("h1")).to_have_text("Continue to the application")
    page.get_by_role("button", name="Continue").click()  # Microsoft's own page does that by a script of its own
    page.wait_for_url(f"{posting}/connect/connected")

    expect(page.get_by_text("Connected as")).to_be_visible()
    came_back = [address for address in addresses if address.startswith(f"{posting}/connect/callback")]
    assert len(came_back) == 2, "once from Microsoft, once from ourselves with the visitor's cookies"
    assert not [address for address in came_back if "code=" in address]
    context.close()


# --- Mails ----------------------------------------------------------------------------------------------------------
MAILED = """
import json
from django.conf import settings
from django.core import mail
settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
from consent import mails
from consent.models import Invitation, MemberInvitation
from partners.models import Partner
from partners.standing import current_token, standing
from django.utils import timezone
partner = Partner.objects.get(tenant_id="{tenant}")
token = current_token(partner)
context = dict(standing=standing(partner, token), token=token, partner=partner)
asked = dict(partner=partner, expires_at=timezone.now())
context["invitation"] = Invitation(**asked)
if "{kind}" == "member":
    asked |= dict(invited_by_name="Fay", role="reader", tenant_id=partner.tenant_id)
    context |= dict(invitation=MemberInvitation(**asked), can="Customers, to read only")
mails.send("{kind}", to="it@fabrikam.test", partner=partner.name, url="http://localhost/somewhere", context=context)
print(json.dumps(mail.outbox[-1].alternatives[0][0]))
"""


@pytest.mark.parametrize("kind", ["invitation", "member", "broken", "recovered", "ending"])
def test_a_mail_is_readable_on_every_screen_and_loads_nothing(live, chromium, looks, kind):
    html = live.python(MAILED.format(tenant=FABRIKAM, kind=kind))
    context = chromium.new_context()
    page = new_page(context, looks)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(html)

    assert page.get_by_role("link").count() == 1
    looks.at(page, f"mail-{kind}", axe_everywhere=False)
    assert asked == []
    context.close()


def test_every_page_is_fit_for_every_screen_and_the_browser_never_complained(member, looks):
    assert len(looks.seen) > 8
    assert not looks.wrong, "\n".join(looks.wrong)
