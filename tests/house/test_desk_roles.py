"""Which of the staff may do what at the desk, tried one by one; and that half a sign-in opens nothing there."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.core import mail
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse
from django.utils import timezone

from consent.models import Invitation
from cpvpanel.desk import OPEN
from partners import desk_roles, jobs
from partners.desk_roles import Act
from partners.models import Customer, Job, LiftRequest, ListState, Partner, Run, User
from tests.desk import at_the_desk, code_of, later, password, somebody
from tests.pretend import text_of
from tests.tokens.proofs import FIRST, NEXT, configure
from tokens.models import AuditEvent, Halt

pytestmark = pytest.mark.django_db(transaction=True)
ROLES = User.StaffRole.values
WHY = {"reason": "because"}


# --- Half a sign-in -------------------------------------------------------------------------------------------------
def desk_patterns(patterns: Any = None, prefix: str = "/admin/") -> Iterator[tuple[str, URLPattern]]:
    for pattern in admin.site.get_urls() if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            yield from desk_patterns(pattern.url_patterns, prefix + str(pattern.pattern))
        else:
            yield prefix + str(pattern.pattern), pattern


def address_of(route: str) -> str:
    """An address that this route serves."""
    filled = re.sub(r"\^?\(\?P<app_label>(\w+)[^)]*\)/\$", r"\1/", route)
    filled = re.sub(r"\(\?P<url>\.\*\)\$", "no/such/page", filled)
    filled = re.sub(r"<(int|path):\w+>", "1", filled)
    filled = re.sub(r"<str:\w+>", "MQ", filled)
    assert not re.search(r"[<>()^$?]", filled), f"a parameter this test does not know: {route}"
    return filled


def test_the_open_addresses_of_the_desk_are_named_one_by_one():
    door = {"login", "second_factor", "enrol", "welcome"}
    passkeys = {"passkey_ask", "passkey_prove", "passkey_offer", "passkey_enrol"}  # test_staff_passkeys.py
    assert door | passkeys | {"microsoft", "microsoft_callback"} == OPEN  # test_staff_by_entra.py
    assert {pattern.name for _, pattern in desk_patterns()} > OPEN
    for route, pattern in desk_patterns():
        if pattern.name not in OPEN:
            closed = Client().get(address_of(route))
            assert closed.status_code == 302, route
            assert closed["Location"].startswith(("/admin/login/", "/admin/")), route


def test_a_password_alone_opens_no_address_of_the_desk(member):
    somebody("security")
    client = Client()
    assert password(client, "security").status_code == 302

    found = 0
    for route, pattern in desk_patterns():
        for method in ("get", "post") if pattern.name not in OPEN else ():
            answer = getattr(client, method)(address_of(route), WHY)
            assert answer.status_code == 302, (method, route)
            there = "/admin/" if pattern.name == "logout" else "/admin/login/?next="
            assert answer["Location"].startswith(there), (method, route)
            found += 1
    assert found > 100
    assert not Halt.objects.exists()


def test_a_signed_in_session_without_a_second_factor_opens_nothing_either(db):
    """Whatever code might sign somebody in one day: the desk asks for the device itself."""
    client = Client()
    client.force_login(somebody("security"))

    for route, pattern in desk_patterns():
        if pattern.name not in {*OPEN, "logout"}:
            assert client.get(address_of(route)).status_code == 302, route


def test_only_pages_of_our_rooms_are_at_the_desk():
    rooms = {model._meta.app_label for model in admin.site._registry}

    assert rooms == {"partners", "consent", "tokens", "axes"}
    names = {model._meta.model_name for model in admin.site._registry}
    assert not names & {"totpdevice", "staticdevice", "statictoken", "webauthncredential", "group", "accesslog"}


# --- Roles ----------------------------------------------------------------------------------------------------------
@dataclass
class Tried:
    """One act: where, with what fields, and how it shows that it happened."""

    name: str
    args: list[int] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    audit: str = ""


def needs_somebody_to_look(partner: Partner, job: Job) -> Run:
    """A run that removed a customer, with another list that is held, and one with nobody known on it."""
    now = timezone.now()
    ListState.objects.get_or_create(partner=partner, kind=job.kind, defaults={"held_at": now, "missing": 7})
    run, _ = Run.objects.get_or_create(
        partner=partner, job=job, error_code="other_tenant",
        defaults={"fence": 1, "removed": 1, "started_at": now, "finished_at": now},
    )  # fmt: skip
    gone = {"removed_at": run.finished_at, "removed_reason": "absent", "content_hash": b"0" * 16}
    Customer.objects.get_or_create(partner=partner, tenant_id=uuid.UUID(int=1), defaults=gone)
    return run


def acts(partner: Partner, other: User, name: str) -> dict[Act, list[Tried]]:
    """Every act of the desk; `name` is who tries."""
    job = Job.objects.get()
    Job.objects.update(quarantined_at=timezone.now(), cursor={"seen": 500})
    run = needs_somebody_to_look(partner, job)
    code = {"code": code_of(name)}
    return {
        Act.TRY_AGAIN: [
            Tried("release_job", [job.pk], WHY, "job.released"),
            Tried("try_again", [job.pk], WHY, "sync.asked"),
            Tried("pause_job", [job.pk], WHY, "job.paused"),
            Tried("resume_job", [job.pk], WHY, "job.resumed"),
            Tried("cancel_job", [job.pk], WHY, "job.cancelled"),
            Tried("bring_back", [run.pk], WHY, "removals.undone"),
        ],
        Act.ACCEPT: [
            Tried("accept_removals", [job.pk], WHY, "removals.accepted"),
            Tried("accept_strangers", [job.pk], WHY, "strangers.accepted"),
        ],
        Act.SEND_LINK: [Tried("send_link", [partner.pk], WHY, "invitation.made")],
        Act.STOP: [
            Tried("stop_partner", [partner.pk], WHY, "partner.killed"),
            Tried("lift_stop", [partner.pk], WHY, "partner.unkilled"),
            Tried("stop_everything", [], WHY, "everything.killed"),
        ],
        Act.ROTATE: [Tried("try_certificates", [], WHY, "credential.tried")],
        Act.LIFT_ALL: [
            Tried("ask_to_lift", [], WHY | code, "everything.lift_asked"),
            Tried("agree_to_lift", [], code | {"read": "1"}, ""),
        ],
        Act.STAFF: [
            Tried("appoint", [], WHY | {"username": "new-one", "role": "auditor"}, "staff.appointed"),
            Tried("change_role", [other.pk], WHY | {"role": "auditor"}, "staff.role_changed"),
            Tried("start_over", [other.pk], WHY, "staff.started_over"),
            Tried("deactivate", [other.pk], WHY, "staff.deactivated"),
            Tried("let_back", [other.pk], WHY),
        ],
    }


def test_every_act_is_tried(member):
    tried = acts(Partner.objects.get(), somebody("auditor", "other"), somebody("admin").username)

    looks = {Act.ASK_FOR_A_LOOK, Act.ALLOW_A_LOOK}  # test_borrowed_access.py tries them
    assert set(tried) == set(Act) - {Act.LOOK, Act.EVIDENCE} - looks
    names = {one.name for group in tried.values() for one in group}
    rooms = ("partners.", "consent.", "tokens.")
    ours = {pattern.name for _, pattern in desk_patterns() if pattern.callback.__module__.startswith(rooms)}
    assert ours - {"borrowed_access"} == names


MATRIX = {
    "support": {Act.TRY_AGAIN, Act.ACCEPT, Act.SEND_LINK},
    "security": {Act.STOP, Act.LIFT_ALL, Act.ROTATE},
    "auditor": set(),
    "admin": {Act.STAFF},
}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_is_its_own_and_nothing_else(member, role):
    partner, other = Partner.objects.get(), somebody("auditor", "other")
    client = at_the_desk(role)

    for act, group in acts(partner, other, role).items():
        for one in group:
            address = reverse(f"admin:{one.name}", args=one.args)
            before = AuditEvent.objects.count()
            asked, done = client.get(address), client.post(address, one.fields)
            if act in MATRIX[role]:
                assert asked.status_code == 200, one
                assert done.status_code in (200, 302), one
                if one.audit:
                    event = AuditEvent.objects.filter(action=one.audit).latest("pk")
                    assert event.actor_label == role, one
                    assert event.detail["reason"] == "because", one
            else:
                assert (asked.status_code, done.status_code) == (403, 403), one
                assert "an admin of the desk can give you another role" in text_of(asked), one
                assert AuditEvent.objects.count() == before, one


@pytest.mark.parametrize("role", ROLES)
def test_every_role_may_look_at_every_page(member, role):
    Run.objects.create(partner=Partner.objects.get(), job=Job.objects.get(), fence=1, outcome="done")
    client = at_the_desk(role)

    assert client.get("/admin/").status_code == 200
    for model in admin.site._registry:
        named = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert client.get(reverse(f"{named}_changelist")).status_code == 200, model
        for row in model._default_manager.all()[:1]:
            assert client.get(reverse(f"{named}_change", args=[row.pk])).status_code == 200, model


@pytest.mark.parametrize("role", ROLES)
def test_a_page_offers_only_what_the_role_may_do(member, role):
    partner, other, job = Partner.objects.get(), somebody("auditor", "other"), Job.objects.get()
    client = at_the_desk(role)
    pages = [
        reverse("admin:partners_partner_changelist"), reverse("admin:partners_partner_change", args=[partner.pk]),
        reverse("admin:partners_job_change", args=[job.pk]), reverse("admin:partners_user_changelist"),
        reverse("admin:partners_user_change", args=[other.pk]),
    ]  # fmt: skip
    offered = "".join(client.get(page).content.decode() for page in pages)

    # Nothing is stopped, held, begun or missing.
    not_now = {"lift_stop", "let_back", "release_job", "resume_job", "cancel_job"}
    not_now |= {"accept_removals", "accept_strangers", "bring_back"}
    for act, group in acts(partner, other, role).items():
        for one in group:
            if one.name not in not_now:
                is_offered = f'href="{reverse(f"admin:{one.name}", args=one.args)}"' in offered
                assert is_offered == (act in MATRIX[role]), one


def test_the_page_of_evidence_is_for_security_and_auditors(member):
    Halt.objects.create(reason="a drill", started_by="sam")

    for role in ROLES:
        answer = at_the_desk(role).get(reverse("admin:evidence"))
        assert answer.status_code == (200 if role in ("security", "auditor") else 403), role
        offered = reverse("admin:evidence") in at_the_desk(role).get("/admin/").content.decode()
        assert offered == (role in ("security", "auditor"))
    page = text_of(at_the_desk("auditor").get(reverse("admin:evidence")))
    for words in ("a drill", "in force", "provesplit", "auditor auditor yes 1 0"):
        assert words in page


def test_security_tries_the_certificates_and_reads_what_comes_next(member):
    done = at_the_desk("security", "sam").post(reverse("admin:try_certificates"), WHY, follow=True)

    assert "Cloud global: CPV_APP_SECRET: accepted" in text_of(done)
    assert "Next: Nothing to do." in text_of(done)
    assert [message.level_tag for message in done.context["messages"]] == ["success"]
    line = AuditEvent.objects.get(action="credential.tried")
    assert (line.actor_label, line.object) == ("sam", "global")
    assert line.detail == {"reason": "because", "results": {"CPV_APP_SECRET": "accepted"}}


def test_trying_the_certificates_takes_a_factor_of_the_last_ten_minutes(member):
    client = at_the_desk("security")

    with later(minutes=11):
        asked = client.post(reverse("admin:try_certificates"), WHY)

    assert asked["Location"].startswith("/admin/again/")
    assert not AuditEvent.objects.filter(action="credential.tried").exists()


def test_a_certificate_that_cannot_work_is_told_at_the_desk(member, settings):
    configure(settings, certificate=FIRST.key + NEXT.certificate)

    done = at_the_desk("security").post(reverse("admin:try_certificates"), WHY, follow=True)

    assert "Cloud global: " in text_of(done)
    assert "does not belong" in text_of(done)
    assert [message.level_tag for message in done.context["messages"]] == ["warning"]
    line = AuditEvent.objects.get(action="credential.tried")
    assert (line.detail["results"], line.detail["reason"]) == ({}, "because")
    assert "does not belong" in line.detail["fault"]
    assert "PRIVATE" not in str(line.detail)


def test_where_no_cloud_is_set_up_there_is_nothing_to_try(member, settings):
    settings.CPV_APPS = dict.fromkeys(settings.CPV_APPS, settings.CPV_APPS["china"])

    assert "nothing to try" in text_of(at_the_desk("security").post(reverse("admin:try_certificates"), WHY))


@pytest.mark.parametrize("role", [role for role in ROLES if MATRIX[role]])
def test_no_act_is_done_without_a_reason_or_by_looking(member, role):
    partner, other = Partner.objects.get(), somebody("auditor", "other")
    client = at_the_desk(role)
    before = AuditEvent.objects.count()

    for act in MATRIX[role]:
        for one in acts(partner, other, role)[act]:
            address = reverse(f"admin:{one.name}", args=one.args)
            client.get(address)
            if "reason" in one.fields:
                assert "Please say why" in text_of(client.post(address, one.fields | {"reason": " "})), one

    assert AuditEvent.objects.count() == before


def test_neither_groups_nor_single_rights_nor_the_superusers_flag_give_anything(member):
    user = somebody("auditor")
    group = Group.objects.create(name="all")
    group.permissions.set(Permission.objects.all())
    user.groups.add(group)
    user.user_permissions.set(Permission.objects.all())
    User.objects.update(is_superuser=True)
    client = at_the_desk("auditor")

    assert desk_roles.acts_of(User.objects.get(pk=user.pk)) == {Act.LOOK, Act.EVIDENCE}
    assert client.post(reverse("admin:stop_everything"), WHY).status_code == 403
    assert client.get(reverse("admin:partners_partner_add")).status_code == 403
    User.objects.filter(pk=user.pk).update(is_superuser=False)
    user = User.objects.get(pk=user.pk)
    assert not user.has_perm("partners.add_partner")
    assert not user.has_perm("partners.change_partner")
    assert user.get_all_permissions() == set()


# --- What the acts do -----------------------------------------------------------------------------------------------
def test_support_has_a_job_run_again(member):
    client, job = at_the_desk("support"), Job.objects.get()
    Job.objects.update(next_run_at=timezone.now() + timezone.timedelta(days=1), failures=3)

    done = client.post(reverse("admin:try_again", args=[job.pk]), WHY, follow=True)

    assert "A worker takes up" in text_of(done)
    assert Job.objects.get().next_run_at <= timezone.now()


def test_what_needs_somebody_to_look_is_offered_at_the_desk_and_said(member):
    partner, job = Partner.objects.get(), Job.objects.get()
    run, client = needs_somebody_to_look(partner, job), at_the_desk("support")

    page = client.get(reverse("admin:partners_job_change", args=[job.pk]))
    assert "7 are missing at once" in text_of(page)
    assert reverse("admin:accept_removals", args=[job.pk]) in page.content.decode()
    for code, is_offered in (("other_tenant", True), ("endless_list", True), ("cyclic_link", False)):
        Run.objects.filter(pk=run.pk).update(error_code=code)
        page = client.get(reverse("admin:partners_job_change", args=[job.pk]))
        assert (reverse("admin:accept_strangers", args=[job.pk]) in page.content.decode()) == is_offered
    address = reverse("admin:bring_back", args=[run.pk])
    assert address in client.get(reverse("admin:partners_run_change", args=[run.pk])).content.decode()

    assert "1 is back" in text_of(client.post(address, WHY, follow=True))
    assert Customer.objects.get().removed_at is None
    assert "they are back already" in text_of(client.post(address, WHY))
    assert address not in client.get(reverse("admin:partners_run_change", args=[run.pk])).content.decode()


def test_the_list_of_jobs_says_how_far_each_is_and_leads_to_what_may_be_done(member):
    job, now = Job.objects.get(), timezone.now()
    jobs.run_job(job.pk)
    jobs.ensure(job.partner, "licences")
    lane = Job.objects.get(kind="licences", lane=2)
    Run.objects.create(partner=job.partner, job=lane, fence=1, pages=41, seen=900, expected=1_200)
    until = now + timezone.timedelta(minutes=1)
    Job.objects.filter(pk=lane.pk).update(cursor={"lists": 40, "expected": 1_200}, leased_until=until)
    address = reverse("admin:partners_job_changelist")

    page = at_the_desk("support").get(address).content.decode()

    assert ">3 of 3, 1 page<" in page
    assert ">40 of 1,200 customers, 41 pages<" in page
    for name, pk in (("try_again", job.pk), ("pause_job", lane.pk), ("cancel_job", lane.pk)):
        assert reverse(f"admin:{name}", args=[pk]) in page, name
    assert "40 of 1,200 customers" in text_of(at_the_desk("support").get(f"{address}{lane.pk}/change/"))
    assert reverse("admin:try_again", args=[job.pk]) not in at_the_desk("auditor").get(address).content.decode()


@pytest.mark.parametrize("why_not", ["runs", "paused", "stopped"])
def test_support_hears_why_a_job_is_not_run_again(member, why_not):
    client, job = at_the_desk("support"), Job.objects.get()
    now = timezone.now()
    if why_not == "runs":
        Job.objects.update(leased_until=now + timezone.timedelta(minutes=1))
    elif why_not == "paused":
        Job.objects.update(paused_at=now)
    else:
        Partner.objects.update(suspended_at=now)

    answer = client.post(reverse("admin:try_again", args=[job.pk]), WHY)

    words = {"runs": "runs already", "paused": "paused", "stopped": "Suspended"}[why_not]
    assert words in text_of(answer)
    assert not AuditEvent.objects.filter(action="sync.asked").exists()


def test_support_sends_a_link_by_mail_and_sees_it_once(member):
    client, partner = at_the_desk("support"), Partner.objects.get()

    shown = client.post(reverse("admin:send_link", args=[partner.pk]), WHY | {"email": "owner@contoso.test"})

    [link] = re.findall(r"<code>(http://testserver/connect/[\w-]+)</code>", shown.content.decode())
    assert "no-store" in shown["Cache-Control"]
    assert "on its way to owner@contoso.test" in text_of(shown)
    assert mail.outbox[0].to == ["owner@contoso.test"]
    assert link in mail.outbox[0].body
    assert Invitation.objects.latest("pk").renews
    assert Client().get(link.removeprefix("http://testserver")).status_code == 200


def test_a_link_whose_mail_does_not_leave_is_handed_over(member, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    address = reverse("admin:send_link", args=[Partner.objects.get().pk])

    shown = at_the_desk("support").post(address, WHY | {"email": "owner@contoso.test"})

    assert "did not leave" in text_of(shown)
    assert "/connect/" in shown.content.decode()


def test_no_link_is_sent_to_a_partner_that_we_stopped(member):
    Partner.objects.update(suspended_at=timezone.now())
    address = reverse("admin:send_link", args=[Partner.objects.get().pk])
    before = Invitation.objects.count()

    assert "Suspended" in text_of(at_the_desk("support").post(address, WHY))

    assert Invitation.objects.count() == before


def test_an_admin_appoints_somebody_and_sees_the_link_once(db):
    client = at_the_desk("admin")

    shown = client.post(reverse("admin:appoint"), WHY | {"username": "nora", "role": "support"})

    [link] = re.findall(r"<code>(http://testserver/admin/welcome/[^<]+)</code>", shown.content.decode())
    assert Client().get(link.removeprefix("http://testserver")).status_code == 200
    assert User.objects.get(username="nora").staff_role == "support"


@pytest.mark.parametrize("name", ["Nora", "a b", "global:x:y", "", "breakglass", "admin", "a" * 65])
def test_an_admin_gives_out_no_name_that_is_taken_or_could_be_a_members(db, name):
    client = at_the_desk("admin")

    assert client.post(reverse("admin:appoint"), WHY | {"username": name, "role": "support"}).status_code == 200

    assert list(User.objects.values_list("username", flat=True)) == ["admin"]


def test_another_role_counts_from_the_next_click_on(member):
    other = at_the_desk("security", "sam")
    stop = reverse("admin:stop_partner", args=[Partner.objects.get().pk])
    assert other.get(stop).status_code == 200

    sam = User.objects.get(username="sam")
    done = at_the_desk("admin").post(
        reverse("admin:change_role", args=[sam.pk]), WHY | {"role": "support"}, follow=True
    )

    assert "sam is support" in text_of(done).lower()
    assert other.get(stop).status_code == 403
    assert AuditEvent.objects.latest("pk").detail == {"role": "support", "reason": "because", "earlier": "security"}


def test_whoever_lost_a_factor_starts_over_and_nothing_from_before_counts(db):
    other = at_the_desk("support", "sam")
    sam = User.objects.get(username="sam")

    shown = at_the_desk("admin").post(reverse("admin:start_over", args=[sam.pk]), WHY)

    assert "/admin/welcome/" in shown.content.decode()
    assert other.get("/admin/").status_code == 302
    assert password(Client(), "sam").status_code == 200, "the password is void, too"


def test_nobody_changes_their_own_place(db):
    client = at_the_desk("admin")
    me = User.objects.get()

    for name, fields in (("change_role", {"role": "security"}), ("start_over", {}), ("deactivate", {})):
        answer = client.post(reverse(f"admin:{name}", args=[me.pk]), WHY | fields)
        assert "Somebody else must do that" in text_of(answer), name

    assert not AuditEvent.objects.exists()


def test_an_admin_has_no_power_over_members_and_the_account_for_emergencies(member):
    User.objects.create_user("breakglass", is_staff=True, is_superuser=True)
    client = at_the_desk("admin")

    for user in User.objects.exclude(username="admin"):
        for name in ("change_role", "start_over", "deactivate"):
            address = reverse(f"admin:{name}", args=[user.pk])
            assert client.post(address, WHY | {"role": "admin"}).status_code == 404, (user, name)


def test_nobody_agrees_to_a_request_that_they_did_not_read(member):
    first, second = at_the_desk("security", "sam"), at_the_desk("security", "kim")
    first.post(reverse("admin:stop_everything"), WHY)
    with later(seconds=5):
        first.post(reverse("admin:ask_to_lift"), {"reason": "all is well", "code": code_of("sam")})
    read = second.get(reverse("admin:agree_to_lift")).context["form"]["read"].value()
    with later(seconds=70):
        first.post(reverse("admin:ask_to_lift"), {"reason": "for the thief", "code": code_of("sam")})
        done = second.post(reverse("admin:agree_to_lift"), {"read": read, "code": code_of("kim")})

    assert "somebody asked anew" in text_of(done)
    assert "for the thief" in text_of(done)
    assert Halt.objects.in_force().exists()
    with later(seconds=140):
        without = second.post(reverse("admin:agree_to_lift"), {"code": code_of("kim")})
        assert without.status_code == 200
        assert Halt.objects.in_force().exists()
        read = done.context["form"]["read"].value()
        done = second.post(reverse("admin:agree_to_lift"), {"read": read, "code": code_of("kim")}, follow=True)

    assert "is lifted" in text_of(done)


def test_two_of_security_lift_a_stop_of_everything_at_the_desk(member):
    first, second = at_the_desk("security", "sam"), at_the_desk("security", "kim")
    first.post(reverse("admin:stop_everything"), WHY)
    ask, agree = reverse("admin:ask_to_lift"), reverse("admin:agree_to_lift")

    assert "no code of sam" in text_of(first.post(ask, WHY | {"code": "000000"}))
    assert "Nobody else asks" in text_of(second.get(agree))
    with later(seconds=5):
        asked = first.post(ask, {"reason": "all is well", "code": code_of("sam")}, follow=True)
        assert "must agree until" in text_of(asked)
        assert "sam asked at" in text_of(second.get(agree))
        assert "all is well" in text_of(second.get(agree))
    with later(seconds=70):
        read = {"read": str(LiftRequest.objects.get().pk)}
        own = first.post(agree, read | {"code": code_of("sam")})
        assert "somebody else must agree" in text_of(own)
        assert Halt.objects.in_force().exists()
        done = second.post(agree, read | {"code": code_of("kim")}, follow=True)

    assert "is lifted" in text_of(done)
    assert not Halt.objects.in_force().exists()
    assert LiftRequest.objects.get().approved_by == User.objects.get(username="kim")
