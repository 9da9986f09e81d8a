"""Settings of the assembly that do not fit together; those of the strong-room are in `tokens.checks`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import limits
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from cpvpanel import ratelimits

CONTEXT = re.compile(r"c([1-9]|[1-9][0-9])")
MOST_PROXIES = 5


@register()
def settings_fit(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    return list(_found())


def _found() -> Iterator[CheckMessage]:
    if settings.CPV_SIGN_IN_CONTEXT and not CONTEXT.fullmatch(settings.CPV_SIGN_IN_CONTEXT):
        hint = "the id of an authentication context, c1 to c99, or nothing"
        yield Error(f"CPV_SIGN_IN_CONTEXT is {settings.CPV_SIGN_IN_CONTEXT!r}", hint=hint, id="cpvpanel.E001")
    for name in ("CPV_RATE_PER_ADDRESS", "CPV_RATE_OVERALL"):
        try:
            limits.parse(getattr(settings, name))
        except ValueError:
            hint = "such as 60/minute"
            yield Error(f"{name} is {getattr(settings, name)!r}", hint=hint, id="cpvpanel.E002")
    if not 0 <= settings.CPV_TRUSTED_PROXIES <= MOST_PROXIES:
        hint = "how many proxies of yours stand before the portal, each of which adds to X-Forwarded-For"
        yield Error("CPV_TRUSTED_PROXIES is out of bounds", hint=hint, id="cpvpanel.E003")


@register(deploy=True)
def fit_for_production(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    """What `check --deploy` adds."""
    if settings.CPV_REHEARSAL:
        return []
    found: list[CheckMessage] = []
    if not ratelimits.shared_counter(settings.CPV_CACHE_URL):
        hint = "set CACHE_URL to a Redis server, or each process of the portal allows as much as all should together"
        found.append(Warning("requests are counted by each process alone", hint=hint, id="cpvpanel.W001"))
    if settings.HTTPS and not settings.CPV_TRUSTED_PROXIES:
        hint = "set CPV_TRUSTED_PROXIES to how many proxies of yours stand before the portal; else all count as one"
        found.append(Warning("whoever comes through a proxy has its address", hint=hint, id="cpvpanel.W002"))
    if not settings.CPV_ALARM_MAIL:
        hint = "set CPV_ALARM_MAIL to whoever has to know at once; else the alarm is only in the log and at the desk"
        found.append(Warning("nobody is told that the account for emergencies was used", hint=hint, id="cpvpanel.W003"))
    return found
