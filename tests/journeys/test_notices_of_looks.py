"""Mail about the vendor's staff: owners are told who asks to look, and of a look that no owner allowed."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.core import mail
from django.utils import timezone

from consent import invitations, notices
from consent.models import Notice
from partners import borrowed, lifecycle
from partners.models import AccessGrant, Member, Partner, User
from tests.conftest import SERVICE
from tests.desk import settle
from tokens.actors import SYSTEM

pytestmark = pytest.mark.django_db(transaction=True)

ASKED = "Contoso: the vendor's staff ask to look at your pages"
LENT = "Contoso: the vendor's staff look at your pages"


@pytest.fixture
def partner(member) -> Partner:
    return Partner.objects.get()


@pytest.fixture
def grant(partner) -> AccessGrant:
    return borrowed.ask(partner=partner, by=staff("Sam", "support"), reason="Ticket <4711> & more")


def staff(name: str, role: str) -> User:
    user = User.objects.create_user(name, is_staff=True, staff_role=role)
    settle(user)
    return user


def owner() -> User:
    return User.objects.get(is_staff=False)


def tick() -> None:
    notices.find()
    for notice_id in notices.due():
        notices.send(notice_id)


def sent() -> list[tuple[str, str]]:
    return [(message.to[0], message.subject) for message in mail.outbox]


def test_owners_are_told_once_who_asks_and_why(grant):
    for _ in range(3):
        tick()

    assert sent() == [(SERVICE, ASKED)]
    text, page = mail.outbox[0].body, mail.outbox[0].alternatives[0].content
    assert "Sam of Panel Vendor asks to look at your pages" in text
    assert "Why: Ticket <4711> & more" in text
    assert "Ticket &lt;4711&gt; &amp; more" in page
    assert "/access/" in text
    assert "/access/" in page


def test_a_renewal_of_the_connection_tells_it_to_nobody_again(member, grant):
    tick()
    member.connect("/connection/renew", SERVICE)
    member.portal.post("/connection/renewal", {"answer": "yes"})

    tick()

    assert sent() == [(SERVICE, ASKED)]


def test_a_look_that_an_owner_allowed_is_no_news_to_owners(grant):
    borrowed.approve(grant=grant, by=owner())

    tick()

    assert sent() == []


def test_a_look_that_a_second_member_of_staff_allowed_is_told_once_even_when_it_is_over(grant):
    tick()
    borrowed.approve(grant=grant, by=staff("Vera", "security"))
    borrowed.end(grant=grant, by=grant.asked_by)

    for _ in range(3):
        tick()

    assert sent() == [(SERVICE, ASKED), (SERVICE, LENT)]
    assert "Vera, also of their staff, allowed it" in mail.outbox[1].body
    assert f"until {grant.ends_at:%H:%M} UTC" in mail.outbox[1].body


def test_a_request_answered_before_its_mail_left_is_not_told(grant):
    notices.find()
    borrowed.refuse(grant=grant, by=owner())

    tick()

    assert sent() == []
    assert Notice.objects.get().dropped_at


def test_an_owner_who_is_one_no_more_is_not_told(grant):
    notices.find()
    Member.objects.update(role="reader")

    tick()

    assert sent() == []


def test_where_no_owner_has_an_address_it_is_written_down_and_nobody_is_told(grant):
    User.objects.filter(pk=owner().pk).update(upn="nobody")

    tick()
    tick()

    assert sent() == []
    assert Notice.objects.get().to == ""


def test_an_invitations_address_is_no_owners(world, contoso, db, person):
    partner = Partner.objects.create(cloud="global", tenant_id=contoso.id, name="Contoso")
    _, url = invitations.invite(partner=partner, by=SYSTEM, email="it@contoso.test")
    person.connect(url, SERVICE)
    borrowed.ask(partner=partner, by=staff("Sam", "support"), reason="why")

    tick()

    assert sent() == [(SERVICE, ASKED)]


def test_nobody_is_told_for_a_partner_that_never_connected(invited):
    borrowed.ask(partner=invited[0], by=staff("Sam", "support"), reason="why")

    tick()

    assert not Notice.objects.exists()


def test_a_look_is_told_although_the_partner_was_stopped_meanwhile(grant, partner):
    borrowed.approve(grant=grant, by=staff("Vera", "security"))
    lifecycle.kill(partner=partner, by=SYSTEM, reason="a thief")

    tick()

    assert sent() == [(SERVICE, LENT)]


def test_a_look_of_long_ago_is_no_news(grant):
    borrowed.approve(grant=grant, by=staff("Vera", "security"))

    with time_machine.travel(timezone.now() + dt.timedelta(days=8), tick=True):
        tick()

    assert sent() == []
