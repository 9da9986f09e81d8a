"""Where refresh tokens lie, and who may be called for right now. Never a token itself."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence
from typing import Any, ClassVar

from django.db import models, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from tokens.models.stops import Halt
from tokens.tenancy import OfOnePartner

LEASE = dt.timedelta(seconds=120)
BY_A_STOP = "secret-disabled"  # the code of a refusal of our own: after a stop only a new consent helps
ABANDONED_AFTER = dt.timedelta(minutes=10)  # a name that was reserved and not pinned by then never will be
CONFIRM_WITHIN = dt.timedelta(minutes=30)
REFUSALS = {
    "needs_consent": "Microsoft no longer accepts the sign-in",
    "mfa_missing": "the sign-in does not carry MFA",
    "blocked": "a policy of the partner's blocks the sign-in",
}


def _of_partners(*conditions: Q) -> Exists:
    """
    A condition on the partner of a row, as a subquery.

    A join would move a row's own conditions into a subquery once it comes to an UPDATE, and PostgreSQL does not look at
    those again when it has waited for another's: of several who claim one row at once, all would win.
    """
    partners: Any = RefreshToken._meta.get_field("partner").related_model
    return Exists(partners._default_manager.filter(*conditions, pk=OuterRef("partner_id")))


_OPEN = Q(suspended_at=None, killed_at=None, offboarded_at=None)


def open_to_consent() -> Q:
    """A partner that may be (re)connected: neither it nor everything was stopped, and it has not left."""
    return Q(_of_partners(_OPEN)) & ~Q(Exists(Halt.objects.in_force()))


def live(now: dt.datetime) -> Q:
    """The one expression for "calls may leave for this partner", used by gate, lease and pin alike."""
    in_period = Q(lapses_at=None) | Q(lapses_at__gt=now)
    usable = Q(superseded_at=None, refused_at=None, stored_at__isnull=False, pending_until=None)
    going = Q(_of_partners(_OPEN, in_period, Q(withdrawn_at=None)))
    return usable & going & ~Q(Exists(Halt.objects.in_force()))


def is_stopped() -> Q:
    """A partner whose secrets must not stay enabled: killed by us, or gone by its own will."""
    return (
        Q(partner__killed_at__isnull=False)
        | Q(partner__withdrawn_at__isnull=False)
        | Q(partner__offboarded_at__isnull=False)
    )


def enabled() -> Exists:
    """Whether a version we know of under a row's name is not disabled yet."""
    return Exists(SecretVersion.objects.filter(token=OuterRef("pk"), disabled_at=None))


class RefreshTokenQuerySet(OfOnePartner, models.QuerySet["RefreshToken"]):
    def current(self) -> RefreshTokenQuerySet:
        """The generation in force: stored, confirmed where that was needed, and not replaced by a later consent."""
        return self.filter(stored_at__isnull=False, superseded_at=None, pending_until=None)

    def pending(self, now: dt.datetime) -> RefreshTokenQuerySet:
        """Renewals that are stored, and come in force when an owner confirms them in time."""
        return self.filter(stored_at__isnull=False, superseded_at=None, closed_at=None, pending_until__gt=now)

    def over(self, now: dt.datetime) -> RefreshTokenQuerySet:
        """Rows whose secrets must not stay enabled: replaced by a later consent, reserved or offered in vain."""
        stale = now - ABANDONED_AFTER
        never_pinned = Q(stored_at=None, reserved_at__lt=stale) | Q(pending_until__lte=now)
        # Whoever holds the lease of a replaced generation may be about to write; they get time to come to an end.
        stored = Q(superseded_at__isnull=False, stored_at__isnull=False)
        replaced = stored & (Q(leased_until=None) | Q(leased_until__lt=stale))
        return self.filter(never_pinned | replaced).still_open().order_by("pk")

    def stopped(self, now: dt.datetime) -> RefreshTokenQuerySet:
        """
        Rows of partners that were killed, or ended access, with secrets that may still be enabled.

        Each is closed at once, and once more when nobody can be writing any more who began before the stop.
        """
        closed_early = Q()
        for moment in ("partner__killed_at", "partner__withdrawn_at", "partner__offboarded_at"):
            closed_early |= Q(closed_at__lt=F(moment) + LEASE) & Q(**{f"{moment}__lt": now - LEASE})
        halts = Halt.objects.in_force()
        open_rows = Q(closed_at=None) | enabled()
        closed_early |= Q(closed_at__lt=F("refused_at") + LEASE, refused_at__lt=now - LEASE)
        # A stop that was lifted before a worker came leaves its mark on the rows, and what is marked is closed too.
        of_one = (is_stopped() | Q(refusal_code=BY_A_STOP)) & (open_rows | closed_early)
        again = Exists(halts.filter(started_at__lt=now - LEASE, started_at__gt=OuterRef("closed_at") - LEASE))
        of_all = Q(Exists(halts)) & (open_rows | Q(again))
        return self.filter(of_one | of_all).order_by("pk")

    def end_all(self) -> None:
        """Let nothing of these come in force again; what was stored, on its way or waiting is closed by a worker."""
        now = timezone.now()
        self.current().update(refused_at=now, refusal="needs_consent", refusal_code=BY_A_STOP)
        self.filter(stored_at=None, superseded_at=None).update(superseded_at=now, closed_at=None)
        self.filter(pending_until__isnull=False, superseded_at=None).update(superseded_at=now)

    def crashed(self, now: dt.datetime) -> RefreshTokenQuerySet:
        """Live rows whose rotation ended without a word: the lease is over, and nobody gave it back."""
        return self.live(now).filter(leased_until__lt=now).order_by("pk")

    def still_open(self) -> RefreshTokenQuerySet:
        """Rows under whose name something may be enabled still."""
        return self.filter(Q(closed_at=None) | enabled())

    def live(self, now: dt.datetime) -> RefreshTokenQuerySet:
        return self.filter(live(now))


class RefreshToken(models.Model):
    """Where the refresh token of one consent generation lies in Key Vault. Never the token itself."""

    partner = models.ForeignKey("partners.Partner", models.PROTECT, related_name="refresh_tokens")
    generation = models.PositiveIntegerField()
    oid = models.UUIDField("account")
    upn = models.CharField("sign-in name", max_length=320, blank=True)
    secret_name = models.CharField(max_length=64, unique=True)
    reserved_at = models.DateTimeField(default=timezone.now)
    pinned_version = models.CharField(max_length=64, blank=True)
    stored_at = models.DateTimeField(null=True, blank=True)
    fence = models.BigIntegerField(default=0)
    leased_until = models.DateTimeField(null=True, blank=True)
    next_refresh_at = models.DateTimeField(null=True, blank=True)
    claimed_at = models.DateTimeField(null=True, blank=True)  # somebody is to use and store it anew, once
    last_success_at = models.DateTimeField(null=True, blank=True)
    refused_at = models.DateTimeField(null=True, blank=True)
    refusal = models.CharField(max_length=20, blank=True)
    refusal_code = models.CharField(max_length=40, blank=True)  # without a refusal: why permissions are missing
    wanted_claims = models.TextField(blank=True)  # what Entra wants of the next sign-in, as it said it
    limits = models.CharField(max_length=200, blank=True)  # a lesser role, in words
    missing_scopes = models.JSONField(default=list, blank=True)  # names of permissions asked for and not granted
    pending_until = models.DateTimeField(null=True, blank=True)  # a renewal that nobody has confirmed yet
    checked_against = models.PositiveIntegerField(null=True, blank=True)  # the generation such a renewal would replace
    superseded_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)  # nothing under the name is enabled any more

    objects = RefreshTokenQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "generation"], name="refresh_token_generation"),
            models.UniqueConstraint(fields=["partner", "id"], name="refresh_token_partner_id"),
            models.UniqueConstraint(
                fields=["partner"],
                condition=Q(stored_at__isnull=False, superseded_at=None, pending_until=None),
                name="refresh_token_one_active_per_partner",
            ),
            models.CheckConstraint(
                name="refresh_token_stored_means_pinned",
                condition=Q(stored_at=None, pinned_version="") | Q(stored_at__isnull=False) & ~Q(pinned_version=""),
            ),
            models.CheckConstraint(name="refresh_token_refusal_known", condition=Q(refusal__in=["", *REFUSALS])),
        ]

    def __str__(self) -> str:
        return f"generation {self.generation} of {self.partner}"

    @staticmethod
    def new_secret_name() -> str:
        """Opaque: whoever reads a list of vault names learns neither partner nor tenant."""
        return f"rt-{secrets.token_hex(16)}"

    def lease(self) -> bool:
        """Claim the right to rotate for two minutes; False when another process has it."""
        now = timezone.now()
        until, free = now + LEASE, Q(leased_until=None) | Q(leased_until__lt=now)
        free_row = RefreshToken.objects.live(now).filter(free, pk=self.pk, generation=self.generation)
        if not free_row.update(leased_until=until, fence=F("fence") + 1):
            return False
        # Somebody may have rotated since this row was read: what is pinned now is what the holder works with. And where
        # two minutes went by before this look, the row has another holder's fence, which is not ours to use.
        ours = RefreshToken.objects.filter(leased_until=until)
        try:
            self.refresh_from_db(fields=["leased_until", "fence", "pinned_version", "stored_at"], from_queryset=ours)
        except RefreshToken.DoesNotExist:
            return False
        return True

    def renew_lease(self) -> bool:
        """Have two minutes anew, longer than any request takes; False when the lease is another's or all is stopped."""
        now = timezone.now()
        ours = RefreshToken.objects.live(now).filter(pk=self.pk, fence=self.fence, generation=self.generation)
        return ours.update(leased_until=now + LEASE) == 1

    def adopt(self, version: str) -> bool:
        """Pin what an earlier holder stored and could not pin, and keep our lease; False when we have lost it."""
        ours = RefreshToken.objects.live(timezone.now()).filter(pk=self.pk, fence=self.fence)
        adopted = ours.filter(pinned_version=self.pinned_version).update(pinned_version=version) == 1
        if adopted:
            self.pinned_version = version
        return adopted

    def release(self) -> None:
        RefreshToken.objects.filter(pk=self.pk, fence=self.fence).update(leased_until=None)

    def point_at(self, version: str, *, next_refresh_at: dt.datetime) -> bool:
        """Pin a rotated version while our lease's fence holds and the partner is live; False when we lost."""
        now = timezone.now()
        pinned = (
            RefreshToken.objects.live(now)
            .filter(pk=self.pk, fence=self.fence, generation=self.generation)
            .update(pinned_version=version, stored_at=now, leased_until=None, next_refresh_at=next_refresh_at)
        )
        return pinned == 1

    def mark_success(self) -> None:
        self.last_success_at = timezone.now()
        RefreshToken.objects.filter(pk=self.pk).update(last_success_at=self.last_success_at)

    def mark_refused(self, refusal: str, *, code: str, missing: Sequence[str] = (), claims: str = "") -> bool:
        """
        Entra or Partner Center no longer take it. A newer consent is never touched: only this very row is.

        `missing` names permissions whose lack was the reason, `claims` what Entra wants of the next sign-in.
        """
        refused = RefreshToken.objects.current().filter(pk=self.pk, refused_at=None)
        lacks = sorted({*self.missing_scopes, *missing})
        facts = {"refused_at": timezone.now(), "refusal": refusal, "refusal_code": code, "missing_scopes": lacks}
        return refused.update(**facts, wanted_claims=claims) == 1

    def note_missing(self, missing: Sequence[str], *, code: str, claims: str = "") -> bool:
        """
        Entra takes it still, but no longer for these permissions; False when this row is refused or replaced by now.

        `code` says why, such as "AADSTS65001"; `claims` is what Entra wants of the next sign-in.
        """
        with transaction.atomic():
            row = RefreshToken.objects.current().select_for_update().filter(pk=self.pk, refused_at=None).first()
            if row is None:
                return False
            self.missing_scopes = sorted({*row.missing_scopes, *missing})
            RefreshToken.objects.filter(pk=self.pk).update(
                missing_scopes=self.missing_scopes, refusal_code=code, wanted_claims=claims
            )
        return True


class SecretVersionQuerySet(OfOnePartner, models.QuerySet["SecretVersion"]):
    """Within the scope of one partner its own; outside of any an error."""


class SecretVersion(models.Model):
    """Every version id we ever saw under a secret name, so that none stays enabled unnoticed. Nobody may list."""

    partner = models.ForeignKey("partners.Partner", models.PROTECT, related_name="secret_versions")
    token = models.ForeignKey(RefreshToken, models.PROTECT, related_name="versions")
    version = models.CharField(max_length=64)
    seen_at = models.DateTimeField(default=timezone.now)
    disabled_at = models.DateTimeField(null=True, blank=True)

    objects = SecretVersionQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["token", "version"], name="secret_version_once"),
            models.UniqueConstraint(fields=["partner", "id"], name="secret_version_partner_id"),
        ]

    def __str__(self) -> str:
        return f"version {self.version} of {self.token}"
