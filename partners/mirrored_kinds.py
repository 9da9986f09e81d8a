"""The kinds of rows that are mirrored, each a small class: what of Microsoft's items we use, and the row it becomes."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar
from uuid import UUID

from partners import gdap
from partners.mirrors import Mirror, OfEachCustomer, customer_path
from partners.models import Customer, CustomerUser, Relationship, SubscribedSku, Subscription, UnprovenPrincipal
from partners.models.estate import NO_END
from partners.reading import Listed, guid, moment, text, whole
from tokens.clouds import Audience

NEW_TERMS_FOR_PURCHASES_FROM = dt.datetime(2025, 4, 1, tzinfo=dt.UTC)
NEW_TERMS_FOR_ENDS_FROM = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)
NEW_COMMERCE = "onlineservicesnce"
MOST_ROLES = 300  # of a relationship; Entra has some 130
ERASED_AFTER = dt.timedelta(days=30)

Number = int | float | str | None


# --- Customers ------------------------------------------------------------------------------------------------------
class CompanyProfile(Listed):
    tenant_id: UUID
    company_name: str
    domain: str


class CustomerItem(Listed):
    company_profile: CompanyProfile
    relationship_to_partner: str
    id: UUID | None = None
    instead: ClassVar = ("id",)  # of the tenant id


class Customers(Mirror[CustomerItem]):
    """https://learn.microsoft.com/partner-center/developer/get-a-list-of-customers"""

    kind = "customers"
    model = Customer
    shape = CustomerItem
    key_column = "tenant_id"
    columns = ("name", "name_key", "domain", "relationship")
    is_text = True
    indexed_by = ("name_key", "domain")

    def path(self, customer: UUID | None) -> str:
        return "customers"

    def key(self, item: CustomerItem) -> int | None:
        found = item.company_profile.tenant_id or item.id
        return found.int if found else None

    def values(self, item: CustomerItem) -> tuple[Any, ...]:
        profile = item.company_profile
        name, domain = text(profile.company_name, 400), text(profile.domain, 255).lower()
        # A customer without a name is listed under its domain.
        return name, (name or domain).casefold()[:400], domain, text(item.relationship_to_partner, 40)


# --- Subscriptions --------------------------------------------------------------------------------------------------
class ProductType(Listed):
    id: str | None = None


class SubscriptionItem(Listed):
    id: str
    status: str
    quantity: int | float | str
    offer_id: str | None = None
    offer_name: str | None = None
    friendly_name: str | None = None
    unit_type: str | None = None
    billing_type: str | None = None
    product_type: ProductType | None = None
    auto_renew_enabled: bool | None = None
    is_trial: bool | None = None
    term_duration: str | None = None
    billing_cycle: str | None = None
    creation_date: str | None = None
    effective_start_date: str | None = None
    commitment_end_date: str | None = None
    commitment_end_date_time: str | None = None
    cancellation_allowed_until_date: str | None = None


class Subscriptions(OfEachCustomer[SubscriptionItem]):
    """https://learn.microsoft.com/partner-center/developer/get-all-of-a-customer-s-subscriptions"""

    kind = "subscriptions"
    version = 2
    model = Subscription
    shape = SubscriptionItem
    columns = (
        "subscription_id", "offer_id", "offer_name", "friendly_name", "quantity", "unit_type", "status", "auto_renew",
        "is_trial", "term_duration", "billing_cycle", "created_at", "effective_start_at", "commitment_end_at",
        "cancellable_until", "renewal",
    )  # fmt: skip

    def path(self, customer: UUID | None) -> str:
        return customer_path(customer, "subscriptions")

    def key(self, item: SubscriptionItem) -> str:
        return text(item.id, 64).lower()

    def values(self, item: SubscriptionItem) -> tuple[Any, ...]:
        return (
            text(item.id, 64),
            text(item.offer_id, 200),
            text(item.offer_name, 400),
            text(item.friendly_name, 400),
            whole(item.quantity),
            text(item.unit_type, 40),
            text(item.status, 40).lower(),
            item.auto_renew_enabled,
            item.is_trial,
            text(item.term_duration, 20),
            text(item.billing_cycle, 20).lower(),
            moment(item.creation_date),
            moment(item.effective_start_date),
            _term_end(item),
            moment(item.cancellation_allowed_until_date),
            str(renewal(item)),
        )


def _term_end(item: SubscriptionItem) -> dt.datetime | None:
    return moment(item.commitment_end_date_time) or moment(item.commitment_end_date)


def renewal(item: SubscriptionItem) -> Subscription.Renewal:
    """
    What happens at the end of the term, as far as Microsoft's answer tells.

    Without renewal, a licence of the new commerce bought since April 2025 goes on by the month, unless "cancel at the
    end of the term" was chosen, which no property that we know of says.
    https://learn.microsoft.com/partner-center/customers/extended-service-terms
    """
    if item.auto_renew_enabled is None:
        return Subscription.Renewal.UNKNOWN
    if item.auto_renew_enabled:
        return Subscription.Renewal.RENEWS
    if not _is_licence_of_new_commerce(item):
        return Subscription.Renewal.ENDS
    bought, end = moment(item.creation_date), _term_end(item)
    if bought is None or end is None:
        return Subscription.Renewal.UNKNOWN
    if bought >= NEW_TERMS_FOR_PURCHASES_FROM and end >= NEW_TERMS_FOR_ENDS_FROM:
        return Subscription.Renewal.EXTENDS
    return Subscription.Renewal.ENDS


def _is_licence_of_new_commerce(item: SubscriptionItem) -> bool:
    product = text(item.product_type.id if item.product_type else "").lower()
    return product == NEW_COMMERCE and text(item.unit_type).lower() == "licenses" and not item.is_trial


# --- Licences -------------------------------------------------------------------------------------------------------
class ProductSku(Listed):
    id: str
    name: str | None = None
    sku_part_number: str | None = None


class SkuItem(Listed):
    product_sku: ProductSku
    capability_status: str
    total_units: Number = None
    active_units: Number = None
    consumed_units: Number = None
    available_units: Number = None
    suspended_units: Number = None
    warning_units: Number = None


class SubscribedSkus(OfEachCustomer[SkuItem]):
    """https://learn.microsoft.com/partner-center/developer/get-a-list-of-available-licenses"""

    kind = "licences"
    version = 2
    model = SubscribedSku
    shape = SkuItem
    columns = (
        "sku_id", "name", "part_number", "capability_status", "total_units", "active_units", "consumed_units",
        "available_units", "suspended_units", "warning_units",
    )  # fmt: skip

    def path(self, customer: UUID | None) -> str:
        return customer_path(customer, "subscribedskus")

    def key(self, item: SkuItem) -> str:
        return text(item.product_sku.id, 64).lower()

    def values(self, item: SkuItem) -> tuple[Any, ...]:
        sku = item.product_sku
        units = (
            item.total_units, item.active_units, item.consumed_units, item.available_units, item.suspended_units,
            item.warning_units,
        )  # fmt: skip
        return (
            text(sku.id, 64),
            text(sku.name, 400),
            text(sku.sku_part_number, 100),
            text(item.capability_status, 40).lower(),
            *map(whole, units),
        )


# --- Users ----------------------------------------------------------------------------------------------------------
class UserItem(Listed):
    id: str
    user_principal_name: str
    display_name: str | None = None
    state: str | None = None


class CustomerUsers(OfEachCustomer[UserItem]):
    """https://learn.microsoft.com/partner-center/developer/get-a-list-of-all-user-accounts-for-a-customer"""

    kind = "users"
    version = 2
    model = CustomerUser
    shape = UserItem
    is_paged = True
    keeps_removed = ERASED_AFTER
    columns = ("user_id", "name", "sign_in_name", "state")

    def path(self, customer: UUID | None) -> str:
        return customer_path(customer, "users")

    def key(self, item: UserItem) -> str:
        return text(item.id, 64).lower()

    def values(self, item: UserItem) -> tuple[Any, ...]:
        return (
            text(item.id, 64),
            text(item.display_name, 400),
            text(item.user_principal_name, 320),
            text(item.state, 40).lower(),
        )


# --- The partner's own MFA ------------------------------------------------------------------------------------------
class PrincipalItem(Listed):
    object_id: str
    upn: str | None = None
    last_non_mfa_compliant_request_date_time: str | None = None


class UnprovenPrincipals(Mirror[PrincipalItem]):
    """https://learn.microsoft.com/partner-center/developer/get-portal-requests-without-mfa"""

    kind = "mfa"
    version = 2
    model = UnprovenPrincipal
    shape = PrincipalItem
    is_paged = False
    is_guarded = False  # whoever mends their sign-in leaves the list, all at once if need be
    keeps_removed = ERASED_AFTER
    columns = ("sign_in_name", "last_request_at")

    def path(self, customer: UUID | None) -> str:
        return "nonMfaCompliantPartnerPrincipals"

    def key(self, item: PrincipalItem) -> str:
        return text(item.object_id, 64).lower()

    def values(self, item: PrincipalItem) -> tuple[Any, ...]:
        return text(item.upn, 320), moment(item.last_non_mfa_compliant_request_date_time)


# --- Delegated admin relationships ------------------------------------------------------------------------------------
class UnifiedRole(Listed):
    role_definition_id: str | None = None


class AccessDetails(Listed):
    unified_roles: list[UnifiedRole] | None = None


class RelationshipCustomer(Listed):
    tenant_id: str | None = None
    display_name: str | None = None


class RelationshipItem(Listed):
    id: str
    status: str
    display_name: str | None = None
    duration: str | None = None
    auto_extend_duration: str | None = None
    customer: RelationshipCustomer | None = None
    access_details: AccessDetails | None = None
    created_date_time: str | None = None
    last_modified_date_time: str | None = None
    activated_date_time: str | None = None
    end_date_time: str | None = None
    is_partner_consent_pending: bool | None = None
    indirect_provider_tenant_id: str | None = None


class Relationships(Mirror[RelationshipItem]):
    """https://learn.microsoft.com/graph/api/tenantrelationship-list-delegatedadminrelationships"""

    kind = "relationships"
    audience = Audience.GRAPH
    model = Relationship
    shape = RelationshipItem
    columns = (
        "relationship_id", "name", "status", "customer_tenant_id", "customer_name", "provider_tenant_id",
        "awaits_partner", "roles", "duration", "auto_extend", "created_at", "modified_at", "activated_at", "end_at",
        "is_over", "lists_by", "lapses_at",
    )  # fmt: skip

    def path(self, customer: UUID | None) -> str:
        return "tenantRelationships/delegatedAdminRelationships"

    def key(self, item: RelationshipItem) -> str:
        return text(item.id, 100).lower()

    def values(self, item: RelationshipItem) -> tuple[Any, ...]:
        customer = item.customer or RelationshipCustomer()
        given = item.access_details.unified_roles if item.access_details else None
        roles = sorted({text(role.role_definition_id, 36).lower() for role in given or []} - {""})[:MOST_ROLES]
        status, end = text(item.status, 40).lower(), moment(item.end_date_time)
        extends = gdap.extends_itself(text(item.auto_extend_duration), roles)
        return (
            text(item.id, 100),
            text(item.display_name, 400),
            status,
            guid(customer.tenant_id),
            text(customer.display_name, 400),
            guid(item.indirect_provider_tenant_id),
            item.is_partner_consent_pending,
            " ".join(roles),
            text(item.duration, 20),
            text(item.auto_extend_duration, 20),
            moment(item.created_date_time),
            moment(item.last_modified_date_time),
            moment(item.activated_date_time),
            end,
            status in gdap.OVER,
            end or NO_END,
            end if status in gdap.IN_FORCE and not extends else None,
        )


CUSTOMERS = Customers()
SUBSCRIPTIONS = Subscriptions()
LICENCES = SubscribedSkus()
USERS = CustomerUsers()
MFA = UnprovenPrincipals()
RELATIONSHIPS = Relationships()
MIRRORS: dict[str, Mirror[Any]] = {
    mirror.kind: mirror for mirror in (CUSTOMERS, SUBSCRIPTIONS, LICENCES, USERS, MFA, RELATIONSHIPS)
}
