"""Reading `scope`; Microsoft's page "Scopes and permissions in the Microsoft identity platform"."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.clouds import Cloud

OIDC = frozenset({"openid", "profile", "email", "offline_access"})
DEFAULT = ".default"
# Permissions that exist on a resource. A name that is not here is refused as Entra refuses it (650053).
KNOWN: dict[str, set[str]] = {
    "partnercenter": {"user_impersonation"},
    "arm": {"user_impersonation"},
    "vault": {"user_impersonation"},
    "graph": {
        "User.Read",
        "User.Read.All",
        "User.ReadWrite.All",
        "Group.Read.All",
        "GroupMember.Read.All",
        "Organization.Read.All",
        "Directory.Read.All",
        "Directory.AccessAsUser.All",
        "DelegatedAdminRelationship.Read.All",
        "DelegatedAdminRelationship.ReadWrite.All",
        "DelegatedPermissionGrant.ReadWrite.All",
        "Application.Read.All",
        "PartnerSecurity.Read.All",
        "PartnerBilling.Read.All",
        "Reports.Read.All",
    },
}


class UnknownResource(ValueError):
    """No such resource in this cloud; the message is its address."""


class UnknownPermission(ValueError):
    """The resource has no such permission; the message is its name."""


@dataclass
class Asked:
    """A scope parameter taken apart: OIDC words, and per resource address the permissions."""

    oidc: set[str] = field(default_factory=set)
    resources: dict[str, list[str]] = field(default_factory=dict)
    bare: bool = False

    def full(self) -> set[str]:
        """Every permission as `<resource>/<name>`."""
        return {f"{resource}/{name}" for resource, names in self.resources.items() for name in names}


def _split(word: str, cloud: Cloud) -> tuple[str, str]:
    if "/" not in word:
        return cloud.resource("graph"), word
    resource, _, name = word.rpartition("/")
    return resource.rstrip("/"), name


def _check(resource: str, name: str, cloud: Cloud) -> None:
    service = cloud.resources().get(resource)
    if service is None:
        raise UnknownResource(resource)
    if name != DEFAULT and name.lower() not in {known.lower() for known in KNOWN[service]}:
        raise UnknownPermission(name)


def parse(text: str, cloud: Cloud) -> Asked:
    """
    Take a scope parameter apart.

    :raises UnknownResource: nothing in this cloud has that address
    :raises UnknownPermission: the resource has no permission of that name
    """
    asked = Asked()
    for word in text.split():
        if word.lower() in OIDC:
            asked.oidc.add(word.lower())
            continue
        resource, name = _split(word, cloud)
        _check(resource, name, cloud)
        asked.bare = asked.bare or "/" not in word
        asked.resources.setdefault(resource, []).append(name)
    return asked


def of_resource(full: set[str], resource: str) -> list[str]:
    """The bare names of those permissions that belong to one resource, in a stable order."""
    return sorted(name.rpartition("/")[2] for name in full if name.rpartition("/")[0] == resource)
