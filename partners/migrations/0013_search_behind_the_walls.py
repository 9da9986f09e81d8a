"""
The search in the list of customers at the speed of its indexes, under row level security, too; PostgreSQL only.

No index is asked what might tell of rows that a policy hides, and LIKE might. So a function searches, which a role of
its own owns and executes: no login may become that role, and the function says itself whose rows it looks through. It
answers with ids; their rows are read by whoever asked, under the policies.

The index of parts has only rows that are marked for it, for it is dear to write; docs/decisions/0019 tells who marks
them. All others of the partner the function reads through.
"""

from django.db import migrations, models
from django.db.models import Q

from tokens.rls import acting_as_search
from tokens.tenancy import TENANT

# First 1,000 rows in the order of the list: what many names have is found there, and few customers are read whole.
# Each statement is planned anew, so that the planner knows the texts and how rare they are. OFFSET 0 has it fetch what
# is not indexed by the index for that: it might believe there is much, and read all customers in order instead.
FIND = """
CREATE FUNCTION cpv_search.customers(
    in_name text, in_domain text, part text, with_tenant_id uuid, after_name text, after_id bigint, most int
)
RETURNS SETOF bigint LANGUAGE plpgsql STABLE ROWS 50 SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours CONSTANT text := $sql$
        SELECT id, name_key, domain, tenant_id FROM public.partners_customer
        WHERE partner_id = NULLIF(current_setting('app.partner_id', true), '')::bigint AND removed_at IS NULL
            AND ($5 IS NULL OR (name_key, id) > ($5, $6)) $sql$;
    wanted CONSTANT text := '(name_key LIKE $1 OR (domain LIKE $2 AND strpos(domain, $3) > 0) OR tenant_id = $4)';
    walked bigint;
    found bigint[];
BEGIN
    EXECUTE 'SELECT count(*), (array_agg(id ORDER BY name_key, id) FILTER (WHERE ' || wanted || '))[1:$7] FROM ('
        || ours || ' ORDER BY name_key, id LIMIT 1000) AS nearest'
        INTO walked, found USING in_name, in_domain, part, with_tenant_id, after_name, after_id, most;
    IF walked < 1000 OR cardinality(found) >= most THEN
        RETURN QUERY SELECT unnest(found);
    ELSE
        RETURN QUERY EXECUTE 'SELECT id FROM ((' || ours || ' AND is_indexed AND ' || wanted
            || ' ORDER BY name_key, id LIMIT $7) UNION ALL (SELECT * FROM (' || ours
            || ' AND NOT is_indexed OFFSET 0) AS others WHERE ' || wanted
            || ' ORDER BY name_key, id LIMIT $7)) AS found ORDER BY name_key, id LIMIT $7'
            USING in_name, in_domain, part, with_tenant_id, after_name, after_id, most;
    END IF;
END
$$
"""
SEARCHED = "SELECT (id, partner_id, tenant_id, name_key, domain, removed_at, is_indexed) ON partners_customer"
# What waits in the index's list of what came last is read by every search; so that stays short.
INDEXES = {
    "customer_parts": "USING gin (name_key gin_trgm_ops, domain gin_trgm_ops) WITH (gin_pending_list_limit = 1024)"
    " WHERE is_indexed AND removed_at IS NULL",
    "customer_not_indexed": "(partner_id, id) WHERE NOT is_indexed AND removed_at IS NULL",
}
BEFORE = {f"customer_{column}_part": f"USING gin ({column} gin_trgm_ops)" for column in ("name_key", "domain")}


def add(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    _change_indexes(schema_editor, BEFORE, INDEXES)
    with acting_as_search(schema_editor):
        schema_editor.execute(FIND, params=None)
        schema_editor.execute("REVOKE ALL ON FUNCTION cpv_search.customers FROM PUBLIC")
        schema_editor.execute(f"GRANT EXECUTE ON FUNCTION cpv_search.customers TO {TENANT}")
        schema_editor.execute(f"GRANT USAGE ON SCHEMA cpv_search TO {TENANT}")
    for statement in (
        "GRANT USAGE ON SCHEMA public TO cpv_search",
        f"GRANT {SEARCHED} TO cpv_search",
        "CREATE POLICY search ON partners_customer FOR SELECT TO cpv_search USING (true)",
    ):
        schema_editor.execute(statement)


def remove(apps, schema_editor):
    """The role stays: it belongs to the whole server."""
    if schema_editor.connection.vendor != "postgresql":
        return
    for statement in (
        "DROP POLICY search ON partners_customer",
        f"REVOKE {SEARCHED} FROM cpv_search",
        "REVOKE USAGE ON SCHEMA public FROM cpv_search",
    ):
        schema_editor.execute(statement)
    with acting_as_search(schema_editor):
        schema_editor.execute("DROP SCHEMA cpv_search CASCADE")
    _change_indexes(schema_editor, INDEXES, BEFORE)


def _change_indexes(schema_editor, old, new):
    for name in old:
        schema_editor.execute(f"DROP INDEX {name}")
    for name, definition in new.items():
        schema_editor.execute(f"CREATE INDEX {name} ON partners_customer {definition}")


class Migration(migrations.Migration):
    dependencies = [("partners", "0012_chosen_customers_of_one_partner")]

    operations = [
        # Who is gone is on no page, and costs none.
        migrations.RemoveIndex("customer", "customer_by_name"),
        migrations.AddIndex(
            "customer",
            models.Index(
                fields=["partner", "name_key", "id"], name="customer_present_by_name", condition=Q(removed_at=None)
            ),
        ),
        migrations.AddField("customer", "is_indexed", models.BooleanField(db_default=False)),
        migrations.RunPython(add, remove, elidable=False),
    ]
