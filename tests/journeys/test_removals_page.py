"""What was taken away, on the page of jobs and on its own, and the button that brings it back."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import jobs
from partners.models import Customer, Job, Member, Run
from sandbox.directory import Tenant
from tests.conftest import FABRIKAM
from tests.live import text_of
from tests.statements import asked
from tokens.models import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)
PAGE, POST = "/jobs/customers/removed/", "/jobs/customers/bring-back"


def sync() -> Run:
    job = Job.objects.get(kind="customers", partner__name="Contoso")
    jobs.make_due(job.partner, kind="customers")
    ended = jobs.run_job(job.pk)
    assert ended
    return ended


@pytest.fixture
def taken(member, contoso: Tenant) -> Run:
    """One of three customers is gone; a day of waiting is taken for granted."""
    sync()
    contoso.customers.removed = {1}
    sync()
    Customer.objects.exclude(missing_since=None).update(missing_since=timezone.now() - dt.timedelta(hours=25))
    run = sync()
    assert run.removed == 1
    return run


def bring_back(member: Any, run: Any) -> str:
    return text_of(member.portal.post(POST, {"run": str(run)}, follow=True).content.decode())


def test_it_is_said_what_was_taken_away_by_which_list_and_one_button_brings_it_back(member, taken):
    html = member.portal.get("/jobs/").content.decode()
    assert re.search(r"Taken away 1 by the list of \d+ \w+ \d{4}", text_of(html))
    assert f'href="{PAGE}"' in html

    page = member.portal.get(PAGE).content.decode()
    assert f'name="run" value="{taken.pk}" checked' in page
    assert "What will happen: they are here again" in text_of(page)
    said = bring_back(member, taken.pk)
    assert "1 is back. What Microsoft's next two complete lists, a day apart, still lack is taken away again" in said

    assert Customer.objects.filter(removed_at=None).count() == 3
    assert "Taken away" not in text_of(member.portal.get("/jobs/").content.decode())
    again = text_of(member.portal.get(PAGE).content.decode())
    assert "Brought back" in again
    assert "All of it is brought back" in again
    event = AuditEvent.objects.get(action="removals.undone")
    assert (event.detail["rows"], event.actor_label) == (1, str(Member.objects.get().user))


def test_pressed_twice_it_is_done_once(member, taken):
    bring_back(member, taken.pk)

    assert "they are back already" in bring_back(member, taken.pk)
    assert AuditEvent.objects.filter(action="removals.undone").count() == 1


def test_a_month_later_it_is_too_late_and_says_so(member, taken):
    long_ago = timezone.now() - dt.timedelta(days=31)
    Run.objects.filter(pk=taken.pk).update(started_at=long_ago, finished_at=long_ago)

    assert "more than 30 days ago stays away" in bring_back(member, taken.pk)
    assert "Nothing was taken away" in text_of(member.portal.get(PAGE).content.decode())
    assert "Taken away" not in text_of(member.portal.get("/jobs/").content.decode())


def test_a_list_that_took_nothing_away_and_no_choice_are_answered(member, taken):
    first = Run.objects.order_by("pk")[0]

    assert "that reading took nothing away" in bring_back(member, first.pk)
    assert "choose first" in bring_back(member, "")
    assert Customer.objects.exclude(removed_at=None).count() == 1


@pytest.mark.parametrize("run", ["x", "-1", "1" * 30, "987654321", "1\x00"])
def test_a_run_that_nobody_has_is_not_there(member, taken, run):
    assert member.portal.post(POST, {"run": run}).status_code == 404


def test_a_run_of_another_partner_is_not_there(member, taken, connected_partner):
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam", customers=2)
    jobs.run_job(jobs.ensure(other, "customers").pk)
    theirs = Run.objects.get(partner=other)
    Run.objects.filter(pk=theirs.pk).update(removed=2)

    assert member.portal.post(POST, {"run": theirs.pk}).status_code == 404
    assert not AuditEvent.objects.filter(action="removals.undone").exists()


def test_kinds_whose_removals_nobody_judges_have_no_such_page(member, taken):
    for kind in ("mfa", "users", "nonsense"):
        assert member.portal.get(f"/jobs/{kind}/removed/").status_code == 404
        assert member.portal.post(f"/jobs/{kind}/bring-back", {"run": taken.pk}).status_code == 404


def test_a_reader_sees_it_without_the_button_and_who_is_limited_sees_nothing_of_it(member, taken):
    Member.objects.update(role="reader")
    html = member.portal.get("/jobs/").content.decode()
    assert "Taken away 1" in text_of(html)
    assert PAGE not in html

    Member.objects.update(role="operator", limited_at=timezone.now())
    assert "Taken away" not in text_of(member.portal.get("/jobs/").content.decode())
    assert member.portal.get(PAGE).status_code == 404
    assert member.portal.post(POST, {"run": taken.pk}).status_code == 404


def test_both_pages_cost_at_most_six_questions(member, taken):
    job = Job.objects.get(kind="customers")
    of = {"partner": job.partner, "job": job, "fence": 1, "outcome": "done"}
    now = timezone.now()
    Run.objects.bulk_create([Run(**of, removed=2, started_at=now, finished_at=now) for _ in range(120)])

    for page in ("/jobs/", PAGE):
        with CaptureQueriesContext(connection) as queries:
            words = text_of(member.portal.get(page).content.decode())
        assert len(asked(queries)) <= 6, (page, asked(queries))
    assert "These are the newest 100" in words
