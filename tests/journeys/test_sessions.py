"""How long somebody stays signed in, and what they have to prove again."""

from __future__ import annotations

import datetime as dt
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from consent.refusal_words import REASONS
from partners.models import Member, Partner, User
from tests.conftest import SERVICE
from tests.pretend import Person, text_of
from tokens.models import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)
OTHER = "other@contoso.test"
AGAIN = "/signin/again"


@pytest.fixture
def clock(member):
    """A clock that goes only when told; it begins when the member signs in."""
    with time_machine.travel(timezone.now(), tick=False) as travelling:
        yield lambda **by: travelling.shift(dt.timedelta(**by))


@pytest.fixture
def back_again(member, world):
    return Person(Client(), world)


def is_in(person: Person, address: str = "/") -> bool:
    return person.portal.get(address).status_code == 200


# --- Idle and absolute ----------------------------------------------------------------------------------------------
def test_a_session_ends_30_minutes_after_the_last_thing_a_person_did(member, clock):
    for _ in range(3):
        clock(minutes=28)
        assert is_in(member)

    clock(minutes=30)

    assert member.portal.get("/customers/?q=a")["Location"] == "/signin?next=/customers/%3Fq%3Da"
    assert "signed out: nothing was done here for 30 minutes" in text_of(member.portal.get("/signin"))
    assert not is_in(member)


def test_a_session_ends_after_eight_hours_whatever_was_done(member, clock):
    for _ in range(19):
        clock(minutes=25)
        assert is_in(member)

    clock(minutes=10)

    assert not is_in(member)
    assert "a sign-in lasts eight hours" in text_of(member.portal.get("/signin"))


def test_what_a_page_asks_by_itself_keeps_no_session_alive(member, clock):
    for _ in range(29):
        clock(minutes=1)
        assert member.portal.get("/progress", headers={"HX-Request": "true"}).status_code == 200
        assert member.portal.get("/customers/", headers={"HX-Request": "true"}).status_code == 200

    clock(minutes=1)

    assert not is_in(member)


def test_nor_does_a_page_that_reads_itself_again_without_javascript(member, clock):
    home = member.portal.get("/").content.decode()
    [address] = re.findall(r'http-equiv="refresh" content="2; url=([^"]+)"', home)
    for _ in range(29):
        clock(minutes=1)
        assert is_in(member, f"/{address}")

    clock(minutes=1)

    assert not is_in(member)


def test_a_part_of_a_page_that_asks_too_late_takes_the_whole_page_to_the_sign_in(member, clock):
    clock(minutes=31)

    htmx = {"HX-Request": "true", "HX-Current-URL": "http://testserver/customers/"}
    answer = member.portal.get("/progress", headers=htmx)

    assert answer["HX-Redirect"] == "/signin?next=/customers/"


def test_a_form_sent_too_late_is_not_carried_out_and_says_so(member, clock):
    clock(minutes=31)

    page = {"Referer": "http://testserver/connection/?a=b"}
    answer = member.portal.post("/connection/revoke", {"sure": "yes"}, headers=page)

    assert answer["Location"] == "/signin?next=/connection/%3Fa%3Db"
    assert Partner.objects.get().withdrawn_at is None
    words = text_of(member.portal.get(answer["Location"]))
    assert "nothing was done here for 30 minutes" in words
    assert "not carried out" in words


@pytest.mark.parametrize(
    "page",
    ["", "http://evil.test/connection/", "http://testserver//evil.test/", "http://testserver/none", "http://[", "x"],
)
def test_a_form_from_nowhere_leads_home_after_the_sign_in(page):
    answer = Client().post("/connection/revoke", {}, headers={"Referer": page})

    assert answer["Location"] == "/signin?next=/"


def test_the_desk_ends_sessions_too_and_leads_to_its_own_sign_in(support):
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=31)):
        answer = support.get("/admin/", follow=True)

    assert "/admin/login/" in answer.redirect_chain[-1][0]
    assert "signed out: nothing was done here for 30 minutes" in text_of(answer)


def test_a_session_that_nobody_signed_in_with_is_over(member):
    session = member.portal.session
    del session["began_at"]
    session.save()

    assert not is_in(member)


def test_a_page_costs_a_write_once_a_minute_and_not_each_time(member, clock):
    clock(minutes=5)  # the last write is then of this clock, and not of the second before it stood still
    is_in(member)
    seen = member.portal.session["seen_at"]

    clock(seconds=59)
    is_in(member)
    assert member.portal.session["seen_at"] == seen

    clock(seconds=2)
    is_in(member)
    assert member.portal.session["seen_at"] > seen


def test_signing_out_leaves_nothing_of_the_session(member):
    key = member.portal.session.session_key

    member.portal.post("/signout")

    assert not Session.objects.filter(session_key=key).exists()


# --- Proving it again -----------------------------------------------------------------------------------------------
ACTS = [
    ("/connection/revoke", {"sure": "yes"}, "/connection/", "end access"),
    ("/connection/period", {"days": "90"}, "/connection/", "choose how long access is granted"),
    ("/connection/renewal", {"answer": "yes"}, "/connection/renewal", "say yes or no to the renewal"),
    ("/activity/export", {"format": "csv"}, "/activity/", "take the activity along"),
]


@pytest.mark.parametrize(("path", "form", "page", "doing"), ACTS)
def test_what_cannot_be_undone_waits_for_a_proof_of_the_last_ten_minutes(member, clock, path, form, page, doing):
    clock(minutes=10)
    lines = AuditEvent.objects.count()

    answer = member.portal.post(path, form, follow=True)

    assert answer.redirect_chain == [(AGAIN, 302)]
    assert f"You were about to {doing}" in text_of(answer)
    assert AuditEvent.objects.count() == lines
    back = member.confirm(SERVICE)
    assert back.request["PATH_INFO"] == page
    assert f"Nothing was sent yet: go on to {doing}." in text_of(back)
    assert member.portal.post(path, form).get("Location") != AGAIN


def test_within_ten_minutes_nothing_is_asked(member, clock):
    clock(minutes=9)

    member.portal.post("/connection/revoke", {"sure": "yes"})

    assert Partner.objects.get().withdrawn_at


def test_microsoft_is_asked_to_ask_and_the_way_back_keeps_the_page(member, clock):
    clock(minutes=11)
    filtered = {"Referer": "http://testserver/activity/?since=2026-01-01"}
    member.portal.post("/activity/export", {"format": "csv"}, headers=filtered)

    address = member.leave(AGAIN)
    query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}

    assert (query["prompt"], query["max_age"], query["login_hint"]) == ("login", "600", SERVICE)
    assert set(query["scope"].split()) == {"openid", "profile"}
    assert member.bring(member.at_microsoft(address, SERVICE))["Location"] == "/activity/?since=2026-01-01"
    assert AuditEvent.objects.filter(action="member.confirmed").get().detail["mfa"]["source"]


def test_a_proof_gives_the_session_a_new_key_and_keeps_the_rest(member, clock):
    before = member.portal.session.session_key, member.portal.session["began_at"]

    member.confirm(SERVICE)

    assert member.portal.session.session_key != before[0]
    assert member.portal.session["began_at"] == before[1]


def test_taking_the_wish_out_of_the_address_gains_nothing(member, clock):
    member.sign_in(SERVICE)
    clock(minutes=12)
    address = urlsplit(member.leave(AGAIN))
    query = {name: values[0] for name, values in parse_qs(address.query).items()}
    stripped = urlencode(query | {"prompt": "none", "max_age": "86400"})

    silent = member.microsoft.get(address._replace(query=stripped).geturl(), allow_redirects=False)
    answer = member.bring(silent.headers["Location"])

    assert REASONS["not_anew"].title in text_of(answer)
    assert member.portal.post("/connection/revoke", {"sure": "yes"})["Location"] == AGAIN


def test_an_answer_that_does_not_say_when_is_no_proof(member, clock):
    address = urlsplit(member.leave(AGAIN))
    query = {name: values[0] for name, values in parse_qs(address.query).items() if name != "max_age"}

    answer = member.come_back(member.at_microsoft(address._replace(query=urlencode(query)).geturl(), SERVICE))

    assert REASONS["not_anew"].title in text_of(answer)


def test_another_account_is_refused_and_the_session_not_switched(member, clock, contoso):
    other = contoso.add_account(OTHER, groups={"AdminAgents"})
    user = User.objects.member(cloud="global", tenant_id=other.tenant_id, object_id=other.oid, upn=OTHER, name="Other")
    Member.objects.create(user=user, partner=Partner.objects.get(), role=Member.Role.OWNER)
    clock(minutes=11)
    before = dict(member.portal.session)

    answer = member.confirm(OTHER)

    assert REASONS["another_person"].title in text_of(answer)
    assert f'href="{AGAIN}"' in answer.content.decode()
    assert {name: value for name, value in member.portal.session.items() if name != "seen_at"} == {
        name: value for name, value in before.items() if name != "seen_at"
    } | {"consent_browser": member.portal.session["consent_browser"]}
    assert member.portal.post("/connection/revoke", {"sure": "yes"})["Location"] == AGAIN


def test_somebody_of_the_tenant_who_is_no_member_proves_nothing(member, contoso):
    contoso.add_account(OTHER)

    assert REASONS["another_person"].title in text_of(member.confirm(OTHER))


def test_a_proof_begun_by_one_member_is_none_for_another_in_the_same_browser(member, world):
    back = member.at_microsoft(member.leave(AGAIN), SERVICE)
    member.portal.force_login(User.objects.create_user("somebody"))

    calls = len(world.calls)
    assert member.portal.get(back.replace("http://testserver", "")).status_code in (400, 403)
    assert len(world.calls) == calls


def test_a_proof_needs_mfa_as_a_sign_in_does(member):
    assert REASONS["no_mfa_at_sign_in"].title in text_of(member.confirm(SERVICE, mfa=False))


def test_a_plain_sign_in_is_no_proof_for_microsoft_may_not_have_asked(back_again):
    back_again.sign_in(SERVICE)

    assert back_again.portal.post("/connection/revoke", {"sure": "yes"})["Location"] == AGAIN


def test_who_may_not_do_it_anyway_is_not_sent_to_prove_anything(member, clock):
    Member.objects.update(role=Member.Role.READER)
    clock(minutes=11)

    for path, form, _, _ in ACTS:
        assert member.portal.post(path, form).status_code == 404, path


def test_the_page_explains_itself_also_to_whoever_comes_by_chance(member):
    words = text_of(member.portal.get(AGAIN))

    assert "Confirm that it is you" in words
    assert "You were about to" not in words
    assert member.confirm(SERVICE).request["PATH_INFO"] == reverse("home")
