"""What can be made to go wrong, for whom and how often."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

SERVICES = ("entra", "graph", "partnercenter", "vault")
ANYWHERE = {
    "html": "200 with a web page instead of data (a captive portal, a login page)",
    "truncated": "JSON that ends in the middle",
    "cut": "the connection breaks in the middle of the answer",
    "drip": "the answer comes in small pieces, over `seconds`",
    "bom": "a byte order mark in front of the JSON",
    "too-many-bytes": "the JSON is followed by blanks, `size` bytes in all (64 MiB)",
    "throttled": "429 with Retry-After",
    "throttled-silent": "429 without Retry-After",
    "500": "500 from the service",
    "502": "502 from a gateway",
    "503": "503 from the service",
    "504": "504 from a gateway; nothing happens",
    "400": "400, the request is called wrong",
    "404": "404, what was asked for is not there",
    "unauthorized": "401",
    "forbidden": "403",
    "slow": "the answer comes `seconds` later",
    "timeout-before": "nothing happens and no answer comes",
    "timeout-after": "it happens, but no answer comes",
    "down": "the connection breaks at once, nothing happens",
    "lost": "it happens, but the connection breaks before the answer",
    "504-after": "it happens, but a gateway in between answers 504",
}
VAULT_ONLY = {"disabled": "403 Forbidden with the inner code SecretDisabled"}
APIS_ONLY = {
    "claims": "401 with a claims challenge, until the token was asked for with these claims",
    "claims-again": "401 with a claims challenge, whatever the token",
}
# What can be wrong with a page of a list; the list itself stays what it is.
PAGES = {
    "foreign-next": "the next link points to another host",
    "cyclic-next": "the next link leads to the same page again",
    "circle-next": "the last page leads to the first again, each time by another token",
    "endless-next": "behind the last customer come invented ones, for ever",
    "v1-next": "the next link carries the /v1 prefix",
    "duplicates": "each page repeats its first ten customers",
    "other-tenant": "the page is another partner's",
    "empty-page": "a page without items, and a next link to where it stood",
    "too-many-items": "the page has ten times as many items as were asked for",
    "wrong-total": "totalCount is one more than there are",
    "no-items": "JSON that is not a list",
    "holes": "each seventh customer has an id and nothing else",
    "inserted": "a customer came in before: the next page repeats the last one of this",
    "removed": "a customer went before: the next page begins one too late, and that one is never seen",
    "moved": "the first customer of the page moved to where the caller has been already",
    "cursor-rejected": "400 for every continuation token",
}
OF_GRAPH = (
    "foreign-next", "cyclic-next", "circle-next", "cursor-rejected", "duplicates", "other-tenant", "no-items", "holes",
)  # fmt: skip
GRAPH_PAGES = {kind: PAGES[kind] for kind in OF_GRAPH}
PARTNER_CENTER_ONLY = {"mfa": "401 with code 900421"} | PAGES
# What a fault of one operation may name: what is done to a secret, or the grant of a token request. Asking a vault
# without a bearer is no operation yet: the Azure SDK does so first, without a body, to be told where to sign in.
OPERATIONS = {
    "vault": ("get", "set", "update"),
    "entra": ("authorization_code", "refresh_token", "client_credentials"),
    "partnercenter": ("first", "next"),  # a request without a continuation token, or with one
}
_AADSTS = re.compile(r"AADSTS(\d{4,8})")


@dataclass
class Fault:
    """
    One thing that goes wrong. `times` counts down; None is for ever. `path` is a part of the request's path.

    The first `after` requests that fit pass. `size` is in bytes.
    """

    service: str
    kind: str
    tenant: str | None = None
    times: int | None = None
    path: str | None = None
    method: str | None = None
    retry_after: int = 30
    seconds: float = 5.0
    operation: str | None = None
    suberror: str | None = None
    after: int = 0
    size: int | None = None

    def __post_init__(self) -> None:
        if self.service not in SERVICES:
            raise ValueError(f"no such service: {self.service}; there are {', '.join(SERVICES)}")
        self.kind = self.kind.replace("_", "-")
        own = {"partnercenter": PARTNER_CENTER_ONLY | APIS_ONLY, "vault": VAULT_ONLY, "graph": APIS_ONLY | GRAPH_PAGES}
        known = self.kind in ANYWHERE or self.kind in own.get(self.service, {})
        if not known and not (self.service == "entra" and _AADSTS.fullmatch(self.kind)):
            raise ValueError(f"{self.service} knows no fault {self.kind!r}")
        operations = OPERATIONS.get(self.service, ())
        if self.operation is not None and self.operation not in operations:
            raise ValueError(f"{self.service} knows no operation {self.operation!r}: {', '.join(operations)}")
        self.tenant = self.tenant.lower() if self.tenant else None

    @property
    def aadsts(self) -> int | None:
        """The number of an Entra error such as AADSTS50076."""
        found = _AADSTS.fullmatch(self.kind)
        return int(found[1]) if found else None

    def fits(self, service: str, tenant: str | None, path: str, method: str, operation: str | None = None) -> bool:
        return (
            self.service == service
            and self.times != 0
            and self.tenant in (None, tenant)
            and (self.path is None or self.path in path)
            and self.method in (None, method)
            and self.operation in (None, operation)
        )

    def as_row(self) -> dict[str, Any]:
        return asdict(self)
