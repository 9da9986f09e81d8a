"""Who the partners are, and who may see them."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX, make_password
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models
from django.db.models import Q
from django.db.models.functions import Left
from django.utils import timezone

from partners.powers import LIMITABLE, POWERS, Power
from tokens.actors import Actor, ActorKind
from tokens.tenancy import OfOnePartner, is_within_a_partner, system_scope

if TYPE_CHECKING:
    from partners.models.mirror import CustomerQuerySet

ACCESS_PERIOD = dt.timedelta(days=180)
ACCESS_DAYS = (90, 180, 365)  # what an owner may choose

CLOUDS = {"global": "Global", "usgov": "US Government", "china": "China (21Vianet)"}


class PasswordHash(models.CharField):  # type: ignore[type-arg] # not subscriptable at run time
    """
    A stored password's hash. Within one partner's rows it reads as none: no page there needs it (partners.0018).

    No condition may be put on it, wherever its name comes from: answers to many would spell it out.
    """

    def get_lookup(self, lookup_name: str) -> None:
        return None

    def get_transform(self, lookup_name: str) -> None:
        return None

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        return (f"'{UNUSABLE_PASSWORD_PREFIX}'", []) if is_within_a_partner() else (sql, params)

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, _, args, named = super().deconstruct()
        return name, "django.db.models.CharField", args, named


class UserManager(BaseUserManager["User"]):
    def create_user(self, username: str, password: str | None = None, **fields: object) -> User:
        user = self.model(username=username, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

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
    """
    A person: a partner's member, or one of the vendor's staff; nobody is both.

    Who comes from Microsoft is known by (cloud, tid, oid), as all members are; other staff have a local password.
    """

    class StaffRole(models.TextChoices):
        SUPPORT = "support"  # reads, tries again, sends links
        SECURITY = "security"  # stops, rotates, takes evidence
        AUDITOR = "auditor"  # reads
        ADMIN = "admin"  # appoints staff

    password = PasswordHash("password", max_length=128)
    username = models.CharField(max_length=150, unique=True)
    cloud = models.CharField(max_length=10, null=True, blank=True)  # noqa: DJ001 - all three are null for local staff
    tid = models.UUIDField(null=True, blank=True)
    oid = models.UUIDField(null=True, blank=True)
    upn = models.CharField("sign-in name", max_length=320, blank=True)
    name = models.CharField(max_length=256, blank=True)
    is_staff = models.BooleanField(default=False)
    staff_role = models.CharField(max_length=10, choices=StaffRole.choices, blank=True)
    is_active = models.BooleanField(default=True)
    valid_until = models.DateTimeField(null=True, blank=True)  # an account for emergencies ends by itself
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
            models.CheckConstraint(
                name="user_staff_role_known",
                condition=Q(staff_role__in=["", "support", "security", "auditor", "admin"]),
            ),
        ]

    def __str__(self) -> str:
        return self.upn or self.username

    def get_short_name(self) -> str:
        return self.name or self.upn or self.username

    @property
    def is_open(self) -> bool:
        """Whether this account may be used now."""
        return self.is_active and (self.valid_until is None or self.valid_until > timezone.now())

    @property
    def is_for_emergencies(self) -> bool:
        return self.is_superuser and self.valid_until is not None

    @property
    def is_from_entra(self) -> bool:
        """One of the staff whose role and second factor are kept in the vendor's own Entra tenant, not here."""
        return self.is_staff and self.tid is not None

    def as_actor(self) -> Actor:
        """This person in the audit and the ledger."""
        return Actor(ActorKind.STAFF if self.is_staff else ActorKind.MEMBER, id=str(self.pk), label=str(self))

    def end_sessions(self) -> None:
        """
        Every session of this person is over at its next request.

        Django ties sessions to the stored password; where there is none, a random mark stands in its place.
        """
        with system_scope("a person's sessions end"):
            known = User.objects.annotate(begins=Left("password", len(UNUSABLE_PASSWORD_PREFIX)))
            known.filter(pk=self.pk, begins=UNUSABLE_PASSWORD_PREFIX).update(password=make_password(None))


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
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["tenant_id"], condition=Q(offboarded_at=None), name="partner_tenant_unique_among_the_living"
            ),
            models.CheckConstraint(name="partner_cloud_known", condition=Q(cloud__in=list(CLOUDS))),
        ]
        indexes: ClassVar = [
            models.Index(fields=["name", "id"], name="partner_by_name"),
            models.Index(fields=["tenant_id"], name="partner_by_tenant"),  # those that left, too
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


class MemberQuerySet(OfOnePartner, models.QuerySet["Member"]):
    """Within the scope of one partner its own; outside of any an error."""


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
    signed_in_at = models.DateTimeField(null=True, blank=True)
    limited_at = models.DateTimeField(null=True, blank=True)  # since then only the customers chosen for them

    objects = MemberQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "partner"], name="member_once_per_partner"),
            models.UniqueConstraint(fields=["partner", "id"], name="member_partner_id"),
            models.CheckConstraint(
                name="member_role_known", condition=Q(role__in=["owner", "operator", "reader", "auditor"])
            ),
            models.CheckConstraint(name="member_limited_by_role", condition=Q(limited_at=None) | Q(role__in=LIMITABLE)),
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.role} of {self.partner}"

    @property
    def powers(self) -> frozenset[Power]:
        return POWERS[self.role]

    def may(self, power: Power | None) -> bool:
        """Whether the role has this power; what needs none is for every member."""
        return power is None or power in self.powers

    @property
    def sees_every_customer(self) -> bool:
        return Power.CUSTOMERS in self.powers and self.limited_at is None

    @property
    def customers(self) -> CustomerQuerySet:
        """The customers this member may see: where a page gets them from."""
        every: CustomerQuerySet = self.partner.customers.all()
        if Power.CUSTOMERS not in self.powers:
            return every.none()
        if self.limited_at is None:
            return every
        return every.filter(pk__in=self.chosen_customers.values("customer"))

    def mark_signed_in(self) -> None:
        Member.objects.filter(pk=self.pk).update(signed_in_at=timezone.now())
