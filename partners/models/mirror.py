"""The mirror of the partners' customers, and what members ask Microsoft about them."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import ClassVar

from django.db import connections, models
from django.db.models import Q
from django.utils import timezone

from partners.models.mirrored import Mirrored, MirroredQuerySet
from partners.models.people import Member, Partner
from partners.models.searching import Wanted
from tokens import tenancy
from tokens.tenancy import OfOnePartner

LOOKUP_LIFE = dt.timedelta(seconds=60)
RELATIONSHIPS = {  # Partner Center's words in ours
    "reseller": "Reseller",
    "advisor": "Adviser",
    "syndication": "Syndication partner",
    "nonmicrosoft": "Seller of other sellers’ products",  # noqa: RUF001
    "none": "No relationship any more",
    "": "Not told by Microsoft",
}
OFFER = dt.timedelta(seconds=10)  # a question that no worker took is offered again after this


class CustomerQuerySet(MirroredQuerySet):
    def not_indexed(self) -> CustomerQuerySet:
        """Who is present, and read through by every search."""
        return self.present().filter(is_indexed=False)

    def matching(self, text: str) -> CustomerQuerySet:
        """Customers that a text finds, see `Wanted`; all of them for an empty text."""
        return self.filter(Wanted.by(text).condition()) if text.strip() else self

    def first_found(self, text: str, *, after: tuple[str, int] | None, most: int) -> CustomerQuerySet:
        """
        Of the partner's first `most` customers that a text finds after a place in the list, those in this set.

        On PostgreSQL, within the scope of one partner, a function looks them up: under a policy no search has an index.
        """
        open_now = tenancy.current()
        if connections[self.db].vendor != "postgresql" or open_now is None or open_now.role != tenancy.TENANT:
            return self.matching(text)
        return self.filter(Wanted.by(text).looked_up(after=after, most=most))


class Customer(Mirrored):
    """
    A partner's customer tenant as Partner Center last described it.

    Where it `is_indexed` a search on PostgreSQL finds it in the index of parts, else by reading it.
    """

    # Neither a check nor an index of its own for each row: the policy lets nobody write another partner's, and the
    # unique constraints begin with the partner.
    partner = models.ForeignKey(Partner, models.CASCADE, related_name="customers", db_constraint=False, db_index=False)
    tenant_id = models.UUIDField("tenant")
    name = models.CharField(max_length=400, blank=True)
    name_key = models.CharField(max_length=400, blank=True)
    domain = models.CharField(max_length=255, blank=True)
    relationship = models.CharField(max_length=40, blank=True)
    is_indexed = models.BooleanField(db_default=False)

    objects = CustomerQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "tenant_id"], name="customer_once_per_partner"),
            models.UniqueConstraint(fields=["partner", "id"], name="customer_partner_id"),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["partner", "name_key", "id"], name="customer_present_by_name", condition=Q(removed_at=None)
            )
        ]

    def __str__(self) -> str:
        return self.name or self.domain or str(self.tenant_id)

    @property
    def title(self) -> str:
        """What a page calls it."""
        return self.name or self.domain or "(no name)"

    @property
    def relationship_in_words(self) -> str:
        """As a person reads it; what Partner Center may say one day and we don't know, as it says it."""
        return RELATIONSHIPS.get(self.relationship, self.relationship)


class ChosenCustomerQuerySet(OfOnePartner, models.QuerySet["ChosenCustomer"]):
    """Within the scope of one partner its own; outside of any an error."""


class ChosenCustomer(models.Model):
    """A customer that a limited member may see; one without any sees none."""

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="+")
    member = models.ForeignKey(Member, models.CASCADE, related_name="chosen_customers")
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="chosen_for")

    objects = ChosenCustomerQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["member", "customer"], name="chosen_customer_once_per_member"),
            models.UniqueConstraint(fields=["partner", "id"], name="chosen_customer_partner_id"),
        ]

    def __str__(self) -> str:
        return f"{self.customer} for {self.member}"


class LookupQuerySet(OfOnePartner, models.QuerySet["Lookup"]):
    def over(self, now: dt.datetime) -> LookupQuerySet:
        return self.filter(expires_at__lte=now)

    def waiting(self, now: dt.datetime) -> LookupQuerySet:
        """Taken by nobody, though a message should have been read by now."""
        return self.filter(taken_at=None, offered_until__lte=now, expires_at__gt=now)


def in_a_minute() -> dt.datetime:
    return timezone.now() + LOOKUP_LIFE


def offer_end() -> dt.datetime:
    return timezone.now() + OFFER


class Lookup(models.Model):
    """A member's question to Microsoft about one customer, and for a minute at most its sealed answer."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    partner = models.ForeignKey(Partner, models.CASCADE, related_name="lookups")
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="lookups")
    member = models.ForeignKey(Member, models.CASCADE, related_name="lookups")
    cursor = models.JSONField(default=dict, blank=True)
    asked_at = models.DateTimeField(default=timezone.now)
    offered_until = models.DateTimeField(default=offer_end)
    taken_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(default=in_a_minute, db_index=True)
    sealed_answer = models.TextField(blank=True)

    objects = LookupQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["partner", "id"], name="lookup_partner_id")]

    def __str__(self) -> str:
        return f"look at {self.customer} for {self.member}"

    def offer(self) -> bool:
        """Claim the right to send a message about it; False when another tick was faster."""
        now = timezone.now()
        return Lookup.objects.waiting(now).filter(pk=self.pk).update(offered_until=now + OFFER) == 1

    def take(self) -> bool:
        """Claim the one right to ask Microsoft; False when somebody did, or nobody waits any more."""
        now = timezone.now()
        return Lookup.objects.filter(pk=self.pk, taken_at=None, expires_at__gt=now).update(taken_at=now) == 1

    def mark_answered(self, sealed: str) -> bool:
        """Leave the answer for a minute; False when nobody waits for it any more."""
        now = timezone.now()
        waiting = Lookup.objects.filter(pk=self.pk, sealed_answer="", expires_at__gt=now)
        return waiting.update(sealed_answer=sealed, expires_at=now + LOOKUP_LIFE) == 1
