"""Borrowed access: the vendor's staff see a partner's customers only while somebody lends them a look."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import time_machine
from django.db import IntegrityError, connection, connections, transaction
from django.http import Http404, HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import resolve, reverse
from django.utils import timezone

from partners import borrowed, jobs, lifecycle, staff, tasks, team
from partners.access import partner_required
from partners.models import AccessGrant, Customer, Job, Lookup, Member, Partner, User
from tests.conftest import FABRIKAM, SERVICE
from tests.desk import code_of, signed_in, somebody
from tests.house.test_walls import CSRF, closed_addresses, many
from tests.pretend import Person, text_of
from tests.statements import asked
from tokens.actors import SYSTEM
from tokens.models import AuditEvent, Halt
from tokens.tenancy import owner_scope

pytestmark = pytest.mark.django_db(transaction=True)

WHY = "Ticket 4711: names are missing"
LENT = ("/", "/progress", "/customers/", "/jobs/", "/permissions/", "/connection/")


@dataclass
class Staff:
    """One of the vendor's staff at the desk."""

    user: User
    client: Client

    def act(self, act: str, partner: Partner, **form: Any) -> Any:
        return self.client.post(desk_page(partner), {"act": act, **form}, follow=True)

    def ask(self, partner: Partner, reason: str = WHY) -> AccessGrant:
        self.act("ask", partner, reason=reason)
        return partner.access_grants.get(asked_by=self.user, approved_at=None, refused_at=None, closed_at=None)

    def enter(self, grant: AccessGrant) -> Any:
        return self.act("open", grant.partner, grant=grant.pk)


def desk_page(partner: Partner) -> str:
    return reverse("admin:borrowed_access", args=[partner.pk])


def hire(name: str, role: str) -> Staff:
    user = somebody(role, name)
    return Staff(user, signed_in(user))


@pytest.fixture
def partner(member) -> Partner:
    jobs.run_job(Job.objects.get().pk)
    return Partner.objects.get()


@pytest.fixture
def owner(member, partner) -> Person:
    return member


@pytest.fixture
def helper(partner) -> Staff:
    return hire("Sam", "support")


@pytest.fixture
def security(partner) -> Staff:
    return hire("Vera", "security")


@pytest.fixture
def grant(owner, helper, partner) -> AccessGrant:
    """A look that an owner lent a moment ago, and that the asker has begun."""
    grant = helper.ask(partner)
    allow(owner, grant)
    helper.enter(grant)
    grant.refresh_from_db()
    return grant


def allow(owner: Person, grant: AccessGrant) -> Any:
    return owner.portal.post("/access/allow", {"grant": grant.pk}, follow=True)


def later(**time: float) -> Any:
    return time_machine.travel(timezone.now() + dt.timedelta(**time), tick=True)


def lines(partner: Partner, action: str = "") -> list[AuditEvent]:
    found = partner.audit_events.filter(action__startswith="access.").order_by("pk")
    return list(found.filter(action=action) if action else found)


def sees(staff: Staff, address: str = "/customers/") -> bool:
    return staff.client.get(address).status_code == 200


# --- The whole way --------------------------------------------------------------------------------------------------
def test_support_asks_an_owner_allows_support_looks_and_the_partner_reads_it_all(owner, helper, partner):
    customer = Customer.objects.order_by("pk")[0]
    asked = helper.act("ask", partner, reason=WHY)
    grant = AccessGrant.objects.get()
    assert "Asked. An owner of the partner answers" in text_of(asked)
    assert not sees(helper)

    assert "ask to look at your pages" in text_of(owner.portal.get("/"))
    page = text_of(owner.portal.get("/access/"))
    assert "Sam asks to look at your pages" in page
    assert WHY in page
    assert "They may look for 60 minutes" in text_of(allow(owner, grant))
    assert not sees(helper), "not before they go there from the desk"

    home = helper.enter(grant)

    assert home.request["PATH_INFO"] == "/"
    assert "Connected" in text_of(home)
    assert customer.name in text_of(helper.client.get("/customers/"))
    assert customer.name in text_of(helper.client.get(f"/customers/{customer.tenant_id}/"))
    grant.refresh_from_db()
    assert grant.ends_at - grant.approved_at == dt.timedelta(minutes=60)
    assert "It is over." in text_of(helper.act("end", partner, grant=grant.pk))
    assert not sees(helper)
    words = text_of(owner.portal.get("/activity/"))
    for said in (
        "The vendor's staff ask to look", "A look by the vendor's staff allowed", f"reason: {WHY}", "asked by: Sam",
        "Page opened by the vendor's staff", f"opened: customer {customer.tenant_id}", "why: given back", "until: ",
        "A look by the vendor's staff ended",
    ):  # fmt: skip
        assert said in words, said
    kinds = [(line.action, line.actor_kind) for line in lines(partner)]
    assert kinds == [
        ("access.asked", "staff"), ("access.approved", "member"), *[("access.used", "staff")] * 3,
        ("access.ended", "staff"),
    ]  # fmt: skip


def test_a_second_member_of_staff_may_allow_it_and_the_partner_reads_who_did(owner, helper, security, partner):
    grant = helper.ask(partner)
    assert "Allow Sam 60 minutes" in text_of(security.client.get(desk_page(partner)))

    assert "Allowed" in text_of(security.act("approve", partner, grant=grant.pk))

    helper.enter(grant)
    assert sees(helper)
    [line] = lines(partner, "access.approved")
    assert (line.actor_kind, line.actor_label, line.detail["asked_by"]) == ("staff", "Vera", "Sam")
    assert "Vera , also of the vendor" in text_of(owner.portal.get("/access/"))


def test_the_banner_says_on_every_page_who_looks_why_and_until_when(owner, helper, partner, grant):
    customer = Customer.objects.order_by("pk")[0]
    until = f"{grant.ends_at:%H:%M} UTC"
    for address in (*LENT, f"/customers/{customer.tenant_id}/", f"/customers/{uuid.uuid4()}/"):
        if address != "/progress":  # a part of home
            words = text_of(helper.client.get(address))
            assert "You, Sam , look at the pages of Contoso , to read only," in words, address
            assert WHY in words, address
            assert until in words, address
            assert "Give it back" in words, address
    for address in (*LENT, "/activity/", "/access/", f"/customers/{customer.tenant_id}/"):
        if address != "/progress":
            words = text_of(owner.portal.get(address))
            assert "staff may look at these pages, to read only, until" in words, address
            assert until in words, address


def test_no_banner_and_no_request_is_shown_while_there_is_none(owner, helper, partner):
    words = text_of(owner.portal.get("/"))

    assert "staff" not in words


def test_only_owners_are_told_of_a_request_and_every_member_of_a_look(owner, helper, partner):
    grant = helper.ask(partner)
    Member.objects.update(role="operator")
    assert "ask to look" not in text_of(owner.portal.get("/"))
    assert owner.portal.get("/access/").status_code == 404

    borrowed.approve(grant=grant, by=another_owner(partner).user)
    Member.objects.filter(user__upn=SERVICE).update(role="reader")

    assert "staff may look at these pages" in text_of(owner.portal.get("/"))


# --- Asking ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "may_ask", "may_approve"),
    [("support", True, False), ("security", True, True), ("auditor", False, False), ("admin", False, True)],
)
def test_who_of_the_staff_may_ask_and_who_may_allow(helper, partner, role, may_ask, may_approve):
    grant = helper.ask(partner)
    staff = hire("Kim", role)
    page = text_of(staff.client.get(desk_page(partner)))

    asked = text_of(staff.act("ask", partner, reason="curious"))
    staff.act("approve", partner, grant=grant.pk)

    assert AccessGrant.objects.filter(asked_by=staff.user).exists() is may_ask
    assert ("Only support and security may ask" in asked) is not may_ask
    assert ("Ask for 60 minutes" in page) is may_ask
    grant.refresh_from_db()
    assert (grant.approved_by == staff.user) is may_approve
    assert ("Allow Sam 60 minutes" in page) is may_approve


def test_staff_without_a_role_and_members_have_no_such_page(owner, partner):
    assert hire("Nobody", "").client.get(desk_page(partner))["Location"].startswith("/admin/login/")
    assert owner.portal.get(desk_page(partner))["Location"].startswith("/admin/login/")
    assert Client().post(desk_page(partner), {"act": "ask", "reason": "x"}).status_code == 302
    assert not AccessGrant.objects.exists()


def test_no_request_without_a_reason_and_none_twice_but_one_for_each_partner_and_each_person(
    helper, security, partner, connected_partner
):
    assert "Please say why" in text_of(helper.act("ask", partner, reason=" \n"))
    assert not AccessGrant.objects.exists()
    helper.ask(partner)

    assert "You have asked already" in text_of(helper.act("ask", partner, reason="again"))

    with pytest.raises(IntegrityError), transaction.atomic():
        AccessGrant.objects.create(partner=partner, asked_by=helper.user, reason="past the page")
    assert AccessGrant.objects.count() == 1
    security.ask(partner)
    helper.ask(connected_partner(tenant_id=FABRIKAM, name="Fabrikam"))
    assert AccessGrant.objects.count() == 3


def test_a_request_lasts_a_day_and_then_one_asks_anew(owner, helper, partner):
    grant = helper.ask(partner)

    with later(hours=24, seconds=1):
        owner.sign_in(SERVICE)
        owner.confirm(SERVICE)
        assert "Nothing was changed" in text_of(allow(owner, grant))
        again = Staff(helper.user, signed_in(helper.user))
        assert again.ask(partner).pk != grant.pk

    grant.refresh_from_db()
    assert (grant.approved_at, grant.state) == (None, "not answered")
    assert grant.closed_at == grant.answer_until


def test_who_asked_may_take_the_request_back(owner, helper, partner):
    grant = helper.ask(partner)

    helper.act("end", partner, grant=grant.pk)

    assert "Nothing was changed" in text_of(allow(owner, grant))
    grant.refresh_from_db()
    assert grant.state == "called off"
    assert lines(partner)[-1].action == "access.closed"


@pytest.mark.parametrize("stop", ["killed_at", "withdrawn_at", "offboarded_at"])
def test_nobody_asks_to_look_at_a_partner_that_is_stopped_or_gone(helper, partner, stop):
    Partner.objects.update(**{stop: timezone.now()})

    assert "nothing to look at for now" in text_of(helper.act("ask", partner, reason=WHY))

    assert not AccessGrant.objects.exists()
    assert lines(partner) == []


# --- Answering ------------------------------------------------------------------------------------------------------
def test_nobody_allows_their_own_request(security, partner):
    grant = security.ask(partner)
    assert "Allow Vera" not in text_of(security.client.get(desk_page(partner)))

    assert "Nothing was changed" in text_of(security.act("approve", partner, grant=grant.pk))

    grant.refresh_from_db()
    assert grant.approved_at is None
    assert not grant.mark_approved(security.user, timezone.now()), "whoever calls it"
    now = timezone.now()
    with pytest.raises(IntegrityError), transaction.atomic():
        AccessGrant.objects.update(approved_by=security.user, approved_at=now, ends_at=now + dt.timedelta(minutes=1))


def test_an_owner_who_is_also_staff_does_not_allow_their_own_request(owner, partner):
    """Nobody is both: whoever works at the desk has no page of owners."""
    User.objects.filter(memberships__partner=partner).update(is_staff=True, staff_role="security")
    user = User.objects.get(is_staff=True)
    grant = borrowed.ask(partner=partner, by=user, reason=WHY)

    assert allow(owner, grant).status_code == 404

    grant.refresh_from_db()
    assert grant.approved_at is None


def test_of_two_who_answer_at_the_same_moment_one_counts(owner, helper, security, partner):
    grant = helper.ask(partner)
    first, second = AccessGrant.objects.get(), AccessGrant.objects.get()

    assert first.mark_approved(security.user, timezone.now())

    assert not second.mark_refused(timezone.now())
    assert not second.mark_approved(User.objects.get(memberships__partner=partner), timezone.now())
    assert not second.mark_closed(timezone.now())
    grant.refresh_from_db()
    assert (grant.approved_by, grant.refused_at, grant.closed_at) == (security.user, None, None)
    assert "Nothing was changed" in text_of(allow(owner, grant))
    assert lines(partner, "access.approved") == [], "who won writes the line, and this one did not go through the page"


@pytest.mark.postgresql
def test_of_four_who_answer_at_once_one_counts_and_never_who_asked(owner, security, partner):
    """The pages look first and write then; between the two somebody else may answer."""
    other, together = hire("Kim", "admin").user, threading.Barrier(4)
    an_owner = User.objects.get(memberships__partner=partner)

    @owner_scope()
    def answer(act: Any, by: User, grant: AccessGrant) -> bool:
        together.wait(10)
        try:
            act(grant=AccessGrant.objects.get(pk=grant.pk), by=by)
        except borrowed.NotNow:
            return False
        finally:
            connections.close_all()
        return True

    for _ in range(10):
        grant = borrowed.ask(partner=partner, by=security.user, reason=WHY)
        answers = [(borrowed.approve, security.user), (borrowed.approve, other), (borrowed.approve, an_owner)]
        with ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(answer, act, by, grant) for act, by in [*answers, (borrowed.refuse, an_owner)]]
            counted = [end.result() for end in ends]
        assert counted[0] is False, "their own request"
        assert sum(counted) == 1
        grant.refresh_from_db()
        assert (grant.approved_at is None) == counted[3]
        written = partner.audit_events.filter(object=f"access {grant.pk}").exclude(action="access.asked")
        assert written.count() == 1


def test_who_may_answer_and_end_is_asked_by_the_act_itself_too(owner, helper, partner):
    """Not only by the pages."""
    grant = helper.ask(partner)
    Member.objects.update(role="operator")
    operator = User.objects.get(memberships__partner=partner)

    for act in (borrowed.approve, borrowed.refuse, borrowed.end):
        with pytest.raises(borrowed.NotNow):
            act(grant=grant, by=operator)

    assert not grant.mark_approved(operator, grant.answer_until), "a day later"


def test_an_owner_refuses_and_nothing_opens(owner, helper, partner):
    grant = helper.ask(partner)

    assert "The request is refused" in text_of(owner.portal.post("/access/refuse", {"grant": grant.pk}, follow=True))

    assert "not yours, not allowed yet, or over" in text_of(helper.enter(grant))
    assert "Nothing was changed" in text_of(allow(owner, grant))
    assert not sees(helper)
    [line] = lines(partner, "access.refused")
    assert line.actor_kind == "member"


@pytest.mark.parametrize("role", ["operator", "reader", "auditor"])
def test_no_other_member_answers_or_ends(owner, helper, partner, role):
    grant = helper.ask(partner)
    Member.objects.update(role=role)

    for address in ("/access/allow", "/access/refuse", "/access/end"):
        assert owner.portal.post(address, {"grant": grant.pk}).status_code == 404

    grant.refresh_from_db()
    assert grant.state == "waiting"


def test_the_owner_of_another_partner_answers_and_ends_nothing(helper, partner, grant, connected_partner, world):
    connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    other = Person(Client(), world)
    other.sign_in("svc-cpv@fabrikam.test")
    other.confirm("svc-cpv@fabrikam.test")
    assert other.portal.get("/access/").status_code == 200

    for address in ("/access/allow", "/access/refuse", "/access/end"):
        for named in (grant.pk, "", "x", "9" * 40, "-1"):
            assert other.portal.post(address, {"grant": named}).status_code == 404
    assert WHY not in text_of(other.portal.get("/access/"))
    assert "staff may look" not in text_of(other.portal.get("/"))

    assert sees(helper)


def test_a_grant_of_another_partner_is_not_answered_on_this_ones_page(helper, security, partner, connected_partner):
    grant = helper.ask(partner)
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam")

    for act in ("approve", "refuse", "end", "open"):
        assert security.act(act, other, grant=grant.pk).status_code == 404
    assert security.act("approve", partner, grant="x").status_code == 404
    assert security.act("steal", partner, grant=grant.pk).status_code == 404

    grant.refresh_from_db()
    assert grant.state == "waiting"


# --- Only so long ---------------------------------------------------------------------------------------------------
def test_after_an_hour_it_is_over(helper, partner, grant):
    for minute in (29, 58, 59):
        with later(minutes=minute):
            assert sees(helper)
    with later(minutes=60, seconds=1):
        assert not sees(helper)
        assert "not yours, not allowed yet, or over" in text_of(helper.enter(grant))
        tasks.end_access()
        tasks.end_access()

    grant.refresh_from_db()
    assert grant.ended_at == grant.ends_at
    [line] = lines(partner, "access.ended")
    assert (line.actor_label, line.detail["why"]) == ("CPV Panel", "the hour is over")


def test_the_database_takes_no_longer_look(helper, grant):
    with pytest.raises(IntegrityError), transaction.atomic():
        AccessGrant.objects.update(ends_at=grant.approved_at + dt.timedelta(minutes=60, seconds=1))
    with pytest.raises(IntegrityError), transaction.atomic():
        AccessGrant.objects.update(approved_by=None)
    with pytest.raises(IntegrityError), transaction.atomic():
        AccessGrant.objects.update(refused_at=timezone.now())


def test_an_owner_ends_it_and_the_next_request_finds_nothing(owner, helper, partner, grant):
    assert sees(helper)

    assert "The look is ended" in text_of(owner.portal.post("/access/end", {"grant": grant.pk}, follow=True))

    assert not sees(helper)
    assert "It was over already" in text_of(owner.portal.post("/access/end", {"grant": grant.pk}, follow=True))
    [line] = lines(partner, "access.ended")
    assert (line.actor_kind, line.detail["why"]) == ("member", "by the organisation")


def test_other_staff_do_not_end_it(helper, security, partner, grant):
    assert "Nothing was changed" in text_of(security.act("end", partner, grant=grant.pk))

    assert sees(helper)


def left(helper: Staff, partner: Partner) -> None:
    User.objects.filter(pk=helper.user.pk).update(is_active=False)


def lost_the_role(helper: Staff, partner: Partner) -> None:
    User.objects.filter(pk=helper.user.pk).update(staff_role="auditor")


def is_no_staff(helper: Staff, partner: Partner) -> None:
    User.objects.filter(pk=helper.user.pk).update(is_staff=False)


def partner_is_killed(helper: Staff, partner: Partner) -> None:
    lifecycle.kill(partner=partner, by=SYSTEM, reason="a thief")


def partner_was_killed(helper: Staff, partner: Partner) -> None:
    lifecycle.kill(partner=partner, by=SYSTEM, reason="a drill")
    lifecycle.unkill(partner=partner, by=SYSTEM, reason="over")


def everything_is_killed(helper: Staff, partner: Partner) -> None:
    lifecycle.kill_all(by=SYSTEM, reason="a thief")


def everything_was_killed(helper: Staff, partner: Partner) -> None:
    lifecycle.kill_all(by=SYSTEM, reason="a drill")
    Halt.objects.in_force().get().end(by="two people")


def partner_withdrew(helper: Staff, partner: Partner) -> None:
    lifecycle.revoke(partner=partner, by=SYSTEM, reason="enough")


def partner_left(helper: Staff, partner: Partner) -> None:
    Partner.objects.update(offboarded_at=timezone.now())


ENDINGS = [
    left, lost_the_role, is_no_staff, partner_is_killed, partner_was_killed, everything_is_killed,
    everything_was_killed, partner_withdrew, partner_left,
]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_it_ends_with_the_next_request_when(ending, helper, partner, grant):
    assert sees(helper)

    ending(helper, partner)

    assert not sees(helper)
    tasks.end_access()
    grant.refresh_from_db()
    assert grant.state == "ended"
    [line] = lines(partner, "access.ended")
    assert line.detail["why"] == ("access was ended" if ending is partner_withdrew else "no longer allowed")


def test_a_new_consent_brings_no_look_back_that_ended_with_the_access(helper, partner, grant):
    partner_withdrew(helper, partner)
    Partner.objects.update(withdrawn_at=None)

    assert not sees(helper)


def test_a_role_that_comes_back_brings_no_look_back(owner, partner):
    sam = hire("sam", "support")
    grant = sam.ask(partner)
    allow(owner, grant)
    sam.enter(grant)
    assert sees(sam)

    for role in ("auditor", "support"):
        staff.appoint(username="sam", role=role, by=SYSTEM, reason="a mistake")

    assert not sees(sam)
    assert lines(partner, "access.ended")[0].detail["why"] == "whoever asked got another role"


# --- Whoever allowed it ---------------------------------------------------------------------------------------------
@pytest.fixture
def by_security(helper, security, partner) -> AccessGrant:
    """A look that a second member of staff allowed, and that the asker has begun."""
    grant = helper.ask(partner)
    security.act("approve", partner, grant=grant.pk)
    helper.enter(grant)
    assert sees(helper)
    return grant


@pytest.mark.parametrize("change", [{"is_active": False}, {"staff_role": "support"}, {"is_staff": False}], ids=str)
def test_a_look_lasts_no_longer_than_the_place_of_the_staff_who_allowed_it(change, helper, security, by_security):
    User.objects.filter(pk=security.user.pk).update(**change)

    assert not sees(helper)


def test_when_they_are_deactivated_it_ends_for_good_and_in_words(helper, security, partner, by_security):
    staff.deactivate(user=security.user, by=SYSTEM, reason="fraud")
    User.objects.filter(pk=security.user.pk).update(is_active=True)

    assert not sees(helper)
    assert lines(partner, "access.ended")[0].detail["why"] == "whoever allowed it is no longer of the staff"


def test_when_they_get_another_role_it_ends_for_good(helper, security, partner, by_security):
    User.objects.filter(pk=security.user.pk).update(username="vera")
    for role in ("auditor", "security"):
        staff.appoint(username="vera", role=role, by=SYSTEM, reason="a mistake")

    assert not sees(helper)
    assert lines(partner, "access.ended")[0].detail["why"] == "whoever allowed it got another role"


def another_owner(partner: Partner) -> Member:
    return Member.objects.create(user=User.objects.create_user("bea"), partner=partner, role="owner")


@pytest.mark.parametrize("after", ["removed", "operator"])
def test_a_look_ends_with_the_place_of_the_owner_who_allowed_it(helper, partner, grant, after):
    boss, lender = another_owner(partner), Member.objects.get(user__upn=SERVICE)

    if after == "removed":
        team.remove(member=lender, by=boss)
    else:
        team.change_role(member=lender, role=after, by=boss)

    assert not sees(helper)
    [line] = lines(partner, "access.ended")
    became = "was removed from the team" if after == "removed" else "is no owner any more"
    assert (line.actor_label, line.detail["why"]) == ("bea", f"whoever allowed it {became}")


@pytest.mark.parametrize("how", ["gone", "operator", "switched off"])
def test_however_the_owner_who_allowed_it_ceased_to_be_one_the_next_request_finds_nothing(helper, partner, grant, how):
    another_owner(partner)
    lender = Member.objects.filter(user__upn=SERVICE)
    if how == "gone":
        lender.delete()
    elif how == "operator":
        lender.update(role=how)
    else:
        User.objects.filter(upn=SERVICE).update(is_active=False)

    assert not sees(helper)


def test_an_owner_of_another_partner_is_no_owner_of_this_one(helper, partner, grant, connected_partner):
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    lender = Member.objects.get(partner=partner, user__upn=SERVICE)
    Member.objects.create(user=lender.user, partner=other, role="owner")
    Member.objects.filter(pk=lender.pk).update(role="operator")

    assert not sees(helper)


def test_whoever_else_leaves_the_team_ends_no_look(helper, partner, grant):
    other = Member.objects.create(user=User.objects.create_user("carl"), partner=partner, role="operator")

    team.remove(member=other, by=Member.objects.get(user__upn=SERVICE))

    assert sees(helper)


def test_a_request_of_somebody_who_left_is_closed_with_that(helper, partner):
    grant = helper.ask(partner)
    staff.deactivate(user=helper.user, by=SYSTEM, reason="left")

    grant.refresh_from_db()
    assert grant.state == "called off"
    assert lines(partner, "access.closed")


def test_allowing_a_look_at_the_desk_takes_a_factor_of_the_last_ten_minutes(helper, security, partner):
    grant = helper.ask(partner)

    with later(minutes=11):
        assert "Allowed" not in text_of(security.act("approve", partner, grant=grant.pk))
        assert "You were about to: Answer for a look" in text_of(security.client.get("/admin/again/"))
        security.client.post("/admin/again/", {"code": code_of(security.user)})
        assert "Allowed" in text_of(security.act("approve", partner, grant=grant.pk))


def test_an_earlier_stop_that_was_lifted_does_not_stand_in_the_way(owner, helper, partner):
    partner_was_killed(helper, partner)
    everything_was_killed(helper, partner)

    grant = helper.ask(partner)
    allow(owner, grant)
    helper.enter(grant)

    assert sees(helper)


def test_a_stop_that_was_pressed_a_moment_before_the_approval_ends_it_too(helper, partner, grant):
    Halt.objects.create(started_at=grant.approved_at - dt.timedelta(seconds=1), reason="at the same moment")

    assert not sees(helper)


def test_a_stop_of_another_partner_ends_nothing_here(helper, grant, connected_partner):
    lifecycle.kill(partner=connected_partner(tenant_id=FABRIKAM, name="Fabrikam"), by=SYSTEM, reason="a thief")

    assert sees(helper)


def test_in_an_all_stop_nobody_allows_a_look(owner, helper, partner):
    grant = helper.ask(partner)
    everything_is_killed(helper, partner)

    assert "Nothing was changed" in text_of(allow(owner, grant))


def test_the_clock_calls_off_what_nobody_answered_and_leaves_the_rest(owner, helper, security, partner, grant):
    waiting = security.ask(partner)

    tasks.end_access()
    waiting.refresh_from_db()
    assert (waiting.state, sees(helper)) == ("waiting", True)
    with later(hours=25):
        tasks.end_access()
        tasks.end_access()

    waiting.refresh_from_db()
    assert waiting.state == "not answered"
    assert [line.detail["state"] for line in lines(partner, "access.closed")] == ["not answered"]


# --- Nothing else opens ---------------------------------------------------------------------------------------------
def test_without_a_look_every_page_is_the_404_of_an_address_that_does_not_exist(helper, partner):
    helper.ask(partner)
    missing = CSRF.sub(b"", helper.client.get("/no/such/address/").content)

    for address in closed_addresses(Customer.objects.order_by("pk")[0].tenant_id):
        for method in ("get", "post"):
            answer = getattr(helper.client, method)(address)
            assert answer.status_code in (404, 405), address
            if answer.status_code == 404:
                assert CSRF.sub(b"", answer.content) == missing, address


def test_with_a_look_only_the_lent_pages_open_and_no_form_does_anything(helper, partner, grant):
    customer = Customer.objects.order_by("pk")[0]
    lent = {*LENT, f"/customers/{customer.tenant_id}/"}
    before = AuditEvent.objects.exclude(action="access.used").count()

    for address in closed_addresses(customer.tenant_id):
        assert (helper.client.get(address).status_code == 200) == (address in lent), address
        assert (helper.client.head(address).status_code == 200) == (address in lent), address
        for method in ("post", "put", "patch", "delete", "options"):
            assert getattr(helper.client, method)(address, {"grant": grant.pk}).status_code in (404, 405), address

    assert AuditEvent.objects.exclude(action="access.used").count() == before
    assert not Lookup.objects.exists()


def test_no_lent_page_has_a_form_but_to_search_to_sign_out_and_to_give_it_back(helper, partner, grant):
    customer = Customer.objects.order_by("pk")[0]
    for address in (*LENT, f"/customers/{customer.tenant_id}/"):
        content = helper.client.get(address).content.decode()
        actions = {part.split('"')[0] for part in content.split('action="')[1:]}
        assert actions <= {"/signout", "/customers/", desk_page(partner)}, address


def test_staff_never_ask_microsoft_in_the_partners_name(owner, helper, partner, grant):
    customer = Customer.objects.order_by("pk")[0]
    page = f"/customers/{customer.tenant_id}/"
    look = owner.portal.post(f"{page}users")["Location"].partition("look=")[2].partition("#")[0]

    words = text_of(helper.client.get(page, {"look": look}))

    assert customer.name in words
    assert "Show the users" not in words
    assert Lookup.objects.get(pk=look).taken_at is None
    assert helper.client.post(f"{page}users").status_code == 404


def test_a_look_at_one_partner_opens_nothing_of_another(helper, partner, grant, connected_partner):
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam", customers=2)
    job = Job.objects.get(partner=other)
    jobs.run_job(job.pk)
    theirs = other.customers.order_by("pk")[0]
    missing = uuid.uuid4()

    found = helper.client.get(f"/customers/{theirs.tenant_id}/")
    nothing = helper.client.get(f"/customers/{missing}/")

    assert (found.status_code, nothing.status_code) == (404, 404)
    assert plain(found) == plain(nothing)
    assert str(theirs.tenant_id) not in helper.client.get("/customers/", {"q": theirs.name}).content.decode()
    assert not any(str(theirs.tenant_id) in line.object for line in AuditEvent.objects.filter(action="access.used"))
    session = helper.client.session
    session["partner_id"] = other.pk
    session.save()
    assert str(theirs.tenant_id) not in helper.client.get("/customers/").content.decode()


def plain(answer: Any) -> bytes:
    return CSRF.sub(b"", answer.content)


def test_a_look_named_in_somebody_elses_session_is_not_theirs(helper, security, partner, grant):
    session = security.client.session
    session[borrowed.SESSION_KEY] = grant.pk
    session.save()

    assert not sees(security)
    assert "not yours, not allowed yet, or over" in text_of(security.enter(grant))
    assert sees(helper)


def test_the_wall_itself_lets_no_form_pass_whatever_a_page_allows(helper, partner, grant):
    @partner_required
    def careless(request: Any) -> HttpResponse:
        return HttpResponse("done")

    def answer(method: str) -> HttpResponse:
        helper.user.otp_device = "shown"
        request = RequestFactory().generic(method, "/customers/")
        request.user, request.session, request.resolver_match = (
            helper.user,
            helper.client.session,
            resolve("/customers/"),
        )
        return careless(request)

    assert answer("GET").status_code == 200
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        with pytest.raises(Http404):
            answer(method)


def test_a_stand_in_has_no_row_and_can_have_none(helper, partner, grant):
    before = Member.objects.count()
    helper.client.get("/customers/")

    assert Member.objects.count() == before
    with pytest.raises(IntegrityError), transaction.atomic():
        Member.objects.create(user=helper.user, partner=partner, role=borrowed.ROLE)


# --- What is written down -------------------------------------------------------------------------------------------
def test_each_page_is_a_line_and_the_same_page_again_only_after_a_minute(helper, partner, grant):
    first, second = Customer.objects.order_by("pk")[:2]
    before = len(lines(partner, "access.used"))
    for _ in range(3):
        for customer in (first, second):
            helper.client.get(f"/customers/{customer.tenant_id}/")
        helper.client.get("/customers/")
    opened = [line.object for line in lines(partner, "access.used")[before:]]
    assert opened == [f"customer {first.tenant_id}", f"customer {second.tenant_id}", "customers"]

    with later(minutes=1, seconds=1):
        helper.client.get("/customers/")

    assert len(lines(partner, "access.used")) == before + 4


def test_the_whole_list_after_a_search_is_a_line_of_its_own(helper, partner, grant):
    before = len(lines(partner, "access.used"))

    helper.client.get("/customers/", {"q": "nobody is called that"})
    helper.client.get("/customers/")

    assert [line.detail["opened"] for line in lines(partner, "access.used")[before:]] == [
        "customers, searched", "customers",
    ]  # fmt: skip


def test_every_search_and_every_further_page_is_a_line_without_the_words(owner, helper, partner, grant):
    many(partner, 120)
    before = len(lines(partner, "access.used"))
    further = helper.client.get("/customers/").context["page"].next_url
    for words in ("contoso", "Very Secret Customer", "contoso", " "):
        helper.client.get("/customers/", {"q": words})
    helper.client.get(f"/customers/{further}")
    helper.client.get("/customers/", {"q": "customer", "after": further.partition("after=")[2]})
    helper.client.get("/", {"q": "no page that searches"})

    used = lines(partner, "access.used")[before:]
    assert [line.detail["opened"] for line in used] == [
        "customers", *["customers, searched"] * 3, "customers, further on", "customers, searched, further on",
    ]  # fmt: skip
    assert {line.object for line in used} == {"customers"}
    assert not [line for line in used if "secret" in str(line.detail).lower()]
    assert "opened: customers, searched, further on" in text_of(owner.portal.get("/activity/"))


def test_the_end_says_how_many_pages_were_opened_and_how_many_searches(owner, helper, partner, grant):
    begun = len(lines(partner, "access.used"))
    for words in ("a", "b", "c"):
        helper.client.get("/customers/", {"q": words})
    helper.client.get("/jobs/")
    owner.portal.post("/access/end", {"grant": grant.pk})

    [line] = lines(partner, "access.ended")
    assert (line.detail["pages"], line.detail["searches"]) == (begun + 4, 3)
    words = text_of(owner.portal.get("/activity/"))
    assert f"pages: {begun + 4}" in words
    assert "searches: 3" in words


def test_what_the_same_person_opened_in_an_earlier_look_is_not_counted_again(owner, helper, partner, grant):
    helper.client.get("/customers/", {"q": "a"})
    helper.act("end", partner, grant=grant.pk)
    second = helper.ask(partner)
    allow(owner, second)
    helper.act("end", partner, grant=second.pk)

    assert [line.detail["pages"] > 0 for line in lines(partner, "access.ended")] == [True, False]


def test_no_cache_keeps_what_was_lent_and_a_look_costs_little(helper, partner, grant):
    customer = Customer.objects.order_by("pk")[0]
    for address in (*LENT, f"/customers/{customer.tenant_id}/"):
        helper.client.get(address)
        with CaptureQueriesContext(connection) as queries:
            answer = helper.client.get(address)
        assert "no-store" in answer["Cache-Control"], address
        # One more than for a member: staff show their second factor with every request.
        assert len(asked(queries)) <= 7, (address, asked(queries))


def test_the_desk_shows_every_look_and_no_customer(helper, security, partner, grant):
    names = list(Customer.objects.values_list("name", flat=True))
    pages = [desk_page(partner), reverse("admin:partners_accessgrant_changelist")]
    pages += [reverse("admin:partners_partner_changelist"), reverse("admin:partners_partner_change", args=[partner.pk])]

    shown = [text_of(security.client.get(page)) for page in pages]

    assert all(WHY in words for words in shown[:2])
    assert not any(name in words for name in names for words in shown)
    assert "Look at its pages" in shown[3]
