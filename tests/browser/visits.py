"""What people do at the pretended Microsoft, in a browser."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.looks import Looks


def new_page(context: BrowserContext, looks: Looks) -> Page:
    context.set_default_timeout(30_000)
    return looks.watch(context.new_page())


def to_microsoft(page: Page, button: str) -> None:
    page.get_by_role("button", name=button).click()
    expect(page.locator("h1")).to_have_text("Pick an account")


def choose(page: Page, account: str, *, mfa: bool) -> None:
    """Pick an account at the pretended Microsoft."""
    row = page.get_by_role("group", name=account)
    row.get_by_role("button", name="Sign in with MFA" if mfa else "Sign in without MFA").click()


def accept(page: Page) -> None:
    expect(page.locator("h1")).to_have_text("Permissions requested")
    page.get_by_role("button", name="Accept").click()
