"""Who the partners are, who may see them, the jobs done for them, and the mirror of their customers."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from typing import ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import StrIndex
from django.db.models.lookups import GreaterThan
from django.utils import timezone

from tokens.actors import Actor, ActorKind

ACCESS_PERIOD = dt.timedelta(days=180)
SHORTEST_STEM = 3  # characters; a part of a text that is shorter has no line in the index
ACCESS_DAYS = (90, 180, 365)  # what an owner may choose
LEASE = dt.timedelta(seconds=120)
LOOKUP_LIFE = dt.timedelta(seconds=60)
OFFER = dt.timedelta(seconds=10)  # a question that no worker took is offered again after this

CLOUDS = {"global": "Global", "usgov": "US Government", "china": "China (21Vianet)"}


class UserManager(BaseUserManager["User"]):
    def create_user(self, username: str, password: str | None = None, **fields: object) -> User:
        user = self.model(username=username, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, username: str, password: str | None = None, **fields: object) -> User:
        return self.create_user(username, password, is_staff=True, is_superuser=True, **fields)

    def member(self, *, cloud: str, tenant_id: uuid.UUID, object_id: uuid.UUID, upn: str, name: str) -> User:
        """The person behind a validated sign-in; (cloud, tid, oid) identifies, upn and name are for display only."""
        user, _ = self.update_or_create(
            cloud=cloud,
            tid=tenant_id,
            oid=object_id,
            defaults={"upn": upn, "name": name},
            create_defaults={
                "username": f"{cloud}:{tenant_id}:{object_id}",
                "password": "!",  # unusable: members sign in at Microsoft only
                "upn": upn,
                "name": name,
            },
        )
        return user


class User(AbstractBaseUser, PermissionsMixin):
    """A person: a partner's member, known by (cloud, tid, oid), or one of the vendor's staff with a local password."""

    username = models.CharField(max_length=150, unique=True)
    cloud = models.CharField(max_length=10, null=True, blank=True)  # noqa: DJ001 - all three are null for staff
    tid = models.UUIDField(null=True, blank=True)
    oid = models.UUIDField(null=True, blank=True)
    upn = models.CharField("sign-in name", max_length=320, blank=True)
    name = models.CharField(max_length=256, blank=True)
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[UserManager] = UserManager()
    USERNAME_FIELD = "username"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["cloud", "tid", "oid"], name="user_identity_unique"),
            models.CheckConstraint(
                name="user_identity_whole",
                condition=Q(cloud=None, tid=None, oid=None)
                | Q(cloud__isnull=False, tid__isnull=False, oid__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.upn or self.username

    def get_short_name(self) -> str:
        return self.name or self.upn or self.username

    def as_actor(self) -> Actor:
        """This person in the audit and the ledger."""
        return Actor(ActorKind.STAFF if self.is_staff else ActorKind.MEMBER, id=str(self.pk), label=str(self))


class PartnerQuerySet(models.QuerySet["Partner"]):
    def living(self) -> PartnerQuerySet:
        return self.filter(offboarded_at=None)


class Partner(models.Model):
    """A CSP partner's tenant. Its state is derived from these times and from its refresh token's row."""

    cloud = models.CharField(max_length=10, choices=list(CLOUDS.items()))
    tenant_id = models.UUIDField("tenant")
    name = models.CharField(max_length=256)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    access_days = models.PositiveSmallIntegerField(default=ACCESS_PERIOD.days)
    lapses_at = models.DateTimeField(null=True, blank=True)
    suspended_at = models.DateTimeField(null=True, blank=True)
    killed_at = models.DateTimeField(null=True, blank=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    offboarded_at = models.DateTimeField(null=True, blank=True)

    objects = PartnerQuerySet.as_manager()

    class Meta:
        permissions: ClassVar = [("kill_partner", "Can stop partners for security, and lift such a stop")]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["tenant_id"], condition=Q(offboarded_at=None), name="partner_tenant_unique_among_the_living"
            ),
            models.CheckConstraint(name="partner_cloud_known", condition=Q(cloud__in=list(CLOUDS))),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.tenant_id})"

    def mark_killed(self) -> None:
        """Nothing leaves for this partner from the commit on."""
        Partner.objects.filter(pk=self.pk, killed_at=None).update(killed_at=timezone.now())
        self.refresh_from_db(fields=["killed_at"])

    def unmark_killed(self) -> bool:
        lifted = Partner.objects.filter(pk=self.pk, killed_at__isnull=False).update(killed_at=None)
        self.refresh_from_db(fields=["killed_at"])
        return lifted == 1

    def mark_withdrawn(self) -> bool:
        ended = Partner.objects.filter(pk=self.pk, withdrawn_at=None).update(withdrawn_at=timezone.now())
        self.refresh_from_db(fields=["withdrawn_at"])
        return ended == 1

    def set_access_period(self, days: int, *, since: dt.datetime | None) -> None:
        """
        `since` is when the consent in force was given; without one it counts from the next consent.

        What is over stays over: a longer period is no consent.
        """
        self.access_days = days
        if since and not (self.lapses_at and self.lapses_at <= timezone.now()):
            self.lapses_at = since + dt.timedelta(days=days)
        Partner.objects.filter(pk=self.pk).update(access_days=days, lapses_at=self.lapses_at)

    def start_access_period(self, now: dt.datetime) -> None:
        """A new consent opens a new access period and ends a withdrawal; it never undoes a kill or a suspension."""
        self.lapses_at = now + dt.timedelta(days=self.access_days)
        self.withdrawn_at = None
        Partner.objects.filter(pk=self.pk).update(lapses_at=self.lapses_at, withdrawn_at=None)


class Member(models.Model):
    """A user's place in one partner."""

    class Role(models.TextChoices):
        OWNER = "owner"
        OPERATOR = "operator"
        READER = "reader"
        AUDITOR = "auditor"

    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    partner = models.ForeignKey(Partner, models.CASCADE, related_name="members")
    role = models.CharField(max_length=10, choices=Role.choices)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "partner"], name="member_once_per_partner"),
            models.UniqueConstraint(fields=["partner", "id"], name="member_partner_id"),
            models.CheckConstraint(
                name="member_role_known", condition=Q(role__in=["owner", "operator", "reader", "auditor"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.role} of {self.partner}"

    @property
    def reads_activity(self) -> bool:
        return self.role in (self.Role.OWNER, self.Role.AUDITOR)


class JobQuerySet(models.QuerySet["Job"]):
    def holding(self, *, fence: int, now: dt.datetime) -> JobQuerySet:
        """The job while the lease taken under this fence still counts: every write of a run goes through here."""
        return self.filter(fence=fence, leased_until__gt=now)


class Job(models.Model):
    """One kind of work for one partner. The row is the truth; messages only hint that it may be due."""

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="jobs")
    kind = models.CharField(max_length=40)
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
            models.UniqueConstraint(fields=["partner", "kind"], name="job_once_per_kind"),
            models.UniqueConstraint(fields=["partner", "id"], name="job_partner_id"),
        ]
        indexes: ClassVar = [models.Index(fields=["next_run_at"], name="job_due", condition=Q(paused_at=None))]

    def __str__(self) -> str:
        return f"{self.kind} of {self.partner}"

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


class CustomerQuerySet(models.QuerySet["Customer"]):
    def present(self) -> CustomerQuerySet:
        return self.filter(removed_at=None)

    def matching(self, text: str) -> CustomerQuerySet:
        """Customers whose name or domain contains the text, or whose tenant id it is; all of them for an empty text."""
        text = text.strip()
        if not text:
            return self
        found = Q(name_key__contains=text.casefold()) | _in_domain(text.casefold())
        with contextlib.suppress(ValueError):
            found |= Q(tenant_id=uuid.UUID(text))
        return self.filter(found)


def _in_domain(text: str) -> Q:
    """
    Whether the domain contains the text, asked so that an index of its parts helps.

    What all domains end in, such as ".onmicrosoft.com", would have the index read a line for each of them.
    """
    stem = text.partition(".")[0]
    if len(stem) < SHORTEST_STEM or stem == text:
        return Q(domain__contains=text)
    return Q(domain__contains=stem) & Q(GreaterThan(StrIndex("domain", Value(text)), 0))


class Customer(models.Model):
    """A partner's customer tenant as Partner Center last described it."""

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="customers")
    tenant_id = models.UUIDField("tenant")
    name = models.CharField(max_length=400, blank=True)
    name_key = models.CharField(max_length=400, blank=True)
    domain = models.CharField(max_length=255, blank=True)
    relationship = models.CharField(max_length=40, blank=True)
    content_hash = models.BinaryField(max_length=16)
    first_seen_at = models.DateTimeField(default=timezone.now)
    changed_at = models.DateTimeField(default=timezone.now)
    removed_at = models.DateTimeField(null=True, blank=True)
    removed_reason = models.CharField(max_length=40, blank=True)

    objects = CustomerQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "tenant_id"], name="customer_once_per_partner"),
            models.UniqueConstraint(fields=["partner", "id"], name="customer_partner_id"),
        ]
        indexes: ClassVar = [models.Index(fields=["partner", "name_key", "id"], name="customer_by_name")]

    def __str__(self) -> str:
        return self.name or self.domain or str(self.tenant_id)


class LookupQuerySet(models.QuerySet["Lookup"]):
    def over(self, now: dt.datetime) -> LookupQuerySet:
        return self.filter(expires_at__lte=now)

    def waiting(self, now: dt.datetime) -> LookupQuerySet:
        """Taken by nobody, though a message should have been read by now."""
        return self.filter(taken_at=None, offered_until__lte=now, expires_at__gt=now)


def in_a_minute() -> dt.datetime:
    return timezone.now() + LOOKUP_LIFE


def offer_end() -> dt.datetime:
    return timezone.now() + OFFER


class Lookup(models.Model):
    """A member's question to Microsoft about one customer, and for a minute at most its sealed answer."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    partner = models.ForeignKey(Partner, models.CASCADE, related_name="lookups")
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="lookups")
    member = models.ForeignKey(Member, models.CASCADE, related_name="lookups")
    cursor = models.JSONField(default=dict, blank=True)
    asked_at = models.DateTimeField(default=timezone.now)
    offered_until = models.DateTimeField(default=offer_end)
    taken_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(default=in_a_minute, db_index=True)
    sealed_answer = models.TextField(blank=True)

    objects = LookupQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["partner", "id"], name="lookup_partner_id")]

    def __str__(self) -> str:
        return f"look at {self.customer} for {self.member}"

    def offer(self) -> bool:
        """Claim the right to send a message about it; False when another tick was faster."""
        now = timezone.now()
        return Lookup.objects.waiting(now).filter(pk=self.pk).update(offered_until=now + OFFER) == 1

    def take(self) -> bool:
        """Claim the one right to ask Microsoft; False when somebody did, or nobody waits any more."""
        now = timezone.now()
        return Lookup.objects.filter(pk=self.pk, taken_at=None, expires_at__gt=now).update(taken_at=now) == 1

    def mark_answered(self, sealed: str) -> bool:
        """Leave the answer for a minute; False when nobody waits for it any more."""
        now = timezone.now()
        waiting = Lookup.objects.filter(pk=self.pk, sealed_answer="", expires_at__gt=now)
        return waiting.update(sealed_answer=sealed, expires_at=now + LOOKUP_LIFE) == 1


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
