"""What two of the vendor's staff decide together, and from whom each has their place."""

from __future__ import annotations

import datetime as dt

from django.db import models
from django.utils import timezone

from partners.models.desk import Act, roles_that_may
from partners.models.people import User

LIFT_WITHIN = dt.timedelta(minutes=60)


class LiftRequestQuerySet(models.QuerySet["LiftRequest"]):
    def waiting(self, now: dt.datetime) -> LiftRequestQuerySet:
        """Neither approved nor void and in time, for a stop in force, by somebody who may still ask."""
        return self.filter(
            approved_at=None,
            voided_at=None,
            asked_at__gt=now - LIFT_WITHIN,
            halt__ended_at=None,
            asked_by__is_active=True,
            asked_by__staff_role__in=roles_that_may(Act.LIFT_ALL),
        )

    def mark_voided(self) -> int:
        """Nobody can agree to these any more; how many they were."""
        return self.filter(approved_at=None, voided_at=None).update(voided_at=timezone.now())


class LiftRequest(models.Model):
    """Somebody of security asks to lift a stop of everything; another one of them has an hour to agree."""

    halt = models.ForeignKey("tokens.Halt", models.PROTECT, related_name="lift_requests")
    reason = models.CharField(max_length=500)
    asked_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    asked_at = models.DateTimeField(default=timezone.now)
    approved_by = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="+")
    approved_at = models.DateTimeField(null=True, blank=True)
    voided_at = models.DateTimeField(null=True, blank=True)  # everything was stopped anew before anybody agreed

    objects = LiftRequestQuerySet.as_manager()

    class Meta:
        constraints = (
            models.CheckConstraint(
                name="lift_request_two_people",
                condition=models.Q(approved_by=None) | ~models.Q(approved_by=models.F("asked_by")),
            ),
        )

    def __str__(self) -> str:
        return f"{self.asked_by} asks to lift {self.halt}"

    @property
    def ends_at(self) -> dt.datetime:
        return self.asked_at + LIFT_WITHIN

    def mark_approved(self, by: User) -> bool:
        """Take it once, in time; False when it is over or somebody did already."""
        now = timezone.now()
        # Its own columns only: of two at once on PostgreSQL, the second looks at these again, and not at other tables.
        waiting = LiftRequest.objects.filter(
            pk=self.pk, approved_at=None, voided_at=None, asked_at__gt=now - LIFT_WITHIN
        )
        if waiting.exclude(asked_by=by).update(approved_by=by, approved_at=now) != 1:
            return False
        self.approved_by, self.approved_at = by, now
        return True


class Appointment(models.Model):
    """
    Who gave one of the staff their place, their role or a new way in last, and when (`partners.two_people`).

    A table of its own: within a partner's rows its people can be read, and this is none of theirs.
    """

    user = models.OneToOneField(User, models.CASCADE, related_name="appointment")
    at = models.DateTimeField(default=timezone.now)
    by = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="+")  # none: a command, or Entra

    def __str__(self) -> str:
        return f"{self.user}, by {self.by or 'no one here'}"
