"""The vendor's staff who come in with Microsoft, as tests walk through it."""

from __future__ import annotations

from typing import Any

from django.test import Client

from consent.staff_refusals import REASONS
from partners.models import User
from sandbox import demo
from sandbox.directory import Account, Tenant
from sandbox.world import World
from tests.pretend import Person, text_of

DOOR = "/admin/microsoft/"
CALLBACK = "/admin/microsoft/callback"


def vendor(world: World) -> Tenant:
    return world.tenants[demo.VENDOR_TENANT_ID]


def account(world: World, name: str) -> Account:
    """One of the vendor's people in the demo's world: admin, auditor, security, support, or nobody."""
    found = vendor(world).account(f"{name}@{vendor(world).domain}")
    assert found, name
    return found


def comes(browser: Person, who: Account | str, *, mfa: bool = True, **form: str) -> Any:
    """Come in with Microsoft; where it ends."""
    return browser.come_back(browser.at_microsoft(browser.leave(DOOR, **form), who, mfa=mfa))


def at_the_desk(world: World, name: str) -> Person:
    """Somebody who came in with Microsoft, in their own browser."""
    browser = Person(Client(), world)
    assert comes(browser, account(world, name)).status_code == 200
    return browser


def is_in(browser: Person) -> bool:
    return bool(browser.portal.get("/admin/").status_code == 200)


def user_of(who: Account) -> User:
    return User.objects.get(cloud="global", tid=who.tenant_id, oid=who.oid)


def refused(answer: Any, reason: str, context: str = "c1") -> str:
    """The words of the page, which is the desk's and for this reason."""
    words = text_of(answer)
    assert REASONS[reason].title.replace("{context}", context) in words, words
    assert answer.status_code == REASONS[reason].status
    assert "CPV Panel desk" in words
    assert "{" not in words
    assert answer["Referrer-Policy"] == "strict-origin"
    return words
