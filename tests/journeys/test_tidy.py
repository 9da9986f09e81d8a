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
        (98, [ConsentAttempt, Invitation, Run], [TokenUse]),
        (401, [ConsentAttempt, Invitation, Run, TokenUse], [Consent, AuditEvent, Job]),
    ],
)
def test_each_kind_of_line_is_kept_as_long_as_promised(member, days, gone, kept):
    jobs.run_job(Job.objects.get().pk)

    with time_machine.travel(timezone.now() + dt.timedelta(days=days)):
        for tidy in (tidy_consent, tidy_partners, tidy_tokens):
            tidy()

    assert [model for model in gone if model.objects.exists()] == []
    assert [model for model in kept if not model.objects.exists()] == []
