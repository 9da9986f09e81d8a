"""
Within one partner's rows its people, and the staff who asked to look, can be read; their passwords' hashes cannot.

Run it with the release whose code does not ask for them there: an older process would be refused.
"""

from django.db import migrations

READ = (
    "id, last_login, is_superuser, username, cloud, tid, oid, upn, name, is_staff, staff_role, is_active, valid_until,"
    " created_at"
)


def close(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("REVOKE SELECT ON partners_user FROM cpv_tenant")
        schema_editor.execute(f"GRANT SELECT ({READ}) ON partners_user TO cpv_tenant")


def open_again(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("GRANT SELECT ON partners_user TO cpv_tenant")


class Migration(migrations.Migration):
    dependencies = [("partners", "0017_what_searches_at_the_desk_ask")]

    operations = [migrations.RunPython(close, open_again, elidable=False)]
