"""How fast Microsoft may be asked: what it said to each partner's calls, and whether one of its services is down."""

from __future__ import annotations

import datetime as dt
from typing import ClassVar

from django.db import models

from partners.models.people import Partner
from tokens.tenancy import OfOnePartner


class PaceQuerySet(OfOnePartner, models.QuerySet["Pace"]):
    def in_force(self, now: dt.datetime) -> PaceQuerySet:
        """Those that Microsoft asked to wait."""
        return self.filter(not_before__gt=now)


class Pace(models.Model):
    """
    How one partner's calls to one service go: when the next may leave, and how many a second.

    `customer` is a tenant id where Microsoft asked for patience with one customer only, else ""; the latter row's
    `customers_until` says until when there is such a customer. `taken_until` is the second (of the epoch) until which
    permits are given out already; `slowed_at` is when Microsoft last asked to wait, and `rate` what was left of ours
    then: it doubles every ten minutes.
    """

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="paces")
    service = models.CharField(max_length=20)
    customer = models.CharField(max_length=36, blank=True)
    not_before = models.DateTimeField(null=True, blank=True)
    customers_until = models.DateTimeField(null=True, blank=True)
    rate = models.FloatField(null=True, blank=True)
    slowed_at = models.DateTimeField(null=True, blank=True)
    taken_until = models.FloatField(default=0)

    objects = PaceQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "service", "customer"], name="pace_once"),
            models.UniqueConstraint(fields=["partner", "id"], name="pace_partner_id"),
        ]

    def __str__(self) -> str:
        whom = f"{self.customer} of {self.partner_id}" if self.customer else str(self.partner_id)
        return f"{self.service} for {whom}"


class Service(models.Model):
    """
    One of Microsoft's services in one cloud, as all workers together see it.

    While `open_until` is ahead nobody asks; afterwards one call at a time tries (`probe_until`), and a good answer
    lets everybody go on. For the partners in `blamed` it is known to fail: they try one at a time as well
    (`blamed_until`), and what becomes of it counts for them only. `taken_until` is the second until which permits of
    the whole application are given out, and `tickets_until` the one until which jobs that waited for the service come
    back, one after another.
    """

    cloud = models.CharField(max_length=10)
    name = models.CharField(max_length=20)
    opened_at = models.DateTimeField(null=True, blank=True)
    open_until = models.DateTimeField(null=True, blank=True)
    probe_until = models.DateTimeField(null=True, blank=True)
    blamed = models.JSONField(null=True, blank=True)  # ids
    blamed_until = models.DateTimeField(null=True, blank=True)
    times = models.PositiveIntegerField(default=0)
    why = models.CharField(max_length=40, blank=True)
    taken_until = models.FloatField(default=0)
    tickets_until = models.FloatField(default=0)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["cloud", "name"], name="service_once")]

    def __str__(self) -> str:
        return f"{self.name} in {self.cloud}"
