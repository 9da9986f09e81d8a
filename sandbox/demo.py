"""The world of `make run`: a vendor, three partners, and people of every kind. Every secret here is a pretended one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.directory import Tenant
from sandbox.world import World

VENDOR_TENANT_ID = "0d5a7c9e-4b1f-4c63-9a2e-71c0de000001"
APP_ID = "0d5a7c9e-4b1f-4c63-9a2e-71c0de0000a1"
APP_SECRET = "pretended-app-secret"  # noqa: S105 - opens nothing but this stand-in
VAULT_URL = "https://cpv-demo.vault.azure.net"
VAULT_CLIENT_ID = "0d5a7c9e-4b1f-4c63-9a2e-71c0de0000b0"
VAULT_CLIENT_SECRET = "pretended-vault-secret"  # noqa: S105 - opens nothing but this stand-in
VAULT_WEB_CLIENT_ID = "0d5a7c9e-4b1f-4c63-9a2e-71c0de0000b1"
VAULT_WEB_CLIENT_SECRET = "pretended-vault-web-secret"  # noqa: S105 - opens nothing but this stand-in
VAULT_WORKER_CLIENT_ID = "0d5a7c9e-4b1f-4c63-9a2e-71c0de0000b2"
VAULT_WORKER_CLIENT_SECRET = "pretended-vault-worker-secret"  # noqa: S105 - opens nothing but this stand-in
FABRIKAM = "fab51ca0-0000-4000-8000-000000000001"
NORTHWIND = "0a7b1d00-0000-4000-8000-000000000002"
CONTOSO = "c0470500-0000-4000-8000-000000000003"
SHORT_LIVED = 301  # seconds an access token lives: whoever renews five minutes early notices a revocation at once
CONTOSO_SECONDS_A_PAGE = 1.2  # slow enough to watch a progress bar
GLOBAL_ADMINISTRATOR = {"unifiedRoles": [{"roleDefinitionId": "62e90394-69f5-4237-9190-012177145e10"}]}
ENDING: dict[int, dict[str, Any]] = {  # delegated admin relationships that somebody has to look at
    1: {"relationships": [{"endsInDays": 9, "autoExtendDuration": "PT0S", "accessDetails": GLOBAL_ADMINISTRATOR}]},
    2: {"relationships": [{"endsInDays": 24, "autoExtendDuration": "PT0S"}, {"endsInDays": 19}]},
    3: {"relationships": []},
}


def build(world: World, env: Mapping[str, str] | None = None) -> World:
    """Fill a world. `env` may bring other ids and credentials, under the names the product's settings have."""
    env = env or {}
    vendor = env.get("CPV_TENANT_ID") or VENDOR_TENANT_ID
    _staff(world.add_tenant(vendor, "Panel Vendor"))
    world.app_registration(
        env.get("CPV_APP_ID") or APP_ID,
        secret=env.get("CPV_APP_SECRET") or APP_SECRET,
        certificates=[env[name] for name in ("CPV_APP_CERTIFICATE", "CPV_APP_CERTIFICATE_NEXT") if env.get(name)],
        tenant_id=vendor,
    )
    world.access_token_seconds = SHORT_LIVED
    _vault_identities(world, env, env.get("KEY_VAULT_TENANT_ID") or vendor)
    _partner(world, FABRIKAM, "Fabrikam", 1200)
    _partner(world, NORTHWIND, "Northwind Traders", 340)
    contoso = _partner(world, CONTOSO, "Contoso", 1200)
    contoso.latency = CONTOSO_SECONDS_A_PAGE
    contoso.add_account("guest.consultant@elsewhere.test", name="Gill Guest", groups={"AdminAgents"}, guest=True)
    contoso.add_account("pat.personal@outlook.test", name="Pat Personal", personal=True)
    return world


def _staff(tenant: Tenant) -> None:
    """The vendor's own people, for where the desk takes them from Entra: one for each role, and one without any."""
    for role in ("Admin", "Auditor", "Security", "Support"):
        upn = f"{role.lower()}@{tenant.domain}"
        tenant.add_account(upn, name=f"{role} of the Desk", app_roles={f"Desk.{role}"})
    tenant.add_account(f"nobody@{tenant.domain}", name="Nora Nobody")


def _vault_identities(world: World, env: Mapping[str, str], tenant_id: str) -> None:
    """One for everything (under DEBUG), and the two that production keeps apart."""
    own = env.get("KEY_VAULT_CLIENT_ID") or VAULT_CLIENT_ID
    secret = env.get("KEY_VAULT_CLIENT_SECRET") or VAULT_CLIENT_SECRET
    certificates = [env["KEY_VAULT_CERTIFICATE"]] if env.get("KEY_VAULT_CERTIFICATE") else []
    for client_id, client_secret, rights in (
        (VAULT_WEB_CLIENT_ID, VAULT_WEB_CLIENT_SECRET, {"set"}),
        (VAULT_WORKER_CLIENT_ID, VAULT_WORKER_CLIENT_SECRET, {"get", "set", "update"}),
    ):
        world.vault_identity(client_id, secret=client_secret, rights=rights, tenant_id=tenant_id)
    world.vault_identity(own, secret=secret, tenant_id=tenant_id, certificates=certificates)


def _partner(world: World, tenant_id: str, name: str, customers: int) -> Tenant:
    slug = name.split()[0].lower()
    domain = f"{slug}.onmicrosoft.test"
    tenant = world.add_tenant(tenant_id, name, customers=customers, domain=domain)
    tenant.customer_overrides = {index: dict(row) for index, row in ENDING.items()}
    tenant.add_account(f"svc-cpv@{domain}", name=f"{name} CPV Service Account", groups={"AdminAgents"})
    tenant.add_account(f"sales@{domain}", name="Sam Sales", groups={"SalesAgents"})
    tenant.add_account(f"helpdesk@{domain}", name="Hilda Helpdesk", groups={"HelpdeskAgents"})
    tenant.add_account(f"admin@{domain}", name="Gus Global", admin=True)
    return tenant
