"""What owners and the people they invite do, as tests walk through it."""

from __future__ import annotations

import re
import time
from urllib.parse import urlsplit

from django.core import mail
from django.test import Client

from consent.refusal_words import REASONS
from partners import presence
from partners.models import Member, Partner, User
from tests.pretend import Person, text_of
from tokens.models import AuditEvent

PAGE = "/team/"
ANN, BOB = "ann@contoso.test", "bob@contoso.test"
SMTP = "django.core.mail.backends.smtp.EmailBackend"


def invite(owner: Person, email: str = ANN, role: str = "reader", **more: str) -> str:
    """Invite somebody on the page; the path in their mail."""
    answer = owner.portal.post(f"{PAGE}invite", {"email": email, "role": role, **more}, follow=True)
    assert "is on its way" in text_of(answer), text_of(answer)
    return urlsplit(re.search(r"http\S+/join/\S+", mail.outbox[-1].body)[0]).path


def join(browser: Person, link: str, account: object) -> object:
    browser.world.amr_in_id_tokens = True  # these colleagues have agreed to nothing that could tell of their MFA
    return browser.come_back(browser.at_microsoft(browser.leave(link), account))


def joined(owner: Person, browser: Person, account: object, role: str = "reader", **more: str) -> Member:
    """A new member through the whole journey."""
    assert join(browser, invite(owner, account.upn, role, **more), account).status_code == 200
    return Member.objects.get(user__oid=account.oid)


def refused(answer: object, reason: str) -> bool:
    return answer.status_code == REASONS[reason].status and REASONS[reason].title in text_of(answer)


def actions() -> list[str]:
    return list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))


def add(name: str, role: str, partner: Partner | None = None) -> Member:
    user = User.objects.create_user(name, name=name.title(), upn=f"{name}@contoso.test")
    return Member.objects.create(user=user, partner=partner or Partner.objects.get(), role=role)


def portal_of(member: Member) -> Client:
    """The browser of somebody who has signed in just now."""
    client = Client()
    client.force_login(member.user)
    session = client.session
    session["partner_id"] = member.partner_id
    presence.prove(session, mfa={}, at=int(time.time()))
    session.save()
    return client
