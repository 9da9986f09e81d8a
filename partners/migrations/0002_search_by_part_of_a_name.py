"""
Trigram indexes for the search in the list of customers; PostgreSQL only.

Without them a search that finds little reads every customer of the partner. `pg_trgm` comes with PostgreSQL and needs
no superuser, only the right to create in the database; managed servers may want it on a list of theirs first.
"""

from django.db import migrations

COLUMNS = ("name_key", "domain")


def add(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        for column in COLUMNS:
            schema_editor.execute(
                f"CREATE INDEX customer_{column}_part ON partners_customer USING gin ({column} gin_trgm_ops)"
            )


def remove(apps, schema_editor):
    """The extension stays: somebody else may use it."""
    if schema_editor.connection.vendor == "postgresql":
        for column in COLUMNS:
            schema_editor.execute(f"DROP INDEX IF EXISTS customer_{column}_part")


class Migration(migrations.Migration):
    dependencies = [("partners", "0001_initial")]
    operations = [migrations.RunPython(add, remove, elidable=False)]
