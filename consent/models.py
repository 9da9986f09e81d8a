"""Invitations, attempts on the way to Microsoft and back, and what was agreed."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from typing import TYPE_CHECKING, ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from partners.powers import LIMITABLE
from tokens.tenancy import OfOnePartner

if TYPE_CHECKING:
    from partners.models import Member
    from tokens.models import RefreshToken

INVITATION_LIFE = dt.timedelta(days=7)
ATTEMPT_LIFE = dt.timedelta(minutes=10)
SENDING = dt.timedelta(minutes=5)  # longer than any mail server may take


def digest(value: str) -> bytes:
    """What we keep of links, states and browser bindings: enough to recognise one, useless to make one."""
    return hashlib.sha256(value.encode()).digest()


class InvitationQuerySet(OfOnePartner, models.QuerySet["Invitation"]):
    """Within the scope of one partner its own; outside of any an error."""


class Invitation(models.Model):
    """A link that lets one partner's tenant connect. Looking at it never spends it; only a success does."""

    partner = models.ForeignKey("partners.Partner", models.CASCADE, related_name="invitations")
    link_hash = models.BinaryField(max_length=32, unique=True)
    email = models.EmailField(blank=True)
    created_by = models.CharField(max_length=320)
    renews = models.BooleanField(default=False)  # may replace what works, once an owner has seen by what
    makes_owner = models.BooleanField(default=False)  # also beside owners: those there are cannot sign in any more
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    objects = InvitationQuerySet.as_manager()

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


class MemberInvitationQuerySet(OfOnePartner, models.QuerySet["MemberInvitation"]):
    def open(self) -> MemberInvitationQuerySet:
        """Whose link still leads somewhere."""
        return self.filter(used_at=None, revoked_at=None, expires_at__gt=timezone.now())


class MemberInvitation(models.Model):
    """
    A link that makes one person a member of one partner. Looking at it never spends it; only a success does.

    The address is where the mail goes, and nothing else: whoever opens the link shows who they are at Microsoft, and
    `tenant_id` says of which organisation they have to be.
    """

    partner = models.ForeignKey("partners.Partner", models.CASCADE, related_name="member_invitations")
    link_hash = models.BinaryField(max_length=32, unique=True)
    email = models.EmailField()
    role = models.CharField(max_length=10)
    limited = models.BooleanField(default=False)  # sees no customer until an owner chooses some
    tenant_id = models.UUIDField("tenant")
    invited_by = models.ForeignKey("partners.Member", models.SET_NULL, null=True, blank=True, related_name="+")
    invited_by_name = models.CharField(max_length=320)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, blank=True)
    member = models.OneToOneField(
        "partners.Member", models.SET_NULL, null=True, blank=True, related_name="invitation"
    )  # who came of it

    objects = MemberInvitationQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "id"], name="member_invitation_partner_id"),
            models.CheckConstraint(
                name="member_invitation_role_known",
                condition=Q(role__in=["owner", "operator", "reader", "auditor"]),
            ),
            models.CheckConstraint(
                name="member_invitation_limited_by_role", condition=Q(limited=False) | Q(role__in=LIMITABLE)
            ),
        ]

    def __str__(self) -> str:
        return f"invitation of {self.email} to {self.partner}, until {self.expires_at:%Y-%m-%d %H:%M} UTC"

    @property
    def is_expired(self) -> bool:
        return self.expires_at <= timezone.now()

    @property
    def role_name(self) -> str:
        return self.role.capitalize()

    def mark_used(self) -> bool:
        """Spend it; False when somebody was faster, or it was taken back meanwhile."""
        return MemberInvitation.objects.open().filter(pk=self.pk).update(used_at=timezone.now()) == 1

    def mark_revoked(self) -> bool:
        return MemberInvitation.objects.open().filter(pk=self.pk).update(revoked_at=timezone.now()) == 1

    def point_at(self, member: Member) -> None:
        MemberInvitation.objects.filter(pk=self.pk).update(member=member)


class ConsentAttempt(models.Model):
    """One trip to Microsoft. Claimed once, by the browser that began it, within ten minutes."""

    class Kind(models.TextChoices):
        CONSENT = "consent"
        SIGN_IN = "signin"
        ADMIN_CONSENT = "admin"
        STAFF = "staff"

    kind = models.CharField(max_length=10, choices=Kind.choices)
    cloud = models.CharField(max_length=10)
    partner = models.ForeignKey(
        "partners.Partner", models.CASCADE, null=True, blank=True, related_name="consent_attempts"
    )
    invitation = models.ForeignKey(Invitation, models.CASCADE, null=True, blank=True, related_name="attempts")
    member_invitation = models.ForeignKey(
        MemberInvitation, models.CASCADE, null=True, blank=True, related_name="attempts"
    )
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
                name="consent_attempt_has_partner", condition=Q(kind__in=["signin", "staff"]) | Q(partner__isnull=False)
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


class ConsentQuerySet(OfOnePartner, models.QuerySet["Consent"]):
    """Within the scope of one partner its own; outside of any an error."""


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

    objects = ConsentQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["partner", "id"], name="consent_partner_id")]

    def __str__(self) -> str:
        return f"consent of {self.partner} by {self.upn} at {self.at:%Y-%m-%d %H:%M} UTC"


class NoticeQuerySet(OfOnePartner, models.QuerySet["Notice"]):
    def due(self, now: dt.datetime) -> NoticeQuerySet:
        """Neither sent nor dropped, its time has come, and nobody is sending it."""
        free = Q(leased_until=None) | Q(leased_until__lte=now)
        return self.filter(free, sent_at=None, dropped_at=None, next_try_at__lte=now)

    def told_of_break_before(self, token: RefreshToken) -> NoticeQuerySet:
        """What was really sent about the break of an earlier generation."""
        earlier = self.filter(partner=token.partner_id, token__generation__lt=token.generation)
        return earlier.filter(kind=Notice.Kind.BROKEN, sent_at__isnull=False)


class Notice(models.Model):
    """One mail to one person about a change of a connection, its coming end or a look. The row makes it happen once."""

    class Kind(models.TextChoices):
        BROKEN = "broken"
        RECOVERED = "recovered"
        ENDING = "ending"
        ASKED = "asked"
        LENT = "lent"

    partner = models.ForeignKey("partners.Partner", models.CASCADE, related_name="notices")
    token = models.ForeignKey("tokens.RefreshToken", models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    about = models.CharField(max_length=40, blank=True)  # which of several of its kind: "access 4"
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
