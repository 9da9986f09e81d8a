"""Where a tenant's endpoints are, read once a day for all tenants of a cloud."""

import json
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from tokens.clouds import Cloud
from tokens.http import Network, Unreachable, retry_after
from tokens.refusals import EntraUnavailable, Seen, answered, misdirected, refusal, unusable

DISCOVERY_LASTS = 24 * 3600  # seconds
_TENANT = "{tenant}"  # stands for one in what is kept of the endpoints


class Discovery:
    """
    The endpoints of a cloud, read once a day from whichever tenant comes first.

    Entra's documents differ between tenants in the tenant id only, so thousands of partners cost one GET.
    https://learn.microsoft.com/entra/identity-platform/v2-protocols-oidc#find-your-apps-openid-configuration-document-uri
    """

    def __init__(self, network: Network, cloud: Cloud, clock: Callable[[], float]) -> None:
        self._network, self._cloud, self._clock = network, cloud, clock
        self._lock = threading.Lock()
        self._template = ""
        self._read_at = float("-inf")

    def document(self, tenant: str) -> str:
        """The endpoints of a tenant, as a JSON object; one is made for each redemption, so it is kept as text."""
        with self._lock:
            fresh = self._template if self._clock() - self._read_at < DISCOVERY_LASTS else ""
        if fresh:
            return fresh.replace(_TENANT, tenant)
        # Not under the lock: while Entra is down, every thread would wait for all the threads before it.
        endpoints = self._fetch(tenant)
        template = {name: _without(tenant, url) for name, url in endpoints.items()}
        if all(f"/{_TENANT}/" in url for url in template.values()):
            with self._lock:
                self._template, self._read_at = json.dumps(template), self._clock()
        return json.dumps(endpoints)

    def _fetch(self, tenant: str) -> dict[str, str]:
        try:
            response = self._network.request(
                "GET", f"{self._cloud.authority(tenant)}/v2.0/.well-known/openid-configuration"
            )
        except Unreachable as error:
            raise EntraUnavailable("Entra could not be reached.", code=error.code) from None
        seen = Seen(response.status_code, retry_after(response))
        body = answered(response, seen)
        if response.status_code != 200:
            raise refusal(body, seen)
        names = ("authorization_endpoint", "token_endpoint")
        endpoints = {name: url for name in names if isinstance(url := body.get(name), str)}
        if len(endpoints) < len(names):
            raise unusable(seen)
        token_endpoint = urlsplit(endpoints["token_endpoint"])
        # Another cloud's token endpoint would be sent this cloud's credential (mix-up).
        if (token_endpoint.scheme, token_endpoint.netloc) != ("https", self._cloud.login_host):
            raise misdirected("token endpoint", own_host=self._cloud.login_host, host=token_endpoint.netloc)
        return endpoints


def _without(tenant: str, url: str) -> str:
    """The address with a mark where it names the tenant."""
    address = urlsplit(url)
    segments = (_TENANT if segment.lower() == tenant.lower() else segment for segment in address.path.split("/"))
    return address._replace(path="/".join(segments)).geturl()
