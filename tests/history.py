"""The audit as a test needs it, where nobody may change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def history_open() -> Iterator[None]:
    """PostgreSQL lets nobody change lines of the audit; a superuser may say that the guards look away."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL session_replication_role = replica")
        yield
