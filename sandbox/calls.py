"""What came in and what was handed out: the two lists that tests read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

# Headers that are or may hold a secret never enter the list of calls.
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "x-identity-header"})
KEEP_CALLS = 20_000


class Secret(NamedTuple):
    """A secret string that passed through this world; canary scans look for `value`."""

    kind: str
    value: str


@dataclass
class Call:
    """One request. `tenant` is whose data or token it was about, `audience` what its bearer was for."""

    at: float
    service: str
    method: str
    host: str
    path: str
    query: str
    status: int = 0
    tenant: str | None = None
    client: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    has_bearer: bool = False
    audience: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None
    number: int = 0

    def as_row(self) -> dict[str, Any]:
        return asdict(self)
