"""Borrowed access: the vendor's staff look at one partner's pages, for an hour, because somebody else allowed it."""

from __future__ import annotations

import datetime as dt
from typing import ClassVar

from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from partners.models.desk import Act, roles_that_may
from partners.models.people import Member, Partner, User
from tokens.models import Halt
from tokens.tenancy import OfOnePartner

LENT_FOR = dt.timedelta(minutes=60)
ANSWER_WITHIN = dt.timedelta(hours=24)


class AccessGrantQuerySet(OfOnePartner, models.QuerySet["AccessGrant"]):
    def waiting(self, now: dt.datetime) -> AccessGrantQuerySet:
        """Requests that may still be answered."""
        unanswered = self.filter(approved_at=None, refused_at=None, closed_at=None, asked_at__gt=now - ANSWER_WITHIN)
        return unanswered._worth_it().exclude(Exists(Halt.objects.in_force()))

    def in_force(self, now: dt.datetime) -> AccessGrantQuerySet:
        """
        What opens a partner's pages right now: the one place that says so, asked anew by every request.

        Any stop since the approval ends it for good: lifting the stop brings no look back. It lasts no longer than
        the place of whoever allowed it.
        """
        lent = self._allowed_still().filter(ends_at__gt=now, ended_at=None)
        of_it = Q(partner=None) | Q(partner=OuterRef("partner"))
        since = Q(ended_at=None) | Q(started_at__gte=OuterRef("approved_at"))
        return lent._worth_it().exclude(Exists(Halt.objects.filter(of_it, since)))

    def over(self, now: dt.datetime) -> AccessGrantQuerySet:
        """What opens nothing any more, or can no longer be answered, and whose row does not say so yet."""
        living = Q(pk__in=self.waiting(now).values("pk")) | Q(pk__in=self.in_force(now).values("pk"))
        return self.unsaid().exclude(living)

    def unsaid(self) -> AccessGrantQuerySet:
        """Those whose row tells of no end yet."""
        return self.filter(refused_at=None, closed_at=None, ended_at=None)

    def _allowed_still(self) -> AccessGrantQuerySet:
        """Allowed by somebody who could allow it now: an owner of the partner, or one of our staff by role."""
        owners = Member.objects.filter(partner=OuterRef("partner"), user=OuterRef("approved_by"), role="owner")
        by_staff = Q(approved_by__is_staff=True, approved_by__staff_role__in=roles_that_may(Act.ALLOW_A_LOOK))
        by_owner = Q(approved_by__is_staff=False) & Q(Exists(owners))
        return self.filter(by_staff | by_owner, approved_by__is_active=True)

    def _worth_it(self) -> AccessGrantQuerySet:
        """Asked by somebody who may still ask, for a partner who did not end our access and whom nobody stopped."""
        return self.filter(
            asked_by__is_active=True,
            asked_by__is_staff=True,
            asked_by__staff_role__in=roles_that_may(Act.ASK_FOR_A_LOOK),
            partner__killed_at=None,
            partner__suspended_at=None,
            partner__withdrawn_at=None,
            partner__offboarded_at=None,
        )


class AccessGrant(models.Model):
    """One of the vendor's staff asks to look at one partner's pages; once somebody else agrees, it lasts an hour."""

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="access_grants")
    asked_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    reason = models.CharField(max_length=200)
    asked_at = models.DateTimeField(default=timezone.now)
    refused_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)  # called off, or left unanswered for a day
    approved_at = models.DateTimeField(null=True, blank=True)
    approved_by = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="+")
    ends_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)  # when it really did

    objects = AccessGrantQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "id"], name="access_grant_partner_id"),
            models.UniqueConstraint(
                fields=["partner", "asked_by"],
                condition=Q(approved_at=None, refused_at=None, closed_at=None),
                name="access_grant_one_open_request",
            ),
            models.CheckConstraint(
                name="access_grant_two_people", condition=Q(approved_by=None) | ~Q(approved_by=F("asked_by"))
            ),
            models.CheckConstraint(
                name="access_grant_whole",
                condition=Q(approved_at=None, approved_by=None, ends_at=None, ended_at=None)
                | Q(approved_at__isnull=False, approved_by__isnull=False, ends_at__isnull=False)
                & Q(refused_at=None, closed_at=None),
            ),
            models.CheckConstraint(
                name="access_grant_an_hour_at_most",
                condition=Q(ends_at=None) | Q(ends_at__lte=F("approved_at") + LENT_FOR),
            ),
        ]

    def __str__(self) -> str:
        return f"access {self.pk} to {self.partner} for {self.asked_by}"

    @property
    def answer_until(self) -> dt.datetime:
        return self.asked_at + ANSWER_WITHIN

    @property
    def state(self) -> str:
        """What became of it, in words, as far as its own times tell."""
        now = timezone.now()
        if self.approved_at and self.ends_at:
            return "ended" if self.ended_at or self.ends_at <= now else "open"
        if self.refused_at:
            return "refused"
        if self.closed_at:
            return "called off" if self.closed_at < self.answer_until else "not answered"
        return "waiting" if self.answer_until > now else "not answered"

    # Conditions on its own columns only: of two at once on PostgreSQL, the second looks at these again, and at no
    # other table.
    def mark_approved(self, by: User, now: dt.datetime) -> bool:
        """Open it for an hour; False when it is answered, over, or the approver's own."""
        times = {"approved_at": now, "approved_by": by, "ends_at": now + LENT_FOR}
        return self._answer(AccessGrant.objects.exclude(asked_by=by), now, **times)

    def mark_refused(self, now: dt.datetime) -> bool:
        return self._answer(AccessGrant.objects.all(), now, refused_at=now)

    def mark_closed(self, now: dt.datetime) -> bool:
        """Nobody wants an answer any more; also once it is too late for one."""
        unanswered = AccessGrant.objects.filter(pk=self.pk, approved_at=None, refused_at=None, closed_at=None)
        return self._write(unanswered, closed_at=min(now, self.answer_until))

    def mark_ended(self, now: dt.datetime) -> bool:
        """It opens nothing any more; False when it never did, or ended already."""
        lent = AccessGrant.objects.filter(pk=self.pk, approved_at__isnull=False, ended_at=None)
        return self._write(lent, ended_at=min(now, self.ends_at or now))

    def _answer(self, rows: models.QuerySet[AccessGrant], now: dt.datetime, **answer: object) -> bool:
        unanswered = rows.filter(pk=self.pk, approved_at=None, refused_at=None, closed_at=None)
        return self._write(unanswered.filter(asked_at__gt=now - ANSWER_WITHIN), **answer)

    def _write(self, rows: models.QuerySet[AccessGrant], **values: object) -> bool:
        written = rows.update(**values) == 1
        self.refresh_from_db(fields=list(values))
        return written
