"""Answers that belong to no room: health, forms that expired, addresses that do not exist."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache


@never_cache
@login_not_required
def healthz(_request: HttpRequest) -> HttpResponse:
    """The process answers; nothing else is looked at."""
    return JsonResponse({"status": "ok"})


@never_cache
@login_not_required
def readyz(_request: HttpRequest) -> HttpResponse:
    """503 only for a database that does not answer or lacks migrations."""
    try:
        executor = MigrationExecutor(connection)
        pending = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except DatabaseError:
        return JsonResponse({"database": "unreachable", "migrations": "unknown"}, status=503)
    state = {"database": "ok", "migrations": f"{pending} not applied" if pending else "ok"}
    return JsonResponse(state, status=503 if pending else 200)


def form_expired(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form was sent without its CSRF token: an old tab, cookies refused, or another site."""
    return render(request, "form_expired.html", status=403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """One page for an address that does not exist and for one that is not yours."""
    return render(request, "404.html", status=404)
