"""Empties the tables between two tests, without laying anew what migrations laid: kinds of content, rights, grants."""

from __future__ import annotations

from typing import Any

from django.core.management.commands.flush import Command as Flush
from django.db import connections, transaction

STAY = {"django_content_type", "auth_permission", "django_migrations"}
LARGE = 2**20  # bytes; beyond that a table is cut off as a whole, so that nobody looks through what is dead


class Command(Flush):
    def handle(self, **options: Any) -> None:
        connection = connections[options["database"]]
        tables = sorted(set(connection.introspection.table_names()) - STAY)
        deletions = [f"DELETE FROM {connection.ops.quote_name(table)}" for table in tables]  # noqa: S608 - names of ours
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(
                    "SELECT relname FROM pg_class WHERE relname = ANY(%s) AND pg_relation_size(oid) > %s",
                    [tables, LARGE],
                )
                large = [name for (name,) in cursor.fetchall()]
                cursor.execute("SET LOCAL session_replication_role = replica")  # no keys are checked, no triggers run
                if large:
                    cursor.execute(f"TRUNCATE {', '.join(large)} CASCADE")
                cursor.execute("; ".join(deletions))
            else:
                for deletion in deletions:
                    cursor.execute(deletion)
