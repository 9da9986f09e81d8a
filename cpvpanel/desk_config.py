"""Which site Django's admin is, and how passkeys start; apart, as this is read before there are any models."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks
from django_otp_webauthn.apps import OtpWebauthnConfig


def check_desk(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[checks.CheckMessage]:
    """Django's own check of the admin, whose pages the addresses load."""
    from cpvpanel import urls  # noqa: F401

    return check_admin_app(app_configs, **options)


class DeskConfig(SimpleAdminConfig):
    """The pages come with the addresses (cpvpanel/urls.py): a worker shows none, and holds none."""

    default_site = "cpvpanel.desk.Desk"

    def ready(self) -> None:
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(check_desk, checks.Tags.admin)


class PasskeysConfig(OtpWebauthnConfig):  # type: ignore[misc] # the library has no types
    """Its own checks would end the start on an address that browsers allow no passkeys on; such a desk has codes."""

    def ready(self) -> None:
        pass
