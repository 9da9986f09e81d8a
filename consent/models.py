"""Invitations, attempts on the way to Microsoft and back, and what was agreed."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

INVITATION_LIFE = dt.timedelta(days=7)
ATTEMPT_LIFE = dt.timedelta(minutes=10)


def digest(value: str) -> bytes:
    """What we keep of links, states and browser bindings: enough to recognise one, useless to make one."""
    return hashlib.sha256(value.encode()).digest()


class Invitation(models.Model):
    """A link that lets one partner's tenant connect. Looking at it never spends it; only a success does."""

    partner = models.ForeignKey("partners.Partner", models.CASCADE, related_name="invitations")
    link_hash = models.BinaryField(max_length=32, unique=True)
    email = models.EmailField(blank=True)
    created_by = models.CharField(max_length=320)
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

    def close(self, outcome: str) -> None:
        ConsentAttempt.objects.filter(pk=self.pk).update(outcome=outcome[:40])


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
