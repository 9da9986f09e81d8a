"""What every page knows."""

from django.conf import settings
from django.http import HttpRequest


def panel(_request: HttpRequest) -> dict[str, object]:
    return {"sandbox": bool(settings.CPV_SANDBOX_URL), "vendor_name": settings.CPV_VENDOR_NAME}
