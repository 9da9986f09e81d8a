"""Bad combinations of settings, each found at the start and named with the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils import timezone

from tokens import expiry
from tokens.clouds import cloud_named
from tokens.credential import read_certificate
from tokens.envelope import Keyring
from tokens.faultpoints import POINTS
from tokens.permissions import SETS

ROLES = ("web", "worker", "janitor")
CONSENT_ROLES = {"admin_agent", "sales_agent"}
RESPONSE_MODES = ("query", "form_post")
MESSAGE_BROKERS = ("amqp", "amqps", "redis", "rediss")
SHORTEST_AUDIT_KEY = 32
SHORTEST_TURN, LONGEST_TURN = 1, 3600  # seconds
LEAST_GROWTH = 500  # rows: a page
LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\]|.*\.test)")


@register()
def settings_fit(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    """Everything about our own settings that would make the product wrong or unsafe."""
    return [*_values(), *_certificates(), *_stand_in(), *_outside_development()]


def _values() -> Iterator[CheckMessage]:
    try:
        Keyring.parse(settings.CPV_TOKEN_KEYS)
    except ValueError as wrong:
        yield Error(
            f"CPV_TOKEN_KEYS: {wrong}", hint="kid=base64 of 32 random bytes; several by comma", id="tokens.E001"
        )
    if settings.CPV_ROLE == "worker" and len(settings.CPV_AUDIT_KEY) < SHORTEST_AUDIT_KEY:
        hint = f"at least {SHORTEST_AUDIT_KEY} random characters, kept apart from the database"
        yield Error("CPV_AUDIT_KEY is missing or too short", hint=hint, id="tokens.E024")
    if settings.CPV_ROLE not in ROLES:
        yield Error(f"CPV_ROLE is {settings.CPV_ROLE!r}", hint=f"one of {', '.join(ROLES)}", id="tokens.E002")
    if settings.CPV_PERMISSIONS not in SETS:
        yield Error(
            f"CPV_PERMISSIONS is {settings.CPV_PERMISSIONS!r}", hint=f"one of {', '.join(SETS)}", id="tokens.E003"
        )
    if not settings.CPV_CONSENT_ROLES or not set(settings.CPV_CONSENT_ROLES) <= CONSENT_ROLES:
        hint = f"a subset of {', '.join(sorted(CONSENT_ROLES))}, not empty"
        yield Error(f"CPV_CONSENT_ROLES is {settings.CPV_CONSENT_ROLES!r}", hint=hint, id="tokens.E004")
    if settings.CPV_REFRESH_STORE_INTERVAL < 0 or settings.CPV_REFRESH_STORE_INTERVAL > 30 * 86_400:
        hint = "seconds between 0 and 30 days: a refresh token dies after 90 days without use"
        yield Error("CPV_REFRESH_STORE_INTERVAL is out of bounds", hint=hint, id="tokens.E005")
    if settings.CPV_RESPONSE_MODE not in RESPONSE_MODES:
        hint = f"one of {', '.join(RESPONSE_MODES)}"
        yield Error(f"CPV_RESPONSE_MODE is {settings.CPV_RESPONSE_MODE!r}", hint=hint, id="tokens.E013")
    if not SHORTEST_TURN <= settings.CPV_TURN_SECONDS <= LONGEST_TURN:
        hint = f"seconds between {SHORTEST_TURN} and {LONGEST_TURN}"
        yield Error("CPV_TURN_SECONDS is out of bounds", hint=hint, id="tokens.E018")
    if settings.CPV_LIST_GROWTH < LEAST_GROWTH:
        hint = f"at least {LEAST_GROWTH}, or lists that grow count as lists without end"
        yield Error("CPV_LIST_GROWTH is too small", hint=hint, id="tokens.E025")
    if settings.SENTRY_DSN and not settings.CPV_SENTRY_STARTED:
        hint = "install sentry-sdk beside the product, or unset SENTRY_DSN"
        yield Warning(
            "SENTRY_DSN is set, but sentry-sdk is not installed: no report leaves", hint=hint, id="tokens.W001"
        )
    if settings.CPV_FAULTPOINT and settings.CPV_FAULTPOINT not in POINTS:
        hint = f"one of {', '.join(POINTS)}"
        yield Error(f"CPV_FAULTPOINT is {settings.CPV_FAULTPOINT!r}", hint=hint, id="tokens.E023")
    if not any(app["app_id"] for app in settings.CPV_APPS.values()):
        yield Error("no application in any cloud", hint="set CPV_APP_ID and CPV_TENANT_ID", id="tokens.E006")


def _certificates() -> Iterator[CheckMessage]:
    """Each certificate by itself: one that cannot work stops the start, one that ends soon is told of."""
    for setting, _, pem in expiry.pems():
        try:
            found = expiry.Configured(setting, "", read_certificate(pem))
        except ValueError as wrong:
            yield Error(f"{setting}: {wrong}", hint="private key first, then its certificate", id="tokens.E019")
            continue
        if found.warning(timezone.now()):
            hint = "make a new one in time: docs/certificates.md; `manage.py rotatecredential` tries them"
            until = f"{found.certificate.not_after:%Y-%m-%d %H:%M} UTC"
            yield Warning(f"{setting} is good until {until} only", hint=hint, id="tokens.W002")
    for cloud, app in settings.CPV_APPS.items():
        if app["next_certificate"] and not (app["certificate"] or app["federated"]):
            hint = "set CPV_APP_CERTIFICATE to the one in use; the next only steps in where that is refused"
            yield Error(f"the application of {cloud} has a next certificate and no first", hint=hint, id="tokens.E020")


def _stand_in() -> Iterator[CheckMessage]:
    if not settings.CPV_SANDBOX_URL or settings.DEBUG:
        return
    if not settings.CPV_REHEARSAL:
        hint = "unset CPV_SANDBOX_URL, or rehearse with CPV_REHEARSAL=1"
        yield Error("CPV_SANDBOX_URL sends calls for Microsoft to a stand-in", hint=hint, id="tokens.E007")
    elif not LOOPBACK.fullmatch(urlsplit(settings.CPV_BASE_URL).hostname or ""):
        hint = "a rehearsal's CPV_BASE_URL is on this machine or under .test"
        yield Error("CPV_REHEARSAL is on for a public address", hint=hint, id="tokens.E008")


def _outside_development() -> Iterator[CheckMessage]:
    if settings.DEBUG:
        return
    yield from _parts()
    if settings.CPV_FAULTPOINT and not settings.CPV_REHEARSAL:
        hint = "unset it, or rehearse with CPV_REHEARSAL=1"
        yield Error("CPV_FAULTPOINT has processes die", hint=hint, id="tokens.E022")
    for cloud, app in settings.CPV_APPS.items():
        if not app["app_id"]:
            continue
        vault = settings.CPV_VAULTS[cloud]
        if not vault["url"].startswith("https://"):
            yield Error(
                f"no vault for the cloud {cloud}", hint="set KEY_VAULT_URL to its https address", id="tokens.E009"
            )
        elif not cloud_named(cloud).allows(urlsplit(vault["url"]).hostname or ""):
            hint = f"a vault of this cloud is at https://<name>.{cloud_named(cloud).vault_suffix}"
            yield Error(f"the vault of {cloud} is not in that cloud", hint=hint, id="tokens.E021")
        if vault["client_id"] and vault["client_id"] == app["app_id"]:
            hint = "one stolen key must not open both: give the vault identities of their own"
            yield Error(f"the vault identity of {cloud} is the application itself", hint=hint, id="tokens.E010")
        if (app["secret"] or vault["secret"]) and not settings.CPV_REHEARSAL:
            hint = "use a certificate: CPV_APP_CERTIFICATE, KEY_VAULT_CERTIFICATE, or a managed identity for the vault"
            yield Error(f"a client secret is set for {cloud}", hint=hint, id="tokens.E011")
        if not any(app[proof] for proof in ("secret", "certificate", "next_certificate", "federated")):
            hint = "set CPV_APP_CERTIFICATE, or CPV_APP_FEDERATED with a managed identity"
            yield Error(f"the application of {cloud} cannot prove itself", hint=hint, id="tokens.E012")


def _parts() -> Iterator[CheckMessage]:
    """Database and message broker: what is embedded is for a first look only."""
    if settings.CPV_DATABASE_EMBEDDED:
        hint = "set DATABASE_URL to a PostgreSQL server: SQLite has no walls between partners"
        yield Error("the database is SQLite", hint=hint, id="tokens.E014")
    if urlsplit(settings.CELERY_BROKER_URL).scheme not in MESSAGE_BROKERS:
        hint = f"set CELERY_BROKER_URL to one of {', '.join(MESSAGE_BROKERS)}; filequeue:// is for a first look"
        yield Error("the message broker is not fit for production", hint=hint, id="tokens.E015")
    if not settings.CPV_MESSAGES_SIGNED and not settings.CPV_REHEARSAL:
        hint = (
            "set CPV_MESSAGE_KEY, CPV_MESSAGE_CERT and CPV_MESSAGE_CERT_STORE: whoever can write there commands workers"
        )
        yield Error("messages are not signed", hint=hint, id="tokens.E016")


@register(deploy=True)
def not_in_development(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    """What `check --deploy` adds: development itself."""
    if not settings.DEBUG:
        return []
    hint = "unset DEBUG: under it the stand-in is Microsoft, and errors show the code"
    return [Error("DEBUG is on", hint=hint, id="tokens.E017")]
