from django.db import migrations

AUDIT = ("tokens_auditevent", "tokens_auditlink", "tokens_auditanchor")
WITNESS = "tokens_auditwitness"
FORWARD = """
CREATE FUNCTION cpv_forward_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id <> OLD.id OR NEW.number <= OLD.number THEN
        RAISE EXCEPTION 'what was sealed last goes on and never back: % of % refused', TG_OP, TG_TABLE_NAME;
    END IF;
    RETURN NEW;
END $$
"""


def close(apps, schema_editor):
    """Refuse to empty what is append-only, which no trigger of rows sees; and to take the witness away or back."""
    if schema_editor.connection.vendor != "postgresql":
        return
    for table in (*AUDIT, WITNESS):
        schema_editor.execute(
            f"CREATE TRIGGER never_emptied BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION cpv_append_only()"
        )
    schema_editor.execute(FORWARD, params=None)  # its percent signs are its own
    schema_editor.execute(
        f"CREATE TRIGGER append_only BEFORE DELETE ON {WITNESS} FOR EACH ROW EXECUTE FUNCTION cpv_append_only()"
    )
    schema_editor.execute(
        f"CREATE TRIGGER forward_only BEFORE UPDATE ON {WITNESS} FOR EACH ROW EXECUTE FUNCTION cpv_forward_only()"
    )


def open_again(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    schema_editor.execute(f"DROP TRIGGER forward_only ON {WITNESS}")
    schema_editor.execute(f"DROP TRIGGER append_only ON {WITNESS}")
    schema_editor.execute("DROP FUNCTION cpv_forward_only()")
    for table in (*AUDIT, WITNESS):
        schema_editor.execute(f"DROP TRIGGER never_emptied ON {table}")


class Migration(migrations.Migration):
    dependencies = [("tokens", "0016_audit_witness")]

    operations = [migrations.RunPython(close, open_again, elidable=False)]
