"""
Which host belongs to which service of which national cloud.

Written from Microsoft's page "National clouds" (Entra), "Microsoft Graph national cloud deployments" and
"Partner Center REST URLs", independently of the product's own table: a typing error on one side must not agree
with itself on the other.
"""

from __future__ import annotations

from dataclasses import dataclass

MSA_TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"  # every personal Microsoft account lives here


@dataclass(frozen=True)
class Cloud:
    """One national cloud; the first login host is the current one, others are legacy names."""

    name: str
    logins: tuple[str, ...]
    sts: str
    graph: str
    partner_center: str
    management: str
    vault: str
    federation: str  # what a token is for that proves an app in this cloud

    @property
    def login(self) -> str:
        return self.logins[0]

    def resources(self) -> dict[str, str]:
        """Resource address -> service name, for every resource this cloud hands out tokens for."""
        return {
            f"https://{self.partner_center}": "partnercenter",
            f"https://{self.graph}": "graph",
            f"https://{self.management}": "arm",
            f"https://{self.vault}": "vault",
        }

    def resource(self, service: str) -> str:
        """The address of one service as it stands in scopes and in the `aud` of its tokens."""
        return next(address for address, name in self.resources().items() if name == service)


GLOBAL = Cloud(
    name="global",
    logins=("login.microsoftonline.com",),
    sts="sts.windows.net",
    graph="graph.microsoft.com",
    partner_center="api.partnercenter.microsoft.com",
    management="management.azure.com",
    vault="vault.azure.net",
    federation="api://AzureADTokenExchange",
)
USGOV = Cloud(
    name="usgov",
    logins=("login.microsoftonline.us",),
    sts="sts.windows.net",
    graph="graph.microsoft.us",
    partner_center="api.partnercenter.microsoft.com",  # US Government has no Partner Center host of its own
    management="management.usgovcloudapi.net",
    vault="vault.usgovcloudapi.net",
    federation="api://AzureADTokenExchangeUSGov",
)
CHINA = Cloud(
    name="china",
    logins=("login.partner.microsoftonline.cn", "login.chinacloudapi.cn"),
    sts="sts.chinacloudapi.cn",
    graph="microsoftgraph.chinacloudapi.cn",
    partner_center="partner.partnercenterapi.microsoftonline.cn",
    management="management.chinacloudapi.cn",
    vault="vault.azure.cn",
    federation="api://AzureADTokenExchangeChina",
)
CLOUDS = {cloud.name: cloud for cloud in (GLOBAL, USGOV, CHINA)}


@dataclass(frozen=True)
class Place:
    """What a Host header points at. `host` is without port, in lower case."""

    service: str
    cloud: Cloud
    host: str


def _service(host: str, cloud: Cloud) -> str | None:
    if host in cloud.logins:
        return "entra"
    if host == cloud.graph:
        return "graph"
    if host == cloud.partner_center:
        return "partnercenter"
    return "vault" if host.endswith(f".{cloud.vault}") else None


def place_of(host_header: str) -> Place:
    """The service a request is for; every host that is not Microsoft's is the browser-facing part, `public`."""
    host = host_header.rsplit(":", 1)[0].lower() if not host_header.endswith("]") else host_header
    for cloud in CLOUDS.values():
        service = _service(host, cloud)
        if service:
            return Place(service, cloud, host)
    return Place("public", GLOBAL, host)
