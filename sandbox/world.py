"""The world that is pretended: tests change it directly, the command line through the control door."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.asymmetric import rsa

from sandbox import jose
from sandbox.calls import KEEP_CALLS, Call, Secret
from sandbox.clouds import CLOUDS, MSA_TENANT, Cloud, place_of
from sandbox.customers import Customers
from sandbox.directory import (
    ALL_CLOUDS,
    DEFAULT_CLOCK,
    STANDARD_PERMISSIONS,
    Account,
    App,
    Clock,
    Tenant,
    guid,
    read_certificates,
)
from sandbox.kept import Kept
from sandbox.ledger import GRACE_SECONDS, REFRESH_MODES, Ledger
from sandbox.state import Store
from sandbox.subscriptionbook import Book
from sandbox.trouble import Trouble
from sandbox.vaultstore import Vault

VAULT_RIGHTS = frozenset({"get", "set", "update"})
ID_TOKEN_FAULTS = (
    "wrong_issuer",
    "wrong_audience",
    "wrong_nonce",
    "wrong_tenant",
    "expired",
    "not_yet_valid",
    "unsigned",
    "unknown_key",
    "forged_key",
    "hs256",
    "missing_oid",
    "missing_tid",
    "personal",
)


class World(Trouble):
    """
    Tenants, apps, vaults and what goes wrong today.

    `clock` gives seconds since 1970 and may be a test's own; `sleep` is called for latency and hanging requests.
    `usual_refresh_mode` is one of REFRESH_MODES, and what a healthy world goes back to.
    `keep_bytes` is how much memory pages may take that were served once: none, as tests measure memory too.
    """

    SWITCHES = ("refresh_mode", "grace_seconds", "clock_skew")

    def __init__(
        self,
        *,
        seed: int = 1,
        public_url: str = "http://localhost:8400",
        clock: Clock = DEFAULT_CLOCK,
        sleep: Callable[[float], None] = time.sleep,
        store: Store | None = None,
        usual_refresh_mode: str = "entra",
        keep_bytes: int = 0,
    ) -> None:
        super().__init__(store or Store())
        self.seed = seed
        self.public_url = public_url.rstrip("/")
        self.clock = clock
        self.sleep = sleep
        self.tenants: dict[str, Tenant] = {}
        self.apps: dict[str, App] = {}
        self.vaults: dict[str, Vault] = {}
        self.ledger = Ledger(self.now, self.store)
        self.calls: list[Call] = []
        self.book = Book()
        self._secrets: dict[Secret, None] = {}
        self._keys: dict[str, rsa.RSAPrivateKey] = {}
        self.kept = Kept(keep_bytes)
        self.verified: dict[str, jose.Claims] = {}  # tokens whose signature was looked at already
        self._call_count = 0
        self.remember_secrets = True
        self.hang_seconds = 30.0
        self.usual_refresh_mode = usual_refresh_mode
        self._switch_back()

    def _switch_back(self) -> None:
        """Every switch as it is in a healthy world."""
        self.latency: dict[str, float] = {"entra": 0.0, "vault": 0.0, "partnercenter": 0.0, "graph": 0.0}
        self.access_token_seconds = 3599
        self.refresh_mode = self.usual_refresh_mode
        self.grace_seconds: float = GRACE_SECONDS
        self.clock_skew = 0.0
        self.id_token_fault: str | None = None
        self.vaults_answer_anybody = False
        self.amr_in_id_tokens = False  # v2 id_tokens have none
        self.amr_in_access_tokens = True
        self.any_refresh_token_works = False  # at Entra: an invented one counts as the tenant's newest
        self.allow_foreign_accounts = False
        self.next_link_with_v1 = False
        self.token_shape = "v2"  # noqa: S105 - or "v1": the newer token endpoint answers in the older one's shape
        self.bom_before_users = True

    def now(self) -> float:
        """Seconds since 1970 as this world has them: what tokens, secrets, errors and `Date` headers go by."""
        return self.clock() + self.clock_skew

    # who exists

    def add_tenant(
        self, tenant_id: str, name: str, *, cloud: str = "global", customers: int = 0, domain: str | None = None
    ) -> Tenant:
        """Let a tenant exist; `customers` is how many Partner Center knows."""
        tenant_id = tenant_id.lower()
        slug = re.sub(r"[^a-z0-9]", "", name.lower()) or "tenant"
        tenant = Tenant(
            id=tenant_id,
            name=name,
            domain=domain or f"{slug}.onmicrosoft.test",
            cloud=CLOUDS[cloud],
            customers=Customers(self.seed, tenant_id, customers),
            revoker=self.ledger.revoke,
        )
        self.tenants[tenant_id] = tenant
        return tenant

    def app_registration(
        self,
        app_id: str,
        *,
        secret: str | None = None,
        certificates: Iterable[str | bytes] = (),
        name: str = "CPV Panel",
        tenant_id: str | None = None,
        redirect_uris: Iterable[str] | None = None,
        permissions: tuple[tuple[str, str], ...] = STANDARD_PERMISSIONS,
        clouds: Iterable[str] = ALL_CLOUDS,
    ) -> App:
        """Register the vendor's multi-tenant app, or register it anew. `permissions` are (service, name) pairs."""
        app = App(
            app_id=app_id.lower(),
            name=name,
            tenant_id=tenant_id.lower() if tenant_id else None,
            secrets={secret} if secret else set(),
            certificates=read_certificates(certificates),
            redirect_uris=set(redirect_uris) if redirect_uris is not None else None,
            permissions=permissions,
            clouds=frozenset(clouds),
        )
        return self._register(app, secret)

    def vault_identity(
        self,
        client_id: str,
        *,
        secret: str | None = None,
        rights: Iterable[str] = VAULT_RIGHTS,
        tenant_id: str,
        certificates: Iterable[str | bytes] = (),
        name: str = "vault identity",
    ) -> App:
        """Register an identity for Key Vault with some of the rights get, set and update."""
        if not set(rights) <= VAULT_RIGHTS:
            raise ValueError(f"rights are {', '.join(sorted(VAULT_RIGHTS))}")
        if tenant_id.lower() not in self.tenants:
            self.add_tenant(tenant_id, "Vendor")
        identity = App(
            app_id=client_id.lower(),
            name=name,
            tenant_id=tenant_id.lower(),
            secrets={secret} if secret else set(),
            certificates=read_certificates(certificates),
            permissions=(),
            vault_rights=set(rights),
        )
        return self._register(identity, secret)

    def _register(self, app: App, secret: str | None) -> App:
        self.apps[app.app_id] = app
        if secret:
            self.remember("client_secret", secret)
        return app

    def find_tenant(self, name: str) -> Tenant | None:
        """A tenant by id, domain or name."""
        wanted = name.strip().lower()
        found = self.tenants.get(wanted)
        return found or next((t for t in self.tenants.values() if wanted in (t.domain, t.name.lower())), None)

    def partner_of(self, customer_tenant_id: str) -> Tenant | None:
        """The partner one of whose customers this is."""
        every = self.tenants.values()
        return next((tenant for tenant in every if tenant.customers.find(customer_tenant_id)), None)

    def accounts(self, cloud: Cloud) -> list[tuple[Tenant, Account]]:
        """Everybody in a cloud, in the order they were added."""
        homes = [tenant for tenant in self.tenants.values() if tenant.cloud == cloud]
        return [(tenant, account) for tenant in homes for account in tenant.accounts.values()]

    def waiting_time(self, service: str, tenant_id: str | None, path: str) -> float:
        """Seconds that an answer takes."""
        tenant = self.tenants.get(tenant_id or "")
        own = tenant.latency if tenant and service == "partnercenter" else 0.0
        return self.latency.get(service, 0.0) + own + self.delay_of(service, tenant_id, path)

    def account_of(self, tenant_id: str, oid: str) -> Account | None:
        """The account behind a token; personal ones are found in whichever tenant offers them."""
        if tenant_id != MSA_TENANT:
            tenant = self.tenants.get(tenant_id)
            return tenant.accounts.get(oid) if tenant else None
        return next((t.accounts[oid] for t in self.tenants.values() if oid in t.accounts), None)

    def vault(self, host: str, *, tenant_id: str | None = None) -> Vault:
        """The vault of that host; it comes into being when first named, in the vault identities' tenant."""
        if place_of(host).service != "vault":
            raise ValueError(f"not a vault's host: {host}")
        home = next((app.tenant_id for app in self.apps.values() if app.vault_rights), None)
        with self.lock:
            key = place_of(host).host
            if key not in self.vaults:
                self.vaults[key] = Vault(key, (tenant_id or home or guid("vendor")).lower(), self.now, self.store)
            return self.vaults[key]

    def key(self, cloud: str) -> rsa.RSAPrivateKey:
        """The signing key of a cloud's identity service; each cloud has its own."""
        with self.lock:
            if cloud not in self._keys:
                self._keys[cloud] = jose.new_key(cloud)
                self.store.put("key", cloud, {"pem": jose.to_pem(self._keys[cloud])})
            return self._keys[cloud]

    # what became of tokens and clocks

    def refresh_tokens(self, mode: str | None, *, tenant: str | None = None, seconds: float | None = None) -> None:
        """
        What becomes of spent refresh tokens (REFRESH_MODES), everywhere or in one tenant; None: as it usually is.

        `seconds` is how long a spent one still works in the mode "grace", everywhere.
        """
        if mode is not None and mode not in REFRESH_MODES:
            raise ValueError(f"there is no mode {mode!r}; there are {', '.join(REFRESH_MODES)}")
        if seconds is not None:
            self.grace_seconds = seconds
        if tenant is None:
            self.refresh_mode = mode or self.usual_refresh_mode
        else:
            self.tenants[tenant.lower()].refresh_mode = mode
            self.save_switches(self.tenants[tenant.lower()])
        self.save_own_switches()

    def refresh_mode_of(self, tenant_id: str) -> str:
        tenant = self.tenants.get(tenant_id)
        return (tenant.refresh_mode if tenant else None) or self.refresh_mode

    def grace_of(self, tenant_id: str) -> float | None:
        """How many seconds a spent refresh token still works; None is for as long as any."""
        return {"strict": 0.0, "grace": self.grace_seconds}.get(self.refresh_mode_of(tenant_id))

    def skew_clock(self, seconds: float) -> None:
        """Let Microsoft's clocks be ahead of everybody else's by so many seconds, or behind when negative."""
        self.clock_skew = float(seconds)
        self.save_own_switches()

    def save_switches(self, tenant: Tenant) -> None:
        """Keep what a scenario changed about a tenant."""
        self.store.put("tenant", tenant.id, {name: getattr(tenant, name) for name in Tenant.SWITCHES})

    def save_own_switches(self) -> None:
        """Keep what a scenario changed for everybody."""
        self.store.put("world", "switches", {name: getattr(self, name) for name in self.SWITCHES})

    # what was seen

    def remember(self, kind: str, value: str | None) -> None:
        """Note a secret that was handed out or came in."""
        if value and self.remember_secrets:
            with self.lock:
                self._secrets[Secret(kind, value)] = None

    @property
    def issued(self) -> list[Secret]:
        """Every secret string handed out or received so far, as (kind, value)."""
        with self.lock:
            return list(self._secrets)

    def record(self, call: Call) -> None:
        with self.lock:
            self._call_count += 1
            call.number = self._call_count
            self.calls.append(call)
            if len(self.calls) > KEEP_CALLS:
                del self.calls[: KEEP_CALLS // 4]

    def calls_to(self, service: str, path: str = "", *, method: str | None = None) -> list[Call]:
        """Calls to one service whose path contains `path`."""
        with self.lock:
            calls = [call for call in self.calls if call.service == service and path in call.path]
        return [call for call in calls if method in (None, call.method)]

    # between two starts

    def restore(self) -> None:
        """Read back what an earlier process kept; call it after tenants and apps exist."""
        for cloud, row in self.store.rows("key"):
            self._keys[cloud] = jose.from_pem(row["pem"])
        self.ledger.restore()
        for place, row in self.store.rows("secret"):
            host, _, name = place.rpartition("/")
            self.vault(host).restore(name, row["versions"])
        for tenant_id, row in self.store.rows("tenant"):
            for switch in set(row) & set(Tenant.SWITCHES) if tenant_id in self.tenants else ():
                setattr(self.tenants[tenant_id], switch, row[switch])
        for _, row in self.store.rows("world"):
            for switch in set(row) & set(self.SWITCHES):
                setattr(self, switch, row[switch])
        self.restore_trouble()

    def reset(self) -> None:
        """Forget everything that happened; tenants, accounts and apps stay, every switch goes back."""
        with self.lock:
            self.store.clear()
            self.ledger.clear()
            self._keys.clear()
            self.verified.clear()
            self.clear_trouble()
            self.calls.clear()
            self.book = Book()
            self._secrets.clear()
            for vault in self.vaults.values():
                vault.secrets.clear()
            self._switch_back()
            for tenant in self.tenants.values():
                tenant.partner_center_principal, tenant.require_mfa = True, True
                tenant.admin_approval_required, tenant.gdap_missing = False, False
                tenant.refresh_mode = None
                tenant.settle()
                tenant.withheld.clear()
                tenant.unconsented.clear()
                tenant.application_consents.clear()
