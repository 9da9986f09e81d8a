"""Settings of the assembly that do not fit together; those of the strong-room are in `tokens.checks`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

PORTAL = "portal"  # the tag of what a worker has no use for
CONTEXT = re.compile(r"c([1-9]|[1-9][0-9])")
TENANT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
MOST_PROXIES = 5


@register()
def settings_fit(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    return list(_found())


def _found() -> Iterator[CheckMessage]:
    for name in ("CPV_SIGN_IN_CONTEXT", "CPV_STAFF_CONTEXT"):
        context = getattr(settings, name)
        if context and not CONTEXT.fullmatch(context):
            hint = "the id of an authentication context, c1 to c99, or nothing"
            yield Error(f"{name} is {context!r}", hint=hint, id="cpvpanel.E001")
    if settings.CPV_STAFF_ENTRA:
        yield from _staff_by_entra()
    if not 0 <= settings.CPV_TRUSTED_PROXIES <= MOST_PROXIES:
        hint = "how many proxies of yours stand before the portal, each of which adds to X-Forwarded-For"
        yield Error("CPV_TRUSTED_PROXIES is out of bounds", hint=hint, id="cpvpanel.E003")


@register(PORTAL)
def rates_fit(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    import limits  # here, as a worker needs none of it

    found: list[CheckMessage] = []
    for name in ("CPV_RATE_PER_ADDRESS", "CPV_RATE_OVERALL"):
        try:
            limits.parse(getattr(settings, name))
        except ValueError:
            hint = "such as 60/minute"
            found.append(Error(f"{name} is {getattr(settings, name)!r}", hint=hint, id="cpvpanel.E002"))
    return found


def _staff_by_entra() -> Iterator[CheckMessage]:
    app = settings.CPV_APPS.get(settings.CPV_STAFF_CLOUD)
    if app is None:
        hint = f"the cloud of the vendor's own tenant: one of {', '.join(settings.CPV_APPS)}"
        yield Error(f"CPV_STAFF_CLOUD is {settings.CPV_STAFF_CLOUD!r}", hint=hint, id="cpvpanel.E004")
        return
    suffix = settings.CPV_CLOUD_SUFFIXES[settings.CPV_STAFF_CLOUD]
    if not app["app_id"]:
        hint = f"set CPV_APP_ID{suffix}, or unset CPV_STAFF_ENTRA"
        yield Error("CPV_STAFF_ENTRA is on, and there is no application for it", hint=hint, id="cpvpanel.E005")
    if not TENANT.fullmatch(app["tenant_id"]):
        hint = f"set CPV_TENANT_ID{suffix} to the id of the vendor's own tenant, and not to a domain"
        yield Error("CPV_STAFF_ENTRA is on, and no id says whose people come in", hint=hint, id="cpvpanel.E006")


def serious(found: Iterable[CheckMessage]) -> str:
    """What must not be started with, in lines; empty where all is well."""
    return "\n".join(str(one) for one in found if one.is_serious() and not one.is_silenced())


@register(deploy=True)
def how_staff_show_mfa(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    """What `check --deploy` adds about staff who come in with Microsoft."""
    if not settings.CPV_STAFF_ENTRA or settings.CPV_STAFF_CONTEXT:
        return []
    hint = "set CPV_STAFF_CONTEXT: Microsoft's id_tokens do not say by themselves how somebody signed in"
    return [Warning("staff can show no MFA at Microsoft", hint=hint, id="cpvpanel.W004")]


@register(deploy=True)
def fit_for_production(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    """What `check --deploy` adds."""
    from cpvpanel import counting  # here, as a worker needs none of it

    if settings.CPV_REHEARSAL:
        return []
    found: list[CheckMessage] = []
    if not counting.shared_counter(settings.CPV_CACHE_URL):
        hint = "set CACHE_URL to a Redis server, or each process of the portal allows as much as all should together"
        found.append(Warning("requests are counted by each process alone", hint=hint, id="cpvpanel.W001"))
    if settings.HTTPS and not settings.CPV_TRUSTED_PROXIES:
        hint = "set CPV_TRUSTED_PROXIES to how many proxies of yours stand before the portal; else all count as one"
        found.append(Warning("whoever comes through a proxy has its address", hint=hint, id="cpvpanel.W002"))
    if not settings.CPV_ALARM_MAIL:
        hint = "set CPV_ALARM_MAIL to whoever has to know at once; else the alarm is only in the log and at the desk"
        text = "nobody is mailed what cannot wait: a use of the account for emergencies, a change of the audit"
        found.append(Warning(text, hint=hint, id="cpvpanel.W003"))
    return found
