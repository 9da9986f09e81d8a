"""What is turned away before anything is read, asked or computed: too much, and too often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control

from cpvpanel import ratelimits
from cpvpanel.views import plain_page


class FrontDoor:
    """Stands before sessions, so that what is turned away costs no query."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        length = request.META.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return plain_page(413)
        response = self.get_response(request)
        if response.status_code == 405 and not response.content:
            page = plain_page(405)
            page["Allow"] = response["Allow"]
            return page
        return response


class TurnedAway:
    """
    Counts who comes how often. It stands behind the look at the form's token, and before whoever is known.

    A form of another site takes nothing of anybody's share, or any visitor of that site could be used to shut ours.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponse | None:
        match = request.resolver_match
        seconds = ratelimits.refused_for(request, match.view_name if match else "")
        if not seconds:
            return None
        page = plain_page(429)
        page["Retry-After"] = str(seconds)
        patch_cache_control(page, no_store=True)
        return page
