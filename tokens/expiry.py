"""The certificates our settings name, and which of them end soon."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.utils import timezone

from tokens import alarms
from tokens.credential import Certificate, read_certificate
from tokens.secret import Secret

AHEAD = (1, 7, 14, 30)  # days before its end at which a certificate is told of


@dataclass(frozen=True)
class Configured:
    """A certificate by the setting that holds it."""

    setting: str
    cloud: str
    certificate: Certificate

    def warning(self, now: dt.datetime) -> str:
        """Which warning is due, such as "CPV_APP_CERTIFICATE: 14 days"; empty while the end is far."""
        left = self.certificate.not_after - now
        days = next((days for days in AHEAD if left <= dt.timedelta(days=days)), 0)
        if left <= dt.timedelta():
            return f"{self.setting}: ended"
        return f"{self.setting}: {days} day{'' if days == 1 else 's'}" if days else ""


def pems() -> Iterator[tuple[str, str, Secret]]:
    """Setting, cloud and text of each certificate this process was given, whether it can be read or not."""
    for cloud, suffix in settings.CPV_CLOUD_SUFFIXES.items():
        app, vault = settings.CPV_APPS.get(cloud, {}), settings.CPV_VAULTS.get(cloud, {})
        given = {
            "CPV_APP_CERTIFICATE": app.get("certificate"),
            "CPV_APP_CERTIFICATE_NEXT": app.get("next_certificate"),
            "KEY_VAULT_CERTIFICATE": vault.get("certificate"),
        }
        yield from ((f"{name}{suffix}", cloud, Secret(text)) for name, text in given.items() if text)


def configured() -> list[Configured]:
    """
    Every certificate of this process, the one that ends first first.

    :raises ValueError: one of them cannot work; the start has refused it already
    """
    found = [Configured(setting, cloud, read_certificate(pem)) for setting, cloud, pem in pems()]
    return sorted(found, key=lambda one: one.certificate.not_after)


def watch() -> None:
    """Keep one alarm for each cloud in which certificates end soon: it names all of them, the next to end first."""
    now, found = timezone.now(), configured()
    for cloud in settings.CPV_CLOUD_SUFFIXES:
        warnings = (one.warning(now) for one in found if one.cloud == cloud)
        alarms.note_expiring(cloud, "; ".join(filter(None, warnings)))
