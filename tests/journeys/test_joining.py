"""Owners invite by mail; who comes of it Microsoft says, and the link is good for one person."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
import time_machine
from django.core import mail
from django.test import Client
from django.utils import timezone

from consent import tasks, team
from consent.models import ConsentAttempt, MemberInvitation, digest
from consent.refusals import Refused
from partners.models import Member, Partner, User
from tests.conftest import CONTOSO, FABRIKAM, SERVICE
from tests.journeys.colleagues import ANN, BOB, PAGE, SMTP, actions, invite, join, joined, refused
from tests.pretend import Person, text_of
from tokens.entra import Identity
from tokens.models import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.usefixtures("response_mode")
def test_an_invited_person_signs_in_at_microsoft_and_is_a_member(member, browser, ann):
    link = invite(member, "somebody@else.test", "operator")

    answer = join(browser, link, ann)

    assert answer.request["PATH_INFO"] == "/"
    assert "Contoso" in text_of(answer)
    new = Member.objects.get(user__oid=ann.oid)
    assert (new.role, str(new.user.tid)) == ("operator", CONTOSO)
    assert new.signed_in_at
    assert "Invited somebody@else.test , came as ann@contoso.test" in text_of(member.portal.get(PAGE))
    line = AuditEvent.objects.filter(action="member.joined").latest("pk")
    assert (line.actor_label, line.detail["invited"]) == (ANN, "somebody@else.test")
    assert AuditEvent.objects.get(action="member.invited").actor_label == SERVICE


def test_the_mail_says_who_invites_to_what_and_until_when(member):
    link = invite(member, role="auditor")

    sent = mail.outbox[-1]
    assert sent.to == [ANN]
    assert sent.subject == "Join Contoso in CPV Panel"
    for body in (sent.body, sent.alternatives[0].content):
        for part in (SERVICE, "Contoso", "auditor", "no customer data", link, "UTC"):
            assert part in body, part


def test_we_keep_a_hash_of_the_link_and_no_link(member):
    link = invite(member).rpartition("/")[2]

    invitation = MemberInvitation.objects.get()
    assert bytes(invitation.link_hash) == digest(link)
    assert not [value for value in vars(invitation).values() if link in str(value)]


def test_looking_never_spends_an_invitation(member, browser):
    link = invite(member)

    for _ in range(3):
        words = text_of(browser.portal.get(link))
        assert browser.portal.head(link).status_code == 200

    assert "Join Contoso" in words
    assert SERVICE in words
    assert "Reader" in words
    assert MemberInvitation.objects.open().count() == 1
    assert not ConsentAttempt.objects.filter(member_invitation__isnull=False).exists()


def test_an_invitation_is_for_one_person(member, browser, ann, world, contoso):
    link = invite(member)
    other = Person(Client(), world)
    late = other.at_microsoft(other.leave(link), contoso.add_account(BOB))
    join(browser, link, ann)

    assert refused(other.come_back(late), "ended_team_invitation")
    assert refused(other.portal.get(link), "ended_team_invitation")
    assert not Member.objects.filter(user__upn=BOB).exists()


def test_a_link_that_was_never_ours_is_not_there(browser, db):
    assert refused(browser.portal.get("/join/whatever"), "unknown_team_invitation")


def test_an_invitation_is_over_after_seven_days(member, browser):
    link = invite(member)

    with time_machine.travel(timezone.now() + dt.timedelta(days=7, minutes=1)):
        assert refused(browser.portal.get(link), "ended_team_invitation")


def test_an_invitation_that_ends_while_its_person_is_at_microsoft_is_over(member, browser, ann):
    link = invite(member)
    MemberInvitation.objects.update(expires_at=timezone.now() + dt.timedelta(minutes=1))
    back = browser.at_microsoft(browser.leave(link), ann)

    with time_machine.travel(timezone.now() + dt.timedelta(minutes=2)):
        assert refused(browser.come_back(back), "ended_team_invitation")


def test_somebody_of_another_organisation_is_refused_and_the_invitation_stays_good(member, browser, world, ann):
    link = invite(member)
    stranger = world.add_tenant(FABRIKAM, "Fabrikam").add_account("fay@fabrikam.test")

    answer = join(browser, link, stranger)

    assert refused(answer, "not_of_the_team")
    assert f'href="{link}"' in answer.content.decode()
    assert browser.portal.get("/").status_code == 302
    assert not User.objects.filter(oid=stranger.oid).exists()
    assert join(browser, link, ann).status_code == 200


def test_a_guest_of_the_organisation_is_refused(member, browser, contoso):
    guest = contoso.add_account("gill@elsewhere.test", guest=True)

    assert refused(join(browser, invite(member), guest), "guest")
    assert Member.objects.count() == 1


def test_an_owner_may_invite_somebody_of_another_organisation_by_its_tenant_id(member, browser, world, ann):
    link = invite(member, "fay@fabrikam.test", elsewhere="yes", tenant=FABRIKAM)
    stranger = world.add_tenant(FABRIKAM, "Fabrikam").add_account("fay@fabrikam.test")
    assert FABRIKAM in text_of(browser.portal.get(link))
    assert FABRIKAM in text_of(member.portal.get(PAGE))

    assert refused(join(browser, link, ann), "not_of_the_team")
    assert join(browser, link, stranger).status_code == 200

    assert f"of the organisation {FABRIKAM}" in text_of(member.portal.get(PAGE))
    assert str(Member.objects.get(user__oid=stranger.oid).partner.tenant_id) == CONTOSO


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"email": "no address", "role": "reader"}, "valid email address"),
        ({"email": ANN, "role": "king"}, "king is not one of the available choices"),
        ({"email": ANN, "role": "reader", "elsewhere": "yes"}, "Give the tenant id"),
        ({"email": ANN, "role": "reader", "elsewhere": "yes", "tenant": "x"}, "Enter a valid UUID"),
        ({"email": ANN, "role": "reader", "tenant": FABRIKAM}, "counts only with the tick"),
        ({"email": ANN, "role": "auditor", "limited": "yes"}, "Only operators and readers"),
        ({"email": ANN, "role": "owner", "limited": "yes"}, "Only operators and readers"),
    ],
)
def test_a_form_that_does_not_fit_says_why_and_invites_nobody(member, form, words):
    answer = member.portal.post(f"{PAGE}invite", form)

    assert answer.status_code == 400
    assert words in text_of(answer)
    assert f'value="{form["email"]}"' in answer.content.decode()
    assert not MemberInvitation.objects.exists()
    assert not mail.outbox


def test_a_form_cannot_say_more_than_it_asks(member, browser, ann, connected_partner):
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam")

    joined(
        member, browser, ann, is_staff="true", is_superuser="true", partner=str(other.pk), partner_id=str(other.pk),
        tenant_id=FABRIKAM, invited_by="1", limited_at="now",
    )  # fmt: skip

    new = Member.objects.get(user__oid=ann.oid)
    assert (new.role, str(new.partner.tenant_id)) == ("reader", CONTOSO)
    assert (new.user.is_staff, new.user.is_superuser) == (False, False)


def test_a_member_who_opens_an_invitation_stays_what_they_are_and_does_not_spend_it(member, browser, ann):
    joined(member, browser, ann)
    link = invite(member, BOB, "owner")

    assert refused(join(browser, link, ann), "already_a_member")

    assert Member.objects.get(user__oid=ann.oid).role == "reader"
    assert MemberInvitation.objects.open().count() == 1


def test_somebody_the_vendor_switched_off_cannot_join(member, browser, ann):
    joined(member, browser, ann).delete()
    User.objects.filter(oid=ann.oid).update(is_active=False)

    assert refused(join(browser, invite(member), ann), "not_a_member")
    assert not Member.objects.filter(user__oid=ann.oid).exists()


def test_an_account_of_another_organisation_is_refused_however_it_came_that_far(member, ann):
    _, invitation = invite(member), MemberInvitation.objects.get()
    stranger = Identity("global", uuid.uuid4(), uuid.uuid4(), "eve@evil.test", "Eve", is_guest=False)

    with pytest.raises(Refused) as refusal:
        team.join(invitation=invitation, identity=stranger)

    assert refusal.value.reason == "not_of_the_team"
    assert MemberInvitation.objects.open().count() == 1


def test_an_invitation_of_a_partner_that_left_leads_nowhere(member, browser, ann):
    link = invite(member)
    back = browser.at_microsoft(browser.leave(link), ann)
    Partner.objects.update(offboarded_at=timezone.now())

    assert refused(browser.come_back(back), "ended_team_invitation")
    assert refused(browser.portal.get(link), "unknown_team_invitation")


def test_a_way_back_that_was_used_leads_to_the_invitation_and_not_to_sign_in(member, browser, ann):
    back = browser.at_microsoft(browser.leave(invite(member)), ann)
    browser.come_back(back)

    answer = Person(Client(), browser.world).come_back(back)

    assert refused(answer, "other_browser")
    assert 'href="/signin"' not in answer.content.decode()


def test_a_mail_that_does_not_leave_leaves_no_invitation_behind(member, settings):
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = SMTP, "127.0.0.1", 1

    answer = member.portal.post(f"{PAGE}invite", {"email": ANN, "role": "reader"}, follow=True)

    assert "The mail did not leave" in text_of(answer)
    assert not MemberInvitation.objects.open().exists()


def test_a_second_invitation_to_the_same_address_ends_the_first(member, browser):
    first = invite(member)
    second = invite(member, ANN.upper())

    assert refused(browser.portal.get(first), "ended_team_invitation")
    assert browser.portal.get(second).status_code == 200


def test_a_partner_has_fifty_open_invitations_at_most(member):
    owner = Member.objects.get()
    for number in range(team.MOST_OPEN):
        team.invite(email=f"{number}@contoso.test", role="reader", by=owner)

    answer = member.portal.post(f"{PAGE}invite", {"email": ANN, "role": "reader"}, follow=True)

    assert "Nobody was invited: 50 invitations are open" in text_of(answer)
    assert not mail.outbox


def test_taking_back_does_not_let_a_partner_send_mail_without_end(member):
    owner = Member.objects.get()
    for number in range(team.MOST_A_DAY):
        invitation, _ = team.invite(email=f"{number}@contoso.test", role="reader", by=owner)
        assert team.take_back(invitation=invitation, by=owner)

    answer = member.portal.post(f"{PAGE}invite", {"email": ANN, "role": "reader"}, follow=True)
    assert "200 were made within a day" in text_of(answer)
    assert not mail.outbox

    with time_machine.travel(timezone.now() + dt.timedelta(days=1, seconds=1)):
        team.invite(email=ANN, role="reader", by=owner)


def test_an_invitation_taken_back_leads_nowhere_even_for_somebody_on_the_way(member, browser, ann):
    link = invite(member)
    back = browser.at_microsoft(browser.leave(link), ann)
    path = f"{PAGE}invitations/{MemberInvitation.objects.get().pk}/end"

    assert "leads nowhere any more" in text_of(member.portal.post(path, follow=True))

    assert refused(browser.come_back(back), "ended_team_invitation")
    assert refused(browser.portal.get(link), "ended_team_invitation")
    assert "over already" in text_of(member.portal.post(path, follow=True))
    assert not Member.objects.filter(user__oid=ann.oid).exists()
    assert actions().count("member.invitation_ended") == 1


def test_invitations_are_let_go_of_after_ninety_days_unless_they_brought_a_member(member, browser, ann):
    joined(member, browser, ann)
    invite(member, BOB)

    with time_machine.travel(timezone.now() + dt.timedelta(days=98)):
        tasks.tidy()

    assert [invitation.email for invitation in MemberInvitation.objects.all()] == [ANN]
