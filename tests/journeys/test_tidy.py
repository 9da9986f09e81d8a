"""What is kept, and for how long."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.utils import timezone

from consent.models import Consent, ConsentAttempt, Invitation
from consent.tasks import tidy as tidy_consent
from partners import jobs
from partners.models import Job, Run
from partners.tasks import tidy as tidy_partners
from tokens.models import AuditEvent, TokenUse
from tokens.tasks import tidy as tidy_tokens

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("days", "gone", "kept"),
    [
        (1, [], [ConsentAttempt, Invitation, Run, TokenUse]),
        (2, [ConsentAttempt], [Invitation, Run, TokenUse]),
        (98, [ConsentAttempt, Invitation], [Run, TokenUse]),
        (401, [ConsentAttempt, Invitation, TokenUse], [Run, Consent, AuditEvent, Job]),
    ],
)
def test_each_kind_of_line_is_kept_as_long_as_promised(member, days, gone, kept):
    jobs.run_job(Job.objects.get().pk)

    with time_machine.travel(timezone.now() + dt.timedelta(days=days)):
        for tidy in (tidy_consent, tidy_partners, tidy_tokens):
            tidy()

    assert [model for model in gone if model.objects.exists()] == []
    assert [model for model in kept if not model.objects.exists()] == []


def test_of_old_runs_the_newest_and_the_newest_that_was_done_stay(member):
    job = Job.objects.get()
    long_ago = timezone.now() - dt.timedelta(days=100)
    outcomes = ["done", "done", "waiting", "refused"]
    runs = [
        Run.objects.create(
            partner=job.partner, job=job, fence=1, outcome=outcome, started_at=long_ago, finished_at=long_ago
        )
        for outcome in outcomes
    ]

    jobs.forget_old()

    assert list(Run.objects.order_by("pk")) == [runs[1], runs[3]]
