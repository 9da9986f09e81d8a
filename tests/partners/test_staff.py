"""The first of the staff, and the account for emergencies: by command, and never unnoticed."""

from __future__ import annotations

import io
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice

from partners import alarm_mails, staff, tasks
from partners.models import Partner, User
from tests.desk import at_the_desk, code_of, later, password, somebody
from tokens import alarms
from tokens.actors import SYSTEM
from tokens.models import Alarm, AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)
CODE = "/admin/second-factor/"
WHY = ("--reason", "everybody lost their telephones")


def command(*words: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command(*words, "--json", stdout=out, stderr=io.StringIO())
    document: dict[str, Any] = json.loads(out.getvalue())
    return document


def came_in(told: dict[str, Any], code: int = 0) -> Client:
    client = Client()
    password(client, told["username"], told["password"])
    client.post(CODE, {"code": told["codes"][code]})
    return client


def is_in(client: Client) -> bool:
    return client.get("/admin/").status_code == 200


# --- Appointing -----------------------------------------------------------------------------------------------------
def test_the_first_of_the_staff_is_appointed_and_gets_a_link(db):
    told = command("appoint", "ada", "--role", "admin", "--reason", "the first")

    assert {name: told[name] for name in ("username", "role")} == {"username": "ada", "role": "admin"}
    assert Client().get(urlsplit(told["url"]).path).status_code == 200
    event = AuditEvent.objects.get()
    assert (event.action, event.actor_label, event.detail["reason"]) == (
        "staff.appointed", "manage.py appoint", "the first",
    )  # fmt: skip


def test_a_second_link_voids_the_first(db):
    first = command("appoint", "ada", "--role", "admin", "--reason", "the first")["url"]
    staff.start_over(user=User.objects.get(), by=SYSTEM, reason="the mail was lost")

    with later(seconds=1):
        second = urlsplit(staff.welcome(User.objects.get())).path

    assert Client().get(second).status_code == 200
    assert Client().post(second, {"new_password1": "a password of my own", "new_password2": "a password of my own"})
    assert Client().get(urlsplit(first).path).status_code == 410


def test_whoever_is_enrolled_gets_another_role_and_no_link(db):
    somebody("support", "sam")

    assert command("appoint", "sam", "--role", "security", "--reason", "moved")["url"] is None

    assert User.objects.get().staff_role == "security"


def test_an_account_from_before_there_were_roles_enrols_anew(db):
    User.objects.create_user("old", "an old long password", is_staff=True, is_superuser=True)

    told = command("appoint", "old", "--role", "admin", "--reason", "a new release")

    user = User.objects.get()
    assert told["url"]
    assert not user.is_superuser
    assert not user.has_usable_password()


def test_whoever_was_deactivated_comes_back_with_nothing_from_before(db):
    user = somebody("support", "sam")
    assert staff.deactivate(user=user, by=SYSTEM, reason="left")
    assert not staff.deactivate(user=user, by=SYSTEM, reason="left twice")

    told = command("appoint", "sam", "--role", "support", "--reason", "is back")

    assert told["url"]
    assert password(Client(), "sam").status_code == 200


@pytest.mark.parametrize("name", ["Sam", "breakglass", "a:b", ""])
def test_a_name_that_is_none_is_wrong_use(db, name):
    with pytest.raises(CommandError) as wrong:
        command("appoint", name, "--role", "admin", *WHY)

    assert wrong.value.returncode == 2
    assert not User.objects.exists()


def test_the_name_of_somebody_of_a_partner_is_nobodys_of_the_staff(db):
    User.objects.create_user("member")

    with pytest.raises(CommandError, match="somebody of a partner"):
        command("appoint", "member", "--role", "admin", *WHY)


def test_there_are_no_superusers_by_command(db):
    with pytest.raises(CommandError, match="appoint NAME") as wrong:
        command("createsuperuser")

    assert wrong.value.returncode == 2


# --- Emergencies ----------------------------------------------------------------------------------------------------
def test_the_account_for_emergencies_opens_the_desk_without_microsoft_and_sounds_the_alarm(db, settings):
    settings.CPV_ALARM_MAIL = ["security@vendor.test"]
    told = command("breakglass", *WHY)
    assert not Alarm.objects.exists(), "it was not used yet"
    client = came_in(told)

    assert is_in(client)
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.closed_at, alarm.times) == ("break_glass", None, 1)
    assert [event.action for event in AuditEvent.objects.order_by("pk")] == [
        "staff.codes_made", "breakglass.opened", "staff.signed_in", "breakglass.used",
    ]  # fmt: skip
    tasks.tell_alarms()
    assert mail.outbox[0].to == ["security@vendor.test"]
    assert "was used" in mail.outbox[0].subject


def test_its_alarm_is_mailed_once_for_each_use(db, settings):
    settings.CPV_ALARM_MAIL = ["security@vendor.test"]
    told = command("breakglass", *WHY)
    came_in(told)

    assert [alarm_mails.tell(), alarm_mails.tell()] == [1, 0]
    came_in(told, code=1)
    assert [alarm_mails.tell(), alarm_mails.tell()] == [1, 0]
    assert Alarm.objects.get().times == 2


def test_a_use_while_the_mail_is_on_its_way_is_told_again(db):
    alarms.note_break_glass("one")
    alarm = Alarm.objects.get()
    alarms.note_break_glass("two")

    assert not alarm.mark_mailed()
    assert Alarm.objects.get().mailed_at is None


def test_mail_that_does_not_leave_is_tried_again_and_without_an_address_none_is_sent(db, settings):
    alarms.note_break_glass("one")
    assert alarm_mails.tell() == 0
    settings.CPV_ALARM_MAIL = ["security@vendor.test"]
    good, settings.EMAIL_BACKEND = settings.EMAIL_BACKEND, "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1

    assert alarm_mails.tell() == 0
    settings.EMAIL_BACKEND = good
    assert alarm_mails.tell() == 1


def test_it_ends_after_an_hour_in_every_session(db):
    told = command("breakglass", *WHY)
    client = came_in(told)

    with later(minutes=61):
        assert not is_in(client)
        assert not is_in(came_in(told, code=1))


def test_what_was_handed_out_before_is_void_when_it_is_opened_again(db):
    before = command("breakglass", *WHY)
    client = came_in(before)
    TOTPDevice.objects.create(user=User.objects.get(), name="somebody slipped it in")
    now = command("breakglass", *WHY)

    assert not is_in(client)
    assert not is_in(came_in(before, code=1))
    assert is_in(came_in(now))
    assert not TOTPDevice.objects.exists()


def test_its_codes_count_once_and_it_enrols_nothing(db):
    told = command("breakglass", *WHY)
    client = came_in(told)

    assert not is_in(came_in(told))
    for address in ("/admin/factors/app/", "/admin/factors/codes/"):
        assert "nothing to enrol" in client.post(address, {}, follow=True).content.decode()
    assert "nothing to enrol" in client.get("/admin/factors/app/", follow=True).content.decode()


def test_it_appoints_and_stops_but_does_not_lift_a_stop_of_everything(member):
    client = came_in(command("breakglass", *WHY))

    form = {"username": "nora", "role": "security", "reason": "nobody else is left"}
    assert client.post(reverse("admin:appoint"), form).status_code == 200
    assert client.post(reverse("admin:stop_everything"), {"reason": "a thief"}).status_code == 302
    assert client.get(reverse("admin:ask_to_lift")).status_code == 403
    assert client.get(reverse("admin:partners_partner_change", args=[Partner.objects.get().pk])).status_code == 200


def test_whoever_knows_what_it_was_ends_it_and_its_alarm(db):
    client = came_in(command("breakglass", *WHY))

    assert command("breakglass", "--end", "--reason", "the telephones are back") == {"ended": True}

    assert not is_in(client)
    assert Alarm.objects.get().closed_at
    assert AuditEvent.objects.latest("pk").action == "breakglass.ended"
    with pytest.raises(CommandError) as nothing:
        command("breakglass", "--end", "--reason", "again")
    assert nothing.value.returncode == 1


def test_there_is_nothing_to_end_before_the_first_emergency(db):
    with pytest.raises(CommandError):
        command("breakglass", "--end", *WHY)


def test_it_takes_nobodys_name(db):
    User.objects.create_user("breakglass", is_staff=True)

    with pytest.raises(CommandError, match="somebody else's"):
        command("breakglass", *WHY)


@pytest.mark.parametrize("words", [("appoint", "ada", "--role", "admin"), ("breakglass",)])
def test_each_asks_for_a_reason(db, words):
    with pytest.raises(CommandError) as wrong:
        command(*words, "--reason", " ")

    assert wrong.value.returncode == 2
    assert not AuditEvent.objects.exists()


def test_people_read_lines_and_see_each_secret_once(db, capsys):
    call_command("breakglass", *WHY)
    call_command("appoint", "ada", "--role", "admin", "--reason", "the first")

    said = capsys.readouterr().out
    assert "user breakglass, password" in said
    assert "/admin/welcome/" in said
    assert timezone.now() < User.objects.get(username="breakglass").valid_until


# --- A first look ---------------------------------------------------------------------------------------------------
def test_codes_are_printed_under_debug_only(db, settings):
    somebody("security")
    with pytest.raises(CommandError, match="DEBUG=true") as refused:
        command("deskcode")
    assert refused.value.returncode == 2

    settings.DEBUG = True
    assert command("deskcode", "security") == {"username": "security", "code": code_of("security")}
    with pytest.raises(CommandError, match="no authenticator app"):
        command("deskcode", "nobody")


def test_whoever_used_both_codes_that_count_now_has_to_wait(db, settings):
    settings.DEBUG = True
    somebody("security")
    with later():
        pass
    client = at_the_desk("security")
    assert is_in(client)
    for _ in range(2):
        visitor = Client()
        password(visitor, "security")
        visitor.post(CODE, {"code": command("deskcode")["code"]})

    with pytest.raises(CommandError, match="wait 30 seconds") as wait:
        command("deskcode")
    assert wait.value.returncode == 1
