"""
Row level security: the policies that keep partners apart in PostgreSQL itself, as operations of migrations.

Two roles without a login of their own act on rows: `cpv_tenant` sees one partner's, `cpv_system` sees all of what work
across partners needs. The application's login may become either and inherits neither, so that without a scope it can
touch no partner's row at all. Roles belong to the whole server; policies and grants to this database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from tokens.tenancy import SETTING, SYSTEM, TENANT, tenant_tables

SEARCH = "cpv_search"  # owns and executes what searches beneath the policies; nobody's login may become it
ALL = "SELECT, INSERT, UPDATE, DELETE"
APPEND = "SELECT, INSERT"
READ = "SELECT"
USERS = "partners_user"
_fit: set[str] = set()
FEWER_RIGHTS = {
    "tokens_auditanchor": APPEND, "tokens_auditwitness": "SELECT, INSERT, UPDATE", "django_migrations": READ,
}  # fmt: skip

_WHO_AM_I = """
SELECT session_user, rolsuper, rolbypassrls,
    NOT rolsuper AND (pg_has_role(session_user, %(tenant)s, 'USAGE') OR pg_has_role(session_user, %(system)s, 'USAGE')),
    EXISTS (SELECT FROM pg_class WHERE relname = ANY(%(tables)s) AND pg_has_role(session_user, relowner, 'MEMBER')),
    EXISTS (SELECT FROM pg_class WHERE relname = ANY(%(tables)s)
        AND has_table_privilege(session_user, oid, 'SELECT, INSERT, UPDATE, DELETE')),
    EXISTS (SELECT FROM pg_roles s WHERE s.rolname = %(search)s AND pg_has_role(session_user, s.oid, 'MEMBER')),
    pg_has_role(session_user, %(tenant)s, 'MEMBER') AND pg_has_role(session_user, %(system)s, 'MEMBER'),
    has_database_privilege(%(tenant)s, current_database(), 'TEMP')
FROM pg_roles WHERE rolname = session_user
"""

# Another database of the same server may make the same roles at the same moment.
_MAKE_ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} NOLOGIN NOINHERIT; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""
_PARTNER = f"NULLIF(current_setting('{SETTING}', true), '')::bigint"


class EnableRLS(Operation):
    """
    Close a table: `tenant` and `system` are what the two roles may do there, "" for nothing.

    A tenant reaches the rows whose `column` is the partner of its scope, for reading and for writing. With
    `shared` those that belong to no partner can be read, too.
    """

    reversible = True

    def __init__(
        self, model: str, *, tenant: str = ALL, system: str = ALL, column: str = "partner_id", shared: bool = False
    ) -> None:
        self.model, self.tenant, self.system, self.column, self.shared = model, tenant, system, column, shared

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        options = {"tenant": self.tenant, "system": self.system, "column": self.column, "shared": self.shared}
        return type(self).__name__, [self.model], options

    def describe(self) -> str:
        return f"Close {self.model} with row level security"

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Django's own picture of the table stays as it is."""

    def database_forwards(
        self, app_label: str, editor: BaseDatabaseSchemaEditor, _from: ProjectState, to: ProjectState
    ) -> None:
        if editor.connection.vendor != "postgresql":
            return
        make_roles(editor.connection)
        table = to.apps.get_model(app_label, self.model)._meta.db_table
        own = f"{self.column} = {_PARTNER}"
        readable = f"{own} OR {self.column} IS NULL" if self.shared else own
        for statement in (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant ON {table} TO {TENANT} USING ({readable}) WITH CHECK ({own})",
            f"CREATE POLICY system ON {table} TO {SYSTEM} USING (true) WITH CHECK (true)",
            *(f"GRANT {rights} ON {table} TO {role}" for role, rights in self._rights() if rights),
        ):
            editor.execute(statement, params=None)

    def database_backwards(
        self, app_label: str, editor: BaseDatabaseSchemaEditor, from_: ProjectState, _to: ProjectState
    ) -> None:
        if editor.connection.vendor != "postgresql":
            return
        table = from_.apps.get_model(app_label, self.model)._meta.db_table
        for statement in (
            f"REVOKE ALL ON {table} FROM {TENANT}, {SYSTEM}",
            f"DROP POLICY tenant ON {table}",
            f"DROP POLICY system ON {table}",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        ):
            editor.execute(statement, params=None)

    def _rights(self) -> tuple[tuple[str, str], tuple[str, str]]:
        return (TENANT, self.tenant), (SYSTEM, self.system)


class SamePartner(Operation):
    """
    Let a row point only at rows of its own partner: a foreign key over partner and id, beside Django's over the id.

    The table pointed at needs its unique constraint over (partner, id).
    """

    reversible = True

    def __init__(self, model: str, field: str) -> None:
        self.model, self.field = model, field

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return type(self).__name__, [self.model, self.field], {}

    def describe(self) -> str:
        return f"Let {self.model}.{self.field} point within one partner only"

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Django's own picture of the table stays as it is."""

    def database_forwards(
        self, app_label: str, editor: BaseDatabaseSchemaEditor, _from: ProjectState, to: ProjectState
    ) -> None:
        if editor.connection.vendor != "postgresql":
            return
        model = to.apps.get_model(app_label, self.model)
        there: Any = model._meta.get_field(self.field).related_model
        table = model._meta.db_table
        editor.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {self._name(table)} FOREIGN KEY (partner_id, {self.field}_id) "
            f"REFERENCES {there._meta.db_table} (partner_id, id) DEFERRABLE INITIALLY DEFERRED",
            params=None,
        )

    def database_backwards(
        self, app_label: str, editor: BaseDatabaseSchemaEditor, from_: ProjectState, _to: ProjectState
    ) -> None:
        if editor.connection.vendor != "postgresql":
            return
        table = from_.apps.get_model(app_label, self.model)._meta.db_table
        editor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {self._name(table)}", params=None)

    def _name(self, table: str) -> str:
        return f"{table}_{self.field}_same_partner"


# --- Roles and the login --------------------------------------------------------------------------------------------
def make_roles(connection: BaseDatabaseWrapper) -> None:
    """Have both roles on this server, and let whoever migrates become either."""
    with connection.cursor() as cursor:
        for role in (TENANT, SYSTEM):
            cursor.execute(_MAKE_ROLE.format(role=role))
        cursor.execute("SELECT rolsuper, current_user FROM pg_roles WHERE rolname = current_user")
        is_superuser, owner = cursor.fetchone()
        if not is_superuser:
            _let_become(cursor, connection.ops.quote_name(owner))


@contextmanager
def acting_as_search(editor: BaseDatabaseSchemaEditor) -> Iterator[None]:
    """
    Have a migration make, as the search's role, what shall be that role's; then whoever migrates is nothing of it.

    Who may become it reads every partner's rows, and the tables' owner shall not, either.
    """
    with editor.connection.cursor() as cursor:
        cursor.execute(_MAKE_ROLE.format(role=SEARCH))
        # From PostgreSQL 16 on, whoever makes a role is a member who may pass it on, and not become it.
        cursor.execute(
            "SELECT current_user, pg_has_role(current_user, %s,"
            " CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)",
            [SEARCH],
        )
        owner, is_member = cursor.fetchone()
        name = editor.connection.ops.quote_name(owner)
        if not is_member:
            cursor.execute(f"GRANT {SEARCH} TO {name}")
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SEARCH} AUTHORIZATION {SEARCH}")
        cursor.execute(f"SET LOCAL ROLE {SEARCH}")
        yield
        cursor.execute("RESET ROLE")
        if not is_member:
            cursor.execute(f"REVOKE {SEARCH} FROM {name}")


def _let_become(cursor: Any, login: str) -> None:
    for role in (TENANT, SYSTEM):
        cursor.execute("SELECT pg_has_role(%s, %s, 'MEMBER')", [login.strip('"'), role])
        if not cursor.fetchone()[0]:
            cursor.execute(f"GRANT {role} TO {login}")


def admit(*, using: str = "default", **_signal: Any) -> None:
    """
    Give what belongs to no partner to the system's role and to the application's login; after each migration.

    The login is the user of DATABASE_URL. Where the owner of the tables works with its own login, as in development,
    there is nothing to give.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    make_roles(connection)
    login, quote = settings.CPV_DATABASE_LOGIN, connection.ops.quote_name
    with transaction.atomic(using=using), connection.cursor() as cursor:  # nobody is without rights in between
        cursor.execute("SELECT current_user <> %s AND EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [login, login])
        to = [SYSTEM, *([quote(login)] if login and cursor.fetchone()[0] else [])]
        cursor.execute(f"GRANT USAGE ON SCHEMA public TO {TENANT}, {', '.join(to)}")
        # Rows of the mirror come into a temporary table first: COPY into one with policies is refused.
        cursor.execute("SELECT current_database(), has_database_privilege(%s, current_database(), 'TEMP')", [TENANT])
        database, may_make_tables = cursor.fetchone()
        if not may_make_tables:
            cursor.execute(f"GRANT TEMPORARY ON DATABASE {quote(database)} TO {TENANT}")
        there = set(connection.introspection.table_names(cursor))
        for table in sorted(there - tenant_tables()):
            rights = FEWER_RIGHTS.get(table, ALL)
            cursor.execute(f"GRANT {rights} ON {quote(table)} TO {', '.join(to)}")
        for name in to[1:]:
            _let_become(cursor, name)
            for table in sorted(there & tenant_tables()):
                cursor.execute(f"REVOKE ALL ON {quote(table)} FROM {name}")
            cursor.execute(f"DROP POLICY IF EXISTS login ON {USERS}")
            cursor.execute(f"CREATE POLICY login ON {USERS} TO {name} USING (true) WITH CHECK (true)")


def faults(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    """Why the login of this database must not serve: each a sentence with the way out."""
    if connection.vendor != "postgresql":
        return ()
    with connection.cursor() as cursor:
        who: dict[str, Any] = {"tenant": TENANT, "system": SYSTEM, "search": SEARCH, "tables": sorted(tenant_tables())}
        cursor.execute(_WHO_AM_I, who)
        (login, is_superuser, bypasses, inherits, owns, reaches, may_search, may_become, may_make_tables) = (
            cursor.fetchone()
        )
    way_out = {
        "it is a superuser, whom no policy binds: use a login of its own": is_superuser,
        "it bypasses row level security: ALTER ROLE … NOBYPASSRLS": bypasses,
        f"it inherits its roles' rights: ALTER ROLE … NOINHERIT, and from PostgreSQL 16 on, where each grant says it"
        f" for itself, GRANT {TENANT}, {SYSTEM} TO it WITH INHERIT FALSE": inherits,
        "it owns tables of partners: migrate with DATABASE_OWNER_URL": owns,
        "it has rights of its own to tables of partners: run migrate, which takes them": reaches,
        f"it may become {SEARCH}, who reads all partners: REVOKE {SEARCH} FROM it": may_search and not is_superuser,
        f"it may not become {TENANT} and {SYSTEM}: run migrate, which lets it": not may_become,
        f"{TENANT} may make no temporary tables: run migrate as the owner of the database": not may_make_tables,
    }
    return tuple(f"The database login {login!r} is refused, for {why}." for why, wrong in way_out.items() if wrong)


def refuse_unfit_login(*, connection: BaseDatabaseWrapper, **_signal: Any) -> None:
    """
    Serve nobody outside development with a login that the policies do not bind; looked at once a process.

    :raises ImproperlyConfigured: that is so; the message says what to change
    """
    if settings.CPV_WALLS_REQUIRED and connection.alias not in _fit:
        if wrong := faults(connection):
            connection.close()  # or whoever goes on all the same would go on with it
            raise ImproperlyConfigured(" ".join(wrong))
        _fit.add(connection.alias)
