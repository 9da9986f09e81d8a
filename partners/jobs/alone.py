"""
Jobs whose worker died before they wrote anything run one at a time, until each has shown that it is not to blame.

A worker does many jobs at once, and when it dies nobody knows which of them did it. Run together again, they would die
together again, and be held together. One at a time, whichever kills its worker is alone with the blame.
"""

from __future__ import annotations

import datetime as dt

from django.db import connection
from django.db.models import Exists, OuterRef
from django.utils import timezone

from partners.models import Job, Run

AGAIN_IN = dt.timedelta(seconds=5)
CODE = "alone"
_LOCK = 0x616C6F6E65  # nobody else's number: two that are taken at the same moment must see each other


def has_to_wait(job: Job) -> bool:
    """Whether another such job runs and has written nothing yet; then this one was given back, for some seconds.

    Call it in the transaction that leased the job.
    """
    if job.suspected_at is None:
        return False
    if connection.vendor == "postgresql":  # on SQLite there is one writer anyway
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    now = timezone.now()
    came_further = Run.objects.filter(job=OuterRef("pk"), outcome=Run.Outcome.RUNNING, pages__gt=0)
    others = Job.objects.filter(suspected_at__isnull=False, leased_until__gt=now).exclude(pk=job.pk)
    if not others.filter(~Exists(came_further)).exists():
        return False
    given_back = {"leased_until": None, "lease_message": "", "claimed_until": None, "wait_code": CODE}
    Job.objects.filter(pk=job.pk).update(next_run_at=now + AGAIN_IN, **given_back)
    return True
