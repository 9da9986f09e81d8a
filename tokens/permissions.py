"""
What we ask a partner for, and why: the one list behind the authorize address, every redemption and the pages.

All are delegated permissions; the application alone may do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tokens.clouds import Audience, Cloud

# What a purpose of the ledger is called on the pages. A purpose that is missing here cannot be shown, and a test fails.
JOBS = {
    "consent.redeem": "checks when you connect",
    "consent.check": "checks when you connect",
    "sync.customers": "sync of customers, every six hours",
    "sync.subscriptions": "sync of your customers' subscriptions, twice a day",
    "sync.licences": "sync of your customers' licences, once a day",
    "sync.users": "sync of your customers' users, once a day, where you asked for it",
    "sync.mfa": "sync of who signs in without MFA, once a day",
    "sync.relationships": "sync of your delegated admin relationships (GDAP), twice a day",
    "users.read": "users of a customer, when one of your members asks",
    "subscriptions.change": "changes of a customer's subscription, each confirmed by one of your members",
    "token.keep": "keeping your sign-in alive, once a day",
}
BY_A_PERSON = "token.explain"  # somebody tests a connection and says why; it may be for any audience
APPLICATIONS = {
    Audience.PARTNER_CENTER: "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd",
    Audience.GRAPH: "00000003-0000-0000-c000-000000000000",
    Audience.ARM: "797f4846-ba00-4fd7-ba43-dac1f8f63013",
}
"""Microsoft's application id of each audience, the same in every cloud."""
DELEGATED = "Scope"  # a manifest's word; "Role" would be a permission of the application alone
APIS: dict[str, str] = {
    Audience.PARTNER_CENTER: "Partner Center",
    Audience.GRAPH: "Microsoft Graph",
    Audience.ARM: "Azure management",
    Audience.PARTNER: "Partner API",
}


@dataclass(frozen=True)
class Permission:
    """One delegated scope and what it is for. `id` is Microsoft's; `purposes` are the ledger's, none: not used yet."""

    audience: Audience
    scope: str
    id: str
    feature: str
    why: str
    purposes: tuple[str, ...]
    access: str
    required: bool = False  # without it nothing works; a connection without one of the others has limits

    @property
    def name(self) -> str:
        """What names it in rows and documents; two APIs call a permission user_impersonation."""
        return f"arm/{self.scope}" if self.audience == Audience.ARM else self.scope

    @property
    def api(self) -> str:
        return APIS[self.audience]

    @property
    def jobs(self) -> list[str]:
        """What it is used for today, in words."""
        return list(dict.fromkeys(JOBS[purpose] for purpose in self.purposes))


PARTNER_CENTER = Permission(
    Audience.PARTNER_CENTER,
    "user_impersonation",
    "1cebfa2a-fb4d-419e-b5f9-839b4383e05a",
    "Customers and their users",
    "Reads your customers, and the users of a customer when you ask for them, with the rights of the account that"
    " agrees. Changes a subscription when one of your members confirms exactly that. Partner Center has no narrower"
    " permission.",
    (
        "consent.redeem",
        "sync.customers",
        "sync.subscriptions",
        "sync.licences",
        "sync.users",
        "sync.mfa",
        "users.read",
        "subscriptions.change",
        "token.keep",
    ),
    "read and write",
    required=True,
)
USERS = Permission(
    Audience.GRAPH,
    "User.Read.All",
    "a154be20-db9c-4678-8ab7-66f6cc099a59",
    "User profiles",
    "Will read the profiles of users.",
    (),
    "read",
)
GROUPS = Permission(
    Audience.GRAPH,
    "GroupMember.Read.All",
    "bc024368-1153-4739-b217-4326f2e966d0",
    "Role check",
    "Sees whether the account that agrees is in one of the agent groups of your tenant, such as admin agents.",
    ("consent.check",),
    "read",
    required=True,
)
RELATIONSHIPS = Permission(
    Audience.GRAPH,
    "DelegatedAdminRelationship.ReadWrite.All",
    "885f682f-a990-4bad-a642-36736a74b0c7",
    "Customer access (GDAP)",
    "Reads the delegated admin relationships with your customers: their roles, and until when. Changes none yet.",
    ("sync.relationships",),
    "read and write",
)
RELATIONSHIPS_READ = Permission(
    Audience.GRAPH,
    "DelegatedAdminRelationship.Read.All",
    "0c0064ea-477b-4130-82a5-4c2cc4ff68aa",
    "Customer access (GDAP)",
    "Reads the delegated admin relationships with your customers: their roles, and until when.",
    ("sync.relationships",),
    "read",
)
ARM = Permission(
    Audience.ARM,
    "user_impersonation",
    "41094075-9dad-400e-a0bd-54e686782033",
    "Azure subscriptions",
    "Will reach the Azure subscriptions of your customers with the rights of the account that agrees.",
    ("consent.check",),
    "read and write",
)
SETS: dict[str, tuple[Permission, ...]] = {
    "standard": (PARTNER_CENTER, USERS, GROUPS, RELATIONSHIPS),
    "reports": (PARTNER_CENTER, USERS, GROUPS, RELATIONSHIPS_READ),
}
SETS |= {f"{name}+arm": (*permissions, ARM) for name, permissions in SETS.items()}


def asked(name: str) -> Sequence[Permission]:
    """The permissions of a setting of `CPV_PERMISSIONS`; KeyError for an unknown one (a system check says so first)."""
    return SETS[name]


def audiences_for(purpose: str) -> frozenset[Audience]:
    """The audiences for which a purpose may mint; none for a purpose that no permission names."""
    if purpose == BY_A_PERSON:
        return frozenset(Audience)
    return frozenset(permission.audience for permission in chain(*SETS.values()) if purpose in permission.purposes)


def scopes(permissions: Iterable[Permission], cloud: Cloud, audience: Audience | None = None) -> list[str]:
    """The scopes in the form Entra takes them, for one audience or for all."""
    return [cloud.scope(p.audience, p.scope) for p in permissions if audience in (None, p.audience)]


def names(granted: Iterable[str], audience: Audience) -> frozenset[str]:
    """
    The scopes a token for one audience was granted, by the names that rows and pages use.

    Entra puts the audience in front of some; what OIDC adds is left out.
    """
    bare = {scope.rsplit("/", 1)[-1] for scope in granted} - {"openid", "profile", "email", "offline_access"}
    return frozenset(f"arm/{name}" if audience == Audience.ARM else name for name in bare)


def missing(permissions: Iterable[Permission], audience: Audience, granted: Iterable[str]) -> list[str]:
    """The names of the permissions that a token for this audience does not carry; letters may be of any case."""
    carried = {name.lower() for name in names(granted, audience)}
    return [p.name for p in permissions if p.audience == audience and p.name.lower() not in carried]


def held(permissions: Iterable[Permission], given: Iterable[str]) -> list[Permission]:
    """Those of the permissions that a consent gave, by their names; letters may be of any case."""
    carried = {name.lower() for name in given}
    return [p for p in permissions if p.name.lower() in carried]


def beyond(permissions: Iterable[Permission], given: Iterable[str]) -> list[str]:
    """Names a consent gave that are none of the permissions, such as one asked for in earlier days."""
    asked_for = {p.name.lower() for p in permissions}
    return sorted(name for name in given if name.lower() not in asked_for)


def manifest(permissions: Iterable[Permission]) -> list[dict[str, Any]]:
    """
    The `requiredResourceAccess` of the app registration: delegated permissions and nothing else.

    https://learn.microsoft.com/graph/api/resources/requiredresourceaccess
    """
    by_audience: dict[Audience, list[dict[str, str]]] = {}
    for permission in permissions:
        by_audience.setdefault(permission.audience, []).append({"id": permission.id, "type": DELEGATED})
    return [
        {"resourceAppId": APPLICATIONS[audience], "resourceAccess": entries}
        for audience, entries in by_audience.items()
    ]


def for_the_application_alone(registration: Iterable[dict[str, Any]]) -> int:
    """How many permissions of a manifest the application would have without anybody signed in."""
    return sum(entry["type"] != DELEGATED for resource in registration for entry in resource["resourceAccess"])
