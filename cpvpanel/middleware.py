"""Where every request begins, and one page for what is not there, also while developing."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse

from cpvpanel.views import not_found
from tokens import tenancy


class BeginClosed:
    """A request begins with nobody's rows open; whoever answers it says whose it needs."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with tenancy.no_scope():
            return self.get_response(request)


class OneNotFoundPage:
    """Under DEBUG Django explains a 404 with the list of addresses; the portal's visitors meet our page instead."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if settings.DEBUG and response.status_code == 404 and request.resolver_match is None:
            return not_found(request, Http404())
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """A view that found nothing, or nothing that is yours."""
        return not_found(request, exception) if isinstance(exception, Http404) else None
