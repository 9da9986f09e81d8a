"""What lies in the pretended key vaults."""

from __future__ import annotations

import secrets
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from sandbox.directory import Clock
from sandbox.state import Store


@dataclass
class Version:
    """One version of a secret."""

    version: str
    value: str = field(repr=False)
    enabled: bool = True
    tags: dict[str, str] = field(default_factory=dict)
    content_type: str | None = None
    created: int = 0
    updated: int = 0
    nbf: int | None = None
    exp: int | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """As in a secret bundle: seconds since 1970."""
        times = {"nbf": self.nbf, "exp": self.exp, "created": self.created, "updated": self.updated}
        return {
            "enabled": self.enabled,
            **{name: value for name, value in times.items() if value is not None},
            "recoveryLevel": "Recoverable+Purgeable",
            "recoverableDays": 90,
        }


class Vault:
    """One vault. `secrets[name]` is the list of its versions, oldest first; names are case-insensitive."""

    def __init__(self, host: str, tenant_id: str, clock: Clock, store: Store) -> None:
        self.host = host
        self.tenant_id = tenant_id
        self.secrets: dict[str, list[Version]] = {}
        self._clock = clock
        self._store = store
        self._lock = threading.RLock()

    def restore(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.secrets[name] = [Version(**row) for row in rows]

    def _keep(self, name: str) -> None:
        versions = [asdict(version) for version in self.secrets[name]]
        self._store.put("secret", f"{self.host}/{name}", {"versions": versions})

    def put(self, name: str, value: str, tags: dict[str, str], content_type: str | None) -> Version:
        """Add a version."""
        now = int(self._clock())
        version = Version(secrets.token_hex(16), value, True, tags, content_type, now, now)
        with self._lock:
            self.secrets.setdefault(name.lower(), []).append(version)
            self._keep(name.lower())
        return version

    def find(self, name: str, version: str = "") -> Version | None:
        """One version, or the newest, whether it is enabled or not."""
        with self._lock:
            versions = self.secrets.get(name.lower(), [])
            if not version:
                return versions[-1] if versions else None
            return next((found for found in versions if found.version == version.lower()), None)

    def change(self, name: str, version: Version, attributes: dict[str, Any], body: dict[str, Any]) -> None:
        """Change attributes, tags or content type of a version; what is not named stays."""
        with self._lock:
            version.enabled = bool(attributes.get("enabled", version.enabled))
            version.nbf = attributes.get("nbf", version.nbf)
            version.exp = attributes.get("exp", version.exp)
            version.tags = body.get("tags") or version.tags
            version.content_type = body.get("contentType") or version.content_type
            version.updated = int(self._clock())
            self._keep(name.lower())
