"""Answers that belong to no room: health, forms that expired, addresses that do not exist."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache

from partners.models import Pulse
from tokens import outside

PULSE_WITHIN = 60.0  # seconds; a tick comes every two


@never_cache
@login_not_required
def healthz(_request: HttpRequest) -> HttpResponse:
    """The process answers; nothing else is looked at."""
    return JsonResponse({"status": "ok"})


@never_cache
@login_not_required
def readyz(_request: HttpRequest) -> HttpResponse:
    """
    503 only for a database that does not answer or lacks migrations.

    The message broker is judged by what came through it to a worker, the vault by this process's last call.
    """
    vault = outside.vault_standing()
    try:
        executor = MigrationExecutor(connection)
        pending = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
        broker = "unknown" if pending else _broker()
    except DatabaseError:
        unknown = {"migrations": "unknown", "broker": "unknown", "vault": vault}
        return JsonResponse({"database": "unreachable", **unknown}, status=503)
    migrations = f"{pending} not applied" if pending else "ok"
    state = {"database": "ok", "migrations": migrations, "broker": broker, "vault": vault}
    return JsonResponse(state, status=503 if pending else 200)


def _broker() -> str:
    silent_for = Pulse.silent_for()
    if silent_for is None:
        return "no tick yet"
    return "ok" if silent_for < PULSE_WITHIN else f"no tick for {silent_for:.0f} s"


def form_expired(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form was sent without its CSRF token: an old tab, cookies refused, or another site."""
    return render(request, "form_expired.html", status=403)


PLAIN = {
    400: (
        "This request is not one we understand",
        "Something in it does not fit. Nothing was changed.",
        "Go back to the page before, load it again and try once more.",
    ),
    405: (
        "That is not how this address is used",
        "It takes another kind of request, such as a form of ours. Nothing was changed.",
        "Start from the page that leads here.",
    ),
    413: (
        "That is too much at once",
        "The form is larger than we take. Nothing was changed.",
        "Shorten what you wrote, and send it again.",
    ),
    429: (
        "Too many tries just now",
        "So many came from where you are, or from everybody together, that we stopped looking. Nothing was changed.",
        "Wait a minute, and try again.",
    ),
    500: (
        "Something went wrong on our side",
        "It is noted, with what we need to repair it. Runs go on.",
        "We act. Try again in a few minutes; if it stays, tell the vendor what you did and when.",
    ),
}
"""By status: title, why, and what to do, on a page that asks neither database nor session."""


def plain_page(status: int) -> HttpResponse:
    title, why, action = PLAIN[status]
    page = render_to_string("plain.html", {"title": title, "why": why, "action": action})
    return HttpResponse(page, status=status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return plain_page(400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return render(request, "403.html", status=403)


def server_error(request: HttpRequest) -> HttpResponse:
    return plain_page(500)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """One page for an address that does not exist and for one that is not yours."""
    return render(request, "404.html", status=404)
