"""What is mirrored beside the customers: their subscriptions, licences and users, the partner's MFA and GDAP."""

from __future__ import annotations

import datetime as dt
from typing import ClassVar

from django.db import models
from django.db.models import Q

from partners.models.mirrored import Mirrored, MirroredQuerySet, OfOneCustomer
from partners.models.people import Partner


class Subscription(OfOneCustomer):
    """
    What a customer subscribed to.

    https://learn.microsoft.com/partner-center/developer/subscription-resources
    """

    class Renewal(models.TextChoices):
        """
        What happens at the end of the term, since May 2026. No known property of Microsoft's tells whether "cancel at
        the end of the term" was chosen; so EXTENDS means: unless somebody chose that.
        """

        UNKNOWN = "unknown"
        RENEWS = "renews"
        EXTENDS = "extends", "goes on by the month"
        ENDS = "ends"

    subscription_id = models.CharField(max_length=64)  # as Microsoft writes it
    offer_id = models.CharField(max_length=200, blank=True)
    offer_name = models.CharField(max_length=400, blank=True)
    friendly_name = models.CharField(max_length=400, blank=True)
    quantity = models.IntegerField(null=True, blank=True)
    unit_type = models.CharField(max_length=40, blank=True)
    status = models.CharField(max_length=40, blank=True)
    auto_renew = models.BooleanField(null=True, blank=True)
    is_trial = models.BooleanField(null=True, blank=True)
    term_duration = models.CharField(max_length=20, blank=True)
    billing_cycle = models.CharField(max_length=20, blank=True)
    created_at = models.DateTimeField(null=True, blank=True)
    effective_start_at = models.DateTimeField(null=True, blank=True)
    commitment_end_at = models.DateTimeField(null=True, blank=True)
    cancellable_until = models.DateTimeField(null=True, blank=True)
    renewal = models.CharField(max_length=10, choices=Renewal.choices, default=Renewal.UNKNOWN)

    objects = MirroredQuerySet.as_manager()

    class Meta(OfOneCustomer.Meta):
        indexes: ClassVar = [models.Index(fields=["partner", "commitment_end_at"], name="subscription_by_term_end")]

    def __str__(self) -> str:
        return self.friendly_name or self.offer_name or self.subscription_id


class SubscribedSku(OfOneCustomer):
    """
    A customer's licences of one product.

    https://learn.microsoft.com/partner-center/developer/get-a-list-of-available-licenses
    """

    sku_id = models.CharField(max_length=64)
    name = models.CharField(max_length=400, blank=True)
    part_number = models.CharField(max_length=100, blank=True)
    capability_status = models.CharField(max_length=40, blank=True)
    total_units = models.IntegerField(null=True, blank=True)
    active_units = models.IntegerField(null=True, blank=True)
    consumed_units = models.IntegerField(null=True, blank=True)
    available_units = models.IntegerField(null=True, blank=True)
    suspended_units = models.IntegerField(null=True, blank=True)
    warning_units = models.IntegerField(null=True, blank=True)

    objects = MirroredQuerySet.as_manager()

    class Meta(OfOneCustomer.Meta):
        pass

    def __str__(self) -> str:
        return self.name or self.part_number or self.sku_id


class CustomerUser(OfOneCustomer):
    """
    A user in a customer's tenant, for partners who asked for it: no more than is needed to tell people apart.

    https://learn.microsoft.com/partner-center/developer/get-a-list-of-all-user-accounts-for-a-customer
    """

    user_id = models.CharField(max_length=64)
    name = models.CharField(max_length=400, blank=True)
    sign_in_name = models.CharField(max_length=320, blank=True)
    state = models.CharField(max_length=40, blank=True)

    objects = MirroredQuerySet.as_manager()

    class Meta(OfOneCustomer.Meta):
        pass

    def __str__(self) -> str:
        return self.name or self.sign_in_name or self.user_id


class UnprovenPrincipal(Mirrored):
    """
    Somebody of the partner who called Partner Center without MFA in the last seven days; none of them is good standing.

    https://learn.microsoft.com/partner-center/developer/get-portal-requests-without-mfa
    """

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="unproven_principals")
    key = models.CharField(max_length=64)
    sign_in_name = models.CharField(max_length=320, blank=True)
    last_request_at = models.DateTimeField(null=True, blank=True)

    objects = MirroredQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "key"], name="unproven_principal_once_per_partner"),
            models.UniqueConstraint(fields=["partner", "id"], name="unproven_principal_partner_id"),
        ]

    def __str__(self) -> str:
        return self.sign_in_name or self.key


NO_END = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)  # of a relationship that was told none, as it has not begun


class Relationship(Mirrored):
    """
    A granular delegated admin relationship (GDAP): what the partner's people may do in a customer's tenant, until when.

    Its customer may be none of the partner's list, as an indirect provider's; so it names the tenant and points at no
    row. `roles` are ids of Entra's roles with blanks between. `lists_by` is its end or `NO_END`; `lapses_at` is when
    access ends unless somebody acts: of what is in force and does not extend itself.
    https://learn.microsoft.com/graph/api/resources/delegatedadminrelationship
    """

    partner = models.ForeignKey(Partner, models.CASCADE, related_name="relationships", db_index=False)
    key = models.CharField(max_length=100)
    relationship_id = models.CharField(max_length=100)  # as Microsoft writes it
    name = models.CharField(max_length=400, blank=True)
    status = models.CharField(max_length=40, blank=True)
    customer_tenant_id = models.UUIDField("customer's tenant", null=True, blank=True)
    customer_name = models.CharField(max_length=400, blank=True)
    provider_tenant_id = models.UUIDField("indirect provider's tenant", null=True, blank=True)
    awaits_partner = models.BooleanField(null=True, blank=True)  # their own yes to what their provider made
    roles = models.TextField(blank=True)
    duration = models.CharField(max_length=20, blank=True)  # ISO 8601, as "P730D"
    auto_extend = models.CharField(max_length=20, blank=True)
    created_at = models.DateTimeField(null=True, blank=True)
    modified_at = models.DateTimeField(null=True, blank=True)
    activated_at = models.DateTimeField(null=True, blank=True)
    end_at = models.DateTimeField(null=True, blank=True)
    is_over = models.BooleanField(default=False)
    lists_by = models.DateTimeField(default=NO_END)
    lapses_at = models.DateTimeField(null=True, blank=True)

    objects = MirroredQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "key"], name="relationship_once_per_partner"),
            models.UniqueConstraint(fields=["partner", "id"], name="relationship_partner_id"),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["partner", "is_over", "lists_by", "id"],
                name="relationship_by_end",
                condition=Q(removed_at=None),
            ),
            models.Index(
                fields=["partner", "lapses_at", "id"],
                name="relationship_by_lapse",
                condition=Q(removed_at=None, lapses_at__isnull=False),
            ),
            models.Index(fields=["partner", "customer_tenant_id"], name="relationship_by_customer"),
        ]

    def __str__(self) -> str:
        return self.name or self.relationship_id
