"""A client for thousands of requests: without the record of templates and contexts that Django's own keeps of each."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.test import Client
from django.test.client import ClientHandler
from django.test.utils import override_settings


@cache
def handler() -> ClientHandler:
    """The product with all its middleware, loaded once; as in production, not every request is a search for a file."""
    made = ClientHandler(enforce_csrf_checks=False)
    with override_settings(WHITENOISE_AUTOREFRESH=False, WHITENOISE_USE_FINDERS=False, STATIC_ROOT="static"):
        made.load_middleware()
    return made


class PlainClient(Client):
    """An error of ours is its answer, 500, and is not raised."""

    def request(self, **request: Any) -> Any:
        answer = handler()(self._base_environ(**request))
        if answer.cookies:
            self.cookies.update(answer.cookies)
        return answer
