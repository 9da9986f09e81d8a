"""What all mirrored rows have in common: when they came, changed and went."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.db import models
from django.utils import timezone

from partners.models.people import Partner
from tokens.tenancy import OfOnePartner


class MirroredQuerySet(OfOnePartner, models.QuerySet[Any]):
    """Within the scope of one partner its own; outside of any an error."""

    def present(self) -> Self:
        return self.filter(removed_at=None)


class Mirrored(models.Model):
    """
    A row as Microsoft last described it.

    Nothing is written while it stays the same. A complete list that lacks it sets `missing_since`; it counts as removed
    when another one, a day later or more, lacks it as well. Listed again, it is as it was; `first_seen_at` stays.
    """

    is_mirrored = True  # nobody reads it across partners

    content_hash = models.BinaryField(max_length=16)
    first_seen_at = models.DateTimeField(default=timezone.now)
    changed_at = models.DateTimeField(default=timezone.now)
    missing_since = models.DateTimeField(null=True, blank=True)
    removed_at = models.DateTimeField(null=True, blank=True)
    removed_reason = models.CharField(max_length=40, blank=True)

    class Meta:
        abstract = True


class OfOneCustomer(Mirrored):
    """
    A row of one customer's list. `key` is Microsoft's id in lower case, which is how ids are compared.

    PostgreSQL checks each pointer of each new row, which costs more than the row. One check says all: that the customer
    is there, and of this partner (`SamePartner` in the migration). The unique constraints serve as indexes.
    """

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="%(class)ss", db_constraint=False, db_index=False)
    customer = models.ForeignKey(
        "partners.Customer", models.CASCADE, related_name="%(class)ss", db_constraint=False, db_index=False
    )
    key = models.CharField(max_length=64)

    class Meta:
        abstract = True
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "customer", "key"], name="%(class)s_once_per_customer"),
            models.UniqueConstraint(fields=["partner", "id"], name="%(class)s_partner_id"),
        ]
