"""The page of the work: each kind in words, with the one button that fits, for who may press it."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.utils import timezone

from partners import jobs
from partners.models import ChosenCustomer, CustomerUser, Job, ListState, Member, Partner, Run
from tests.live import text_of
from tokens.models import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)


def page(member: Any) -> str:
    answer = member.portal.get("/jobs/")
    assert answer.status_code == 200
    return str(answer.content.decode())


def buttons(html: str) -> list[str]:
    forms = re.findall(r'(?s)<form method="post" action="/jobs/customers/act">(.*?)</form>', html)
    return [re.findall(r'name="act" value="(\w+)"', form)[0] for form in forms]


def press(member: Any, act: str) -> Any:
    return member.portal.post("/jobs/customers/act", {"act": act})


def set_job(**fields: Any) -> None:
    Job.objects.update(**fields)


@pytest.fixture
def synced(member):
    jobs.run_job(Job.objects.get().pk)
    return member


LATER = {"next_run_at": dt.datetime(2999, 1, 1, tzinfo=dt.UTC)}
NOW = {"leased_until": dt.datetime(2999, 1, 1, tzinfo=dt.UTC), "next_run_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}
AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("fields", "title", "offered"),
    [
        ({}, "Done", ["run"]),
        ({"next_run_at": AT}, "Queued", ["pause"]),
        (NOW, "Running", ["pause", "cancel"]),
        (NOW | {"paused_at": AT}, "Pausing", ["cancel"]),
        (NOW | {"cancelled_at": AT}, "Being cancelled", []),
        ({"paused_at": AT}, "Paused", ["resume"]),
        ({"paused_at": AT, "cursor": {"is_whole": True}}, "Paused", ["resume", "cancel"]),
        ({"quarantined_at": AT, "next_run_at": None, "failures": 10}, "Held", ["release"]),
        (LATER | {"wait_code": "asked_to_wait"}, "Waiting", ["run"]),
    ],
)
def test_each_state_has_its_words_and_the_buttons_that_fit(synced, fields, title, offered):
    set_job(**fields)

    html = page(synced)

    assert f"<strong>{title}</strong>" in html
    assert buttons(html) == offered


def test_a_run_that_was_paused_can_be_cancelled_and_the_next_one_begins_anew(synced):
    press(synced, "pause")
    set_job(cursor={"is_whole": True, "seen": 2})

    assert "The run is cancelled" in press_and_read(synced, "cancel")

    job = Job.objects.get()
    assert (job.cursor, job.paused_at is None) == ({}, False)
    assert buttons(page(synced)) == ["resume"]


def press_and_read(member: Any, act: str) -> str:
    press(member, act)
    return text_of(page(member))


def progress_of(html: str, kind: str) -> list[str]:
    [card] = re.findall(rf'(?s)aria-labelledby="job-{kind}">(.*?)</section>', html)
    return re.findall(r'<div class="cpv-progress-head"><p>(.*?)</p><p>(.*?)</p>', card)[0]


def test_of_a_kind_that_asks_about_each_customer_the_customers_count_who_are_done_in_all_lanes(synced):
    partner = Job.objects.get().partner
    jobs.ensure(partner, "subscriptions")
    lanes = Job.objects.filter(kind="subscriptions").order_by("lane")
    said = ("Customers whose list was read", "0 / 3")
    assert progress_of(page(synced), "subscriptions") == said, "as many as there are, before any lane began"

    ended = [jobs.run_job(job.pk) for job in lanes[:3]]  # one after another: they are done with their share
    done = sum(run.expected for run in ended)
    assert progress_of(page(synced), "subscriptions") == (said[0], f"{done} / 3")
    jobs.run_job(lanes[3].pk)

    half = {"is_whole": True, "lists": 40, "expected": 90, "seen": 700}
    Run.objects.filter(job__kind="subscriptions").update(expected=100, seen=777)
    Job.objects.filter(pk=lanes[0].pk).update(cursor=half, **NOW)  # under way
    Job.objects.filter(pk=lanes[1].pk).update(next_run_at=AT)  # not begun
    html = page(synced)
    assert progress_of(html, "subscriptions") == (said[0], "240 / 390")
    assert 'max="390" value="240"' in html
    Run.objects.filter(job=lanes[0]).update(finished_at=None, outcome="running")
    assert "777 of" not in text_of(page(synced))


@pytest.mark.parametrize(
    ("outcome", "title", "who"),
    [
        ("refused", "Refused by Microsoft", "Your organisation"),
        ("failed", "Failed", "Support at"),
        ("waiting", "Waiting", "Nobody needs to act"),
        ("cancelled", "Cancelled", "Nobody needs to act"),
    ],
)
def test_what_went_wrong_is_said_with_its_reason_and_who_acts(synced, outcome, title, who):
    Run.objects.update(outcome=outcome, error="Because of the moon.", error_code="moon")

    words = text_of(page(synced))

    assert title in words
    assert "Because of the moon." in words
    assert "Reference: moon" in words
    assert who in words


def test_pressing_it_does_it_and_is_written_down(synced):
    for act in ("run", "pause", "resume"):
        assert press(synced, act).headers["Location"] == "/jobs/"
        assert "Done:" in page(synced)

    assert Job.objects.get().next_run_at <= timezone.now()
    written = AuditEvent.objects.filter(object="customers").order_by("pk").values_list("action", flat=True)
    assert list(written)[-3:] == ["sync.asked", "job.paused", "job.resumed"]


def test_a_button_of_an_old_page_changes_nothing_and_says_so(synced):
    press(synced, "release")

    assert "Nothing was changed" in page(synced)


@pytest.mark.parametrize("act", ["", "kill", "stop"])
def test_what_the_page_does_not_offer_is_not_there(synced, act):
    assert press(synced, act).status_code == 404
    assert synced.portal.post("/jobs/nonsense/act", {"act": "run"}).status_code == 404


def test_a_reader_sees_and_has_no_button(synced):
    Member.objects.update(role="reader")

    html = page(synced)

    assert buttons(html) == []
    assert "3" in re.findall(r'data-label="Read"><span>(\d+)', html)
    assert press(synced, "run").status_code == 404


def test_who_is_limited_to_some_customers_sees_no_numbers_of_all(synced):
    Member.objects.update(role="operator", limited_at=timezone.now())
    set_job(**NOW)
    ListState.objects.update(held_at=timezone.now(), missing=2)

    html = page(synced)

    assert 'data-label="Read"' not in html
    assert "read</p>" not in html
    assert "missing at Microsoft" not in html
    assert synced.portal.post("/jobs/customers/removals").status_code == 404
    assert not ChosenCustomer.objects.exists()


def test_a_page_of_work_under_way_asks_for_itself_and_one_at_rest_does_not(synced):
    assert "hx-get" not in page(synced)
    set_job(**NOW)

    assert 'hx-get="/jobs/" hx-trigger="every 2s" hx-select="#jobs"' in page(synced)


def test_what_begins_by_itself_later_is_named_until_it_has_begun(synced):
    coming = (
        "Not read yet: Subscriptions, Licences, Sign-ins without MFA, GDAP relationships They are read by themselves"
    )
    assert coming in text_of(page(synced))

    jobs.plan()

    assert "Not read yet" not in text_of(page(synced))


def test_so_many_missing_that_a_person_must_look_have_a_button_of_their_own(synced):
    ListState.objects.update(held_at=timezone.now(), missing=7)

    assert "7 of them are missing" in text_of(page(synced))
    synced.portal.post("/jobs/customers/removals")

    assert "7 of them are missing" not in text_of(page(synced))
    assert ListState.objects.get().accepted_missing == 7


@pytest.mark.parametrize(
    ("code", "words"), [("other_tenant", "hardly anybody on Microsoft's list"), ("endless_list", "It may have no end")]
)
def test_a_list_with_nobody_known_on_it_or_without_end_has_a_button_too(synced, code, words):
    job = Job.objects.get(kind="customers")
    now = timezone.now()
    Run.objects.create(
        partner=job.partner, job=job, fence=job.fence, outcome="failed", error_code=code, finished_at=now
    )

    assert words in text_of(page(synced))
    assert "They are ours" in text_of(page(synced))
    synced.portal.post("/jobs/customers/removals")

    assert ListState.objects.get().accepted_at
    Job.objects.get(kind="customers", next_run_at__lte=timezone.now())


def test_the_page_costs_the_same_however_much_there_is(synced, django_assert_max_num_queries):
    partner = Job.objects.get().partner
    for kind in jobs.kinds():
        jobs.ensure(partner, kind)
    job = Job.objects.get(kind="customers")
    Run.objects.bulk_create([Run(partner=partner, job=job, fence=1, outcome="done") for _ in range(50)])

    with django_assert_max_num_queries(10):
        html = page(synced)
    assert html.count('class="cpv-card cpv-state') == len(jobs.kinds())


# --- A sign-in that Partner Center does not accept ------------------------------------------------------------------
@pytest.mark.parametrize(("times", "who"), [(1, "Nobody needs to act"), (8, "Who acts: Your organisation")])
def test_a_401_that_lasts_says_what_it_means_that_it_comes_again_and_who_acts(synced, world, times, who):
    world.fail("partnercenter", "unauthorized")
    Job.objects.update(failures=times - 1, next_run_at=timezone.now())

    jobs.run_job(Job.objects.get().pk)
    words = text_of(page(synced))

    assert "Sign-in not accepted" in words
    assert "neither about MFA nor about a role" in words
    assert "tried again by itself, ever more seldom and at least every six hours, until it is accepted" in words
    assert who in words
    assert ("8 times in a row" in words, "renews the connection" in words) == (times == 8, times == 8)
    assert "Reference: 401/400" in words
    assert "Next When somebody acts" not in words


def test_a_401_of_graphs_is_not_said_to_be_partner_centers(synced, world):
    world.fail("graph", "unauthorized")
    partner = Partner.objects.get()
    Job.objects.filter(pk=jobs.ensure(partner, "relationships").pk).update(failures=7)

    jobs.run_job(Job.objects.get(kind="relationships").pk)
    words = text_of(page(synced))

    assert "Microsoft Graph does not accept the sign-in" in words
    assert "may sign in to the Microsoft Entra admin centre itself" in words
    assert "Partner Center does not accept" not in words


# --- What takes a yes ---------------------------------------------------------------------------------------------
def choose(member: Any, wanted: str) -> Any:
    return member.portal.post("/jobs/users/choose", {"wanted": wanted}, follow=True)


def test_users_are_read_once_an_owner_asks_for_it_and_erased_when_they_say_so(synced):
    assert "Users: not read" in page(synced)
    assert "read from now on" in choose(synced, "yes").content.decode()
    lanes = list(Job.objects.filter(kind="users"))
    for job in lanes:
        jobs.run_job(job.pk)
    assert CustomerUser.objects.exists()
    assert "Users: not read" not in page(synced)

    assert "no longer read, and erased here" in choose(synced, "no").content.decode()

    assert len(lanes) == 4
    assert not Job.objects.filter(kind="users").exists()
    assert not CustomerUser.objects.exists()
    told = AuditEvent.objects.filter(action__startswith="mirror.").order_by("pk").values_list("action", "object")
    assert list(told) == [("mirror.asked_for", "users"), ("mirror.ended", "users")]
    assert "Users: not read" in page(synced)


@pytest.mark.parametrize("wanted", ["no", "", "perhaps"])
def test_what_was_not_asked_for_is_not_ended_and_what_no_form_says_does_nothing(synced, wanted):
    answer = choose(synced, wanted)

    assert "Nothing was changed" in answer.content.decode() if wanted == "no" else answer.status_code == 404
    assert not AuditEvent.objects.filter(action__startswith="mirror.").exists()


def test_what_takes_no_yes_cannot_be_chosen(synced):
    for kind in ("customers", "subscriptions", "nothing"):
        assert synced.portal.post(f"/jobs/{kind}/choose", {"wanted": "no"}).status_code == 404
    assert Job.objects.filter(kind="customers").exists()


def test_choosing_takes_a_fresh_sign_in(synced):
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=11)):
        led = synced.portal.post("/jobs/users/choose", {"wanted": "yes"})

    assert led["Location"].startswith("/signin/again")
    assert not Job.objects.filter(kind="users").exists()


def test_the_command_reads_nobodys_users_without_an_owners_yes(synced):
    with pytest.raises(CommandError, match="one of its owners does, at /jobs/") as ended:
        call_command("sync", str(Member.objects.get().partner.tenant_id), kind="users")

    assert ended.value.returncode == 2
    assert not Job.objects.filter(kind="users").exists()
