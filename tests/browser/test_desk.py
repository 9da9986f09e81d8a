"""The desk's door in Chromium: enrolment by link, an app's code, and a passkey, under the real policy."""

from __future__ import annotations

from base64 import b32decode
from collections.abc import Iterator

import pytest
from django_otp.oath import TOTP
from playwright.sync_api import Browser, Page, expect

from tests.browser.looks import Looks
from tests.browser.visits import new_page
from tests.live import Live

pytestmark = pytest.mark.browser
PASSWORD = "a password of my own"
AUTHENTICATOR = {
    "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
    "isUserVerified": True, "automaticPresenceSimulation": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(chromium: Browser, looks: Looks) -> Iterator[Page]:
    """The browser of somebody of the staff, on a machine that keeps passkeys."""
    context = chromium.new_context(reduced_motion="reduce")
    page = new_page(context, looks)
    machine = context.new_cdp_session(page)
    machine.send("WebAuthn.enable")
    machine.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    yield page
    context.close()


@pytest.fixture(scope="module")
def enrolled(live: Live, desk: Page, looks: Looks) -> Page:
    """From the link of whoever was appointed to the desk, by an app."""
    desk.goto(live.asks("appoint", "nora", "--role", "security", "--reason", "new here")["url"])
    looks.at(desk, "desk-welcome", tab=False)
    desk.get_by_label("New password:").fill(PASSWORD)
    desk.get_by_label("New password confirmation:").fill(PASSWORD)
    desk.get_by_role("button", name="Choose this password").click()
    expect(desk.locator("h1")).to_have_text("Enrol a second factor")
    assert desk.get_by_alt_text("QR code").evaluate("picture => picture.naturalWidth") > 100
    looks.at(desk, "desk-enrol", tab=False)
    key = desk.locator(".desk-key").inner_text().replace(" ", "")
    desk.get_by_label("Code:").fill(f"{TOTP(b32decode(key)).token():06}")
    desk.get_by_role("button", name="Enrol").click()
    expect(desk.locator("h1")).to_have_text("Recovery codes")
    expect(desk.locator(".desk-codes li")).to_have_count(10)
    looks.at(desk, "desk-codes", tab=False)
    desk.get_by_role("link", name="I have kept them").click()
    expect(desk.locator("h1")).to_have_text("Partners and work")
    return desk


def test_somebody_new_enrols_an_app_and_is_in(enrolled):
    expect(enrolled.get_by_role("link", name="Evidence and drills")).to_be_visible()


def test_a_passkey_is_added_and_opens_the_desk_after_the_password(live, enrolled, looks):
    enrolled.get_by_role("link", name="Second factor").click()
    enrolled.get_by_role("link", name="Add an authenticator app or a passkey").click()
    enrolled.get_by_label("Name of the passkey:").fill("laptop")
    enrolled.get_by_role("button", name="Make a passkey").click()
    expect(enrolled.get_by_role("rowheader", name="laptop")).to_be_visible()
    looks.at(enrolled, "desk-factors", tab=False)

    enrolled.get_by_role("button", name="Log out").click()
    enrolled.goto(f"{live.url}/admin/evidence/")
    looks.at(enrolled, "desk-password", tab=False)
    enrolled.get_by_label("Username:").fill("nora")
    enrolled.get_by_label("Password:").fill(PASSWORD)
    enrolled.get_by_role("button", name="Log in").click()
    expect(enrolled.locator("h1")).to_have_text("Second factor")
    looks.at(enrolled, "desk-second-factor", tab=False)
    enrolled.get_by_role("button", name="Sign in with a passkey").click()

    expect(enrolled.locator("h1")).to_have_text("Evidence")
    looks.at(enrolled, "desk-evidence", tab=False)


def test_what_is_done_asks_why(enrolled, live, looks):
    enrolled.goto(f"{live.url}/admin/partners/partner/stop-everything/")
    enrolled.get_by_role("button", name="Stop everything").click()  # the browser asks for the reason itself
    expect(enrolled.locator("h1")).to_have_text("Stop everything")
    looks.at(enrolled, "desk-act", tab=False)


def test_the_certificates_are_tried_and_the_page_says_what_comes_next(enrolled, live, looks):
    enrolled.goto(f"{live.url}/admin/evidence/")
    enrolled.get_by_role("link", name="Try the certificates").click()
    looks.at(enrolled, "desk-certificates", tab=False)
    enrolled.get_by_label("Reason:").fill("the yearly drill")
    enrolled.get_by_role("button", name="Try the certificates").click()

    expect(enrolled.get_by_text("Next: Nothing to do.")).to_be_visible()


def test_the_browser_complained_about_nothing(enrolled, looks):
    assert looks.seen
    assert not looks.wrong, "\n".join(looks.wrong)
