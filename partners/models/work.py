"""The jobs done for the partners, and the workers that do them."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from partners.models.people import Partner
from tokens.tenancy import OfOnePartner

LEASE = dt.timedelta(seconds=120)
AT_LIBERTY = {"claimed_until": None, "quarantined_at": None, "wait_code": ""}  # what a job that is to run must be


class JobQuerySet(OfOnePartner, models.QuerySet["Job"]):
    def holding(self, *, fence: int, now: dt.datetime) -> JobQuerySet:
        """The job while the lease taken under this fence still counts: every write of a run goes through here."""
        return self.filter(fence=fence, leased_until__gt=now)

    def idle(self, now: dt.datetime) -> JobQuerySet:
        """Jobs that nobody works on."""
        return self.filter(Q(leased_until=None) | Q(leased_until__lte=now))


class Job(models.Model):
    """
    One kind of work for one partner, or one of the lanes that share it. The row is the truth; messages only hint that
    it may be due.

    `claimed_until` and `turn` are the dispatcher's: the job waits for a worker, and comes after all of a lower turn.
    `wait_code` says what a job that is not running waits for, where that is nothing a run of its own found out.
    `suspected_at` is when its worker died last, and it may be the reason; it is None again once a run of it ended.
    """

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="jobs", db_index=False)
    kind = models.CharField(max_length=40)
    lane = models.PositiveSmallIntegerField(default=0)
    next_run_at = models.DateTimeField(null=True, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)
    turn = models.PositiveIntegerField(default=1)
    leased_until = models.DateTimeField(null=True, blank=True)
    lease_message = models.CharField(max_length=64, blank=True)
    fence = models.BigIntegerField(default=0)
    cursor = models.JSONField(default=dict, blank=True)
    failures = models.PositiveIntegerField(default=0)
    wait_code = models.CharField(max_length=40, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)
    quarantined_at = models.DateTimeField(null=True, blank=True)
    suspected_at = models.DateTimeField(null=True, blank=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "kind", "lane"], name="job_once_per_lane"),
            models.UniqueConstraint(fields=["partner", "id"], name="job_partner_id"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["next_run_at"], name="job_due", condition=Q(paused_at=None)),
            # Few indexes: claiming ten thousand rows writes each of them ten thousand times.
            models.Index(
                fields=["turn", "next_run_at", "id"],
                name="job_under_way",
                condition=Q(claimed_until__isnull=False) | Q(leased_until__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        lane = f", lane {self.lane}" if self.lane else ""
        return f"{self.kind}{lane} of {self.partner}"

    @property
    def is_running(self) -> bool:
        return self.leased_until is not None and self.leased_until > timezone.now()

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
            leased_until=now + LEASE,
            lease_message=message,
            claimed_until=None,
            fence=F("fence") + 1,
            # A run that was cancelled and died before it heard of it leaves no place to go on from.
            cursor=Case(When(cancelled_at=None, then=F("cursor")), default=Value({}, models.JSONField())),
            cancelled_at=None,
        )
        if won:  # all but the partner, who is at hand
            self.refresh_from_db(fields=[field.name for field in self._meta.concrete_fields if not field.is_relation])
        return won == 1

    def make_due(self) -> bool:
        """Let it run as soon as possible, from where it stopped; False while it runs already, or is paused."""
        now = timezone.now()
        return Job.objects.idle(now).filter(pk=self.pk, paused_at=None).update(next_run_at=now, **AT_LIBERTY) == 1

    def mark_paused(self) -> bool:
        """Stop it until somebody lets it go on; False when it is paused already. A run under way sees it soon."""
        waits = {"paused_at": timezone.now(), "claimed_until": None}
        return Job.objects.filter(pk=self.pk, paused_at=None).update(**waits) == 1

    def mark_resumed(self) -> bool:
        """Let it go on, at once and from where it stopped; False when it was not paused."""
        resumed = {"paused_at": None, "next_run_at": timezone.now(), **AT_LIBERTY}
        return Job.objects.filter(pk=self.pk, paused_at__isnull=False).update(**resumed) == 1

    def mark_cancelled(self, *, next_run_at: dt.datetime) -> bool:
        """
        Give up what was begun, and the place where it stopped; False when nothing was begun.

        A run under way sees it soon and ends then; what it has written stays.
        """
        now = timezone.now()
        if Job.objects.filter(pk=self.pk, leased_until__gt=now).update(cancelled_at=now):
            return True
        waiting = Job.objects.idle(now).filter(pk=self.pk).exclude(cursor={}, failures=0)
        return waiting.update(next_run_at=next_run_at, cursor={}, failures=0, **AT_LIBERTY) == 1

    def mark_released(self) -> bool:
        """Let a job that failed too often try again, with a clean slate; False when it was not held."""
        held = Job.objects.filter(pk=self.pk, quarantined_at__isnull=False)
        return held.update(next_run_at=timezone.now(), failures=0, suspected_at=None, **AT_LIBERTY) == 1


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
        CANCELLED = "cancelled"

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
    brought_back_at = models.DateTimeField(null=True, blank=True)  # what it removed is there again: somebody said so
    retry_after: float | None = None  # seconds Microsoft asked for; known to the process that ran it only

    objects = RunQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["partner", "id"], name="run_partner_id")]
        indexes: ClassVar = [
            models.Index(fields=["partner", "-started_at"], name="run_recent"),
            models.Index(fields=["job", "-id"], name="run_of_job"),
            models.Index(fields=["correlation_id"], name="run_by_correlation"),
        ]

    def __str__(self) -> str:
        return f"{self.job.kind} at {self.started_at:%Y-%m-%d %H:%M} UTC: {self.outcome}"

    @property
    def is_running(self) -> bool:
        return self.finished_at is None

    def mark_brought_back(self) -> bool:
        """Note that what it removed is there again; False when that was noted before."""
        away = Run.objects.filter(pk=self.pk, brought_back_at=None)
        return away.update(brought_back_at=timezone.now()) == 1


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
