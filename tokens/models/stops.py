"""Stops for security, and the processes that act upon them."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class HaltQuerySet(models.QuerySet["Halt"]):
    def in_force(self) -> HaltQuerySet:
        """The all-stops that hold now; a stop of one partner is on the partner's own row."""
        return self.filter(ended_at=None, partner=None)

    def epoch(self) -> int:
        """Rises with every stop; a process that has seen it sends for nobody who was stopped before."""
        return self.aggregate(newest=models.Max("pk"))["newest"] or 0


class Halt(models.Model):
    """A stop for security, kept for ever: of one partner, or without a partner of all work."""

    partner = models.ForeignKey("partners.Partner", models.PROTECT, null=True, blank=True, related_name="halts")
    reason = models.CharField(max_length=500)
    started_by = models.CharField(max_length=320)
    started_at = models.DateTimeField(default=timezone.now)
    ended_by = models.CharField(max_length=320, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = HaltQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{f'stop of {self.partner}' if self.partner else 'all-stop'} since {self.started_at:%Y-%m-%d %H:%M} UTC"

    def end(self, *, by: str) -> bool:
        """Lift it; False when somebody did already."""
        lifted = Halt.objects.filter(pk=self.pk, ended_at=None)
        return lifted.update(ended_at=timezone.now(), ended_by=by[:320]) == 1


class Sender(models.Model):
    """A process that may send in partners' names: that it lives, and the newest stop it acts upon."""

    name = models.CharField(max_length=200, unique=True)
    seen_at = models.DateTimeField(default=timezone.now)
    epoch = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def report(cls, name: str, epoch: int) -> None:
        cls._default_manager.update_or_create(name=name[:200], defaults={"seen_at": timezone.now(), "epoch": epoch})
