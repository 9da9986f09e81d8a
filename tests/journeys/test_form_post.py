"""Microsoft's answer in a form: put away sealed for a minute, taken once by the browser it belongs to."""

from __future__ import annotations

import datetime as dt
from urllib.parse import parse_qsl, urlsplit

import pytest
import time_machine
from django.db.models import QuerySet
from django.test import Client
from django.utils import timezone

from consent import posted
from consent.models import ConsentAttempt, PostedAnswer
from consent.refusal_words import REASONS
from consent.refusals import Refused
from consent.tasks import tidy
from tests.conftest import SERVICE
from tests.pretend import FORM, Person, text_of
from tokens.models import RefreshToken

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def by_form(settings):
    settings.CPV_RESPONSE_MODE = "form_post"


@pytest.fixture
def back(by_form, person, invited):
    return person.at_microsoft(person.leave(invited[1]), SERVICE)


def post(address: str):
    parts = urlsplit(address)
    return Client(enforce_csrf_checks=True).post(parts.path, parts.query, FORM)


def assert_refused(answer, reason):
    assert answer.status_code == REASONS[reason].status
    assert REASONS[reason].title in text_of(answer)
    assert not RefreshToken.objects.exists()


def test_the_answer_is_asked_for_by_form(by_form, person, invited):
    assert "response_mode=form_post" in person.leave(invited[1])


def test_the_post_stores_one_sealed_row_and_leads_to_our_own_site_without_the_code(back):
    code = dict(parse_qsl(urlsplit(back).query))["code"]

    answer = post(back)

    assert answer.status_code == 303
    assert answer["Location"].startswith("/connect/callback?answer=")
    assert answer["Referrer-Policy"] == "no-referrer"
    assert code not in answer["Location"]
    row = PostedAnswer.objects.get()
    assert code not in row.sealed
    assert str(row).startswith("answer waiting until")
    assert 0 < (row.expires_at - timezone.now()).total_seconds() <= 60
    assert ConsentAttempt.objects.get().claimed_at is None


def test_the_answer_can_be_taken_once(back, person):
    address = post(back)["Location"]

    assert person.portal.get(address)["Location"] == "/connect/connected"
    answer = person.portal.get(address)

    assert answer.status_code == 400
    assert f"Already connected as {SERVICE}" in text_of(answer)
    assert not PostedAnswer.objects.exists()


def test_somebody_who_was_not_connected_is_told_that_the_answer_is_gone(back, person):
    assert_refused(person.portal.get("/connect/callback?answer=never-made"), "answer_gone")


def test_an_answer_older_than_a_minute_is_gone(back, person):
    address = post(back)["Location"]

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=61)):
        assert_refused(person.portal.get(address), "answer_gone")


def test_an_answer_taken_by_two_at_once_goes_to_one(back, person, monkeypatch):
    name = dict(parse_qsl(urlsplit(post(back)["Location"]).query))["answer"]
    # The other one deletes between our look and our own deletion.
    monkeypatch.setattr(QuerySet, "delete", lambda rows: (0, {}))

    with pytest.raises(Refused, match="answer_gone"):
        posted.take("consent", name)


def test_an_answer_taken_by_another_browser_is_refused_and_used_up(back, person, world):
    address = post(back)["Location"]

    assert_refused(Person(Client(), world).portal.get(address), "other_browser")
    assert_refused(person.portal.get(address), "answer_gone")


def test_an_answer_to_a_consent_is_no_answer_to_a_sign_in(back, person):
    address = post(back)["Location"].replace("/connect/", "/signin/")

    answer = person.portal.get(address)

    assert answer.status_code == 400
    assert 'href="/signin"' in answer.content.decode()
    assert not RefreshToken.objects.exists()


@pytest.mark.parametrize("fields", ["x=1", "code=abc", "state=", "state=never-seen&code=abc"])
def test_without_a_state_of_ours_nothing_is_stored(by_form, db, world, fields):
    assert_refused(post(f"/connect/callback?{fields}"), "unknown_attempt")
    assert not PostedAnswer.objects.exists()


@pytest.mark.parametrize("extra", ["&code=" + "x" * 8_193, "&x=" + "y" * 40_000], ids=["field", "form"])
def test_an_answer_larger_than_microsofts_is_refused_and_not_stored(back, extra):
    state = dict(parse_qsl(urlsplit(back).query))["state"]

    assert_refused(post(f"/connect/callback?state={state}{extra}"), "unfit_answer")
    assert not PostedAnswer.objects.exists()


def test_a_body_that_is_no_form_is_refused(by_form, db, world):
    assert_refused(Client().post("/connect/callback", {"state": "x"}), "unfit_answer")


@pytest.mark.parametrize("path", ["/connect/callback", "/signin/callback"])
def test_a_code_in_the_address_is_refused_and_spends_nothing(back, person, path):
    answer = person.portal.get(f"{path}?{urlsplit(back).query}")

    assert_refused(answer, "unfit_answer")
    assert ConsentAttempt.objects.get().claimed_at is None
    assert person.come_back(back).request["PATH_INFO"] == "/connect/connected"


@pytest.mark.parametrize("path", ["/connect/callback", "/signin/callback"])
def test_where_the_address_is_asked_for_a_form_is_refused(person, invited, path):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)

    answer = post(f"{path}?{urlsplit(back).query}")

    assert (answer.status_code, answer["Allow"]) == (405, "GET")
    assert not PostedAnswer.objects.exists()
    assert ConsentAttempt.objects.get().claimed_at is None


def test_nothing_but_the_way_back_takes_a_form_from_elsewhere(by_form, db, world):
    for path in ("/signin", "/signout", "/connection/renew", "/sync-now"):
        assert Client(enforce_csrf_checks=True).post(path).status_code in (403, 404), path


def test_answers_nobody_came_for_are_let_go(back, person):
    post(back)

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=61)):
        tidy()

    assert not PostedAnswer.objects.exists()


def test_the_next_answer_sweeps_away_those_that_are_over(back, person):
    post(back)

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=61)):
        post(back)

    assert PostedAnswer.objects.count() == 1
