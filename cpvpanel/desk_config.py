"""Which site Django's admin is, and how passkeys start; apart, as this is read before there are any models."""

from django.contrib.admin.apps import AdminConfig
from django_otp_webauthn.apps import OtpWebauthnConfig


class DeskConfig(AdminConfig):
    default_site = "cpvpanel.desk.Desk"


class PasskeysConfig(OtpWebauthnConfig):  # type: ignore[misc] # the library has no types
    """Its own checks would end the start on an address that browsers allow no passkeys on; such a desk has codes."""

    def ready(self) -> None:
        pass
