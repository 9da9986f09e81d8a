"""How the vendor's staff come to the desk: password, then second factor; whoever has none enrols one first."""

from __future__ import annotations

import re
import threading
from base64 import b32decode
from typing import Any
from urllib.parse import urlsplit

import pytest
from axes.models import AccessAttempt
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from partners import second_factor, staff
from partners.client_address import address_of
from partners.models import User
from tests.desk import PASSWORD, CountingHasher, at_the_desk, code_of, later, password, somebody
from tests.pretend import text_of
from tokens.actors import SYSTEM
from tokens.models import AuditEvent
from tokens.tenancy import owner_scope

pytestmark = pytest.mark.django_db(transaction=True)
CODE = "/admin/second-factor/"
ENROL = "/admin/enrol/"


def is_in(client: Client) -> bool:
    return client.get("/admin/").status_code == 200


def app_with(letters: str) -> str:
    """What an app shows that was given these letters."""
    return f"{TOTP(b32decode(letters.replace(' ', ''))).token():06}"


def letters_on(page: Any) -> str:
    found = re.search(r'<code class="desk-key">([A-Z2-7 ]+)</code>', page.content.decode())
    assert found, text_of(page)
    return found[1]


def codes_on(page: Any) -> list[str]:
    return re.findall(r"<code>([a-z2-7-]{19})</code>", page.content.decode())


def enrolled(client: Client) -> list[str]:
    """Enrol as the page asks for it; the recovery codes it shows."""
    page = client.post(ENROL, {"code": app_with(letters_on(client.get(ENROL)))})
    assert page.status_code == 200, page
    return codes_on(page)


# --- Two factors ----------------------------------------------------------------------------------------------------
def test_password_and_code_together_open_the_desk(db):
    somebody("support")
    client = Client()

    half = password(client, "support", next="/admin/partners/partner/")
    assert half["Location"] == CODE
    assert not is_in(client)
    whole = client.post(CODE, {"code": code_of("support")})

    assert whole["Location"] == "/admin/partners/partner/"
    assert is_in(client)
    event = AuditEvent.objects.get(action="staff.signed_in")
    assert (event.actor_label, event.detail) == ("support", {"factor": "totp"})


def test_whoever_is_in_is_not_asked_again(db):
    assert at_the_desk("support").get("/admin/login/")["Location"] == "/admin/"


def test_between_password_and_code_nobody_is_signed_in_anywhere(db):
    somebody("support")
    client = Client()
    password(client, "support")

    assert "_auth_user_id" not in client.session
    assert client.get("/")["Location"].startswith("/signin")


def test_the_session_has_another_key_after_each_step(db):
    somebody("support")
    client = Client()
    client.get("/admin/login/")
    password(client, "support")
    half = client.session.session_key
    client.post(CODE, {"code": code_of("support")})

    assert client.session.session_key not in (None, half)


def test_a_code_counts_once(db):
    user = somebody("support")
    first, second = Client(), Client()
    code = code_of(user)
    for client in (first, second):
        password(client, "support")
        client.post(CODE, {"code": code})

    assert is_in(first)
    assert not is_in(second)


def test_after_a_wrong_code_even_the_right_one_has_to_wait(db):
    user = somebody("support")
    client = Client()
    password(client, "support")

    assert "does not count" in text_of(client.post(CODE, {"code": "000000"}))
    assert "does not count" in text_of(client.post(CODE, {"code": code_of(user)}))
    assert not is_in(client)
    with later(seconds=5):
        client.post(CODE, {"code": code_of(user)})
        assert is_in(client)


@pytest.mark.parametrize("code", ["", " ", "1", "12345a", "٣٤٥٦٧٨", "x" * 41, "aaaa-bbbb-cccc-dddd"])
def test_what_is_no_code_is_refused(db, code):
    somebody("support")
    client = Client()
    password(client, "support")

    assert client.post(CODE, {"code": code}).status_code == 200
    assert not is_in(client)


def test_half_a_sign_in_is_over_after_ten_minutes(db):
    user = somebody("support")
    client = Client()
    password(client, "support")

    with later(minutes=11):
        assert client.post(CODE, {"code": code_of(user)})["Location"] == "/admin/login/"
        assert not is_in(client)


def test_half_a_sign_in_ends_with_the_password_it_was_made_with(db):
    user = somebody("support")
    client = Client()
    password(client, "support")
    user.set_password("quite another password")
    user.save(update_fields=["password"])

    assert client.post(CODE, {"code": code_of(user)})["Location"] == "/admin/login/"


@pytest.mark.parametrize("end", ["deactivated", "role taken away", "device taken away"])
def test_a_session_ends_with_what_it_stands_on(db, end):
    client = at_the_desk("support")
    user = User.objects.get(username="support")
    assert is_in(client)

    if end == "deactivated":
        staff.deactivate(user=user, by=SYSTEM, reason="left")
    elif end == "role taken away":
        User.objects.update(staff_role="")
    else:
        TOTPDevice.objects.all().delete()

    assert not is_in(client)


def test_the_code_of_somebody_else_opens_nothing(db):
    somebody("support")
    other = somebody("security")
    client = Client()
    password(client, "support")
    client.post(CODE, {"code": code_of(other)})

    assert not is_in(client)


def test_an_address_elsewhere_is_not_gone_on_to(db):
    user = somebody("support")
    client = Client()
    password(client, "support", next="https://elsewhere.test/")

    assert client.post(CODE, {"code": code_of(user)})["Location"] == "/admin/"


def test_whoever_was_a_partners_member_in_this_browser_is_not_any_more(member):
    user = somebody("support")
    assert member.portal.get("/").status_code == 200
    password(member.portal, "support")
    member.portal.post(CODE, {"code": code_of(user)})

    assert is_in(member.portal)
    assert member.portal.get("/").status_code == 404


# --- Guessing -------------------------------------------------------------------------------------------------------
def refused(client: Client, name: str, guess: str) -> str:
    """What the page says, without what differs from page to page anyway."""
    answer = password(client, name, guess)
    assert answer.status_code == 200
    return re.sub(rf'name="csrfmiddlewaretoken" value="[^"]+"|value="{name}"', "", answer.content.decode())


def test_a_wrong_password_an_unknown_name_and_a_lock_are_answered_alike(db):
    somebody("support")
    User.objects.create_user("idle", PASSWORD, is_staff=True)  # without a role

    wrong = refused(Client(), "support", "wrong")
    unknown = refused(Client(), "nobody-knows", "wrong")
    roleless = refused(Client(), "idle", PASSWORD)
    for _ in range(5):
        locked = refused(Client(), "support", "wrong")

    assert wrong == unknown == roleless == locked
    assert refused(Client(), "support", PASSWORD) == wrong, "it is locked: the right password does not help"


def test_every_refusal_costs_as_much_work_as_a_look_at_the_password(db, settings):
    settings.PASSWORD_HASHERS = ["tests.desk.CountingHasher"]
    somebody("support")
    costs = []

    for name in ("support", "nobody-knows", *["support"] * 21):  # locked from here, and then from everywhere
        CountingHasher.done = 0
        password(Client(), name, "wrong")
        costs.append(CountingHasher.done)

    assert set(costs) == {1}, costs


def test_five_wrong_passwords_lock_a_name_from_this_place_for_a_quarter_of_an_hour(db):
    user = somebody("support")
    somebody("security")
    for _ in range(5):
        password(Client(), "support", "wrong")

    assert password(Client(), "support").status_code == 200
    assert password(Client(REMOTE_ADDR="192.0.2.7"), "support").status_code == 302, "another place is not locked"
    assert password(Client(), "security").status_code == 302, "another name is not locked"
    with later(minutes=16):
        client = Client()
        password(client, "support")
        client.post(CODE, {"code": code_of(user)})
        assert is_in(client)


def test_one_name_is_guessed_twenty_times_an_hour_from_however_many_places(db):
    somebody("support")
    somebody("security")
    at_home, elsewhere = Client(REMOTE_ADDR="198.51.100.7"), Client(REMOTE_ADDR="203.0.113.7")
    password(at_home, "support")
    at_home.post(CODE, {"code": code_of("support")})

    tries = [password(Client(REMOTE_ADDR=f"10.0.{n}.1"), "Support" if n % 2 else "support", "wrong") for n in range(20)]

    locked = password(elsewhere, "support")
    assert locked.status_code == 200, "the right password does not help there"
    assert text_of(locked) == text_of(tries[0])
    assert password(elsewhere, "security").status_code == 302, "another name is not locked"
    assert password(Client(REMOTE_ADDR="198.51.100.9"), "support").status_code == 302, (
        "nor is where they came in lately"
    )
    assert password(Client(REMOTE_ADDR="198.51.100.9"), "security").status_code == 302
    with later(minutes=61):
        assert password(elsewhere, "support").status_code == 302


def test_the_right_password_alone_does_not_forgive_the_wrong_ones(db):
    somebody("support")
    for guess in ("wrong", "wrong", "wrong", PASSWORD, "wrong", "wrong"):
        password(Client(), "support", guess)

    assert password(Client(), "support").status_code == 200


def test_whoever_came_in_with_both_starts_from_none(db):
    user = somebody("support")
    for guess in ("wrong", "wrong", "wrong", PASSWORD):
        client = Client()
        password(client, "support", guess)
    client.post(CODE, {"code": code_of(user)})
    assert is_in(client)

    for guess in ("wrong", "wrong", "wrong"):
        password(Client(), "support", guess)

    assert password(Client(), "support").status_code == 302


@pytest.mark.parametrize(
    ("proxies", "heard", "address"),
    [
        (0, "192.0.2.1", "127.0.0.1"),
        (1, "192.0.2.1", "192.0.2.1"),
        (1, "6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (2, "6.6.6.6, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
        (2, "10.0.0.1", "127.0.0.1"),
        (1, "", "127.0.0.1"),
        (1, "unknown", "127.0.0.1"),
        (1, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
    ],
)
def test_a_visitor_cannot_choose_the_address_that_is_throttled(rf, settings, proxies, heard, address):
    settings.CPV_TRUSTED_PROXIES = proxies

    assert address_of(rf.get("/", headers={"X-Forwarded-For": heard})) == address


def test_a_door_that_nobody_names_an_address_at_is_throttled_all_the_same(db):
    somebody("support")
    for _ in range(5):
        assert password(Client(REMOTE_ADDR=""), "support", "wrong").status_code == 200

    assert password(Client(REMOTE_ADDR=""), "support").status_code == 200


# --- Enrolling ------------------------------------------------------------------------------------------------------
@pytest.fixture
def link(db) -> str:
    """The way in of somebody who was appointed a moment ago."""
    user = staff.appoint(username="nora", role="support", by=SYSTEM, reason="new here")
    return urlsplit(staff.welcome(user)).path


def chosen(client: Client, link: str, word: str = "a password of my own") -> Any:
    return client.post(link, {"new_password1": word, "new_password2": word})


def test_somebody_new_chooses_a_password_enrols_and_is_in(link):
    client = Client()

    assert "works once" in text_of(client.get(link))
    assert chosen(client, link)["Location"] == ENROL
    codes = enrolled(client)

    assert len(set(codes)) == 10
    assert is_in(client)
    assert [event.action for event in AuditEvent.objects.order_by("pk")] == [
        "staff.appointed", "staff.factor_added", "staff.codes_made", "staff.signed_in",
    ]  # fmt: skip


def test_a_link_works_once_and_for_a_day(link):
    with later(hours=25):
        assert Client().get(link).status_code == 410
    assert chosen(Client(), link, "short").status_code == 200
    chosen(Client(), link)

    assert Client().get(link).status_code == 410
    assert chosen(Client(), link, "a thief's own password").status_code == 410
    for nonsense in ("/admin/welcome/x/y/", "/admin/welcome/MQ/c-0/", "/admin/welcome/////"):
        assert Client().get(nonsense).status_code in (302, 410)


def test_without_a_second_factor_there_is_nothing_but_the_page_to_enrol(link):
    chosen(Client(), link)
    client = Client()

    assert password(client, "nora", "a password of my own")["Location"] == ENROL
    assert client.get(CODE)["Location"] == ENROL
    for address in ("/admin/", "/admin/factors/", "/admin/partners/partner/", "/admin/password_change/"):
        assert client.get(address)["Location"].startswith("/admin/login/"), address
    assert "Nothing else is shown" in text_of(client.get(ENROL))


def test_an_app_is_enrolled_only_once_it_showed_the_right_code(link):
    client = Client()
    chosen(client, link)

    assert "not what this app should show" in text_of(client.post(ENROL, {"code": "000000"}))

    assert not TOTPDevice.objects.exists()
    assert not is_in(client)


def test_each_session_enrols_a_seed_of_its_own_and_the_first_one_counts(link):
    early, late = Client(), Client()
    chosen(early, link)
    password(late, "nora", "a password of my own")
    seeds = [letters_on(client.get(ENROL)) for client in (early, late)]
    assert seeds[0] != seeds[1]

    enrolled(late)

    assert early.get(ENROL)["Location"] == CODE
    assert early.post(ENROL, {"code": app_with(seeds[0])})["Location"] == CODE
    assert TOTPDevice.objects.count() == 1


def test_a_first_enrolment_that_comes_late_is_refused(db):
    user, seed = somebody("support"), second_factor.new_seed()
    code = f"{TOTP(bytes.fromhex(seed)).token():06}"

    with pytest.raises(second_factor.Refused, match="sign in with it"):
        second_factor.enrol_app(user=user, seed=seed, code=code, name="app", is_first=True)

    assert TOTPDevice.objects.count() == 1


@pytest.mark.postgresql
def test_of_two_first_enrolments_at_once_one_counts(link):
    user = User.objects.get()
    start, ended = threading.Barrier(2), []

    @owner_scope()
    def enrol() -> None:
        seed = second_factor.new_seed()
        code = f"{TOTP(bytes.fromhex(seed)).token():06}"
        start.wait()
        try:
            second_factor.enrol_app(user=user, seed=seed, code=code, name="app", is_first=True)
            ended.append("enrolled")
        except second_factor.Refused:
            ended.append("refused")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=enrol) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(ended) == ["enrolled", "refused"]


def test_the_code_that_enrolled_an_app_does_not_sign_in_as_well(link):
    client, other = Client(), Client()
    chosen(client, link)
    code = app_with(letters_on(client.get(ENROL)))
    client.post(ENROL, {"code": code})
    password(other, "nora", "a password of my own")
    other.post(CODE, {"code": code})

    assert is_in(client)
    assert not is_in(other)


def test_a_recovery_code_opens_the_desk_once_and_is_kept_as_a_hash(link):
    client = Client()
    chosen(client, link)
    codes = enrolled(client)
    kept = set(StaticToken.objects.values_list("token", flat=True))
    assert not kept & {code.replace("-", "") for code in codes}

    first, second = Client(), Client()
    for visitor in (first, second):
        password(visitor, "nora", "a password of my own")
        visitor.post(CODE, {"code": codes[0].upper()})

    assert is_in(first)
    assert not is_in(second)
    assert AuditEvent.objects.filter(action="staff.signed_in").latest("pk").detail == {"factor": "static"}


def test_the_pages_on_the_way_in_keep_the_strict_policy_and_are_cached_nowhere(link):
    client = Client()
    pages = [client.get("/admin/login/"), client.get(link)]
    chosen(client, link)
    pages += [client.get(ENROL), client.post(ENROL, {"code": app_with(letters_on(client.get(ENROL)))})]

    for page in pages:
        assert "unsafe" not in page["Content-Security-Policy"]
        assert "no-store" in page["Cache-Control"]
        inline = re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", page.content.decode())
        assert not inline, inline


# --- One's own factors ----------------------------------------------------------------------------------------------
def test_another_app_is_added_and_one_is_removed_but_never_the_last(db):
    client = at_the_desk("support")
    user = User.objects.get()
    page = client.get("/admin/factors/app/")

    assert "not what this app" in text_of(client.post("/admin/factors/app/", {"name": "tablet", "code": "000000"}))
    added = client.post("/admin/factors/app/", {"name": "tablet", "code": app_with(letters_on(page))}, follow=True)
    assert "Enrolled: tablet" in text_of(added)
    first, second = TOTPDevice.objects.order_by("pk")
    client.post("/admin/factors/remove/", {"device": second.persistent_id})
    refused = client.post("/admin/factors/remove/", {"device": first.persistent_id}, follow=True)

    assert "last second factor" in text_of(refused)
    assert [device.name for device in second_factor.devices_of(user)] == ["app"]
    assert set(AuditEvent.objects.values_list("action", flat=True)) == {"staff.factor_added", "staff.factor_removed"}


def test_nobody_removes_what_is_somebody_elses(db):
    client = at_the_desk("support")
    other = TOTPDevice.objects.get(user=somebody("security"))

    answer = client.post("/admin/factors/remove/", {"device": other.persistent_id}, follow=True)

    assert "gone already" in text_of(answer)
    assert TOTPDevice.objects.filter(pk=other.pk).exists()


def test_there_are_five_apps_at_most(db):
    client = at_the_desk("support")
    for number in range(4):
        TOTPDevice.objects.create(user=User.objects.get(), name=str(number))
    seed = letters_on(client.get("/admin/factors/app/"))

    answer = client.post("/admin/factors/app/", {"name": "sixth", "code": app_with(seed)}, follow=True)

    assert "5 of them already" in text_of(answer)


def test_new_recovery_codes_void_the_old_ones(db):
    client = at_the_desk("support")
    old = second_factor.new_recovery_codes(User.objects.get())

    new = codes_on(client.post("/admin/factors/codes/"))

    assert len(new) == 10
    assert client.get("/admin/factors/codes/").status_code == 405
    assert second_factor.prove(User.objects.get(), old[0]) is None
    with later(seconds=5):
        assert second_factor.prove(User.objects.get(), new[0]) is not None
    assert "9 left" in text_of(client.get("/admin/factors/"))


def test_with_two_apps_the_code_of_either_counts_and_neither_waits_for_the_other(db):
    user = somebody("support")
    second = TOTPDevice.objects.create(user=user, name="tablet")

    for one in (second, TOTPDevice.objects.get(name="app"), second):
        device = TOTPDevice.objects.get(pk=one.pk)
        now = TOTP(device.bin_key)
        now.drift = max(0, device.last_t + 1 - now.t())
        assert second_factor.prove(user, f"{now.token():06}") == one


def test_a_changed_password_is_in_the_audit(db):
    client = at_the_desk("support")
    new = "quite another password"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}

    assert client.post("/admin/password_change/", form).status_code == 302

    assert AuditEvent.objects.get().action == "staff.password_changed"
    assert is_in(client)


# --- A first look ---------------------------------------------------------------------------------------------------
def test_a_newcomer_gets_the_next_code_by_a_command_under_debug(db, settings, capsys):
    somebody("security")
    settings.DEBUG = True
    for _ in range(2):  # each code counts once, and the command knows
        client = Client()
        password(client, "security")
        call_command("deskcode")
        client.post(CODE, {"code": capsys.readouterr().out.strip()})
        assert is_in(client)


def test_nothing_that_opens_the_desk_is_written_to_the_log_or_kept_beside(link, caplog):
    caplog.set_level("DEBUG")
    client = Client()
    chosen(client, link)
    letters = letters_on(client.get(ENROL))
    seed = client.session["desk_door"]["seed"]
    codes = enrolled(client)
    visitor = Client()
    password(visitor, "nora", "a password of my own")
    visitor.post(CODE, {"code": codes[0]})
    assert is_in(visitor)
    password(Client(), "nora", "a wrong password")

    kept = f"{caplog.text} {list(AccessAttempt.objects.values())} {list(AuditEvent.objects.values())}"
    token = link.rstrip("/").rpartition("/")[2]
    for secret in (letters, letters.replace(" ", ""), seed, *codes, "wrong password", "password of my own", token):
        assert secret not in kept
    assert AccessAttempt.objects.exists()
