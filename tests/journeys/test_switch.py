"""A member of several partners chooses one, at sign-in and later; a member of one never meets the page."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from partners.models import Member, Partner, User
from tests.conftest import CONTOSO, FABRIKAM, SERVICE
from tests.journeys.colleagues import invite
from tests.pretend import Person, text_of
from tokens.models import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fabrikam(connected_partner) -> Partner:
    return connected_partner(tenant_id=FABRIKAM, name="Fabrikam", customers=2)


@pytest.fixture
def both(member, fabrikam, world) -> Person:
    """The owner of Contoso, who reads at Fabrikam too, in a browser that knows nothing of them."""
    Member.objects.create(user=User.objects.get(upn=SERVICE), partner=fabrikam, role="reader")
    return Person(Client(), world)


def place(name: str) -> Member:
    return Member.objects.get(user__upn=SERVICE, partner__name=name)


def choose(person: Person, name: str):
    return person.portal.post("/switch/", {"member": place(name).pk})


@pytest.mark.usefixtures("response_mode")
def test_a_member_of_several_chooses_after_signing_in(both):
    answer = both.sign_in(SERVICE)

    assert answer.request["PATH_INFO"] == "/switch/"
    assert "Contoso" in text_of(answer)
    assert "You are a reader there" in text_of(answer)
    assert "partner_id" not in both.portal.session

    assert choose(both, "Fabrikam")["Location"] == "/"
    assert "Fabrikam" in text_of(both.portal.get("/"))
    assert both.portal.get("/connection/").status_code == 404, "a reader there"
    assert place("Fabrikam").signed_in_at


def test_until_then_every_page_leads_to_the_choice_and_every_form_to_nothing(both):
    both.sign_in(SERVICE)

    assert both.portal.get("/")["Location"] == "/switch/"
    assert both.portal.head("/team/")["Location"] == "/switch/"
    assert both.portal.post("/sync").status_code == 404


def test_the_page_that_was_asked_for_comes_after_the_choice(both):
    address = both.leave("/signin", cloud="global", next="/customers/?q=a")
    both.come_back(both.at_microsoft(address, SERVICE))

    assert choose(both, "Contoso")["Location"] == "/customers/?q=a"
    assert choose(both, "Fabrikam")["Location"] == "/", "once"


def test_whoever_is_inside_switches_from_the_header_and_the_session_gets_a_new_key(both):
    both.sign_in(SERVICE)
    choose(both, "Contoso")
    home = both.portal.get("/").content.decode()
    assert 'href="/switch/"' in home
    before = both.portal.session.session_key
    assert "where you are now" in text_of(both.portal.get("/switch/"))

    choose(both, "Fabrikam")

    assert both.portal.session.session_key != before
    assert both.portal.session["partner_id"] == Partner.objects.get(tenant_id=FABRIKAM).pk
    entered = AuditEvent.objects.filter(action="member.entered").order_by("pk")
    assert [line.partner.name for line in entered] == ["Contoso", "Fabrikam"]


def test_the_partner_that_was_left_is_out_of_reach(both, fabrikam):
    both.sign_in(SERVICE)
    choose(both, "Contoso")
    choose(both, "Fabrikam")

    assert "Contoso" not in text_of(both.portal.get("/"))


def test_nobody_chooses_a_place_that_is_not_theirs(both, fabrikam):
    both.sign_in(SERVICE)
    theirs = fabrikam.members.exclude(user__upn=SERVICE).get()

    for wanted in (str(theirs.pk), "999999", "", "x"):
        assert both.portal.post("/switch/", {"member": wanted}).status_code == 404
    assert "partner_id" not in both.portal.session


def test_a_member_of_one_never_meets_the_page(member):
    assert member.portal.get("/switch/").status_code == 404
    assert 'href="/switch/"' not in member.portal.get("/").content.decode()


def test_a_partner_that_left_is_no_choice(both, fabrikam):
    Partner.objects.filter(pk=fabrikam.pk).update(offboarded_at=timezone.now())

    answer = both.sign_in(SERVICE)

    assert answer.request["PATH_INFO"] == "/"
    assert both.portal.session["partner_id"] == Partner.objects.get(tenant_id=CONTOSO).pk


def test_signing_in_again_forgets_the_choice_of_before(both):
    both.sign_in(SERVICE)
    choose(both, "Contoso")

    both.sign_in(SERVICE)

    assert both.portal.get("/")["Location"] == "/switch/"


def test_an_invitation_leads_straight_to_the_partner_it_is_for(both, fabrikam, world):
    place("Fabrikam").delete()
    other = Person(Client(), world)
    other.sign_in("svc-cpv@fabrikam.test")
    other.confirm("svc-cpv@fabrikam.test")
    link = invite(other, SERVICE, "operator", elsewhere="yes", tenant=CONTOSO)

    answer = both.come_back(both.at_microsoft(both.leave(link), SERVICE))

    assert answer.request["PATH_INFO"] == "/"
    assert "Fabrikam" in text_of(answer)
    assert place("Fabrikam").role == "operator"
