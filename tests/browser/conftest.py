"""The browser of these tests, and what people do with it at the pretended Microsoft."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.looks import Looks
from tests.browser.visits import new_page
from tests.live import ROOT, Live, live, pytest_runtest_teardown, stack

__all__ = ["live", "pytest_runtest_teardown", "stack"]

CHROMIUM = shutil.which("chromium")
WHY_NOT = "NOT LOOKED AT: no page was opened in a browser, because this machine has no `chromium` on its PATH"
ARGS = "no-sandbox disable-gpu disable-background-networking disable-sync disable-component-update no-first-run"
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip(WHY_NOT)  # where nothing may be skipped, this fails the run
    with sync_playwright() as playwright:
        args = [f"--{arg}" for arg in [*ARGS.split(), "disable-quic"]]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def looks() -> Looks:
    """Pictures go to `var/screenshots` when CPV_SCREENSHOTS=1, for people to look at; else none are taken."""
    if os.environ.get("CPV_SCREENSHOTS") != "1":
        return Looks()
    shots = ROOT / "var" / "screenshots"
    shots.mkdir(parents=True, exist_ok=True)
    return Looks(shots)


@pytest.fixture(scope="module")
def page(live: Live, chromium: Browser, looks: Looks) -> Iterator[Page]:
    """The partner's own browser; it lives as long as the story."""
    context = chromium.new_context(reduced_motion="reduce")  # colours that fade would be looked at half-way
    yield new_page(context, looks)
    context.close()
