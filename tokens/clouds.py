"""Microsoft's national clouds: the only addresses this product talks to."""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

RETIRED_HOSTS = frozenset({"graph.windows.net", "graph.microsoftazure.us", "graph.chinacloudapi.cn"})
"""Azure AD Graph in each cloud; https://learn.microsoft.com/graph/migrate-azure-ad-graph-overview"""
RETIRED_APPLICATION = "00000002-0000-0000-c000-000000000000"
"""Azure AD Graph's application id, the same in every cloud."""

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,127}")
_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class UnknownCloud(ValueError):
    """No cloud of this name can be served."""


class Audience(StrEnum):
    """The resource an access token is for."""

    PARTNER_CENTER = "partnercenter"
    GRAPH = "graph"
    ARM = "arm"
    PARTNER = "partner"


@dataclass(frozen=True)
class Cloud:
    """
    One national cloud; tokens and app registrations never cross from one to another.

    Hosts are bare names, roots start with https:// and end without a slash.
    https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
    """

    name: str
    label: str
    login_host: str
    legacy_login_hosts: tuple[str, ...]  # recognised in what others send us, never contacted
    graph_root: str
    partner_center_root: str
    arm_root: str
    arm_audience: str  # Azure Government names another address in scopes than the one it answers at
    partner_api_root: str | None
    vault_suffix: str
    federated_audience: str
    portal_root: str

    def authority(self, tenant: str) -> str:
        """
        Return the login address of a tenant id, "organizations" or "common".

        :raises ValueError: the text cannot be a tenant, so it must not become part of an address
        """
        if not _TENANT.fullmatch(tenant):
            raise ValueError("A tenant is a tenant id or a domain name.")
        return f"https://{self.login_host}/{tenant}"

    def root(self, audience: Audience) -> str:
        """
        Return where the API of this audience answers.

        :raises ValueError: this cloud does not offer it
        """
        roots = {
            Audience.PARTNER_CENTER: self.partner_center_root,
            Audience.GRAPH: self.graph_root,
            Audience.ARM: self.arm_root,
            Audience.PARTNER: self.partner_api_root,
        }
        root = roots[audience]
        if root is None:
            raise ValueError(f"{self.label} has no {audience} API.")
        return root

    def scope(self, audience: Audience, permission: str) -> str:
        """Return the full scope of a delegated permission, such as https://graph.microsoft.com/User.Read.All."""
        base = self.arm_audience if audience is Audience.ARM else self.root(audience)
        return f"{base}/{permission}"

    def default_scope(self, audience: Audience) -> str:
        """Return the scope that stands for everything consented to already."""
        return self.scope(audience, ".default")

    def issuer(self, tid: str) -> str:
        """
        Return who signs the v2 id_tokens of this tenant.

        https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-tokens
        """
        return f"https://{self.login_host}/{tid}/v2.0"

    def hosts(self) -> frozenset[str]:
        """Return the exact hosts of this cloud that may be contacted; vaults are left to `allows`."""
        roots = [self.graph_root, self.partner_center_root, self.arm_root, self.partner_api_root]
        return frozenset({self.login_host, *(urlsplit(root).netloc for root in roots if root)})

    def allows(self, host: str) -> bool:
        """Say whether this bare host name is one of `hosts`, or one label before the vault suffix."""
        label, _, rest = host.partition(".")
        return host in self.hosts() or (rest == self.vault_suffix and _LABEL.fullmatch(label) is not None)


GLOBAL = Cloud(
    name="global",
    label="Microsoft Azure",
    login_host="login.microsoftonline.com",
    legacy_login_hosts=("login.windows.net", "login.microsoft.com", "sts.windows.net"),
    graph_root="https://graph.microsoft.com",
    partner_center_root="https://api.partnercenter.microsoft.com",
    arm_root="https://management.azure.com",
    arm_audience="https://management.azure.com",
    partner_api_root="https://api.partner.microsoft.com",
    vault_suffix="vault.azure.net",
    federated_audience="api://AzureADTokenExchange",
    portal_root="https://portal.azure.com",
)
USGOV = Cloud(
    name="usgov",
    label="Microsoft Azure Government",
    login_host="login.microsoftonline.us",
    legacy_login_hosts=("login-us.microsoftonline.com", "login.usgovcloudapi.net"),
    graph_root="https://graph.microsoft.us",
    partner_center_root="https://api.partnercenter.microsoft.com",
    arm_root="https://management.usgovcloudapi.net",
    arm_audience="https://management.core.usgovcloudapi.net",
    partner_api_root=None,
    vault_suffix="vault.usgovcloudapi.net",
    federated_audience="api://AzureADTokenExchangeUSGov",
    portal_root="https://portal.azure.us",
)
CHINA = Cloud(
    name="china",
    label="Microsoft Azure operated by 21Vianet",
    login_host="login.partner.microsoftonline.cn",
    legacy_login_hosts=("login.chinacloudapi.cn",),
    graph_root="https://microsoftgraph.chinacloudapi.cn",
    partner_center_root="https://partner.partnercenterapi.microsoftonline.cn",
    arm_root="https://management.chinacloudapi.cn",
    arm_audience="https://management.chinacloudapi.cn",
    partner_api_root=None,
    vault_suffix="vault.azure.cn",
    federated_audience="api://AzureADTokenExchangeChina",
    portal_root="https://portal.azure.cn",
)
CLOUDS = {cloud.name: cloud for cloud in (GLOBAL, USGOV, CHINA)}


def cloud_named(name: str) -> Cloud:
    """
    Return the cloud called "global", "usgov" or "china".

    :raises UnknownCloud: with a text for the person who typed the name
    """
    if name == "germany":
        raise UnknownCloud("The German cloud closed on 29 October 2021; its tenants live in the global cloud now.")
    if name not in CLOUDS:
        raise UnknownCloud(f"There is no cloud {name!r}; choose one of {', '.join(CLOUDS)}.")
    return CLOUDS[name]
