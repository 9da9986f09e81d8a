"""Passkeys as the staff's second factor: enrolled by whoever may, good for one sign-in each, never without password."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django_otp.plugins.otp_totp.models import TOTPDevice
from django_otp_webauthn.models import WebAuthnCredential

from partners import second_factor, staff
from partners.models import User
from tests.desk import PASSWORD, at_the_desk, code_of, password, somebody
from tests.passkey import Passkey
from tests.pretend import text_of
from tokens.actors import SYSTEM
from tokens.models import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)
OFFER, ENROL = "/admin/factors/passkey/offer/", "/admin/factors/passkey/enrol/"
ASK, PROVE = "/admin/second-factor/passkey/ask/", "/admin/second-factor/passkey/prove/"


def send(client: Client, address: str, body: dict[str, Any] | None = None) -> Any:
    return client.post(address, body or {}, content_type="application/json")


def enrolled(client: Client, passkey: Passkey, name: str = "laptop") -> Any:
    return send(client, ENROL, {"name": name, "credential": passkey.make(send(client, OFFER).json())})


def proved(client: Client, passkey: Passkey) -> Any:
    return send(client, PROVE, passkey.sign(send(client, ASK).json()))


def is_in(client: Client) -> bool:
    return client.get("/admin/").status_code == 200


@pytest.fixture
def newcomer(db) -> Client:
    """Somebody on the way in who has no second factor yet."""
    User.objects.create_user("nora", PASSWORD, is_staff=True, staff_role="support")
    client = Client()
    assert password(client, "nora")["Location"] == "/admin/enrol/"
    return client


def test_somebody_new_enrols_a_passkey_and_is_in_and_is_told_of_recovery_codes(newcomer):
    assert enrolled(newcomer, Passkey()).json() == {"then": "/admin/factors/"}

    page = text_of(newcomer.get("/admin/factors/"))
    assert "laptop" in page
    assert "0 left" in page
    assert [event.action for event in AuditEvent.objects.order_by("pk")] == ["staff.factor_added", "staff.signed_in"]


def test_a_passkey_opens_the_desk_after_the_password(newcomer):
    passkey, client = Passkey(), Client()
    enrolled(newcomer, passkey)

    assert password(client, "nora", next="/admin/tokens/alarm/")["Location"] == "/admin/second-factor/"
    assert "Sign in with a passkey" in client.get("/admin/second-factor/").content.decode()
    assert proved(client, passkey).json() == {"then": "/admin/tokens/alarm/"}

    assert is_in(client)
    assert AuditEvent.objects.latest("pk").detail == {"factor": "webauthncredential"}


def test_without_the_password_it_opens_nothing(newcomer):
    passkey, stranger = Passkey(), Client()
    enrolled(newcomer, passkey)

    assert send(stranger, ASK).status_code == 403
    assert send(stranger, PROVE, passkey.sign({"challenge": "AAAA"})).status_code == 403
    assert send(stranger, OFFER).status_code == 403
    assert send(stranger, ENROL, {}).status_code == 403


def test_what_was_signed_counts_once(newcomer):
    passkey, client = Passkey(), Client()
    enrolled(newcomer, passkey)
    password(client, "nora")
    signed = passkey.sign(send(client, ASK).json())
    assert send(client, PROVE, signed).status_code == 200
    again = Client()
    password(again, "nora")

    assert send(again, PROVE, signed).status_code == 400
    send(again, ASK)
    assert send(again, PROVE, signed).status_code == 422
    assert not is_in(again)


@pytest.mark.parametrize(
    "passkey", [Passkey(origin="https://elsewhere.test"), Passkey(rp_id="elsewhere.test")], ids=["origin", "rp id"]
)
def test_a_passkey_of_another_place_is_none(newcomer, passkey):
    assert enrolled(newcomer, passkey).status_code == 422

    assert not WebAuthnCredential.objects.exists()
    assert not is_in(newcomer)


def test_the_passkey_of_somebody_else_opens_nothing(newcomer):
    passkey, client = Passkey(), Client()
    enrolled(newcomer, passkey)
    somebody("support")
    password(client, "support")

    assert proved(client, passkey).status_code == 403
    assert not is_in(client)


def test_another_key_under_the_same_id_opens_nothing(newcomer):
    passkey, client = Passkey(), Client()
    enrolled(newcomer, passkey)
    password(client, "nora")

    assert proved(client, Passkey(raw_id=passkey.raw_id)).status_code == 422
    assert not is_in(client)


def test_whoever_has_a_second_factor_shows_it_before_adding_a_passkey(db):
    user = somebody("support")
    client = Client()
    password(client, "support")

    assert send(client, OFFER).status_code == 403
    assert send(client, ENROL, {}).status_code == 403
    client.post("/admin/second-factor/", {"code": code_of(user)})
    assert enrolled(client, Passkey()).status_code == 200

    assert [device.name for device in second_factor.devices_of(user)] == ["app", "laptop"]


def test_of_two_first_ones_the_second_is_refused(newcomer):
    late = Client()
    password(late, "nora")
    offer = send(late, OFFER).json()
    enrolled(newcomer, Passkey())

    assert send(late, ENROL, {"credential": Passkey().make(offer)}).status_code == 403
    assert WebAuthnCredential.objects.count() == 1


def test_there_are_five_devices_at_most(db):
    client = at_the_desk("support")
    for number in range(4):
        TOTPDevice.objects.create(user=User.objects.get(), name=str(number))

    answer = enrolled(client, Passkey())

    assert answer.status_code == 409
    assert "remove one first" in answer.json()["detail"]


def test_a_passkey_that_is_removed_opens_nothing_and_ends_its_session(newcomer):
    passkey, client = Passkey(), at_the_desk("admin")
    enrolled(newcomer, passkey)
    nora = User.objects.get(username="nora")

    client.post(f"/admin/partners/user/{nora.pk}/start-over/", {"reason": "the laptop was stolen"})

    assert not WebAuthnCredential.objects.exists()
    assert not is_in(newcomer)


def test_the_account_for_emergencies_gets_no_passkey(db):
    user, word, codes = staff.break_glass(by=SYSTEM, reason="a test")
    client = Client()
    password(client, user.username, word)
    assert send(client, OFFER).status_code == 403
    client.post("/admin/second-factor/", {"code": codes[0]})

    assert is_in(client)
    assert send(client, OFFER).status_code == 403


def test_another_sites_page_cannot_speak_for_a_visitor(newcomer):
    careful = Client(enforce_csrf_checks=True)
    careful.cookies = newcomer.cookies

    assert send(careful, OFFER).status_code == 403


def test_a_passkey_without_a_name_has_one(newcomer):
    enrolled(newcomer, Passkey(), name=" ")

    assert WebAuthnCredential.objects.get().name == "Passkey"


@pytest.mark.parametrize(
    "body", [{}, {"credential": 1}, {"credential": {}}, [], [1], 1, "x", {"credential": {"id": "x"}}]
)
def test_what_is_no_passkey_is_refused_in_words(newcomer, body):
    send(newcomer, OFFER)

    answer = newcomer.post(ENROL, body, content_type="application/json")

    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]
    assert not is_in(newcomer)


@pytest.mark.parametrize("body", [{}, [], [1], 1, {"id": "x"}])
def test_what_nobody_signed_is_refused_in_words(newcomer, body):
    enrolled(newcomer, Passkey())
    client = Client()
    password(client, "nora")
    send(client, ASK)

    answer = client.post(PROVE, body, content_type="application/json")

    assert answer.status_code in (400, 404, 422)
    assert answer.json()["detail"]
