"""
What we ask a partner for, and why: the one list behind the authorize address, every redemption and the pages.

All are delegated permissions; the application alone may do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokens.clouds import Audience, Cloud


@dataclass(frozen=True)
class Permission:
    """One delegated scope and what it is for."""

    audience: Audience
    scope: str
    feature: str
    why: str
    jobs: str
    access: str
    required: bool = False  # without it nothing works; a connection without one of the others has limits

    @property
    def name(self) -> str:
        """What names it in rows and documents; two APIs call a permission user_impersonation."""
        return f"arm/{self.scope}" if self.audience == Audience.ARM else self.scope

    @property
    def api(self) -> str:
        return {
            Audience.PARTNER_CENTER: "Partner Center",
            Audience.GRAPH: "Microsoft Graph",
            Audience.ARM: "Azure management",
        }[self.audience]


PARTNER_CENTER = Permission(
    Audience.PARTNER_CENTER,
    "user_impersonation",
    "Customer list",
    "Reads your customers from Partner Center with the rights of the account that agrees.",
    "sync of customers, every six hours",
    "read and write",
    required=True,
)
USERS = Permission(
    Audience.GRAPH,
    "User.Read.All",
    "Users of your customers",
    "Shows the users of a customer you open.",
    "none yet; asked for now so that you need not agree twice",
    "read",
)
GROUPS = Permission(
    Audience.GRAPH,
    "GroupMember.Read.All",
    "Role check",
    "Sees whether the account that agrees is in your admin agents group.",
    "check at consent",
    "read",
    required=True,
)
RELATIONSHIPS = Permission(
    Audience.GRAPH,
    "DelegatedAdminRelationship.ReadWrite.All",
    "Customer access (GDAP)",
    "Prepares and follows the delegated admin relationships with your customers.",
    "none yet; asked for now so that you need not agree twice",
    "read and write",
)
RELATIONSHIPS_READ = Permission(
    Audience.GRAPH,
    "DelegatedAdminRelationship.Read.All",
    "Customer access (GDAP)",
    "Follows the delegated admin relationships with your customers.",
    "none yet; asked for now so that you need not agree twice",
    "read",
)
ARM = Permission(
    Audience.ARM,
    "user_impersonation",
    "Azure subscriptions",
    "Reaches the Azure subscriptions of your customers with the rights of the account that agrees.",
    "none yet; asked for now so that you need not agree twice",
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


def scopes(permissions: Iterable[Permission], cloud: Cloud, audience: Audience | None = None) -> list[str]:
    """The scopes in the form Entra takes them, for one audience or for all."""
    return [cloud.scope(p.audience, p.scope) for p in permissions if audience in (None, p.audience)]


def names(granted: Iterable[str]) -> frozenset[str]:
    """Granted scopes by their bare names; Entra puts the audience in front of some. What OIDC adds is left out."""
    return frozenset(scope.rsplit("/", 1)[-1] for scope in granted) - {"openid", "profile", "email", "offline_access"}


def missing(permissions: Iterable[Permission], audience: Audience, granted: Iterable[str]) -> list[str]:
    """The names of the permissions that a token for this audience does not carry; letters may be of any case."""
    carried = {name.lower() for name in names(granted)}
    return [p.name for p in permissions if p.audience == audience and p.scope.lower() not in carried]
