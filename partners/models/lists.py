"""Microsoft's lists as we last read them: what stood on each page, and what may be concluded from it."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.utils import timezone

from partners.models.mirror import Customer
from partners.models.people import Partner
from tokens.tenancy import OfOnePartner


class OwnQuerySet(OfOnePartner, models.QuerySet[Any]):
    """Within the scope of one partner its own; outside of any an error."""


class ListPage(models.Model):
    """
    One page as it was when it was last read: equal bytes are not read again.

    `keys` are short digests of what it lists, so that all pages together tell what a whole list lacks. They may only
    be wrong in one way: something that is gone looks listed. `hashes` are the rows' content hashes, in the same order,
    but for the keys in `stale`, whose rows were written since; empty where they are not known. Both are to be believed
    only while `hashed` is the page's digest: an earlier release writes that one alone.
    """

    is_mirrored = True

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="list_pages", db_index=False)
    kind = models.CharField(max_length=40)
    collection = models.BigIntegerField(default=0)  # the customer's row whose list it is; 0: the partner's own list
    number = models.PositiveIntegerField()
    digest = models.BinaryField(max_length=32)
    keys = models.BinaryField()
    hashes = models.BinaryField(db_default=b"")
    stale = models.BinaryField(db_default=b"")
    hashed = models.BinaryField(max_length=32, db_default=b"")

    objects = OwnQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "kind", "collection", "number"], name="list_page_once"),
            models.UniqueConstraint(fields=["partner", "id"], name="list_page_partner_id"),
        ]

    def __str__(self) -> str:
        return f"page {self.number} of {self.kind}"


class ListState(models.Model):
    """
    What is known of one kind's lists, or of one lane's share of them.

    It is settled while no page changed since the last time somebody asked what is missing. It is held when so much is
    missing at once that a person has to look first. What was added is unproven until a reading is whole: one before it
    may have been of a list that is not to be believed, and have ended before anything showed it.
    """

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="list_states")
    kind = models.CharField(max_length=40)
    lane = models.CharField(max_length=12, blank=True)  # such as "1/4"
    is_settled = models.BooleanField(default=False)
    unproven_since = models.DateTimeField(null=True, blank=True)
    completed_at = models.DateTimeField(null=True, blank=True)
    present = models.PositiveIntegerField(default=0)
    missing = models.PositiveIntegerField(default=0)
    held_at = models.DateTimeField(null=True, blank=True)
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.CharField(max_length=200, blank=True)
    accepted_missing = models.PositiveIntegerField(default=0)

    objects = OwnQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "kind", "lane"], name="list_state_once"),
            models.UniqueConstraint(fields=["partner", "id"], name="list_state_partner_id"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.lane}".strip()


class ListRefusal(models.Model):
    """One customer's list that could not be read at the last try, and why; the others go on."""

    is_mirrored = True

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="list_refusals")
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="list_refusals")
    kind = models.CharField(max_length=40)
    code = models.CharField(max_length=40)
    since = models.DateTimeField(default=timezone.now)
    correlation_id = models.CharField(max_length=64, blank=True)

    objects = OwnQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "customer", "kind"], name="list_refusal_once_per_customer"),
            models.UniqueConstraint(fields=["partner", "id"], name="list_refusal_partner_id"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.customer}: {self.code}"
