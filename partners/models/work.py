"""The jobs done for the partners, and the workers that do them."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from partners.models.people import Partner
from tokens.tenancy import OfOnePartner

LEASE = dt.timedelta(seconds=120)


class JobQuerySet(OfOnePartner, models.QuerySet["Job"]):
    def holding(self, *, fence: int, now: dt.datetime) -> JobQuerySet:
        """The job while the lease taken under this fence still counts: every write of a run goes through here."""
        return self.filter(fence=fence, leased_until__gt=now)


class Job(models.Model):
    """
    One kind of work for one partner, or one of the lanes that share it. The row is the truth; messages only hint that
    it may be due.
    """

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="jobs")
    kind = models.CharField(max_length=40)
    lane = models.PositiveSmallIntegerField(default=0)
    next_run_at = models.DateTimeField(null=True, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    lease_message = models.CharField(max_length=64, blank=True)
    fence = models.BigIntegerField(default=0)
    cursor = models.JSONField(default=dict, blank=True)
    failures = models.PositiveIntegerField(default=0)
    paused_at = models.DateTimeField(null=True, blank=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "kind", "lane"], name="job_once_per_lane"),
            models.UniqueConstraint(fields=["partner", "id"], name="job_partner_id"),
        ]
        indexes: ClassVar = [models.Index(fields=["next_run_at"], name="job_due", condition=Q(paused_at=None))]

    def __str__(self) -> str:
        lane = f", lane {self.lane}" if self.lane else ""
        return f"{self.kind}{lane} of {self.partner}"

    def lease(self, *, message: str = "", redelivered: bool = False) -> bool:
        """
        Claim the right to run for two minutes; False when it is not due, paused, or somebody else has it.

        A message that its dead reader gave back may take over the lease it took itself. The fence shuts out the old
        holder whichever way the lease was won.
        """
        now = timezone.now()
        free = Q(leased_until=None) | Q(leased_until__lte=now)
        if redelivered and message:
            free |= Q(lease_message=message)
        won = Job.objects.filter(free, pk=self.pk, paused_at=None, next_run_at__lte=now).update(
            leased_until=now + LEASE, lease_message=message, fence=F("fence") + 1
        )
        if won:
            self.refresh_from_db()
        return won == 1

    def make_due(self) -> bool:
        """Let it run as soon as possible; False while it runs already. A run that waits goes on where it stopped."""
        now = timezone.now()
        free = Q(leased_until=None) | Q(leased_until__lte=now)
        return Job.objects.filter(free, pk=self.pk).update(next_run_at=now, claimed_until=None) == 1


class RunQuerySet(OfOnePartner, models.QuerySet["Run"]):
    """Within the scope of one partner its own; outside of any an error."""


class Run(models.Model):
    """One attempt at a job: how far it came and how it ended."""

    class Outcome(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        ALREADY_RUNNING = "already_running"
        WAITING = "waiting"
        REFUSED = "refused"
        FAILED = "failed"
        TAKEN_OVER = "taken_over"

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="runs")
    job = models.ForeignKey(Job, models.CASCADE, related_name="runs")
    fence = models.BigIntegerField()
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=20, choices=Outcome.choices, default=Outcome.RUNNING)
    pages = models.PositiveIntegerField(default=0)
    seen = models.PositiveIntegerField(default=0)
    expected = models.PositiveIntegerField(null=True, blank=True)
    created = models.PositiveIntegerField(default=0)
    updated = models.PositiveIntegerField(default=0)
    removed = models.PositiveIntegerField(default=0)
    unchanged = models.PositiveIntegerField(default=0)
    error_code = models.CharField(max_length=40, blank=True)
    error = models.CharField(max_length=500, blank=True)
    correlation_id = models.UUIDField(default=uuid.uuid4)
    retry_after: float | None = None  # seconds Microsoft asked for; known to the process that ran it only

    objects = RunQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["partner", "id"], name="run_partner_id")]
        indexes: ClassVar = [
            models.Index(fields=["partner", "-started_at"], name="run_recent"),
            models.Index(fields=["job", "-id"], name="run_of_job"),
        ]

    def __str__(self) -> str:
        return f"{self.job.kind} at {self.started_at:%Y-%m-%d %H:%M} UTC: {self.outcome}"

    @property
    def is_running(self) -> bool:
        return self.finished_at is None


class Pulse(models.Model):
    """When a tick last came all the way to a worker: clock, message broker, worker and database work together."""

    worker = models.CharField(max_length=200, unique=True)
    at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.worker} at {self.at:%H:%M:%S} UTC"

    @classmethod
    def beat(cls, worker: str) -> None:
        cls._default_manager.update_or_create(worker=worker[:200], defaults={"at": timezone.now()})

    @classmethod
    def forget_old(cls) -> None:
        """Let go of workers that no tick reached for a day."""
        cls._default_manager.filter(at__lt=timezone.now() - dt.timedelta(days=1)).delete()

    @classmethod
    def silent_for(cls, worker: str = "") -> float | None:
        """Seconds since the last tick that reached this worker, or any; None when none ever did."""
        ticks = cls._default_manager.filter(worker=worker) if worker else cls._default_manager.all()
        last = ticks.aggregate(last=models.Max("at"))["last"]
        return (timezone.now() - last).total_seconds() if last else None
