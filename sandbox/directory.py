"""Who exists: tenants with their accounts, and app registrations with their credentials."""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from sandbox.clouds import CLOUDS, MSA_TENANT, Cloud
from sandbox.customers import Customers
from sandbox.drift import Drift

ALL_CLOUDS = frozenset(CLOUDS)
PARTNER_CENTER_GROUPS = frozenset({"AdminAgents", "SalesAgents"})
# What the CPV asks for unless a test says otherwise; `/.default` in an authorization request means exactly these.
STANDARD_PERMISSIONS = (
    ("partnercenter", "user_impersonation"),
    ("graph", "User.Read.All"),
    ("graph", "GroupMember.Read.All"),
    ("graph", "DelegatedAdminRelationship.ReadWrite.All"),
)
_REDIRECT_PATHS = "/connect/callback|/signin/callback|/connect/admin-consent/callback|/admin/microsoft/callback"
# Entra allows http for localhost only; testserver is Django's test client, *.test a rehearsal.
_DEFAULT_REDIRECT = re.compile(
    rf"(http://(localhost|127\.0\.0\.1)(:\d+)?|https?://testserver|https://([a-z0-9-]+\.)+test(:\d+)?)"
    rf"({_REDIRECT_PATHS})"
)


def guid(*words: object) -> str:
    """A stable GUID made of words; the same world has the same ids every time."""
    digest = hashlib.blake2b("/".join(str(word).lower() for word in words).encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


@dataclass
class Account:
    """Somebody who can sign in. `tenant_id` is the tenant that issues the tokens."""

    upn: str
    oid: str
    name: str
    tenant_id: str
    groups: set[str] = field(default_factory=set)
    personal: bool = False
    guest: bool = False
    admin: bool = False
    mfa_possible: bool = True
    disabled: bool = False
    app_roles: set[str] = field(default_factory=set)  # of the vendor's app, as this account's own tenant assigned them

    @property
    def is_agent(self) -> bool:
        """Whether Partner Center lets this account see customers."""
        return bool(self.groups & PARTNER_CENTER_GROUPS)


@dataclass
class Tenant:
    """A partner's tenant (or the vendor's own). The switches at the end are what scenarios turn."""

    id: str
    name: str
    domain: str
    cloud: Cloud
    customers: Customers
    accounts: dict[str, Account] = field(default_factory=dict)
    revoker: Callable[[Tenant, Account | None], None] = field(default=lambda tenant, account: None, repr=False)
    latency: float = 0.0
    # the tenant's circumstances
    partner_center_principal: bool = True
    admin_approval_required: bool = False
    require_mfa: bool = True
    gdap_missing: bool = False
    withheld: set[str] = field(default_factory=set)  # left out of tokens in silence
    unconsented: set[str] = field(default_factory=set)  # nobody may agree to these: asking for one is refused, 65001
    application_consents: set[str] = field(default_factory=set)
    quirks: list[str] = field(default_factory=list)  # how its Partner Center answers look; see quirks.py
    usual_count: int | None = None  # how many customers it had before `customer_count` was changed
    refresh_mode: str | None = None  # what happens to its spent refresh tokens, where it is not as everywhere

    SWITCHES = (
        "partner_center_principal",
        "admin_approval_required",
        "require_mfa",
        "gdap_missing",
        "latency",
        "quirks",
        "drift",
        "customer_count",
        "refresh_mode",
    )

    @property
    def customer_count(self) -> int:
        """How many customers it has, those that are absent or removed for now included."""
        return self.customers.count

    @customer_count.setter
    def customer_count(self, value: int) -> None:
        if value != self.customers.count:
            self.usual_count = self.usual_count or self.customers.count
        self.customers.count = value

    @property
    def drift(self) -> dict[str, Any]:
        """How its list of customers differs between reads, as a row to keep; see drift.py."""
        return self.customers.drift.as_row()

    @drift.setter
    def drift(self, row: dict[str, Any]) -> None:
        self.customers.drift = Drift(**row)

    def settle(self) -> None:
        """Its lists are whole, as long as they were, stand still and look as they usually do."""
        self.quirks, self.customers.drift = [], Drift()
        self.customers.count = self.usual_count or self.customers.count

    @property
    def customer_overrides(self) -> dict[int, dict[str, Any]]:
        """Index -> what differs: companyName, tenantId, users (how many) and more; docs/sandbox-lists.md has all."""
        return self.customers.overrides

    @customer_overrides.setter
    def customer_overrides(self, value: dict[int, dict[str, Any]]) -> None:
        self.customers.overrides = value

    def add_account(
        self,
        upn: str,
        *,
        groups: Iterable[str] = (),
        oid: str | None = None,
        name: str | None = None,
        personal: bool = False,
        guest: bool = False,
        admin: bool = False,
        mfa_possible: bool = True,
        app_roles: Iterable[str] = (),
    ) -> Account:
        """Let somebody exist in this tenant. A personal account is only offered here; its tokens are not of here."""
        account = Account(
            upn=upn,
            oid=(oid or guid(self.id, "account", upn)).lower(),
            name=name or upn.partition("@")[0].replace(".", " ").replace("-", " ").title(),
            tenant_id=MSA_TENANT if personal else self.id,
            groups=set(groups),
            personal=personal,
            guest=guest,
            admin=admin,
            mfa_possible=mfa_possible,
            app_roles=set(app_roles),
        )
        self.accounts[account.oid] = account
        return account

    def account(self, name: str) -> Account | None:
        """Look an account up by object id or sign-in name."""
        wanted = name.strip().lower()
        found = self.accounts.get(wanted)
        return found or next((a for a in self.accounts.values() if a.upn.lower() == wanted), None)

    def revoke(self, account: Account | None = None) -> None:
        """Revoke every session of the tenant or of one account: its refresh tokens answer 50173 from now on."""
        self.revoker(self, account)

    def group_id(self, group: str) -> str:
        return guid(self.id, "group", group)


@dataclass
class App:
    """An app registration or another identity that can prove who it is. `vault_rights` are its only app-only rights."""

    app_id: str
    name: str
    tenant_id: str | None = None
    secrets: set[str] = field(default_factory=set, repr=False)
    certificates: list[x509.Certificate] = field(default_factory=list, repr=False)
    federated: set[tuple[str, str]] = field(default_factory=set)  # (issuer, subject) of tokens that prove it
    clouds: frozenset[str] = ALL_CLOUDS
    redirect_uris: set[str] | None = None
    permissions: tuple[tuple[str, str], ...] = STANDARD_PERMISSIONS
    vault_rights: set[str] = field(default_factory=set)
    secret_expired: bool = False
    id_tokens_from_authorize: bool = False

    def allows_redirect(self, uri: str) -> bool:
        """Entra compares redirect addresses exactly; without a list of its own an app takes local addresses."""
        if self.redirect_uris is not None:
            return uri in self.redirect_uris
        return _DEFAULT_REDIRECT.fullmatch(uri) is not None

    def static_permissions(self, cloud: Cloud) -> set[str]:
        """The permissions of the registration as `<resource>/<name>` in one cloud."""
        return {f"{cloud.resource(service)}/{name}" for service, name in self.permissions}


def read_certificates(pems: Iterable[str | bytes]) -> list[x509.Certificate]:
    """Certificates out of PEM texts; keys in the same text are passed over."""
    found: list[x509.Certificate] = []
    for pem in pems:
        found += x509.load_pem_x509_certificates(pem.encode() if isinstance(pem, str) else pem)
    return found


Clock = Callable[[], float]
DEFAULT_CLOCK: Clock = time.time
