"""
The outside as this very process may see it: network, Entra, vault and keyring, built from settings.

Built once and on first use, so that they come into being after a worker has forked.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connections
from django.utils.module_loading import import_string

from tokens import permissions
from tokens.clouds import CLOUDS, cloud_named
from tokens.entra import AppRegistration, Entra
from tokens.envelope import Keyring
from tokens.http import Network
from tokens.permissions import Permission
from tokens.secret import Secret
from tokens.vault import Vault, VaultIdentity, federated_assertion

SYSTEM_CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class NetworkInTransaction(RuntimeError):
    """A request was about to leave while a database transaction was open: locks would be held for its length."""


def refuse_inside_transactions() -> None:
    """Raise when a connection of this thread is inside `atomic()`; what a test case wraps around itself is fine."""
    for connection in connections.all(initialized_only=True):
        if any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
            raise NetworkInTransaction(
                "end the transaction before a request leaves (name first, vault second, pin third)"
            )


def give_back_connections() -> None:
    """
    Return this thread's database connections to the pool: a request takes a while, and others have use for them.

    What a transaction holds stays, and so does a connection that belongs to no pool: opening it anew would cost more.
    """
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["OPTIONS"].get("pool") and not connection.in_atomic_block:
            connection.close()


@contextmanager
def without_a_connection(lock: threading.Lock) -> Iterator[None]:
    """
    Hold a lock under which the database is asked; while it is somebody else's, wait without a connection.

    Whoever has it may wait for one, and those who wait for the lock could have them all.
    """
    if not lock.acquire(blocking=False):
        give_back_connections()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def before_each_request() -> None:
    """What each request through the door has to pass."""
    if settings.CPV_GUARD_TRANSACTIONS:
        refuse_inside_transactions()
    give_back_connections()


@functools.cache
def network(cloud: str) -> Network:
    """The door to one cloud: whatever would leave through it for a host of another is refused."""
    adapter = None
    if settings.CPV_SANDBOX_URL:
        adapter = import_string(settings.CPV_SANDBOX_ADAPTER)(settings.CPV_SANDBOX_URL)
    verify: str | bool = next((bundle for bundle in SYSTEM_CA_BUNDLES if Path(bundle).exists()), True)
    return Network(clouds=[cloud_named(cloud)], adapter=adapter, verify=verify, before_send=before_each_request)


@functools.cache
def entra(cloud: str) -> Entra:
    """The identity service of a cloud, spoken to as the vendor's application there."""
    return entra_as(cloud, app_registration(cloud))


def entra_as(cloud: str, app: AppRegistration) -> Entra:
    """The same, spoken to with a proof of the caller's choice."""
    stand_in = urlsplit(settings.CPV_SANDBOX_PUBLIC_URL).netloc
    return Entra(
        network=network(cloud),
        cloud=cloud_named(cloud),
        app=app,
        authorization_hosts=frozenset({stand_in}) if settings.CPV_SANDBOX_URL else None,
    )


def app_registration(cloud: str) -> AppRegistration:
    """
    The vendor's application in a cloud, as the settings have it.

    :raises ValueError: no proof, or a certificate that cannot work
    """
    app = settings.CPV_APPS[cloud]
    return AppRegistration(
        client_id=app["app_id"],
        secret=_secret(app["secret"]),
        certificate_pem=_secret(app["certificate"]),
        next_certificate_pem=_secret(app["next_certificate"]),
        assertion=_assertion(cloud) if app["federated"] else None,
    )


def _assertion(cloud: str) -> Callable[[], str]:
    return federated_assertion(cloud_named(cloud), client_id=settings.CPV_APPS[cloud]["federated_client_id"])


def _secret(text: str) -> Secret | None:
    return Secret(text) if text else None


@functools.cache
def vault(cloud: str) -> Vault:
    """The vault of a cloud, with this process's own identity."""
    config = settings.CPV_VAULTS[cloud]
    return Vault(
        network=network(cloud),
        cloud=cloud_named(cloud),
        url=config["url"],
        identity=VaultIdentity(
            tenant_id=config["tenant_id"],
            client_id=config["client_id"],
            secret=_secret(config["secret"]),
            certificate_pem=_secret(config["certificate"]),
        ),
    )


def vault_standing() -> str:
    """How this process's last call to a vault ended: "ok", "unreachable" or "not used yet"; the worst of all clouds."""
    found = {vault(cloud).standing for cloud in CLOUDS if is_configured(cloud)}
    return next((word for word in ("unreachable", "ok") if word in found), "not used yet")


@functools.cache
def keyring() -> Keyring:
    return Keyring.parse(settings.CPV_TOKEN_KEYS)


def asked_permissions() -> tuple[Permission, ...]:
    return tuple(permissions.asked(settings.CPV_PERMISSIONS))


def is_configured(cloud: str) -> bool:
    """Whether the vendor is set up in this cloud; otherwise nobody is invited there."""
    return not lacking(cloud)


def lacking(cloud: str) -> list[str]:
    """The settings without which nobody can connect in this cloud, and that are not there."""
    app, suffix = settings.CPV_APPS[cloud], settings.CPV_CLOUD_SUFFIXES[cloud]
    needed = {
        "CPV_TENANT_ID": app["tenant_id"],
        "CPV_APP_ID": app["app_id"],
        "CPV_APP_CERTIFICATE": app["certificate"] or app["federated"] or app["secret"],
        "KEY_VAULT_URL": settings.CPV_VAULTS[cloud]["url"],
    }
    return [f"{name}{suffix}" for name, value in needed.items() if not value]


def forget() -> None:
    """Build everything anew on next use; for tests that change settings or the world."""
    for built in (network, entra, vault, keyring):
        built.cache_clear()
