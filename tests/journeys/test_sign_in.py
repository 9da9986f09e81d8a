"""Signing in: the same way to Microsoft with `openid profile` only, for people who are members already."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client
from django.utils import timezone

from consent.refusal_words import REASONS
from partners.models import Member, Partner, User
from sandbox.world import ID_TOKEN_FAULTS
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import Person, text_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("response_mode")]


@pytest.fixture
def back_again(member, world):
    """The same person in a browser that knows nothing of them."""
    return Person(Client(), world)


def test_sign_in_asks_for_who_you_are_and_nothing_else(person, world, db):
    address = urlsplit(person.leave("/signin", cloud="global"))

    query = parse_qs(address.query)
    assert set(query["scope"][0].split()) == {"openid", "profile"}
    assert address.path.startswith("/organizations/")
    assert query["code_challenge_method"] == ["S256"]


def test_a_member_comes_back_and_sees_home(back_again):
    answer = back_again.sign_in(SERVICE)

    assert answer.request["PATH_INFO"] == "/"
    assert "Contoso" in text_of(answer)


def test_sign_in_gets_no_refresh_token_and_stores_nothing(back_again, world):
    puts = [call for call in world.calls if call.method == "PUT"]

    back_again.sign_in(SERVICE)

    assert [call for call in world.calls if call.method == "PUT"] == puts
    assert User.objects.count() == 1


def test_somebody_of_the_same_tenant_who_is_no_member_is_refused(back_again, contoso):
    contoso.add_account("nosy@contoso.test", groups={"AdminAgents"})

    answer = back_again.sign_in("nosy@contoso.test")

    assert answer.status_code == 403
    assert REASONS["not_a_member"].title in text_of(answer)
    assert back_again.portal.get("/").status_code == 302


def test_a_member_is_known_by_object_id_and_not_by_the_name_of_somebody_who_left(back_again, contoso):
    account = contoso.account(SERVICE)
    account.upn = "old@contoso.test"
    contoso.add_account(SERVICE, oid="99999999-0000-4000-8000-000000000009")

    answer = back_again.sign_in("99999999-0000-4000-8000-000000000009")

    assert answer.status_code == 403


@pytest.mark.parametrize("fault", ID_TOKEN_FAULTS)
def test_a_sign_in_whose_proof_does_not_hold_is_refused(back_again, world, fault):
    world.id_token_fault = fault

    answer = back_again.sign_in(SERVICE)

    assert answer.status_code in (400, 403)
    assert back_again.portal.get("/").status_code == 302


def test_a_member_who_was_removed_is_out_at_the_next_request(member):
    Member.objects.all().delete()

    assert member.portal.get("/").status_code == 404


def test_a_member_of_a_partner_that_left_is_out(member):
    Partner.objects.update(offboarded_at=timezone.now())

    assert member.portal.get("/").status_code == 404


def test_a_deactivated_user_is_out(member, world):
    User.objects.update(is_active=False)

    assert member.portal.get("/").status_code == 302
    assert Person(Client(), world).sign_in(SERVICE).status_code == 403


def test_what_another_person_left_in_the_session_is_gone(person, invited):
    somebody = User.objects.create_user("somebody")
    person.portal.force_login(somebody)
    session = person.portal.session
    session["left"] = "behind"
    session.save()

    person.connect(invited[1], SERVICE)

    assert "left" not in person.portal.session


def test_signing_out_ends_the_session(member):
    answer = member.portal.post("/signout", follow=True)

    assert "signed out" in text_of(answer).lower()
    assert member.portal.get("/").status_code == 302


def test_a_sign_in_leads_on_to_the_page_that_was_asked_for(back_again):
    back = back_again.at_microsoft(back_again.leave("/signin", cloud="global", next="/customers/?q=a"), SERVICE)

    answer = back_again.bring(back)

    assert answer["Location"] == "/customers/?q=a"


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.test/",
        "//evil.test/",
        "http:evil.test",
        "javascript:alert(1)",
        "\\\\evil.test",
        "x",
        "/" + "a" * 501,
        "/\x00",
        "//[",
    ],
)
def test_a_sign_in_never_leads_to_another_site(back_again, elsewhere):
    back = back_again.at_microsoft(back_again.leave("/signin", cloud="global", next=elsewhere), SERVICE)

    answer = back_again.bring(back)

    assert answer["Location"] == "/"


def test_the_sign_in_page_says_who_may_enter(person, world, db):
    answer = person.portal.get("/signin?next=/customers/")

    assert answer.status_code == 200
    assert "invitation" in text_of(answer)
    assert 'value="/customers/"' in answer.content.decode()


def test_a_cloud_that_is_not_set_up_cannot_be_chosen(person, world, db):
    assert person.portal.post("/signin", {"cloud": "china"}).status_code == 400


def test_signing_in_gives_the_session_a_new_key(person, invited):
    person.portal.get(invited[1])
    address = person.leave(invited[1])
    before = person.portal.session.session_key

    person.come_back(person.at_microsoft(address, SERVICE))

    assert person.portal.session.session_key != before
    assert person.portal.session["partner_id"] == Partner.objects.get(tenant_id=CONTOSO).pk
