"""Answers that belong to no room: health, forms that expired, addresses that do not exist."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
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


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """One page for an address that does not exist and for one that is not yours."""
    return render(request, "404.html", status=404)
