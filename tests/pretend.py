"""The pretended world of the running test, mounted in this very process."""

from __future__ import annotations

import html
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
from django.conf import settings
from django.test import Client
from requests.adapters import BaseAdapter

from sandbox import demo
from sandbox.app import create_app
from sandbox.directory import Account, Tenant
from sandbox.world import World
from tests.standin import InProcessAdapter

FORM = "application/x-www-form-urlencoded"
_current: dict[str, Any] = {}


def begin(world: World) -> None:
    """Make this the world that the product's requests reach."""
    _current["app"] = create_app(world)


def adapter(_url: str) -> BaseAdapter:
    """What the settings of the tests mount in place of the adapter that re-routes to a stand-in's address."""
    return InProcessAdapter(lambda environ, start_response: _current["app"](environ, start_response))


def new_world(**options: Any) -> World:
    """The vendor's own tenant, app and vault identities; partners are the test's to add."""
    world = World(seed=7, **options)
    demo.build(world)
    return world


@dataclass
class Person:
    """Somebody with a browser: our portal is Django's test client, Microsoft's pages are the stand-in's."""

    portal: Client
    world: World
    microsoft: requests.Session = field(default_factory=requests.Session)  # the same browser, at Microsoft's

    def __post_init__(self) -> None:
        self.microsoft.mount("http://", adapter(""))

    def connect(self, url: str, account: Account | str, *, mfa: bool = True, accept: bool = True) -> Any:
        """Walk from an invitation to wherever it ends; the last answer."""
        return self.come_back(self.at_microsoft(self.leave(url), account, mfa=mfa, accept=accept))

    def leave(self, url: str, **form: str) -> str:
        """Continue from a page of ours; the address at Microsoft."""
        answer = self.portal.post(urlsplit(url).path, form)
        assert answer.status_code == 302, answer.content.decode()
        return answer["Location"]

    def at_microsoft(self, address: str, account: Account | str, *, mfa: bool = True, accept: bool = True) -> str:
        """Sign in there, and agree or not; the address Microsoft sends the browser back to."""
        choice = {
            "account": account if isinstance(account, str) else account.oid,
            "mfa": "yes" if mfa else "no",
            "decision": "accept" if accept else "cancel",
        }
        return self.sent_back(self.microsoft.post(address, data=choice, allow_redirects=False))

    def sent_back(self, answer: requests.Response) -> str:
        if answer.status_code == 200 and "Continue to the application" in answer.text:
            return _as_address(answer.text)
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    def bring(self, address: str) -> Any:
        """Bring Microsoft's answer to our callback; where that leads to Microsoft again in silence, go along."""
        answer = self.bring_once(address)
        if answer.status_code == 303 and answer["Location"].startswith(self.world.public_url):
            again = self.sent_back(self.microsoft.get(answer["Location"], allow_redirects=False))
            return self.bring_once(again)
        return answer

    def bring_once(self, address: str) -> Any:
        """The one request of it; a form comes across sites, so without cookies or CSRF token."""
        parts = urlsplit(address)
        if settings.CPV_RESPONSE_MODE == "query" or parts.path == "/connect/admin-consent/callback":
            return self.portal.get(f"{parts.path}?{parts.query}")
        across = Client(enforce_csrf_checks=True)
        answer = across.post(parts.path, parts.query, FORM, headers={"Origin": "https://login.microsoftonline.com"})
        if answer.status_code != 303:
            return answer
        assert not across.cookies, "an answer across sites must not touch the visitor's cookies"
        return self.portal.get(answer["Location"])

    def come_back(self, address: str) -> Any:
        """Follow the redirect home, and ours after it."""
        answer = self.bring(address)
        while answer.status_code in (302, 303) and answer["Location"].startswith("/"):
            answer = self.portal.get(answer["Location"])
        return answer

    def sign_in(self, account: Account | str, *, mfa: bool = True) -> Any:
        return self.come_back(self.at_microsoft(self.leave("/signin", cloud="global"), account, mfa=mfa))

    def confirm(self, account: Account | str, *, mfa: bool = True) -> Any:
        """Prove once more who one is."""
        return self.come_back(self.at_microsoft(self.leave("/signin/again"), account, mfa=mfa))


def _as_address(page: str) -> str:
    """A page whose form posts Microsoft's answer, written like the redirect that would bring the same."""
    action = re.search(r'<form method="post" action="([^"]+)">', page)
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page)
    assert action, page
    return f"{html.unescape(action[1])}?{urlencode({name: html.unescape(value) for name, value in fields})}"


def text_of(answer: Any) -> str:
    """A page as somebody reads it: tags out, space folded."""
    words = html.unescape(re.sub(r"<[^>]+>", " ", answer.content.decode()))
    return re.sub(r"\s+", " ", words)


@dataclass
class Clock:
    """The world's clock, which a test may set forward."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def admin_agent(tenant: Tenant) -> Account:
    return next(account for account in tenant.accounts.values() if "AdminAgents" in account.groups)
