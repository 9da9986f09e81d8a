"""Pages with a form that leads to Microsoft."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from csp.decorators import csp_update
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from partners.models import CLOUDS
from tokens import outside
from tokens.clouds import cloud_named

View = Callable[..., HttpResponseBase]


def _login_origins() -> list[str]:
    """Where a form may lead after its redirect: the login hosts of the clouds in use, or the stand-in's own address."""
    if settings.CPV_SANDBOX_URL:
        return [settings.CPV_SANDBOX_PUBLIC_URL]
    return [f"https://{cloud_named(name).login_host}" for name in CLOUDS if outside.is_configured(name)]


def leads_to_microsoft(view: View) -> View:
    """`form-action` also covers the redirect after a POST, so pages that lead to Microsoft name its login hosts."""

    @wraps(view)
    def widened(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return csp_update({"form-action": _login_origins()})(view)(request, *args, **kwargs)

    return widened
