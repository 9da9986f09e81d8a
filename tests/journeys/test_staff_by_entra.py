"""The vendor's staff come in with its own Entra tenant, in the one role it gives them, with MFA that is seen."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.test import Client

from consent import invitations, team
from consent.models import ConsentAttempt
from consent.refusal_words import REASONS as AT_SIGN_IN
from consent.refusals import Refused
from consent.staff_refusals import REASONS, words_of
from partners import staff
from partners.models import Member, Partner, User
from sandbox import demo
from sandbox.clouds import MSA_TENANT
from sandbox.world import ID_TOKEN_FAULTS
from tests.conftest import CONTOSO, SERVICE
from tests.desk import code_of, later, password, somebody
from tests.entra_staff import CALLBACK, DOOR, account, at_the_desk, comes, is_in, refused, user_of, vendor
from tests.pretend import Person, text_of
from tokens.actors import SYSTEM
from tokens.models import AuditEvent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("response_mode", "by_entra")]
ROLES = ["admin", "auditor", "security", "support"]


def wanted(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def actions() -> list[str]:
    return list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))


# --- In -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", ROLES)
def test_each_app_role_is_a_role_at_the_desk(browser, world, role):
    who = account(world, role)

    answer = comes(browser, who)

    assert answer.request["PATH_INFO"] == "/admin/"
    assert is_in(browser)
    user = user_of(who)
    assert (user.is_staff, user.staff_role, user.is_superuser) == (True, role, False)
    assert not user.has_usable_password()
    assert actions() == ["staff.appointed", "staff.signed_in"]
    appointed, signed_in = AuditEvent.objects.order_by("pk")
    assert appointed.actor_label == signed_in.actor_label == who.upn
    assert appointed.actor_kind == "staff"
    assert appointed.detail == {"role": role, "earlier": "", "reason": "app role in Microsoft Entra"}
    assert signed_in.detail["factor"] == "entra"
    assert signed_in.detail["mfa"]["source"] == "authentication context c1"


def test_it_asks_the_vendors_own_tenant_for_who_you_are_and_for_the_context(browser, world, db):
    address = browser.leave(DOOR)

    query = wanted(address)
    assert urlsplit(address).path.startswith(f"/{demo.VENDOR_TENANT_ID}/")
    assert set(query["scope"].split()) == {"openid", "profile"}
    assert json.loads(query["claims"]) == {"id_token": {"acrs": {"essential": True, "value": "c1"}}}
    assert query["redirect_uri"] == "http://testserver/admin/microsoft/callback"
    assert (query["code_challenge_method"], query["prompt"]) == ("S256", "select_account")
    assert len(query["nonce"]) > 20


def test_the_sign_in_page_has_the_button_and_may_lead_there(browser, settings):
    page = browser.portal.get("/admin/login/?next=/admin/partners/partner/")

    words = page.content.decode()
    assert f'method="post" action="{DOOR}"' in words
    assert 'value="/admin/partners/partner/"' in words.partition(f'action="{DOOR}"')[2]
    assert "http://localhost:8400" in page["Content-Security-Policy"]
    assert "unsafe" not in page["Content-Security-Policy"]


def test_it_leads_on_to_the_page_that_was_asked_for(browser, world):
    back = browser.at_microsoft(browser.leave(DOOR, next="/admin/partners/partner/?q=a"), account(world, "support"))

    assert browser.bring(back)["Location"] == "/admin/partners/partner/?q=a"


@pytest.mark.parametrize("elsewhere", ["https://evil.test/", "//evil.test/", "javascript:alert(1)", "/" + "a" * 501])
def test_it_never_leads_to_another_site(browser, world, elsewhere):
    back = browser.at_microsoft(browser.leave(DOOR, next=elsewhere), account(world, "support"))

    assert browser.bring(back)["Location"] == "/admin/"


def test_the_session_is_a_new_one_and_holds_nothing_of_whoever_was_there(member, world):
    before = member.portal.session.session_key
    address = member.leave(DOOR)

    member.bring(member.at_microsoft(address, account(world, "support")))

    assert member.portal.session.session_key != before
    assert "partner_id" not in member.portal.session
    assert is_in(member)
    assert member.portal.get("/").status_code == 404


def test_somebody_who_comes_again_is_the_same_person(browser, world):
    comes(browser, account(world, "support"))
    account(world, "support").upn = "married@vendor.test"

    comes(Person(Client(), world), "married@vendor.test")

    assert User.objects.get().upn == "married@vendor.test"
    assert actions() == ["staff.appointed", "staff.signed_in", "staff.signed_in"]


def test_amr_of_the_id_token_is_evidence_where_no_context_is_set(browser, world, settings):
    settings.CPV_STAFF_CONTEXT, world.amr_in_id_tokens = "", True
    address = browser.leave(DOOR)

    browser.come_back(browser.at_microsoft(address, account(world, "support")))

    assert "claims" not in wanted(address)
    assert is_in(browser)
    assert AuditEvent.objects.latest("pk").detail["mfa"]["amr"] == ["mfa", "pwd"]


def test_another_cloud_may_be_the_vendors_own(browser, world, settings):
    settings.CPV_STAFF_CLOUD = "china"
    apps = settings.CPV_APPS | {"china": settings.CPV_APPS["global"] | {"tenant_id": str(CONTOSO).upper()}}
    settings.CPV_APPS = apps
    tenant = world.add_tenant(CONTOSO, "Vendor in China", cloud="china")
    who = tenant.add_account("li@vendor.test", app_roles={"Desk.Support"})

    comes(browser, who)

    assert is_in(browser)
    assert User.objects.get().cloud == "china"


# --- Roles ----------------------------------------------------------------------------------------------------------
def nothing_came_of_it(browser) -> bool:
    return not is_in(browser) and not User.objects.exists() and "staff.signed_in" not in actions()


@pytest.mark.parametrize("roles", [set(), {"Something.Else"}, {"desk.admin"}, {"Desk.Boss"}])
def test_without_a_role_nobody_comes_in_and_hears_who_acts(browser, world, roles):
    account(world, "nobody").app_roles = roles

    words = refused(comes(browser, account(world, "nobody")), "no_desk_role")

    assert "An administrator of the vendor's Entra tenant" in words
    assert "Desk.Support, Desk.Security, Desk.Auditor, Desk.Admin" in words
    assert demo.APP_ID in words
    assert nothing_came_of_it(browser)
    event = AuditEvent.objects.get()
    assert (event.action, event.actor_kind, event.actor_label) == (
        "staff.refused", "visitor", account(world, "nobody").upn,
    )  # fmt: skip
    assert event.detail == {"reason": "no_desk_role"}
    assert ConsentAttempt.objects.get().outcome == "no_desk_role"


def test_with_two_roles_nobody_comes_in(browser, world):
    account(world, "nobody").app_roles = {"Desk.Support", "Desk.Security"}

    words = refused(comes(browser, account(world, "nobody")), "several_desk_roles")

    assert "An administrator of the vendor's Entra tenant" in words
    assert nothing_came_of_it(browser)


def test_a_role_that_is_none_of_ours_does_no_harm_beside_one_that_is(browser, world):
    account(world, "support").app_roles = {"Desk.Support", "Something.Else"}

    comes(browser, account(world, "support"))

    assert User.objects.get().staff_role == "support"


def test_the_role_follows_entra_at_each_sign_in(browser, world):
    who = account(world, "support")
    comes(browser, who)
    who.app_roles = {"Desk.Security"}

    comes(Person(Client(), world), who)

    user = User.objects.get()
    assert user.staff_role == "security"
    event = AuditEvent.objects.get(action="staff.role_changed")
    assert (event.actor_id, event.detail["role"], event.detail["earlier"]) == (str(user.pk), "security", "support")


@pytest.mark.parametrize(
    ("roles", "reason"), [(set(), "no_desk_role"), ({"Desk.Support", "Desk.Admin"}, "several_desk_roles")]
)
def test_whoever_comes_back_without_one_role_has_none_here_in_any_session(browser, world, roles, reason):
    who = account(world, "support")
    comes(browser, who)
    who.app_roles = roles
    other = Person(Client(), world)

    refused(comes(other, who), reason)

    assert not is_in(other)
    assert not is_in(browser)
    assert User.objects.get().staff_role == ""
    assert AuditEvent.objects.get(action="staff.role_changed").detail["role"] == ""
    who.app_roles = {"Desk.Auditor"}
    comes(other, who)
    assert is_in(other)


# --- Evidence of MFA ------------------------------------------------------------------------------------------------
def test_a_context_that_was_not_met_refuses(browser, world):
    words = refused(comes(browser, account(world, "support"), mfa=False), "no_context")

    assert "authentication context c1" in words
    assert nothing_came_of_it(browser)


def test_where_a_context_is_set_nothing_else_counts(browser, world):
    world.amr_in_id_tokens = True
    query = wanted(address := browser.leave(DOOR))
    query.pop("claims")  # as somebody may do on the way through the browser

    without = urlsplit(address)._replace(query=urlencode(query)).geturl()
    answer = browser.come_back(browser.at_microsoft(without, account(world, "support")))

    refused(answer, "no_context")
    assert nothing_came_of_it(browser)


def test_without_any_evidence_the_page_names_what_to_switch_on(browser, world, settings):
    settings.CPV_STAFF_CONTEXT = ""

    words = refused(comes(browser, account(world, "support")), "mfa_unknown")

    assert "Conditional Access" in words
    assert "CPV_STAFF_CONTEXT" in words
    assert nothing_came_of_it(browser)


def test_amr_without_mfa_refuses(browser, world, settings):
    settings.CPV_STAFF_CONTEXT, world.amr_in_id_tokens = "", True

    refused(comes(browser, account(world, "support"), mfa=False), "no_mfa_at_sign_in")

    assert nothing_came_of_it(browser)


def test_without_mfa_no_role_is_changed_either(browser, world):
    who = account(world, "support")
    comes(browser, who)
    who.app_roles = set()

    refused(comes(Person(Client(), world), who, mfa=False), "no_context")

    assert User.objects.get().staff_role == "support"
    assert is_in(browser)


# --- Whose people ---------------------------------------------------------------------------------------------------
def test_an_app_role_given_by_another_tenant_is_worth_nothing(browser, world, contoso):
    world.allow_foreign_accounts = True
    contoso.add_account("mallory@contoso.test", app_roles={"Desk.Admin"})

    refused(comes(browser, "mallory@contoso.test"), "wrong_tenant")

    assert nothing_came_of_it(browser)


def test_a_guest_is_refused_whatever_role_they_have(browser, world):
    vendor(world).add_account("guest@elsewhere.test", guest=True, app_roles={"Desk.Admin"})

    refused(comes(browser, "guest@elsewhere.test"), "guest")

    assert nothing_came_of_it(browser)
    assert AuditEvent.objects.get(action="staff.refused").detail == {"reason": "guest"}


def test_a_personal_account_is_refused(browser, world):
    world.allow_foreign_accounts = True
    who = vendor(world).add_account("somebody@outlook.test", personal=True, app_roles={"Desk.Admin"})
    assert who.tenant_id == MSA_TENANT

    refused(comes(browser, who), "personal")

    assert nothing_came_of_it(browser)


@pytest.mark.parametrize("fault", ID_TOKEN_FAULTS)
def test_a_proof_that_does_not_hold_is_refused(browser, world, fault):
    world.id_token_fault = fault

    answer = comes(browser, account(world, "admin"))

    assert answer.status_code in (400, 403)
    assert nothing_came_of_it(browser)


@pytest.fixture
def vendors_own_firm(world):
    """The vendor's tenant as a partner, with its support as a member."""
    who = account(world, "support")
    partner = Partner.objects.create(cloud="global", tenant_id=vendor(world).id, name="Panel Vendor")
    user = User.objects.member(
        cloud="global", tenant_id=vendor(world).id, object_id=who.oid, upn=who.upn, name=who.name
    )
    return Member.objects.create(user=user, partner=partner, role="reader")


def test_a_partners_member_is_refused_and_nothing_is_changed(browser, world, vendors_own_firm):
    before = User.objects.values().get()

    words = refused(comes(browser, account(world, "support")), "member_at_the_desk")

    assert "different people" in words
    assert User.objects.values().get() == before
    assert Member.objects.get() == vendors_own_firm
    assert actions() == ["staff.refused"]
    assert not is_in(browser)


def test_who_is_a_member_no_more_may_become_one_of_the_staff(browser, world, vendors_own_firm):
    vendors_own_firm.delete()

    comes(browser, account(world, "support"))

    assert is_in(browser)
    assert User.objects.get().is_staff
    assert actions() == ["staff.appointed", "staff.signed_in"]


def test_a_local_account_of_the_same_name_and_address_stays_somebody_else(browser, world):
    who = account(world, "support")
    local = somebody("admin", who.upn)
    User.objects.filter(pk=local.pk).update(upn=who.upn, name=who.name)
    before = User.objects.filter(pk=local.pk).values().get()

    comes(browser, who)

    assert User.objects.filter(pk=local.pk).values().get() == before
    assert user_of(who).pk != local.pk
    assert user_of(who).staff_role == "support"


def test_whoever_was_deactivated_stays_out_whatever_entra_says(browser, world):
    who = account(world, "support")
    comes(browser, who)
    staff.deactivate(user=user_of(who), by=SYSTEM, reason="left")
    who.app_roles = {"Desk.Admin"}
    other = Person(Client(), world)

    refused(comes(other, who), "deactivated_at_the_desk")

    assert not is_in(browser)
    assert not is_in(other)
    assert user_of(who).staff_role == "support"


# --- Attempts -------------------------------------------------------------------------------------------------------
def test_an_answer_counts_once(browser, world):
    back = browser.at_microsoft(browser.leave(DOOR), account(world, "support"))
    browser.bring(back)
    browser.portal.post("/admin/logout/")

    refused(browser.bring(back), "other_browser")  # what tied it to the session went with the session

    assert not is_in(browser)


def test_an_answer_that_comes_a_second_time_to_the_same_session_is_refused(browser, world):
    back = browser.at_microsoft(browser.leave(DOOR), account(world, "nobody"))
    refused(browser.bring(back), "no_desk_role")

    refused(browser.bring(back), "replayed")


def test_another_browser_brings_nothing(browser, world):
    back = browser.at_microsoft(browser.leave(DOOR), account(world, "support"))
    other = Person(Client(), world)

    refused(other.bring(back), "other_browser")

    assert not is_in(other)
    browser.bring(back)
    assert is_in(browser)


def test_a_state_that_nobody_gave_out_is_refused(browser, world):
    back = urlsplit(browser.at_microsoft(browser.leave(DOOR), account(world, "support")))
    forged = back._replace(query=urlencode({name: value[0] for name, value in parse_qs(back.query).items()} | {
        "state": "forged"
    })).geturl()  # fmt: skip
    calls = len(world.calls)

    refused(browser.bring(forged), "unknown_attempt")

    assert len(world.calls) == calls
    assert not is_in(browser)


def test_after_ten_minutes_it_is_too_late(browser, world):
    back = browser.at_microsoft(browser.leave(DOOR), account(world, "support"))

    with later(minutes=11):
        refused(browser.bring(back), "too_late")


def test_a_members_answer_is_none_for_the_desk_and_the_other_way_round(member, world):
    members = member.at_microsoft(member.leave("/signin", cloud="global"), SERVICE)
    desks = member.at_microsoft(member.leave(DOOR), account(world, "support"))

    refused(member.bring(members.replace("/signin/callback", CALLBACK)), "unknown_attempt")
    answer = member.bring_once(desks.replace(CALLBACK, "/signin/callback"))

    assert answer.status_code == 400
    assert not is_in(member)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(50105, "not_assigned"), (53003, "blocked"), (50076, "no_mfa_at_sign_in"), (90094, "admin_approval"),
     (65001, "admin_approval"), (7000215, "our_fault"), (90002, "our_fault"), (65004, "declined"),
     (500011, "microsoft_refused")],
)  # fmt: skip
def test_what_microsoft_refuses_is_told_at_the_desk(browser, world, code, reason):
    back = browser.at_microsoft(browser.leave(DOOR), account(world, "support"))
    world.token_fault(f"AADSTS{code}", grant="authorization_code", times=1)

    words = refused(browser.bring(back), reason)

    assert f"AADSTS{code}" in words
    assert "nvitation" not in words
    assert nothing_came_of_it(browser)


def test_somebody_who_cancels_there_is_told_so(browser, world):
    back = browser.at_microsoft(browser.leave(DOOR), account(world, "support"), accept=False)

    refused(browser.bring(back), "declined")

    assert ConsentAttempt.objects.get().outcome == "declined"


def test_microsoft_down_is_told_before_and_after(browser, world):
    back = browser.at_microsoft(browser.leave(DOOR), account(world, "support"))
    world.fail("entra", "503")

    refused(browser.bring(back), "microsoft_down")


def test_microsoft_down_at_the_start_is_told(browser, world):
    world.fail("entra", "503")

    refused(browser.portal.post(DOOR), "microsoft_down")

    assert not ConsentAttempt.objects.exists()


def test_no_token_and_no_code_is_kept_or_written_down(browser, world, caplog):
    caplog.set_level("DEBUG")
    comes(browser, account(world, "nobody"))
    comes(browser, account(world, "support"))

    kept = f"{caplog.text} {list(ConsentAttempt.objects.values())} {list(AuditEvent.objects.values())}"
    kept += str(dict(browser.portal.session))
    secrets = [secret.value for secret in world.issued if secret.kind in ("id_token", "access_token", "code")]
    assert len(secrets) >= 6
    assert not [value for value in secrets if value in kept]
    assert "sign-in of staff refused" in caplog.text


# --- Switched off ---------------------------------------------------------------------------------------------------
def test_switched_off_there_is_neither_address_nor_button(browser, world, settings, response_mode):
    settings.CPV_STAFF_ENTRA = False

    assert "Sign in with Microsoft" not in browser.portal.get("/admin/login/").content.decode()
    for method in ("get", "post"):
        assert getattr(browser.portal, method)(DOOR).status_code == 404
        assert getattr(browser.portal, method)(f"{CALLBACK}?state=x&code=y").status_code == 404
    assert "localhost:8400" not in browser.portal.get("/admin/login/")["Content-Security-Policy"]


def test_switching_it_off_ends_what_began_that_way(world, settings):
    browser = at_the_desk(world, "support")

    settings.CPV_STAFF_ENTRA = False

    assert not is_in(browser)


def test_local_staff_come_in_as_before(browser, world):
    user = somebody("support", "sam")

    password(browser.portal, "sam")
    browser.portal.post("/admin/second-factor/", {"code": code_of(user)})

    assert is_in(browser)
    assert AuditEvent.objects.get(action="staff.signed_in").detail == {"factor": "totp"}
    assert "Second factor" in text_of(browser.portal.get("/admin/"))


# --- Staff are no members -------------------------------------------------------------------------------------------
def test_one_of_the_staff_neither_connects_an_organisation_nor_joins_one(browser, world):
    who = account(world, "support")
    comes(browser, who)
    who.groups.add("AdminAgents")
    partner = Partner.objects.create(cloud="global", tenant_id=vendor(world).id, name="Panel Vendor")
    owner = Member.objects.create(user=User.objects.create_user("owner"), partner=partner, role="owner")
    _, connect = invitations.invite(partner=partner, by=SYSTEM)
    _, join = team.invite(by=owner, email=who.upn, role="reader", limited=False)
    other = Person(Client(), world)

    for link in (connect, join):
        answer = other.connect(link, who)
        assert answer.status_code == 403
        assert "account of the vendor's staff" in text_of(answer)

    assert Member.objects.get() == owner
    assert "_auth_user_id" not in other.portal.session


def test_every_word_at_the_desk_fits_the_desk(settings):
    for name in {*REASONS, *AT_SIGN_IN, "stopped", "vault_down", "no_mfa", "missing_scope", "unknown_tenant"}:
        words = words_of(Refused(name, "a reference"))
        said = " ".join((words.title, words.why, *words.steps, words.owner))
        assert "nvitation" not in said, name
        assert "connected" not in said, name
        assert "{" not in said, name
        assert words.owner, name
        assert words.reference == "a reference"
