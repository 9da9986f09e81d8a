"""
What an error report may show: where it happened. Never a value, because values are where tokens and codes are.

Django's own reports mask by name: a code in the address, the message broker's password inside a URL and every local
variable of a frame would stand there in the clear, in the debug page and in a mail to administrators alike.
"""

from __future__ import annotations

from collections.abc import ItemsView, Mapping
from types import FrameType
from typing import Any

from django.http import HttpRequest, QueryDict
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from cpvpanel.logs import masked

SHOWN_SETTINGS = frozenset(
    {
        "ALLOWED_HOSTS", "CPV_BASE_URL", "CPV_CONSENT_ROLES", "CPV_PERMISSIONS", "CPV_REFRESH_STORE_INTERVAL",
        "CPV_REHEARSAL", "CPV_RESPONSE_MODE", "CPV_ROLE", "CPV_TURN_SECONDS", "DEBUG", "INSTALLED_APPS", "MIDDLEWARE",
        "ROOT_URLCONF", "TIME_ZONE", "USE_TZ",
    }
)  # fmt: skip
SHOWN_HEADERS = frozenset({"REQUEST_METHOD", "CONTENT_TYPE", "CONTENT_LENGTH", "SERVER_NAME", "SERVER_PORT"})
PLAIN = (bool, int, float, type(None))


class Filter(SafeExceptionReporterFilter):
    """Settings by allow-list, headers by allow-list, and of each local variable its type."""

    def get_safe_settings(self) -> dict[str, Any]:
        return {
            name: value if name in SHOWN_SETTINGS else self.cleansed_substitute
            for name, value in super().get_safe_settings().items()
        }

    def get_safe_request_meta(self, request: HttpRequest | None) -> dict[str, Any]:
        return {name: request.META[name] for name in SHOWN_HEADERS & request.META.keys()} if request else {}

    def get_safe_cookies(self, request: HttpRequest | None) -> dict[str, Any]:
        return _without_values(request.COOKIES) if request else {}

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        return _without_values(request.POST) if request else {}

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: FrameType) -> ItemsView[str, Any]:
        return {name: _described(value) for name, value in tb_frame.f_locals.items()}.items()


class Reporter(ExceptionReporter):
    """The report itself: what Django's takes from the request without asking the filter is taken away here."""

    def get_traceback_data(self) -> dict[str, Any]:
        found: dict[str, Any] = super().get_traceback_data()
        if self.request is not None:
            found["request_GET_items"] = _without_values(self.request.GET).items()
            found["request_insecure_uri"] = self.request.path
            found["request_FILES_items"] = []
        for name in ("exception_value", "exception_notes"):
            if found.get(name):
                found[name] = masked(str(found[name]))
        for frame in found.get("frames", []):
            for part in ("exc_cause", "exc_notes"):
                if frame.get(part):
                    frame[part] = masked(str(frame[part]))
        return found


class _Described:
    """Stands for a value in a report, and says only what kind of thing it was."""

    def __init__(self, value: object) -> None:
        self.kind = type(value).__name__

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def _described(value: object) -> object:
    return value if isinstance(value, PLAIN) else _Described(value)


def _without_values(given: Mapping[str, Any] | QueryDict) -> dict[str, Any]:
    return dict.fromkeys(given, Filter.cleansed_substitute)
