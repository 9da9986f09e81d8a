"""Mail about a connection: who is told, what, and that it happens once."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import transaction
from django.test import Client
from django.utils import timezone

from consent import invitations, mails, notices, tasks
from consent.models import Invitation, Notice
from partners import jobs
from partners.models import Job, Member, Partner, User
from sandbox.directory import Tenant
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import Person
from tokens import actors, broker
from tokens.models import Halt, RefreshToken
from tokens.outside import NetworkInTransaction

pytestmark = pytest.mark.django_db(transaction=True)

INBOX = "it@contoso.test"
SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture
def partner(member, contoso: Tenant) -> Partner:
    return Partner.objects.get()


@pytest.fixture
def mailed(world, contoso, db) -> Person:
    """Contoso, connected by an invitation that was mailed to its IT."""
    partner = Partner.objects.create(cloud="global", tenant_id=CONTOSO, name="Contoso")
    _, url = invitations.invite(partner=partner, by=actors.SYSTEM, email=INBOX)
    person = Person(Client(), world)
    assert person.connect(url, SERVICE).status_code == 200
    return person


def tick() -> None:
    """What the clock and a worker do."""
    notices.find()
    for notice_id in notices.due():
        notices.send(notice_id)


def later(**time: float) -> Any:
    return time_machine.travel(timezone.now() + dt.timedelta(**time), tick=True)


def work() -> None:
    broker.forget()
    Job.objects.update(next_run_at=timezone.now(), leased_until=None)
    jobs.run_job(Job.objects.get().pk)


def break_it(contoso: Tenant) -> None:
    contoso.revoke()
    work()


def sent() -> list[tuple[str, str]]:
    return [(message.to[0], message.subject) for message in mail.outbox]


BROKEN = "Contoso: the connection to Microsoft needs you"
RECOVERED = "Contoso: the connection to Microsoft works again"


# --- Once per change ------------------------------------------------------------------------------------------------
def test_a_break_is_told_once(partner, contoso):
    tick()
    assert sent() == []

    break_it(contoso)
    for _ in range(3):
        tick()

    assert sent() == [(SERVICE, BROKEN)]


def test_a_recovery_is_told_once_to_those_who_were_told_of_the_break(member, partner, contoso):
    break_it(contoso)
    tick()

    member.connect("/connection/renew", SERVICE)
    for _ in range(3):
        tick()

    assert sent() == [(SERVICE, BROKEN), (SERVICE, RECOVERED)]


def test_each_break_has_its_own_mails(member, partner, contoso):
    for _ in range(2):
        break_it(contoso)
        tick()
        member.connect("/connection/renew", SERVICE)
        tick()

    assert [subject for _, subject in sent()] == [BROKEN, RECOVERED] * 2


def test_a_connection_that_never_broke_recovers_from_nothing(partner):
    work()
    tick()

    assert sent() == []
    assert not Notice.objects.exists()


def test_a_break_mended_before_anybody_was_told_stays_untold(member, partner, contoso):
    break_it(contoso)
    notices.find()
    member.connect("/connection/renew", SERVICE)

    tick()

    assert sent() == []
    assert Notice.objects.get().dropped_at


def test_a_break_mended_before_the_clock_saw_it_leaves_nothing(member, partner, contoso):
    break_it(contoso)
    member.connect("/connection/renew", SERVICE)

    tick()

    assert not Notice.objects.exists()


@pytest.mark.parametrize(
    ("bring_about", "says"),
    [
        (lambda world, contoso: contoso.revoke(), "Sign-in needed"),
        (lambda world, contoso: world.ledger.lose_mfa(contoso), "MFA missing"),
        (
            lambda world, contoso: world.fail("entra", "AADSTS53003", path="/token", tenant=CONTOSO),
            "Blocked by your policy",
        ),
    ],
)
def test_every_way_to_break_is_told_in_the_portals_words(partner, world, contoso, bring_about, says):
    bring_about(world, contoso)
    work()

    tick()

    [message] = mail.outbox
    assert says in message.body
    assert "Reconnect" in message.body


def test_the_end_of_the_access_period_is_told_too(member, partner):
    Partner.objects.update(lapses_at=timezone.now() - dt.timedelta(seconds=1))
    tick()
    assert "Access period over" in mail.outbox[0].body

    member.connect("/connection/renew", SERVICE)
    tick()

    assert [subject for _, subject in sent()] == [BROKEN, RECOVERED]


@pytest.mark.parametrize(("service", "kind"), [("entra", "503"), ("vault", "503"), ("entra", "AADSTS7000215")])
def test_trouble_of_ours_or_microsofts_tells_nobody(partner, world, service, kind):
    world.fail(service, kind, path="/token" if service == "entra" else None)
    work()

    tick()

    assert not Notice.objects.exists()


@pytest.mark.parametrize("stop", ["suspended_at", "killed_at", "withdrawn_at", "offboarded_at"])
def test_what_somebody_stopped_on_purpose_tells_nobody(partner, contoso, stop):
    break_it(contoso)
    Partner.objects.update(**{stop: timezone.now()})

    tick()

    assert sent() == []


def test_in_an_all_stop_nobody_is_told_and_after_it_what_is_still_news(partner, contoso):
    break_it(contoso)
    halt = Halt.objects.create(reason="a thief", started_by="security")

    tick()
    assert sent() == []
    halt.end(by="security")
    tick()

    assert sent() == [(SERVICE, BROKEN)]


def test_a_reconnect_that_is_stopped_again_tells_no_recovery(member, partner, contoso):
    break_it(contoso)
    tick()
    member.connect("/connection/renew", SERVICE)
    Partner.objects.update(suspended_at=timezone.now())

    tick()
    assert [subject for _, subject in sent()] == [BROKEN]

    Partner.objects.update(suspended_at=None)
    tick()
    assert [subject for _, subject in sent()] == [BROKEN, RECOVERED]


@pytest.mark.parametrize(("days", "told"), [(1, [BROKEN]), (8, [])])
def test_a_mail_waits_while_we_have_stopped_the_partner_but_not_for_ever(partner, contoso, days, told):
    break_it(contoso)
    notices.find()
    Partner.objects.update(suspended_at=timezone.now())
    tick()
    assert Notice.objects.get().dropped_at is None

    with later(days=days):
        tick()
        Partner.objects.update(suspended_at=None, lapses_at=timezone.now() + dt.timedelta(days=9))
    with later(days=days, hours=2):
        tick()

    assert [subject for _, subject in sent()] == told


def test_a_recovery_that_broke_again_before_it_was_told_is_not_told(member, partner, contoso):
    break_it(contoso)
    tick()
    member.connect("/connection/renew", SERVICE)
    notices.find()
    break_it(contoso)

    tick()

    assert [subject for _, subject in sent()] == [BROKEN, BROKEN]


def test_news_of_last_week_is_no_news(partner, contoso):
    break_it(contoso)

    with later(days=8):
        tick()

    assert sent() == []


# --- To the right people --------------------------------------------------------------------------------------------
def colleague(partner: Partner, upn: str, role: str = Member.Role.OWNER) -> Member:
    user = User.objects.create_user(upn, upn=upn)
    return Member.objects.create(user=user, partner=partner, role=role)


def test_every_owner_gets_a_mail_of_their_own_and_nobody_else(partner, contoso, connected_partner):
    colleague(partner, "boss@contoso.test")
    for role in (Member.Role.OPERATOR, Member.Role.READER, Member.Role.AUDITOR):
        colleague(partner, f"{role}@contoso.test", role)
    colleague(partner, "not an address")
    gone = colleague(partner, "gone@contoso.test")
    User.objects.filter(pk=gone.user_id).update(is_active=False)
    break_it(contoso)

    tick()

    assert sorted(message.to for message in mail.outbox) == [["boss@contoso.test"], [SERVICE]]
    assert all(not message.cc and not message.bcc for message in mail.outbox)


def test_the_address_the_invitation_went_to_is_told_too(mailed, contoso):
    break_it(contoso)
    tick()
    assert sorted(to for to, _ in sent()) == [INBOX, SERVICE]

    mailed.connect("/connection/renew", SERVICE)
    tick()

    assert sorted(to for to, subject in sent() if subject == RECOVERED) == [INBOX, SERVICE]


def test_an_invitation_nobody_used_tells_nobody(mailed, contoso):
    invitations.invite(partner=Partner.objects.get(), by=actors.SYSTEM, email="mistyped@elsewhere.test")
    break_it(contoso)

    tick()

    assert sorted(to for to, _ in sent()) == [INBOX, SERVICE]


def test_an_owner_who_was_invited_gets_one_mail(mailed, contoso):
    Invitation.objects.update(email=SERVICE.upper())
    break_it(contoso)

    tick()

    assert [to for to, _ in sent()] == [SERVICE]


def test_the_address_outlives_its_invitation(mailed, contoso):
    with later(days=120):
        tasks.tidy()

    assert INBOX in notices.recipients(Partner.objects.get())


def test_somebody_who_is_no_owner_any_more_when_the_mail_leaves_gets_none(member, partner, contoso):
    break_it(contoso)
    notices.find()
    Member.objects.update(role=Member.Role.READER)

    tick()

    assert sent() == []
    assert Notice.objects.get().dropped_at


def test_when_there_is_nobody_to_tell_that_is_remembered(partner, contoso, caplog):
    User.objects.update(upn="")
    break_it(contoso)

    tick()
    tick()

    assert sent() == []
    assert caplog.text.count("nobody can be told") == 1


# --- Two at once, and a mail server that is down --------------------------------------------------------------------
def test_two_clocks_and_two_workers_send_one_mail(partner, contoso):
    break_it(contoso)
    notices.find()
    notices.find()
    [notice_id] = notices.due()

    assert [notices.send(notice_id), notices.send(notice_id)] == [True, False]

    assert len(mail.outbox) == 1


class WhileSending(EmailBackend):
    """A mail server that is slow enough for a second worker to come by."""

    second: list[bool]

    def send_messages(self, messages: Any) -> int:
        WhileSending.second = [notices.send(pk) for pk in Notice.objects.values_list("pk", flat=True)]
        return super().send_messages(messages)


def test_while_one_worker_sends_another_does_not(partner, contoso, settings):
    settings.EMAIL_BACKEND = f"{__name__}.WhileSending"
    break_it(contoso)

    tick()

    assert WhileSending.second == [False]
    assert len(mail.outbox) == 1


def test_a_mail_server_that_is_down_costs_time_and_no_mail(partner, contoso, settings, caplog):
    settings.EMAIL_HOST, settings.EMAIL_PORT, fine = "127.0.0.1", 1, settings.EMAIL_BACKEND
    settings.EMAIL_BACKEND = SMTP
    break_it(contoso)
    tick()
    assert Notice.objects.get().sent_at is None
    assert SERVICE not in caplog.text
    tick()
    assert Notice.objects.get().tries == 1

    with later(seconds=61):
        tick()
        assert Notice.objects.get().tries == 2
        settings.EMAIL_BACKEND = fine
        tick()
        assert sent() == []

    with later(minutes=10):
        tick()
        tick()
    assert sent() == [(SERVICE, BROKEN)]


def test_a_worker_that_died_while_sending_is_followed_up_under_the_same_id(partner, contoso):
    break_it(contoso)
    notices.find()
    notice = Notice.objects.get()
    assert notice.lease()
    tick()
    assert sent() == []

    with later(minutes=6):
        tick()

    assert mail.outbox[0].extra_headers["Message-ID"].startswith(f"<cpv-notice-{notice.pk}@")


def test_mail_never_leaves_inside_a_transaction(partner):
    with transaction.atomic(), pytest.raises(NetworkInTransaction):
        mails.send("broken", to=SERVICE, partner="Contoso", url="http://x", context={})


def test_without_the_guard_mail_is_sent_all_the_same(partner, settings):
    settings.CPV_GUARD_TRANSACTIONS = False
    settings.DEFAULT_FROM_EMAIL = "panel"

    mails.send("broken", to=SERVICE, partner="Con\r\ntoso", url="http://x", context={}, message_id="a")

    [message] = mail.outbox
    assert message.subject == "Con toso: the connection to Microsoft needs you"
    assert message.extra_headers["Message-ID"] == "<a@panel>"


def test_a_notice_that_is_no_more_is_not_sent(db):
    assert notices.send(4711) is False


def test_the_tick_sends_one_message_per_mail(partner, contoso):
    from cpvpanel.celery import app

    break_it(contoso)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.amqp.queues["mail"])
        queue.clear()
        tasks.notify()
        message = queue.get(timeout=2)
        message.ack()
        assert queue.qsize() == 0
        queue.close()

    assert message.payload[1] == {"notice_id": Notice.objects.get().pk}
    tasks.send_notice(notice_id=Notice.objects.get().pk)
    assert sent() == [(SERVICE, BROKEN)]


def test_what_was_told_is_kept_for_90_days(partner, contoso):
    break_it(contoso)
    tick()
    assert str(Notice.objects.get()).startswith("broken for Contoso")

    with later(days=89):
        tasks.tidy()
        assert Notice.objects.exists()
    with later(days=91):
        tasks.tidy()
        tick()

    assert not Notice.objects.exists()
    assert len(mail.outbox) == 1


# --- What a mail looks like -----------------------------------------------------------------------------------------
@pytest.fixture
def three_mails(mailed, contoso, capsys) -> list[Any]:
    from django.core.management import call_command

    call_command(
        "invite", "--name", "Woodgrove <&> Co", "--tenant", "bbbb0000-0000-4000-8000-000000000002", "--cloud", "global",
        "--email", "admin@woodgrove.test", json=True,
    )  # fmt: skip
    break_it(contoso)
    tick()
    mailed.connect("/connection/renew", SERVICE)
    tick()
    kinds = {message.subject: message for message in mail.outbox}
    assert len(kinds) == 3
    return list(kinds.values())


def test_each_mail_has_one_link_in_text_and_in_html_and_loads_nothing(three_mails):
    for message in three_mails:
        [html] = [part.content for part in message.alternatives if part.mimetype == "text/html"]
        [in_text] = re.findall(r"https?://\S+", message.body)
        assert re.findall(r'href="([^"]+)"', html) == [in_text]
        assert in_text.startswith("http://testserver/")
        assert not re.search(r"<(img|script|link|style|iframe|form)|src=|url\(", html), message.subject
        assert "{" not in message.body + html
        assert message.message()["Auto-Submitted"] == "auto-generated"


def test_names_are_text_in_a_mail_and_never_markup(three_mails):
    [html] = [m.alternatives[0].content for m in three_mails if "Woodgrove" in m.subject]

    assert "Woodgrove &lt;&amp;&gt; Co" in html
    assert "Woodgrove <&> Co" in next(m.body for m in three_mails if "Woodgrove" in m.subject)


def test_no_mail_carries_a_secret(three_mails, world):
    every = "\n".join(str(message.message()) + message.body for message in mail.outbox)

    assert not any(value in every for _, value in world.issued if len(value) >= 12)
    assert "AADSTS" not in every


def test_a_recovery_with_limits_says_what_is_left_to_do(member, partner, contoso):
    break_it(contoso)
    tick()
    member.connect("/connection/renew", SERVICE)
    RefreshToken.objects.filter(superseded_at=None).update(limits="Sales agent only")

    tick()

    assert "What to do: The account that agreed has a lesser role: Sales agent only." in mail.outbox[-1].body


# --- An access period that ends -------------------------------------------------------------------------------------
def ends_in(**left: float) -> None:
    Partner.objects.update(lapses_at=timezone.now() + dt.timedelta(**left))


def test_owners_are_told_four_times_before_access_ends_each_time_once(partner):
    ends_in(days=31)
    tick()
    assert mail.outbox == []

    for days in (29, 13, 6, 0.9):
        ends_in(days=days)
        tick()
        tick()

    assert [message.to for message in mail.outbox] == [[SERVICE]] * 4
    assert {message.subject for message in mail.outbox} == {"Contoso: the access you granted ends soon"}
    assert "http://testserver/connection/" in mail.outbox[0].body
    assert "180 days" in mail.outbox[0].alternatives[0][0]


def test_after_a_renewal_the_next_end_is_told_anew(partner):
    ends_in(days=6)
    tick()
    ends_in(days=160)
    tick()
    ends_in(days=4.5)  # another date at any time of the day
    tick()
    ends_in(days=7.5)
    tick()

    abouts = list(Notice.objects.order_by("pk").values_list("about", flat=True))
    assert [about.partition(" before")[0] for about in abouts] == ["7 days", "7 days", "14 days"]
    assert len(set(abouts)) == 3


@pytest.mark.parametrize("days", [160, None])
def test_a_warning_that_waited_until_it_was_renewed_is_dropped(partner, days):
    ends_in(days=6)
    notices.find()
    Partner.objects.update(lapses_at=None) if days is None else ends_in(days=days)

    for notice_id in notices.due():
        notices.send(notice_id)

    assert mail.outbox == []
    assert Notice.objects.get().dropped_at


def test_nobody_is_warned_of_the_end_of_what_is_stopped(partner):
    ends_in(days=6)
    Partner.objects.update(killed_at=timezone.now())
    tick()

    assert not Notice.objects.exists()
