"""
What the desk searches has an index: identifiers as a whole, names of partners and people by a part of them.

The indexes of parts are PostgreSQL's; `upper` is how Django asks without regard to capitals.
"""

from django.db import migrations, models

PARTS = {
    "partner_name_parts": "partners_partner USING gin (upper(name) gin_trgm_ops)",
    "user_name_parts": "partners_user USING gin"
    " (upper(username) gin_trgm_ops, upper(upn) gin_trgm_ops, upper(name) gin_trgm_ops)",
}


def add(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for name, where in PARTS.items():
            schema_editor.execute(f"CREATE INDEX {name} ON {where}")


def remove(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for name in PARTS:
            schema_editor.execute(f"DROP INDEX IF EXISTS {name}")


class Migration(migrations.Migration):
    dependencies = [("partners", "0016_change")]

    operations = [
        migrations.AddIndex("partner", models.Index(fields=["name", "id"], name="partner_by_name")),
        migrations.AddIndex("partner", models.Index(fields=["tenant_id"], name="partner_by_tenant")),
        migrations.AddIndex("run", models.Index(fields=["correlation_id"], name="run_by_correlation")),
        migrations.RunPython(add, remove, elidable=False),
    ]
