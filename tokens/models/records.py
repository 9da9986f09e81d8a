"""What was done with refresh tokens, what was decided, and what is ours to repair. Never a token itself."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

LONGEST_LIFE = 7_200
"""
Seconds an access token lives at most unless somebody made it live longer: Entra's own choice is 60 to 90 minutes, two
hours in tenants without conditional access. A lifetime policy allows a day, continuous access evaluation 28 hours.
https://learn.microsoft.com/entra/identity-platform/access-tokens#token-lifetime
"""
LONGEST_NUMBER = 2**31 - 1  # what the column takes; an answer from outside may say anything


class Alarm(models.Model):
    """
    A fault of our own: of every partner of a cloud, or with a `partner` of one stored sign-in.

    Opened once; the next success closes it, but for another holder's answer, after which only a new consent does. The
    emergency account's, which has no cloud, is closed by whoever ends the emergency; the audit's by who looked into it.
    """

    class Kind(models.TextChoices):
        CREDENTIAL = "credential", "Microsoft refuses our application's credential"
        LIFETIME = "lifetime", "Access tokens live longer than two hours, so they go on working after a stop elsewhere"
        IDLE = "idle", "Stored sign-ins have not been used for two weeks; Microsoft lets them die after 90 days"
        REGISTRATION = "registration", "Microsoft refuses how our application is registered or asks"
        ROLLED_OVER = "rolled_over", "Microsoft refuses one of our application's certificates; the other is in use"
        EXPIRING = "expiring", "A certificate of ours ends soon"
        VAULT = "vault", "Key Vault refuses us: nothing can be read or stored"
        NOT_DISABLED = "not_disabled", "Secrets that must not stay enabled cannot be disabled"
        PROOF = "proof", "Microsoft's proof of who signed in does not pass our checks: is our clock right?"
        UNREADABLE = "unreadable", "A stored sign-in cannot be read: check vault and keys, or send a fresh consent link"
        WRONG_HOLDER = "wrong_holder", "Microsoft answered a stored sign-in for another account; nothing of it was used"
        BREAK_GLASS = "break_glass", "The account for emergencies was used: who was it, and what for?"
        AUDIT = "audit", "The audit is not as it was sealed: `verifyaudit` says what is missing or was changed"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    partner = models.ForeignKey("partners.Partner", models.PROTECT, null=True, blank=True, related_name="alarms")
    cloud = models.CharField(max_length=10)
    audience = models.CharField(max_length=20, blank=True)  # where only requests for one are refused
    code = models.CharField(max_length=200)
    trace_id = models.CharField(max_length=36, blank=True)
    correlation_id = models.CharField(max_length=36, blank=True)
    opened_at = models.DateTimeField(default=timezone.now)
    last_at = models.DateTimeField(default=timezone.now)
    times = models.PositiveIntegerField(default=1)
    closed_at = models.DateTimeField(null=True, blank=True)
    mailed_at = models.DateTimeField(null=True, blank=True)  # those that cannot wait for somebody to look

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "cloud"], condition=Q(closed_at=None, partner=None), name="alarm_one_open_of_a_kind"
            ),
            models.UniqueConstraint(
                fields=["kind", "partner"],
                condition=Q(closed_at=None, partner__isnull=False),
                name="alarm_one_open_of_a_partner",
            ),
        ]

    def __str__(self) -> str:
        whose = self.partner.name if self.partner else self.cloud or "desk"
        return f"{self.get_kind_display()} ({self.code}, {whose}) since {self.opened_at:%Y-%m-%d %H:%M} UTC"

    def mark_mailed(self) -> bool:
        """People know of it as it is; False when it happened again meanwhile, and they are to be told again."""
        known = Alarm.objects.filter(pk=self.pk, times=self.times)
        return known.update(mailed_at=timezone.now()) == 1


class UnknownAnswer(models.Model):
    """A refusal whose number our table does not have, for somebody to look up and add."""

    code = models.CharField(max_length=40)
    suberror = models.CharField(max_length=40, blank=True)
    taken_for = models.CharField(max_length=20)  # what it was handled as meanwhile
    first_at = models.DateTimeField(default=timezone.now)
    last_at = models.DateTimeField(default=timezone.now)
    times = models.PositiveIntegerField(default=1)
    trace_id = models.CharField(max_length=36, blank=True)
    correlation_id = models.CharField(max_length=36, blank=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["code", "suberror"], name="unknown_answer_once")]

    def __str__(self) -> str:
        return f"{self.code} {self.suberror}".strip()


class TokenUse(models.Model):
    """The ledger: one line per token request to Entra, written before the request leaves; refusals of ours too."""

    class Outcome(models.TextChoices):
        SENT = "sent"
        GRANTED = "granted"
        REFUSED = "refused"
        UNAVAILABLE = "unavailable"
        WITHHELD = "withheld", "never sent"

    has_left = False  # in memory only: the request is on its way, or was

    partner = models.ForeignKey("partners.Partner", models.PROTECT, null=True, blank=True, related_name="token_uses")
    at = models.DateTimeField(default=timezone.now)
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=150, blank=True)
    actor_label = models.CharField(max_length=320, blank=True)
    purpose = models.CharField(max_length=60)
    audience = models.CharField(max_length=20)
    customer_tenant = models.UUIDField(null=True, blank=True)
    generation = models.PositiveIntegerField(null=True, blank=True)
    outcome = models.CharField(max_length=12, choices=Outcome.choices, default=Outcome.SENT)
    code = models.CharField(max_length=40, blank=True)
    lives_s = models.PositiveIntegerField("seconds to live", null=True, blank=True)  # of what was granted
    correlation_id = models.UUIDField(default=uuid.uuid4)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["partner", "-at"], name="token_use_recent"),
            models.Index(fields=["-at"], condition=Q(lives_s__gt=LONGEST_LIFE), name="token_use_long_lived"),
            models.Index(fields=["correlation_id"], name="token_use_by_correlation"),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} for {self.audience} at {self.at:%Y-%m-%d %H:%M} UTC: {self.outcome}"

    def start_over(self) -> None:
        """Become a new line, for a request that is sent once more; what was written stays."""
        self.pk, self.at, self.correlation_id = None, timezone.now(), uuid.uuid4()
        self.outcome, self.code, self.has_left = self.Outcome.SENT, "", False
        self.save(force_insert=True)

    def note_leaving(self) -> None:
        self.has_left = True

    def close(self, outcome: str, *, code: str = "", lives_s: int | None = None) -> None:
        self.outcome, self.code = outcome, code
        self.lives_s = None if lives_s is None else min(max(lives_s, 0), LONGEST_NUMBER)
        TokenUse.objects.filter(pk=self.pk).update(outcome=outcome, code=code[:40], lives_s=self.lives_s)


class AuditEvent(models.Model):
    """A decision somebody took. Lines are added by `audit.record` and never changed."""

    partner = models.ForeignKey("partners.Partner", models.PROTECT, null=True, blank=True, related_name="audit_events")
    at = models.DateTimeField(default=timezone.now)
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=150, blank=True)
    actor_label = models.CharField(max_length=320, blank=True)
    action = models.CharField(max_length=60)
    object = models.CharField(max_length=200, blank=True)
    detail = models.JSONField(default=dict)
    request_id = models.CharField(max_length=64, blank=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["partner", "-at"], name="audit_recent"),
            models.Index(fields=["-at"], name="audit_recent_all"),
        ]

    def __str__(self) -> str:
        return f"{self.action} by {self.actor_label or self.actor_kind} at {self.at:%Y-%m-%d %H:%M} UTC"


class AuditLink(models.Model):
    """
    The place of an audit line in its partner's chain; the vendor's own lines, without a partner, are a chain too.

    `hash` covers the line and the link before it, so that no line can be changed, taken out or put in between.
    """

    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="link")
    partner = models.ForeignKey("partners.Partner", models.PROTECT, null=True, blank=True, related_name="audit_links")
    number = models.PositiveBigIntegerField()
    hash = models.CharField(max_length=64)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["partner", "number"], condition=Q(partner__isnull=False), name="audit_link_once_per_partner"
            ),
            models.UniqueConstraint(fields=["number"], condition=Q(partner=None), name="audit_link_once_of_ours"),
        ]

    def __str__(self) -> str:
        return f"link {self.number} of {self.partner or 'the vendor'}"


class AuditAnchor(models.Model):
    """
    What all chains had come to at one moment, under a MAC whose key is not in the database.

    `head` covers every link up to `last_link` and the anchor before. Anchors are numbered without a gap, and each names
    the MAC of the one before. The same goes to the log, out of the database's reach.
    """

    number = models.PositiveBigIntegerField(null=True, blank=True, unique=True)  # None: made before they had numbers
    before = models.CharField(max_length=64, blank=True, default="", db_default="")
    at = models.DateTimeField(default=timezone.now)
    entries = models.PositiveBigIntegerField()
    last_link = models.PositiveBigIntegerField(default=0)  # its primary key; 0 while there is none
    head = models.CharField(max_length=64)
    mac = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.entries} audit lines at {self.at:%Y-%m-%d %H:%M:%S} UTC"


class AuditWitness(models.Model):
    """One row beside the anchors: which was sealed last, under a MAC of its own that each seal overwrites."""

    number = models.PositiveBigIntegerField()
    mac = models.CharField(max_length=64)
    proof = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"anchor {self.number} was sealed last"
