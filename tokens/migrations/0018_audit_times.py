from django.db import migrations

STAMP = """
CREATE FUNCTION cpv_at_is_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.at := clock_timestamp();
    RETURN NEW;
END $$
"""


def stamp(apps, schema_editor):
    """
    Have the database say when a line of the audit was written, whatever whoever writes it says.

    A line of long ago would never be sealed, and could never be taken out: the audit would not be intact for good.
    """
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(STAMP, params=None)
        schema_editor.execute(
            "CREATE TRIGGER at_is_now BEFORE INSERT ON tokens_auditevent FOR EACH ROW EXECUTE FUNCTION cpv_at_is_now()"
        )


def believe(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP TRIGGER at_is_now ON tokens_auditevent")
        schema_editor.execute("DROP FUNCTION cpv_at_is_now()")


class Migration(migrations.Migration):
    dependencies = [("tokens", "0017_audit_guards")]

    operations = [migrations.RunPython(stamp, believe, elidable=False)]
