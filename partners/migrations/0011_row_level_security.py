from django.db import migrations

from tokens.rls import EnableRLS, SamePartner, make_roles

# A tenant sees its partner's members, and who of the vendor's staff asked to look; the rest is for the system.
CLOSE_USERS = """
ALTER TABLE partners_user ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON partners_user FOR SELECT TO cpv_tenant
    USING (
        EXISTS (SELECT FROM partners_member m WHERE m.user_id = partners_user.id)
        OR EXISTS (
            SELECT FROM partners_accessgrant g WHERE g.asked_by_id = partners_user.id OR g.approved_by_id = partners_user.id
        )
    );
CREATE POLICY system ON partners_user TO cpv_system USING (true) WITH CHECK (true);
GRANT SELECT ON partners_user TO cpv_tenant;
"""
OPEN_USERS = """
REVOKE ALL ON partners_user FROM cpv_tenant;
DROP POLICY tenant ON partners_user;
DROP POLICY system ON partners_user;
DROP POLICY IF EXISTS login ON partners_user;
ALTER TABLE partners_user DISABLE ROW LEVEL SECURITY;
"""


def close_users(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        make_roles(schema_editor.connection)
        schema_editor.execute(CLOSE_USERS, params=None)


def open_users(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(OPEN_USERS, params=None)


class Migration(migrations.Migration):
    dependencies = [("partners", "0010_accounts_that_end_and_lift_requests")]

    operations = [
        EnableRLS("partner", tenant="SELECT, UPDATE", column="id"),
        EnableRLS("member"),
        EnableRLS("job"),
        EnableRLS("run"),
        EnableRLS("lookup"),
        EnableRLS("customer", system=""),
        EnableRLS("chosencustomer"),
        EnableRLS("accessgrant"),
        migrations.RunPython(close_users, open_users, elidable=False),
        SamePartner("run", "job"),
        SamePartner("lookup", "customer"),
        SamePartner("lookup", "member"),
    ]
