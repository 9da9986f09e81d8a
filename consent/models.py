"""Invitations, attempts on the way to Microsoft and back, and what was agreed."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from typing import TYPE_CHECKING, ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

if TYPE_CHECKING:
    from tokens.models import RefreshToken

INVITATION_LIFE = dt.timedelta(days=7)
ATTEMPT_LIFE = dt.timedelta(minutes=10)
SENDING = dt.timedelta(minutes=5)  # longer than any mail server may take


def digest(value: str) -> bytes:
    """What we keep of links, states and browser bindings: enough to recognise one, useless to make one."""
    return hashlib.sha256(value.encode()).digest()


class Invitation(models.Model):
    """A link that lets one partner's tenant connect. Looking at it never spends it; only a success does."""

    partner = models.ForeignKey("partners.Partner", models.CASCADE, related_name="invitations")
    link_hash = models.BinaryField(max_length=32, unique=True)
    email = models.EmailField(blank=True)
    created_by = models.CharField(max_length=320)
    renews = models.BooleanField(default=False)  # may replace what works, once an owner has seen by what
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["partner", "id"], name="invitation_partner_id")]

    def __str__(self) -> str:
        return f"invitation of {self.partner}, until {self.expires_at:%Y-%m-%d %H:%M} UTC"

    @staticmethod
    def new_link() -> str:
        return secrets.token_urlsafe(32)

    @property
    def is_expired(self) -> bool:
        return self.expires_at <= timezone.now()

    def mark_used(self) -> bool:
        """Spend it; False when another tab was faster."""
        return Invitation.objects.filter(pk=self.pk, used_at=None).update(used_at=timezone.now()) == 1


class ConsentAttempt(models.Model):
    """One trip to Microsoft. Claimed once, by the browser that began it, within ten minutes."""

    class Kind(models.TextChoices):
        CONSENT = "consent"
        SIGN_IN = "signin"
        ADMIN_CONSENT = "admin"

    kind = models.CharField(max_length=10, choices=Kind.choices)
    cloud = models.CharField(max_length=10)
    partner = models.ForeignKey(
        "partners.Partner", models.CASCADE, null=True, blank=True, related_name="consent_attempts"
    )
    invitation = models.ForeignKey(Invitation, models.CASCADE, null=True, blank=True, related_name="attempts")
    state_hash = models.BinaryField(max_length=32, unique=True)
    browser_hash = models.BinaryField(max_length=32)
    sealed_flow = models.TextField()
    next_path = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=40, blank=True)
    wanted_claims = models.TextField(blank=True)  # what Entra wants of the next sign-in, as it said it

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                name="consent_attempt_has_partner", condition=Q(kind="signin") | Q(partner__isnull=False)
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} attempt {self.pk}"

    def claim(self) -> bool:
        """Use up the attempt before anything leaves for Microsoft; False when it was used already."""
        unclaimed = ConsentAttempt.objects.filter(pk=self.pk, claimed_at=None)
        return unclaimed.update(claimed_at=timezone.now(), sealed_flow="") == 1

    def close(self, outcome: str, *, claims: str = "") -> None:
        ConsentAttempt.objects.filter(pk=self.pk).update(outcome=outcome[:40], wanted_claims=claims)


class PostedAnswer(models.Model):
    """What Microsoft's page posted, sealed, until the browser comes for it: a minute, and once (`consent.posted`)."""

    id_hash = models.BinaryField(max_length=32, unique=True)
    sealed = models.TextField()
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"answer waiting until {self.expires_at:%Y-%m-%d %H:%M:%S} UTC"


class Consent(models.Model):
    """What one person agreed to for their firm, with the evidence we saw. Lines are added and never changed."""

    partner = models.ForeignKey("partners.Partner", models.PROTECT, related_name="consents")
    token = models.OneToOneField("tokens.RefreshToken", models.PROTECT, related_name="consent")
    at = models.DateTimeField(default=timezone.now)
    oid = models.UUIDField("account")
    upn = models.CharField("sign-in name", max_length=320, blank=True)
    name = models.CharField(max_length=256, blank=True)
    role = models.CharField(max_length=20)
    scopes = models.JSONField()
    mfa_evidence = models.JSONField()
    terms_version = models.CharField(max_length=20)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["partner", "id"], name="consent_partner_id")]

    def __str__(self) -> str:
        return f"consent of {self.partner} by {self.upn} at {self.at:%Y-%m-%d %H:%M} UTC"


class NoticeQuerySet(models.QuerySet["Notice"]):
    def due(self, now: dt.datetime) -> NoticeQuerySet:
        """Neither sent nor dropped, its time has come, and nobody is sending it."""
        free = Q(leased_until=None) | Q(leased_until__lte=now)
        return self.filter(free, sent_at=None, dropped_at=None, next_try_at__lte=now)

    def told_of_break_before(self, token: RefreshToken) -> NoticeQuerySet:
        """What was really sent about the break of an earlier generation."""
        earlier = self.filter(partner=token.partner_id, token__generation__lt=token.generation)
        return earlier.filter(kind=Notice.Kind.BROKEN, sent_at__isnull=False)


class Notice(models.Model):
    """One mail to one person about one change of a connection, or its coming end. The row makes it happen once."""

    class Kind(models.TextChoices):
        BROKEN = "broken"
        RECOVERED = "recovered"
        ENDING = "ending"

    partner = models.ForeignKey("partners.Partner", models.CASCADE, related_name="notices")
    token = models.ForeignKey("tokens.RefreshToken", models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    about = models.CharField(max_length=40, blank=True)  # which of several of its kind: "30 days before 2027-05-25"
    to = models.CharField(max_length=320, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    tries = models.PositiveIntegerField(default=0)
    next_try_at = models.DateTimeField(default=timezone.now)
    leased_until = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    dropped_at = models.DateTimeField(null=True, blank=True)

    objects = NoticeQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["token", "kind", "about", "to"], name="notice_once_per_person"),
            models.UniqueConstraint(fields=["partner", "id"], name="notice_partner_id"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["next_try_at"], name="notice_due", condition=Q(sent_at=None, dropped_at=None))
        ]

    def __str__(self) -> str:
        return f"{self.kind} for {self.partner} to {self.to or 'nobody'}"

    def lease(self) -> bool:
        """Claim the right to send it; False when somebody else has it, or it is not due."""
        now = timezone.now()
        won = Notice.objects.due(now).filter(pk=self.pk).update(leased_until=now + SENDING, tries=F("tries") + 1)
        if won:
            self.refresh_from_db(fields=["leased_until", "tries"])
        return won == 1

    def postpone(self, seconds: float) -> None:
        """Give it back to be tried again."""
        again = timezone.now() + dt.timedelta(seconds=seconds)
        Notice.objects.filter(pk=self.pk, sent_at=None).update(leased_until=None, next_try_at=again)

    def mark_sent(self) -> None:
        Notice.objects.filter(pk=self.pk).update(sent_at=timezone.now(), leased_until=None)

    def mark_dropped(self) -> None:
        Notice.objects.filter(pk=self.pk).update(dropped_at=timezone.now(), leased_until=None)
