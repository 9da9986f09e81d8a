"""What somebody who came in with Microsoft may do at the desk, for how long, and what is decided about them there."""

from __future__ import annotations

import io
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from consent.models import ConsentAttempt
from partners import borrowed, lifting, presence, second_factor, staff
from partners.models import AccessGrant, LiftRequest, Partner, User
from partners.sign_in_backends import PEOPLE
from tests.desk import at_the_desk as local
from tests.desk import code_of, later, password, settle, somebody, typed
from tests.entra_staff import DOOR, account, at_the_desk, comes, is_in, refused, user_of
from tests.pretend import Person, text_of
from tokens.actors import SYSTEM
from tokens.models import AuditEvent, Halt

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("response_mode", "by_entra")]
WHY = {"reason": "because"}


def wanted(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


# --- The proof lies in the session ----------------------------------------------------------------------------------
@pytest.mark.parametrize("end", ["deactivated", "role taken away", "signed out", "idle", "eight hours"])
def test_a_session_ends_with_what_it_stands_on(world, end):
    browser = at_the_desk(world, "support")
    if end == "deactivated":
        staff.deactivate(user=User.objects.get(), by=SYSTEM, reason="left")
    elif end == "role taken away":
        User.objects.update(staff_role="")
    elif end == "signed out":
        browser.portal.post("/admin/logout/")
    if end not in ("idle", "eight hours"):
        assert not is_in(browser)
        return
    minutes = 31 if end == "idle" else 8 * 60 + 1
    if end == "eight hours":
        for step in range(20, minutes - 1, 20):
            with later(minutes=step):
                assert is_in(browser)
    with later(minutes=minutes):
        assert not is_in(browser)


def test_the_proof_of_one_is_none_of_another(world):
    at_the_desk(world, "support")
    browser, other = at_the_desk(world, "auditor"), user_of(account(world, "support"))
    session = browser.portal.session
    session["shown_at_microsoft"] = other.pk
    session.save()

    assert not is_in(browser)


def test_a_local_account_cannot_be_proven_that_way(db):
    user, client = somebody("support"), Client()
    client.force_login(user, backend=PEOPLE)
    session = client.session
    session["shown_at_microsoft"] = user.pk
    session.save()

    assert client.get("/admin/").status_code == 302


def test_somebody_from_entra_has_neither_password_nor_second_factor_here(world):
    browser = at_the_desk(world, "admin")
    user = User.objects.get()

    assert "Second factor" not in text_of(browser.portal.get("/admin/"))
    assert "kept there" in text_of(browser.portal.get("/admin/factors/"))
    for address in ("/admin/factors/app/", "/admin/factors/codes/"):
        assert "kept there" in text_of(browser.portal.post(address, {}, follow=True))
    assert browser.portal.post("/admin/factors/passkey/offer/", {}, "application/json").status_code >= 400
    form = {"old_password": "!", "new_password1": "quite another password", "new_password2": "quite another password"}
    assert browser.portal.post("/admin/password_change/", form).status_code == 200
    assert not User.objects.get().has_usable_password()
    assert password(Client(), user.username, "!").status_code == 200


# --- What they may do -----------------------------------------------------------------------------------------------
def test_security_from_entra_stops_a_partner(member, world):
    browser, partner = at_the_desk(world, "security"), Partner.objects.get()

    done = browser.portal.post(reverse("admin:stop_partner", args=[partner.pk]), {"reason": "a thief"}, follow=True)

    assert "is stopped" in text_of(done)
    assert AuditEvent.objects.get(action="partner.killed").actor_label == account(world, "security").upn


def test_support_from_entra_may_not(member, world):
    stop = reverse("admin:stop_partner", args=[Partner.objects.get().pk])

    assert at_the_desk(world, "support").portal.post(stop, {"reason": "x"}).status_code == 403


def test_support_from_entra_borrows_a_look(member, world):
    browser, partner = at_the_desk(world, "support"), Partner.objects.get()
    page = reverse("admin:borrowed_access", args=[partner.pk])
    browser.portal.post(page, {"act": "ask", "reason": "names are missing"})
    grant = AccessGrant.objects.get()
    borrowed.approve(grant=grant, by=partner.members.get().user)

    browser.portal.post(page, {"act": "open", "grant": grant.pk})

    assert "Contoso" in text_of(browser.portal.get("/"))
    assert browser.portal.get("/customers/").status_code == 200
    staff.deactivate(user=user_of(account(world, "support")), by=SYSTEM, reason="left")
    assert browser.portal.get("/customers/").status_code == 302


def test_another_role_in_entra_ends_a_look_and_a_request(member, world):
    browser, partner = at_the_desk(world, "support"), Partner.objects.get()
    page = reverse("admin:borrowed_access", args=[partner.pk])
    browser.portal.post(page, {"act": "ask", "reason": "names are missing"})
    grant = AccessGrant.objects.get()
    borrowed.approve(grant=grant, by=partner.members.get().user)

    account(world, "support").app_roles = {"Desk.Security"}
    comes(browser, account(world, "support"))

    grant.refresh_from_db()
    assert grant.state == "ended"


# --- Proving it again -----------------------------------------------------------------------------------------------
@pytest.fixture
def security(world):
    """One of security who came in eleven minutes ago."""
    browser = at_the_desk(world, "security")
    with later(minutes=11):
        yield browser


def goes_again(browser: Person, **form: str) -> str:
    return browser.leave(DOOR, again="1", **form)


def test_somebody_at_the_desk_proves_anew_who_they_are(security, world):
    before = security.portal.session.session_key
    assert not presence.is_fresh(security.portal.session)
    assert "Confirm with Microsoft" in security.portal.get(DOOR).content.decode()

    address = goes_again(security, next="/admin/partners/partner/")
    answer = security.bring(security.at_microsoft(address, account(world, "security")))

    query = wanted(address)
    assert (query["prompt"], query["max_age"]) == ("login", "600")
    assert query["login_hint"] == account(world, "security").upn
    assert answer["Location"] == "/admin/partners/partner/"
    assert presence.is_fresh(security.portal.session)
    assert security.portal.session.session_key != before
    assert is_in(security)
    event = AuditEvent.objects.latest("pk")
    assert (event.action, event.detail["factor"]) == ("staff.confirmed", "entra")
    assert ConsentAttempt.objects.latest("pk").outcome == "proved again"


def test_another_person_proves_nothing_and_the_session_stays(security, world):
    answer = security.bring(security.at_microsoft(goes_again(security), account(world, "admin")))

    refused(answer, "another_person")
    assert "Back to the desk" in text_of(answer)
    assert not presence.is_fresh(security.portal.session)
    assert is_in(security)
    assert not User.objects.filter(staff_role="admin").exists()


def test_taking_the_wish_out_of_the_address_gains_nothing(security, world):
    with later(minutes=12):
        address = urlsplit(goes_again(security))
        stripped = urlencode(wanted(address.geturl()) | {"prompt": "none", "max_age": "86400"})
        silent = security.microsoft.get(address._replace(query=stripped).geturl(), allow_redirects=False)

        refused(security.bring(security.sent_back(silent)), "not_anew")

        assert not presence.is_fresh(security.portal.session)


def test_an_answer_that_does_not_say_when_is_no_proof(security, world):
    address = urlsplit(goes_again(security))
    query = {name: value for name, value in wanted(address.geturl()).items() if name != "max_age"}
    without = address._replace(query=urlencode(query)).geturl()

    refused(security.bring(security.at_microsoft(without, account(world, "security"))), "not_anew")


def test_whoever_lost_their_role_meanwhile_is_out(security, world):
    address = goes_again(security)
    account(world, "security").app_roles = set()

    refused(security.bring(security.at_microsoft(address, account(world, "security"))), "no_desk_role")

    assert not is_in(security)


def test_only_whoever_came_with_microsoft_is_led_there_again(browser, world, db):
    user = somebody("security", "sam")
    client = Client()
    password(client, "sam")
    client.post("/admin/second-factor/", {"code": code_of(user)})

    for stranger in (client, browser.portal):
        assert stranger.post(DOOR, {"again": "1"})["Location"] == "/admin/login/"
        assert stranger.get(DOOR)["Location"] == "/admin/login/"
    assert not ConsentAttempt.objects.exists()


def test_a_sign_in_that_does_not_say_when_keeps_no_proof_of_an_earlier_session(security, world):
    security.bring(security.at_microsoft(goes_again(security), account(world, "security")))
    assert presence.is_fresh(security.portal.session)

    address = urlsplit(security.leave(DOOR))
    query = {name: value for name, value in wanted(address.geturl()).items() if name != "max_age"}
    without = address._replace(query=urlencode(query)).geturl()
    security.bring(security.at_microsoft(without, account(world, "security")))

    assert is_in(security)
    assert not presence.is_fresh(security.portal.session)


def test_coming_in_is_a_fresh_proof(browser, world):
    comes(browser, account(world, "security"))

    assert presence.is_fresh(browser.portal.session)


def test_what_is_grave_leads_to_microsoft_first_and_back_to_its_page(member, security, world):
    stop = reverse("admin:stop_partner", args=[Partner.objects.get().pk])

    proves(security, account(world, "security"), stop)

    assert "Nothing was done yet" in text_of(security.portal.get(stop))
    with later(minutes=11):  # by the page for a code, too, the way leads back
        security.portal.get(stop)
        security.portal.get("/admin/again/")
        assert (
            security.bring(security.at_microsoft(goes_again(security), account(world, "security")))["Location"] == stop
        )
    assert "is stopped" in text_of(security.portal.post(stop, WHY, follow=True))


def test_the_page_for_a_code_sends_whoever_has_none_to_microsoft(security):
    assert security.portal.get("/admin/again/")["Location"] == DOOR


# --- Lifting a stop of everything, which takes a proof of each of the two ---------------------------------------------
ASK, AGREE = "/admin/partners/partner/lift-everything/ask/", "/admin/partners/partner/lift-everything/agree/"


def read() -> dict[str, str]:
    """What the page of the second person sends: which request was before their eyes."""
    return {"csrfmiddlewaretoken": "x", "read": str(LiftRequest.objects.get().pk)}


def proves(browser: Person, who: object, back: str) -> None:
    led = browser.portal.get(back)
    assert led["Location"] == f"{DOOR}?{urlencode({'next': back})}"
    assert browser.bring(browser.at_microsoft(goes_again(browser, next=back), who))["Location"] == back


@pytest.fixture
def kim(world):
    """A second one of security from Entra."""
    from tests.entra_staff import vendor

    who = vendor(world).add_account("kim@vendor.test", app_roles={"Desk.Security"})
    browser = Person(Client(), world)
    comes(browser, who)
    settle(user_of(who))
    return browser


def test_two_of_security_from_entra_lift_a_stop_of_everything(member, security, kim, world):
    settle(user_of(account(world, "security")))
    kim.portal.post(reverse("admin:stop_everything"), WHY)
    assert security.portal.post(ASK, WHY)["Location"].startswith(DOOR)
    assert not LiftRequest.objects.exists()

    proves(security, account(world, "security"), ASK)
    assert "Your code" not in text_of(security.portal.get(ASK))
    assert "must agree until" in text_of(security.portal.post(ASK, WHY, follow=True))
    assert "somebody else must agree" in text_of(security.portal.post(AGREE, read()))
    with later(minutes=11):
        assert kim.portal.post(AGREE, read())["Location"].startswith(DOOR)
        assert Halt.objects.in_force().exists()
        proves(kim, "kim@vendor.test", AGREE)
        done = kim.portal.post(AGREE, read(), follow=True)

    assert "is lifted" in text_of(done)
    assert not Halt.objects.in_force().exists()


def test_the_proof_for_it_is_over_after_ten_minutes(member, security, world):
    Halt.objects.create(reason="a drill", started_by="sam")
    proves(security, account(world, "security"), ASK)

    with later(minutes=11):
        assert security.portal.post(ASK, WHY)["Location"].startswith(DOOR)
    assert not LiftRequest.objects.exists()


def test_a_local_one_and_one_from_entra_are_two_people(member, kim):
    Halt.objects.create(reason="a drill", started_by="sam")
    sam = local("security", "sam")
    sam.post(ASK, WHY | {"code": code_of("sam")})

    kim.portal.post(AGREE, read())

    assert not Halt.objects.in_force().exists()
    assert LiftRequest.objects.get().approved_by.upn == "kim@vendor.test"


def test_whoever_may_not_lift_is_not_sent_away_to_prove_anything(member, world):
    support = at_the_desk(world, "support")

    assert support.portal.get(ASK).status_code == 403
    assert support.portal.post(ASK, WHY).status_code == 403


def test_in_a_command_nobody_from_entra_proves_anything(member, security, world):
    Halt.objects.create(reason="a drill", started_by="sam")
    user = user_of(account(world, "security"))

    with pytest.raises(lifting.Refused, match="at the desk"):
        lifting.request(by=user, code="123456", reason="x")
    with typed("123456"), pytest.raises(CommandError, match="at the desk"):
        call_command("unkill", "request", "--all", "--as", user.username, "--reason", "x")


# --- What an admin may decide about them ------------------------------------------------------------------------------
@pytest.fixture
def somebody_from_entra(world):
    at_the_desk(world, "support")
    return user_of(account(world, "support"))


@pytest.mark.parametrize("is_active", [True, False])
@pytest.mark.parametrize(("name", "fields"), [("change_role", {"role": "admin"}), ("start_over", {})])
def test_neither_role_nor_factors_of_somebody_from_entra_are_changed_at_the_desk(
    somebody_from_entra, name, fields, is_active
):
    User.objects.filter(pk=somebody_from_entra.pk).update(is_active=is_active)
    admin, before = local("admin", "ada"), User.objects.filter(pk=somebody_from_entra.pk).values().get()

    done = admin.post(reverse(f"admin:{name}", args=[somebody_from_entra.pk]), WHY | fields)

    assert "comes from Microsoft Entra" in text_of(done)
    assert "/admin/welcome/" not in done.content.decode()
    assert User.objects.filter(pk=somebody_from_entra.pk).values().get() == before


@pytest.mark.parametrize("by", ["username", "upn"])
def test_nor_by_the_command(somebody_from_entra, by):
    name = getattr(somebody_from_entra, by).upper() if by == "upn" else somebody_from_entra.username

    with pytest.raises(CommandError, match="comes from Microsoft Entra") as refusal:
        call_command("appoint", name, "--role", "admin", "--reason", "x", stdout=io.StringIO())

    assert refusal.value.returncode == 2
    assert User.objects.get().staff_role == "support"


def test_an_admin_is_offered_what_can_be_done_about_them(somebody_from_entra, world):
    admin, page = local("admin", "ada"), reverse("admin:partners_user_change", args=[somebody_from_entra.pk])
    there = {name: reverse(f"admin:{name}", args=[somebody_from_entra.pk]) for name in (
        "change_role", "start_over", "deactivate", "let_back",
    )}  # fmt: skip

    def offered() -> set[str]:
        words = admin.get(page).content.decode()
        return {name for name, address in there.items() if f'href="{address}"' in words}

    assert "kept at Microsoft" in text_of(admin.get(page))
    assert offered() == {"deactivate"}
    assert "lets them in again" in text_of(admin.get(there["deactivate"]))
    admin.post(there["deactivate"], WHY)
    assert offered() == {"let_back"}


def test_an_admin_deactivates_them_and_lets_them_in_again(world):
    browser = at_the_desk(world, "support")
    user, admin = user_of(account(world, "support")), local("admin", "ada")
    admin.post(reverse("admin:deactivate", args=[user.pk]), WHY)
    other = Person(Client(), world)
    refused(comes(other, account(world, "support")), "deactivated_at_the_desk")
    back = reverse("admin:let_back", args=[user.pk])

    assert "may sign in with Microsoft again" in text_of(admin.post(back, WHY, follow=True))
    assert not is_in(browser), "a session from before stays over"
    comes(other, account(world, "support"))

    assert is_in(other)
    event = AuditEvent.objects.get(action="staff.let_back")
    assert (event.actor_label, event.detail) == ("ada", {"reason": "because"})
    assert "may come in already" in text_of(admin.post(back, WHY, follow=True))
    assert is_in(other), "what was nothing to do ends nothing"


def test_a_local_account_comes_back_by_appointment_only(db):
    admin, sam = local("admin", "ada"), somebody("support", "sam")
    staff.deactivate(user=sam, by=SYSTEM, reason="left")

    done = admin.post(reverse("admin:let_back", args=[sam.pk]), WHY)

    assert "appoint them anew" in text_of(done)
    assert not User.objects.get(pk=sam.pk).is_active


def test_nobody_lets_themselves_in(world):
    browser = at_the_desk(world, "admin")
    me = User.objects.get()

    answer = browser.portal.post(reverse("admin:let_back", args=[me.pk]), WHY)

    assert "Somebody else must do that" in text_of(answer)


def test_an_admin_from_entra_appoints_local_staff(world):
    browser = at_the_desk(world, "admin")

    shown = browser.portal.post(reverse("admin:appoint"), WHY | {"username": "nora", "role": "support"})

    assert "/admin/welcome/" in shown.content.decode()
    assert AuditEvent.objects.latest("pk").actor_label == account(world, "admin").upn


def test_no_device_of_ours_is_enrolled_for_them(somebody_from_entra):
    with pytest.raises(second_factor.Refused, match="kept there"):
        second_factor.make_room(somebody_from_entra, is_first=True)


def test_the_page_of_evidence_names_them_as_people_do(world):
    browser = at_the_desk(world, "auditor")

    assert f"{account(world, 'auditor').upn} auditor yes kept at Microsoft" in text_of(
        browser.portal.get(reverse("admin:evidence"))
    )
