"""Where only administrators approve: a Global Administrator approves, then the service account signs in."""

from __future__ import annotations

import datetime as dt
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from consent import invitations
from consent.models import Consent, ConsentAttempt, Invitation
from consent.refusal_words import REASONS
from partners import jobs
from partners.models import Job, Member, User
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import Person, text_of
from tokens.actors import SYSTEM
from tokens.models import AuditEvent, RefreshToken, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
BOSS = "boss@contoso.test"
APPROVED = "Approved: now sign in with the service account"


@pytest.fixture
def strict(contoso):
    """Contoso lets only administrators approve applications, and has one."""
    contoso.admin_approval_required = True
    contoso.add_account(BOSS, admin=True)
    return contoso


def link_of(invited) -> str:
    return invited[1].rpartition("/")[2]


def leave(person, invited) -> str:
    return person.leave("/connect/admin-consent", invitation=link_of(invited))


def approve(person, invited, **choice):
    return person.come_back(person.at_microsoft(leave(person, invited), BOSS, **choice))


def assert_nothing_came_of_it(world):
    assert not TokenUse.objects.exists()
    assert not any(call.service == "vault" for call in world.calls)
    assert not any(call.path.endswith("/token") for call in world.calls)
    for model in (RefreshToken, Consent, Member, User):
        assert not model.objects.exists()
    assert Invitation.objects.filter(used_at=None).exists()


def button_of(answer, address: str) -> bool:
    return re.search(rf'<form method="post" action="{re.escape(address)}">', answer.content.decode()) is not None


def test_refused_then_approved_then_connected(person, invited, strict, world):
    refused = person.connect(invited[1], SERVICE)
    assert REASONS["admin_approval"].title in text_of(refused)
    assert button_of(refused, "/connect/admin-consent")

    approved = approve(person, invited)

    assert approved.status_code == 200
    assert APPROVED in text_of(approved)
    assert button_of(approved, urlsplit(invited[1]).path)
    assert_nothing_came_of_it(world)
    assert person.connect(invited[1], SERVICE).request["PATH_INFO"] == "/connect/connected"


def test_the_invitation_leads_to_it_before_anything_went_wrong(person, invited, strict):
    assert button_of(person.portal.get(invited[1]), "/connect/admin-consent")


def test_it_asks_at_the_partners_own_tenant_for_exactly_the_permissions_of_the_consent(person, invited, strict):
    address = urlsplit(leave(person, invited))
    asked = {name: values[0] for name, values in parse_qs(address.query).items()}
    consent = parse_qs(urlsplit(person.leave(invited[1])).query)["scope"][0].split()

    assert address._replace(query="").geturl() == f"http://localhost:8400/{CONTOSO}/v2.0/adminconsent"
    assert asked["redirect_uri"] == "http://testserver/connect/admin-consent/callback"
    assert set(asked["scope"].split()) == set(consent) - {"openid", "profile", "offline_access"}
    assert len(asked["state"]) >= 40


def test_a_global_administrator_can_be_sent_a_link(person, invited, strict, world):
    page = person.portal.get(invited[1]).content.decode()
    link = re.search(r'href="(http://testserver/connect/admin-consent\?invitation=[^"]+)"', page)
    boss = Person(Client(), world)

    answer = boss.portal.get(link[1])

    assert answer.status_code == 200
    assert "Global Administrator" in text_of(answer)
    assert button_of(answer, "/connect/admin-consent")
    assert APPROVED in text_of(approve(boss, invited))
    assert person.connect(invited[1], SERVICE).status_code == 200
    assert RefreshToken.objects.get().upn == SERVICE


def test_an_administrator_who_declines_changes_nothing(person, invited, strict, world):
    answer = approve(person, invited, accept=False)

    assert REASONS["declined"].title in text_of(answer)
    assert_nothing_came_of_it(world)
    assert AuditEvent.objects.get(action="approval.answered").detail["reason"] == "declined"


def test_the_answers_tenant_changes_words_only(person, invited, strict, world):
    back = person.at_microsoft(leave(person, invited), BOSS)

    answer = person.come_back(back.replace(CONTOSO, "aaaa0000-0000-4000-8000-000000000001"))

    assert REASONS["approved_elsewhere"].title in text_of(answer)
    assert button_of(answer, "/connect/admin-consent")
    assert_nothing_came_of_it(world)


def test_an_approval_somebody_made_up_lets_nobody_in(person, invited, strict, world):
    state = parse_qs(urlsplit(leave(person, invited)).query)["state"][0]
    made_up = urlencode({"admin_consent": "True", "tenant": CONTOSO, "state": state})

    assert APPROVED in text_of(person.come_back(f"/connect/admin-consent/callback?{made_up}"))

    assert_nothing_came_of_it(world)
    assert REASONS["admin_approval"].title in text_of(person.connect(invited[1], SERVICE))


@pytest.mark.parametrize(
    ("query", "reason"), [("code=abc", "unknown_attempt"), ("state=x&admin_consent=True", "unknown_attempt")]
)
def test_an_answer_without_a_state_of_ours_is_refused(person, invited, query, reason):
    answer = person.portal.get(f"/connect/admin-consent/callback?{query}")

    assert REASONS[reason].title in text_of(answer)


def test_an_answer_that_is_no_approval_is_refused(person, invited, strict, world):
    state = parse_qs(urlsplit(leave(person, invited)).query)["state"][0]

    answer = person.portal.get(f"/connect/admin-consent/callback?state={state}&code=abc")

    assert REASONS["unverified"].title in text_of(answer)
    assert_nothing_came_of_it(world)


def test_an_answer_counts_once_in_its_own_browser_and_for_ten_minutes(person, invited, strict, world):
    back = person.at_microsoft(leave(person, invited), BOSS)

    assert REASONS["other_browser"].title in text_of(Person(Client(), world).come_back(back))
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=10, seconds=1)):
        assert REASONS["too_late"].title in text_of(person.come_back(back))
    assert APPROVED in text_of(person.come_back(back))
    assert REASONS["replayed"].title in text_of(person.come_back(back))


@pytest.mark.parametrize("path", ["/connect/callback", "/signin/callback"])
def test_an_approvals_state_ends_no_consent_and_no_sign_in(person, invited, strict, world, path):
    state = parse_qs(urlsplit(leave(person, invited)).query)["state"][0]

    answer = person.bring(f"{path}?state={state}&code=abc")

    assert REASONS["unknown_attempt"].title in text_of(answer)
    assert ConsentAttempt.objects.get().claimed_at is None
    assert_nothing_came_of_it(world)


def test_with_microsoft_down_the_visitor_may_try_again(person, invited, world):
    world.fail("entra", "503")

    answer = person.portal.post("/connect/admin-consent", {"invitation": link_of(invited)})

    assert REASONS["microsoft_down"].title in text_of(answer)
    assert "Open the invitation again" in text_of(answer)


def test_a_stopped_partner_is_sent_nowhere(person, invited, world):
    type(invited[0]).objects.update(killed_at=timezone.now())

    answer = person.portal.post("/connect/admin-consent", {"invitation": link_of(invited)})

    assert REASONS["stopped"].title in text_of(answer)
    assert not world.calls


def test_a_connected_partner_needs_no_approval(member, invited):
    _, second = invitations.invite(partner=invited[0], by=SYSTEM)

    answer = member.portal.post("/connect/admin-consent", {"invitation": second.rpartition("/")[2]})

    assert answer.status_code == 409


def test_without_an_invitation_a_stranger_finds_nothing(person, invited, world):
    for client in (person.portal, Client()):
        assert client.get("/connect/admin-consent").status_code == 404
        assert client.post("/connect/admin-consent").status_code == 404
    assert person.portal.get("/connect/admin-consent?invitation=never-made").status_code == 404
    assert person.portal.get("/connect/admin-consent/callback").status_code == 404
    assert person.portal.head("/connect/admin-consent/callback?state=x").status_code == 405


def test_an_owner_reconnects_by_way_of_an_approval(member, strict, world):
    world.ledger.remove_consents(strict)
    jobs.run_job(Job.objects.get().pk)
    refused = member.connect("/connection/renew", SERVICE)
    assert button_of(refused, "/connect/admin-consent")
    assert member.portal.get("/connect/admin-consent").status_code == 200

    answer = member.come_back(member.at_microsoft(member.leave("/connect/admin-consent"), BOSS))

    assert APPROVED in text_of(answer)
    assert button_of(answer, "/connection/renew")
    assert member.connect("/connection/renew", SERVICE).request["PATH_INFO"] == "/connect/connected"


def test_only_an_owner_may_begin_it_without_an_invitation(member, strict):
    Member.objects.update(role="reader")

    assert member.portal.post("/connect/admin-consent").status_code == 404


def test_approval_needed_at_sign_in_shows_no_button(member, world):
    elsewhere = Person(Client(), world)
    state = parse_qs(urlsplit(elsewhere.leave("/signin", cloud="global")).query)["state"][0]
    fields = urlencode({"error": "access_denied", "error_description": "AADSTS90094: approve", "state": state})

    answer = elsewhere.bring(f"/signin/callback?{fields}")

    assert REASONS["admin_approval"].title in text_of(answer)
    assert not button_of(answer, "/connect/admin-consent")
