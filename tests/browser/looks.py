"""What every page must be like, on every screen: looked at in Chromium, with axe, in light and dark."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Page

WIDTHS = (360, 768, 1280)
SCHEMES = ("light", "dark")
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
FOR_MACHINES = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-|AADSTS|\b\d{5,}\b", re.IGNORECASE)

# No other rule of axe looks at colours, so no other finds anything in the dark that it did not find in the light.
ABOUT_COLOURS = ["color-contrast", "link-in-text-block"]
RUN_AXE = """async rules => {
    const only = rules.length ? {runOnly: rules} : {};
    const found = await axe.run(document, {resultTypes: ["violations"], ...only});
    return found.violations.map(v => `${v.id}: ${v.help}: ` + v.nodes.map(n => n.target.join(" ")).join(", "));
}"""

# The part that sticks out furthest, so that a failure says where to look.
OVERFLOW = """() => {
    const root = document.documentElement;
    if (root.scrollWidth <= root.clientWidth) return null;
    const far = [...document.body.querySelectorAll("*")]
        .filter(e => e.getBoundingClientRect().right > root.clientWidth + 1)
        .map(e => `${e.tagName.toLowerCase()}.${e.className}`);
    return `${root.scrollWidth} > ${root.clientWidth}: ${far.slice(0, 5).join(", ")}`;
}"""

# How everything that takes the focus looks without it.
REMEMBER = """() => {
    const look = e => { const s = getComputedStyle(e); return [s.outlineStyle, s.outlineWidth, s.boxShadow].join(); };
    document.activeElement?.blur();
    const top = document.createElement("span");  // an address with a fragment would let Tab begin in the middle
    top.tabIndex = -1;
    document.body.prepend(top);
    top.focus();
    top.remove();
    window.__look = look;
    const takes = "a[href], button, input, select, summary, textarea, [tabindex]";
    window.__before = new Map([...document.querySelectorAll(takes)]
        .filter(e => e.tabIndex >= 0 && e.type !== "hidden" && e.checkVisibility())
        .filter(e => e.type !== "radio" || e.checked)  // of a group of radio buttons Tab reaches the chosen one
        .map(e => [e, look(e)]));
    return window.__before.size;
}"""
FOCUSED = """() => {
    const e = document.activeElement;
    if (!e || e === document.body) return null;
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    return {
        name: `${e.tagName.toLowerCase()} “${(e.innerText || e.name || "").trim().slice(0, 30)}”`,
        known: window.__before.has(e),
        differs: window.__look(e) !== window.__before.get(e) && (outlined || style.boxShadow !== "none"),
        seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
    };
}"""


@dataclass
class Looks:
    """Looks at pages, and keeps what is wrong with them and what the browser complained about; pictures if asked."""

    shots: Path | None = None
    wrong: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> Page:
        """Note whatever the browser complains about on this page, whichever address it goes to."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"script error: {error}"))
        page.on("requestfailed", lambda request: self._failed(request.url, request.failure or ""))
        return page

    def _console(self, message: ConsoleMessage) -> None:
        # A page that is refused or missing is itself reported so; a part of a page (style.css) must be there.
        is_page = not re.search(r"\.\w{2,5}$", message.location.get("url", "").partition("?")[0])
        expected = message.text.startswith("Failed to load resource") and is_page
        if message.type in ("error", "warning") and not expected:
            self.wrong.append(f"console {message.type}: {message.text}")

    def _failed(self, url: str, why: str) -> None:
        if "ERR_ABORTED" not in why:  # a page that was left while it asked for its progress
            self.wrong.append(f"{url} failed: {why}")

    def at(self, page: Page, name: str, *, axe_everywhere: bool = True, tab: bool = True) -> None:
        """Look at a page on three screens, light and dark; `tab` walks through it by keyboard too."""
        wrong = []
        page.evaluate(AXE)
        for scheme in SCHEMES:
            rules: list[str] = [] if scheme == SCHEMES[0] else ABOUT_COLOURS
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # a literal
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 800})
                where = f"{name} {scheme} {width}"
                if overflow := page.evaluate(OVERFLOW):
                    wrong.append(f"{where}: scrolls sideways: {overflow}")
                if axe_everywhere or width == WIDTHS[0]:
                    wrong += [f"{where}: {finding}" for finding in page.evaluate(RUN_AXE, rules)]
                if self.shots:
                    page.screenshot(path=self.shots / f"{name}-{scheme}-{width}.png", full_page=True)
        wrong += self._headings(page, name)
        if tab:
            wrong += self._tab(page, name)
        self.seen.append(name)
        self.wrong += wrong

    def _headings(self, page: Page, name: str) -> list[str]:
        headings = page.locator("h1").all_inner_texts()
        wrong = [] if len(headings) == 1 else [f"{name}: {len(headings)} h1"]
        return wrong + [f"{name}: the h1 is for machines: {text}" for text in headings if FOR_MACHINES.search(text)]

    def _tab(self, page: Page, name: str) -> list[str]:
        """Walk through by Tab: everything is reached, in sight, and looks different from before."""
        number = page.evaluate(REMEMBER)
        reached: list[dict[str, Any]] = []
        for _ in range(number):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUSED)
            if focused is None:
                break
            reached.append(focused)
        wrong = [f"{name}: {len(reached)} of {number} reached by Tab"] if len(reached) != number else []
        for focused in reached:
            wrong += [
                f"{name}: focus on {focused['name']}: {what}" for what in ("differs", "seen") if not focused[what]
            ]
        page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
        return wrong
