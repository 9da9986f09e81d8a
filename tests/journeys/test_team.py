"""The team page: owners give roles, limit and remove; whoever is out is out at the next request."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from django.core.mail.backends.base import BaseEmailBackend
from django.db import IntegrityError, connections, transaction
from django.test import Client
from django.utils import timezone

from consent import team
from consent.models import MemberInvitation, digest
from partners import jobs, lookups
from partners import team as members
from partners.models import ChosenCustomer, Customer, Job, Lookup, Member, Partner, User
from tests.conftest import CONTOSO, FABRIKAM, SERVICE
from tests.journeys.colleagues import ANN, BOB, PAGE, actions, add, invite, joined, refused
from tests.pretend import Person, text_of
from tokens.models import AuditEvent
from tokens.tenancy import owner_scope

pytestmark = pytest.mark.django_db(transaction=True)


# --- Roles ----------------------------------------------------------------------------------------------------------
def test_an_owner_gives_another_role_and_it_counts_at_the_next_request(member, browser, ann):
    new = joined(member, browser, ann)
    assert browser.portal.get("/activity/").status_code == 404

    answer = member.portal.post(f"{PAGE}{new.pk}/role", {"role": "auditor"}, follow=True)

    assert "Ann is an auditor from now on" in text_of(answer)
    assert browser.portal.get("/activity/").status_code == 200
    assert browser.portal.get("/customers/").status_code == 404
    line = AuditEvent.objects.get(action="member.role_changed")
    assert (line.object, line.detail) == (ANN, {"before": "reader", "after": "auditor"})


def test_the_same_role_again_changes_nothing(member):
    colleague = add("carl", "reader")

    member.portal.post(f"{PAGE}{colleague.pk}/role", {"role": "reader"})

    assert "member.role_changed" not in actions()


def test_a_role_that_there_is_not_cannot_be_given(member):
    colleague = add("carl", "reader")

    for role in ("king", "", "OWNER"):
        assert member.portal.post(f"{PAGE}{colleague.pk}/role", {"role": role}).status_code == 404


def test_the_only_owner_can_neither_be_removed_nor_demoted(member):
    owner = Member.objects.get()
    out = add("switched-off", "owner")
    User.objects.filter(pk=out.user_id).update(is_active=False)
    assert "The only owner who can sign in" in text_of(member.portal.get(PAGE))

    for path, form in ((f"{owner.pk}/role", {"role": "reader"}), (f"{owner.pk}/remove", {})):
        answer = member.portal.post(f"{PAGE}{path}", form, follow=True)
        assert "Nothing was changed: this is the only owner" in text_of(answer)

    assert Member.objects.get(pk=owner.pk).role == "owner"
    assert not {"member.removed", "member.role_changed"} & set(actions())


def test_an_owner_among_several_may_step_down_and_then_sees_no_team(member):
    add("olga", "owner")

    answer = member.portal.post(f"{PAGE}{Member.objects.earliest('pk').pk}/role", {"role": "reader"}, follow=True)

    assert answer.request["PATH_INFO"] == "/"
    assert "You may" not in text_of(answer)
    assert "Team" not in text_of(answer)
    assert member.portal.get(PAGE).status_code == 404


def test_an_owner_who_is_none_any_more_has_no_invitations_open(member, browser):
    olga = add("olga", "owner")
    _, url = team.invite(email=BOB, role="owner", by=olga)
    kept = invite(member)

    member.portal.post(f"{PAGE}{olga.pk}/role", {"role": "operator"})

    assert refused(browser.portal.get(urlsplit(url).path), "ended_team_invitation")
    assert browser.portal.get(kept).status_code == 200


def test_who_becomes_an_owner_keeps_invitations_and_who_becomes_an_auditor_is_limited_no_more(member):
    carl = add("carl", "reader")
    Member.objects.filter(pk=carl.pk).update(limited_at=timezone.now())

    member.portal.post(f"{PAGE}{carl.pk}/role", {"role": "operator"})
    assert Member.objects.get(pk=carl.pk).limited_at
    member.portal.post(f"{PAGE}{carl.pk}/role", {"role": "owner"})

    assert Member.objects.get(pk=carl.pk).limited_at is None


# --- Removal --------------------------------------------------------------------------------------------------------
STEPS = ("/", "/progress", "/customers/", "/customers/?q=a", "{customer}", "{look}", "/connection/", "/permissions/")


@pytest.mark.parametrize("after", range(len(STEPS)))
def test_whoever_is_removed_between_two_requests_gets_nothing_from_then_on(member, browser, ann, after):
    new = joined(member, browser, ann, "operator")
    jobs.run_job(Job.objects.get().pk)
    customer = f"/customers/{Customer.objects.order_by('pk')[0].tenant_id}/"
    look = browser.portal.post(f"{customer}users")["Location"].partition("#")[0]
    steps = [step.format(customer=customer, look=look) for step in STEPS]
    for step in steps[:after]:
        assert browser.portal.get(step).status_code == 200, step

    member.portal.post(f"{PAGE}{new.pk}/remove")

    for step in steps[after:]:
        answer = browser.portal.get(step)
        assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/signin"), step
    assert browser.portal.post("/sync").status_code == 302
    assert not Lookup.objects.exists()


def test_a_question_on_its_way_when_its_member_is_removed_is_thrown_away(member, browser, ann, world):
    new = joined(member, browser, ann, "operator")
    jobs.run_job(Job.objects.get().pk)
    customer = Customer.objects.order_by("pk")[0]
    browser.portal.post(f"/customers/{customer.tenant_id}/users")
    asked = Lookup.objects.get()
    assert asked.take()

    member.portal.post(f"{PAGE}{new.pk}/remove")

    assert not asked.mark_answered("sealed")
    assert not lookups.answer(asked.pk)


def test_whoever_comes_back_starts_fresh(member, browser, ann, world):
    new = joined(member, browser, ann, "operator")
    member.portal.post(f"{PAGE}{new.pk}/remove")

    again = joined(member, Person(Client(), world), ann)

    assert again.pk != new.pk
    assert (again.role, again.limited_at) == ("reader", None)
    assert browser.portal.get("/").status_code == 302, "the session of before"


def test_a_removed_member_cannot_sign_in_again(member, browser, ann):
    new = joined(member, browser, ann)

    answer = member.portal.post(f"{PAGE}{new.pk}/remove", follow=True)

    assert "Ann is no member any more" in text_of(answer)
    assert refused(browser.sign_in(ann), "not_a_member")
    line = AuditEvent.objects.get(action="member.removed")
    assert (line.object, line.detail) == (ANN, {"role": "reader"})


def test_invitations_that_lead_a_removed_member_back_end_with_them(member, browser, ann):
    new = joined(member, browser, ann, "owner")
    Member.objects.filter(pk=new.pk).update(role="owner")
    _, by_them = team.invite(email=BOB, role="owner", by=new)
    again = invite(member)
    other = invite(member, "dora@contoso.test")

    answer = member.portal.post(f"{PAGE}{new.pk}/remove", follow=True)

    assert "2 open invitations of theirs ended too" in text_of(answer)
    assert refused(browser.portal.get(urlsplit(by_them).path), "ended_team_invitation")
    assert refused(browser.portal.get(again), "ended_team_invitation")
    assert browser.portal.get(other).status_code == 200


def test_an_owner_among_several_may_leave(member):
    add("olga", "owner")

    answer = member.portal.post(f"{PAGE}{Member.objects.earliest('pk').pk}/remove", follow=True)

    assert "signed out" in text_of(answer).lower()
    assert member.portal.get("/").status_code == 302
    assert Member.objects.get().user.upn == "olga@contoso.test"


def test_the_password_of_somebody_who_has_one_is_left_alone(member):
    staff = User.objects.create_user("both", "a long enough password")
    colleague = Member.objects.create(user=staff, partner=Partner.objects.get(), role="reader")

    member.portal.post(f"{PAGE}{colleague.pk}/remove")

    assert User.objects.get(username="both").check_password("a long enough password")


# --- At the same time -----------------------------------------------------------------------------------------------
def test_of_two_owners_who_remove_each_other_the_second_is_told_that_they_are_out(member):
    owner, olga = Member.objects.get(), add("olga", "owner")
    members.remove(member=olga, by=owner)

    for decide in (
        lambda: members.remove(member=owner, by=olga),
        lambda: members.change_role(member=owner, role="reader", by=olga),
        lambda: team.invite(email=ANN, role="owner", by=olga),
    ):
        with pytest.raises(members.NotYours):
            decide()

    assert [left.pk for left in Member.objects.all()] == [owner.pk]


@pytest.mark.postgresql
@pytest.mark.parametrize("how", ["remove", "demote"])
def test_of_two_owners_who_act_on_each_other_at_the_very_same_moment_one_stays_owner(member, how):
    partner = Partner.objects.get()
    for turn in range(10):
        Member.objects.all().delete()
        pair = [add(f"owner-{turn}-{n}", "owner", partner) for n in range(2)]
        together = threading.Barrier(2)

        @owner_scope()
        def act(n: int, pair=pair, together=together) -> str:
            together.wait(10)
            try:
                if how == "remove":
                    members.remove(member=pair[1 - n], by=pair[n])
                else:
                    members.change_role(member=pair[1 - n], role="reader", by=pair[n])
            except members.NotYours:
                return "told no"
            finally:
                connections.close_all()
            return "done"

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(act, range(2))) == ["done", "told no"]
        assert Member.objects.filter(role="owner").count() == 1


class Overtaken(BaseEmailBackend):
    """A mail server that is down, and while one waits for it another owner is faster."""

    def send_messages(self, email_messages) -> int:
        Member.objects.filter(user__upn=SERVICE).update(role="reader")
        raise ConnectionRefusedError


def test_whoever_is_no_owner_any_more_in_the_midst_of_a_request_finds_nothing(member, settings):
    settings.EMAIL_BACKEND = f"{__name__}.Overtaken"
    add("olga", "owner")

    assert member.portal.post(f"{PAGE}invite", {"email": ANN, "role": "reader"}).status_code == 404


# --- Walls ----------------------------------------------------------------------------------------------------------
def test_members_and_invitations_of_another_partner_are_as_good_as_missing(member, connected_partner):
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    theirs = other.members.get()
    invitation, _ = team.invite(email=ANN, role="reader", by=theirs)
    reader = add("rita", "reader", other)
    forms = {"role": {"role": "reader"}, "remove": {}, "limit": {"limited": "yes"}, "customers/choose": {}}

    for path, form in forms.items():
        answers = [member.portal.post(f"{PAGE}{pk}/{path}", form) for pk in (reader.pk, theirs.pk, 999_999)]
        assert [answer.status_code for answer in answers] == [404] * 3, path
    assert member.portal.get(f"{PAGE}{reader.pk}/customers/").status_code == 404
    assert member.portal.post(f"{PAGE}invitations/{invitation.pk}/end").status_code == 404
    assert MemberInvitation.objects.open().count() == 1
    assert "Rita" not in text_of(member.portal.get(PAGE))
    with pytest.raises(members.NotYours):
        members.remove(member=reader, by=Member.objects.get(partner__tenant_id=CONTOSO))


def test_the_database_itself_refuses_limits_that_make_no_sense(member):
    owner = Member.objects.get()

    with pytest.raises(IntegrityError), transaction.atomic():
        Member.objects.filter(pk=owner.pk).update(limited_at=timezone.now())
    with pytest.raises(IntegrityError):
        team.invite(email=ANN, role="owner", limited=True, by=owner)


@pytest.mark.postgresql
def test_the_database_itself_refuses_a_choice_across_partners(member, connected_partner):
    ours, other = Partner.objects.get(), connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    theirs = Customer.objects.create(partner=other, tenant_id=CONTOSO, content_hash=b"0" * 16)
    reader = add("rita", "reader", ours)

    for partner in (ours, other):
        with pytest.raises(IntegrityError):
            ChosenCustomer.objects.create(partner=partner, member=reader, customer=theirs)


def test_support_sees_at_the_desk_who_was_invited_and_never_a_link(member, support):
    link = invite(member).rpartition("/")[2]
    invitation = MemberInvitation.objects.get()

    for page in ("", f"{invitation.pk}/change/"):
        words = text_of(support.get(f"/admin/consent/memberinvitation/{page}"))
        assert ANN in words
        assert link not in words
        assert digest(link).hex() not in words
