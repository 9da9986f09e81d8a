"""At the desk, what a stranger at somebody's screen must not do takes a factor shown within the last ten minutes."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse
from django_otp.plugins.otp_totp.models import TOTPDevice
from django_otp_webauthn.models import WebAuthnCredential

from partners import staff
from partners.models import Job, Partner, User
from tests.desk import PASSWORD, at_the_desk, code_of, later, signed_in, somebody
from tests.passkey import Passkey
from tests.pretend import text_of
from tokens.actors import SYSTEM
from tokens.models import AuditEvent, Halt

pytestmark = pytest.mark.django_db(transaction=True)
AGAIN, PASSWORD_CHANGE = "/admin/again/", "/admin/password_change/"
WHY = {"reason": "because"}
OFFER, ENROL = "/admin/factors/passkey/offer/", "/admin/factors/passkey/enrol/"
ASK, PROVE = "/admin/second-factor/passkey/ask/", "/admin/second-factor/passkey/prove/"


def send(client: Client, address: str, body: dict[str, Any] | None = None) -> Any:
    return client.post(address, body or {}, content_type="application/json")


def stop(partner: Partner) -> str:
    return f"/admin/partners/partner/{partner.pk}/stop/"


@pytest.fixture
def partner(member) -> Partner:
    return Partner.objects.get()


def test_a_stop_waits_for_a_factor_and_comes_back_to_its_page(partner):
    client = at_the_desk("security")
    with later(minutes=11):
        assert client.get(stop(partner))["Location"] == AGAIN
        assert client.post(stop(partner), WHY)["Location"] == AGAIN
        assert not Halt.objects.exists()

        page = client.get(AGAIN)
        assert f"You were about to: Stop {partner.name} for security" in text_of(page)
        assert f'href="{stop(partner)}"' in page.content.decode()
        proved = client.post(AGAIN, {"code": code_of("security")})

        assert proved["Location"] == stop(partner)
        assert "Nothing was done yet" in text_of(client.get(stop(partner)))
        assert client.post(stop(partner), WHY)["Location"] == f"/admin/partners/partner/{partner.pk}/change/"
    assert Halt.objects.count() == 1
    assert AuditEvent.objects.get(action="staff.confirmed").detail == {"factor": "totp"}


@pytest.mark.parametrize(
    ("act", "waits"), [("accept_removals", True), ("accept_strangers", True), ("try_again", False)]
)
def test_taking_a_list_as_it_is_waits_for_a_factor_and_trying_again_does_not(partner, act, waits):
    client, address = at_the_desk("support"), reverse(f"admin:{act}", args=[Job.objects.get().pk])

    with later(minutes=11):
        answers = client.get(address), client.post(address, WHY)

    assert [answer.headers.get("Location") == AGAIN for answer in answers] == [waits, waits]
    assert AuditEvent.objects.filter(action="sync.asked").exists() != waits


def test_a_wrong_code_lets_nothing_pass(partner):
    client = at_the_desk("security")
    with later(minutes=11):
        client.get(stop(partner))
        assert "does not count" in text_of(client.post(AGAIN, {"code": "000000"}))
        assert client.post(stop(partner), WHY)["Location"] == AGAIN
    assert not Halt.objects.exists()


def test_the_code_of_a_colleague_does_not_count(partner):
    client, other = at_the_desk("security"), somebody("security", "other")
    with later(minutes=11):
        client.get(stop(partner))
        assert "does not count" in text_of(client.post(AGAIN, {"code": code_of(other)}))


def test_the_session_has_another_key_after_the_proof(partner):
    client = at_the_desk("security")
    earlier = client.session.session_key
    with later(minutes=11):
        client.post(AGAIN, {"code": code_of("security")})
        assert client.session.session_key != earlier
        assert client.get("/admin/").status_code == 200


def test_links_and_people_wait_for_it_too_and_what_only_reads_does_not(partner):
    support, admin = at_the_desk("support"), at_the_desk("admin")
    other = somebody("auditor")
    with later(minutes=11):
        link = f"/admin/consent/invitation/send/{partner.pk}/"
        answers = [support.post(link, WHY)]
        answers += [
            admin.post(f"/admin/partners/user/{other.pk}/{act}/", WHY) for act in ("role", "start-over", "deactivate")
        ]
        assert [answer["Location"] for answer in answers] == [AGAIN] * 4
        assert support.get("/admin/partners/partner/").status_code == 200
        assert admin.get("/admin/partners/user/").status_code == 200
    assert not mail.outbox
    assert User.objects.get(pk=other.pk).is_active


def test_new_factors_are_made_by_nobody_who_showed_none_lately(db):
    user = somebody("support")
    TOTPDevice.objects.create(user=user, name="second")
    client = signed_in_with_first(user)
    with later(minutes=11):
        device = TOTPDevice.objects.get(name="second").persistent_id
        answers = [
            client.get("/admin/factors/app/"),
            client.post("/admin/factors/codes/"),
            client.post("/admin/factors/remove/", {"device": device}),
        ]
        assert [answer["Location"] for answer in answers] == [AGAIN] * 3
        for address in (OFFER, ENROL):
            refused = send(client, address, {"credential": {}})
            assert (refused.status_code, refused.json()["code"]) == (403, "not_fresh")
    assert TOTPDevice.objects.filter(user=user).count() == 2
    assert not AuditEvent.objects.filter(action="staff.codes_made").exists()


def test_a_password_is_neither_guessed_nor_changed_by_who_showed_no_factor_lately(db):
    client = at_the_desk("support")
    before = User.objects.get().password
    new = {"new_password1": "quite another password", "new_password2": "quite another password"}
    with later(minutes=11):
        answers = [client.post(PASSWORD_CHANGE, {"old_password": old} | new) for old in ("a guess", PASSWORD)]
        answers.append(client.get(PASSWORD_CHANGE))
        assert [(answer.status_code, answer["Location"]) for answer in answers] == [(302, AGAIN)] * 3
        assert User.objects.get().password == before

        assert client.post(AGAIN, {"code": code_of("support")})["Location"] == PASSWORD_CHANGE
        assert "Nothing was done yet" in text_of(client.get(PASSWORD_CHANGE))
        assert client.post(PASSWORD_CHANGE, {"old_password": PASSWORD} | new)["Location"] == f"{PASSWORD_CHANGE}done/"
    assert User.objects.get().check_password(new["new_password1"])


def test_tries_of_the_old_password_are_counted(settings, db):
    settings.CPV_RATE_PER_ADDRESS = "3/minute"
    client = at_the_desk("support")
    wrong = {"old_password": "a guess", "new_password1": "x", "new_password2": "x"}

    assert [client.post(PASSWORD_CHANGE, wrong).status_code for _ in range(5)] == [200, 200, 200, 429, 429]


def signed_in_with_first(user: User) -> Client:
    second = TOTPDevice.objects.get(user=user, name="second")
    second.delete()
    client = signed_in(user)
    second.save(force_insert=True)
    return client


def test_a_passkey_shows_it_as_well(partner):
    client, passkey = at_the_desk("security"), Passkey()
    made = passkey.make(send(client, OFFER).json())
    assert send(client, ENROL, {"name": "laptop", "credential": made}).status_code == 200
    assert WebAuthnCredential.objects.count() == 1
    with later(minutes=11):
        client.get(stop(partner))
        assert "Use a passkey" in client.get(AGAIN).content.decode()
        assert send(client, PROVE, passkey.sign(send(client, ASK).json())).json() == {"then": stop(partner)}
        assert client.get(stop(partner)).status_code == 200
    assert AuditEvent.objects.get(action="staff.confirmed").detail == {"factor": "webauthncredential"}


def test_a_member_has_no_such_page(member):
    assert member.portal.get(AGAIN).status_code == 302
    assert member.portal.get(AGAIN)["Location"].startswith("/admin/login/")


def test_whoever_was_deactivated_meanwhile_proves_nothing(partner):
    client = at_the_desk("security")
    code = code_of("security")
    staff.deactivate(user=User.objects.get(username="security"), by=SYSTEM, reason="left")

    assert client.post(AGAIN, {"code": code})["Location"].startswith("/admin/login/")
