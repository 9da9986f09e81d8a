"""The wall in the database: nobody reaches another partner's rows, whatever the statement and whenever it comes."""
# ruff: noqa: S608, PT012, PT017, B008, B023 - each statement is put together for every table, and run at once

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, connections, models, transaction
from django.db.models.functions import Left
from django.utils import timezone
from psycopg import sql

from bench.walled import Walled, a_walled_database
from partners import pacing
from partners.models import Customer, Job, Member, Partner, User
from tests.live import OURS, ROOT
from tokens import outside, rls, tenancy
from tokens.rls import EnableRLS, SamePartner
from tokens.tenancy import NoScope, NotForSystem, OtherPartner, no_scope, owner_scope, partner_scope, system_scope

SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
pytestmark = pytest.mark.skipif(not SERVER, reason="set CPV_TEST_POSTGRES_URL to a server where databases may be made")
WALLED = "walled"
TENANTS = sorted((model for model in apps.get_models() if tenancy.owner_of(model)), key=lambda model: model._meta.label)
NAMES = [model._meta.label for model in TENANTS]


# --- Two partners with a row in every table -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def walled() -> Iterator[Walled]:
    with a_walled_database(SERVER) as made:
        migrate(made)
        yield made


@pytest.fixture(scope="module")
def rows(walled: Walled) -> dict[str, dict[str, dict[str, Any]]]:
    """By table and partner ("a" or "b"), one row as its columns."""
    with psycopg.connect(walled.superuser_url, row_factory=psycopg.rows.dict_row) as behind:
        return {name: _fill(behind, name) for name in ("a", "b")}


def migrate(walled: Walled, *target: str) -> None:
    """As an operator does before a release."""
    env = {name: value for name, value in os.environ.items() if name.startswith("COV") or not OURS.match(name)}
    env |= {"DATABASE_URL": walled.login_url, "DATABASE_OWNER_URL": walled.owner_url, "DEBUG": "true"}
    command = [sys.executable, "manage.py", "migrate", *target, "--no-input", "--verbosity", "0"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def _fill(behind: psycopg.Connection[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """A row of this partner in every table, each pointing at the others of its own."""
    made: dict[str, dict[str, Any]] = {}

    def row_of(model: type[models.Model]) -> dict[str, Any]:
        if model._meta.label not in made:
            values = {
                field.column: _value(field, name, row_of)
                for field in model._meta.concrete_fields
                if not isinstance(field, models.AutoField)
            }
            statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING *").format(
                sql.Identifier(model._meta.db_table),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(sql.Placeholder() * len(values)),
            )
            found = behind.execute(statement, list(values.values())).fetchone()
            assert found is not None
            made[model._meta.label] = found
        return made[model._meta.label]

    for model in TENANTS:
        row_of(model)
    return made


def _value(field: models.Field[Any, Any], name: str, row_of: Callable[[type[models.Model]], dict[str, Any]]) -> Any:
    """Something the column takes; texts are canaries, and what may be empty without harm is."""
    if field.name in (
        "limited_at", "approved_at", "approved_by", "ends_at", "ended_at", "refused_at", "closed_at", "removed_at"
    ):  # fmt: skip
        return None
    if field.is_relation:
        there: Any = field.related_model
        return row_of(there)[there._meta.pk.column]
    if field.choices:
        return field.flatchoices[0][0]
    match field:
        case models.DateTimeField():
            return timezone.now()
        case models.UUIDField():
            return uuid.uuid4()
        case models.BooleanField():
            return False
        case models.JSONField():
            return psycopg.types.json.Json({})
        case models.BinaryField():
            return uuid.uuid4().bytes
        case models.IntegerField() | models.FloatField():
            return 1
    fixed = {"cloud": "global", "role": "owner", "staff_role": "", "refusal": "", "actor_kind": "system"}
    return fixed.get(field.name, f"canary-{name}-{uuid.uuid4().hex}"[: field.max_length])


@pytest.fixture
def login(walled: Walled, rows: Any, django_db_blocker: Any) -> Iterator[Any]:
    """The application's own connection, through Django."""
    from django.conf import settings

    address = psycopg.conninfo.conninfo_to_dict(walled.login_url)
    pool = {"min_size": 1, "max_size": 1, "timeout": 10}  # one: whoever comes next gets what the last one had
    connections.databases[WALLED] = settings.DATABASES["default"] | {
        "ENGINE": "django.db.backends.postgresql", "NAME": address["dbname"], "USER": address["user"],
        "PASSWORD": address["password"], "HOST": address["host"], "PORT": str(address.get("port", "")),
        "OPTIONS": {"pool": pool}, "CONN_MAX_AGE": 0,
    }  # fmt: skip
    connections.configure_settings(connections.databases)
    with django_db_blocker.unblock(), no_scope():
        connection = connections[WALLED]
        yield connection
        connection.close()
        connection.close_pool()
    del connections[WALLED], connections.databases[WALLED]


# --- What a probe does ----------------------------------------------------------------------------------------------
class Probe:
    """One statement against one table that must not reach the row of partner "a"."""

    def __init__(self, model: type[models.Model], rows: Any) -> None:
        self.model, self.table = model, model._meta.db_table
        self.victim, self.own = rows["a"][model._meta.label], rows["b"][model._meta.label]
        self.column = tenancy.owner_of(model)

    def select(self, cursor: Any) -> object:
        return self._read(cursor, f"SELECT * FROM {self.table} WHERE {self.column} = %s")

    def count(self, cursor: Any) -> object:
        return self._read(cursor, f"SELECT id FROM {self.table} GROUP BY id HAVING bool_or({self.column} = %s)")

    def join(self, cursor: Any) -> object:
        return self._read(
            cursor, f"SELECT t.* FROM {self.table} t LEFT JOIN partners_partner p ON true WHERE t.{self.column} = %s"
        )

    def lock(self, cursor: Any) -> object:
        return self._read(cursor, f"SELECT 1 FROM {self.table} WHERE {self.column} = %s FOR UPDATE")

    def update(self, cursor: Any) -> object:
        return self._write(cursor, f"UPDATE {self.table} SET {self.column} = {self.column} WHERE {self.column} = %s")

    def delete(self, cursor: Any) -> object:
        return self._write(cursor, f"DELETE FROM {self.table} WHERE {self.column} = %s")

    def move(self, cursor: Any) -> object:
        """Our own row, given to the victim."""
        cursor.execute(
            f"UPDATE {self.table} SET {self.column} = %s WHERE {self.column} = %s",
            [self.victim[self.column], self.own[self.column]],
        )
        return cursor.rowcount

    def insert(self, cursor: Any) -> object:
        values = {name: value for name, value in self.victim.items() if name != "id" or self.column == "id"}
        columns, marks = ", ".join(f'"{name}"' for name in values), ", ".join(["%s"] * len(values))
        given = [
            psycopg.types.json.Json(value) if isinstance(value, (dict, list)) else value for value in values.values()
        ]
        cursor.execute(f"INSERT INTO {self.table} ({columns}) VALUES ({marks})", given)
        return cursor.rowcount

    def copy(self, cursor: Any) -> object:
        cursor.execute(f"COPY {self.table} FROM STDIN")
        return "copied"

    def _read(self, cursor: Any, statement: str) -> object:
        cursor.execute(statement, [self.victim[self.column]])
        return cursor.fetchall()

    def _write(self, cursor: Any, statement: str) -> object:
        cursor.execute(statement, [self.victim[self.column]])
        return cursor.rowcount


STATEMENTS = ("select", "count", "join", "lock", "update", "delete", "move", "insert", "copy")
HARMLESS = ([], 0)
REFUSED = (
    NoScope, NotForSystem, DatabaseError, psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported
)  # fmt: skip
NOT_THE_WALL = (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation, psycopg.errors.SyntaxError,
                psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable, psycopg.errors.InFailedSqlTransaction,
                psycopg.errors.NotNullViolation)  # fmt: skip


def attempt(run: Callable[[], object]) -> object:
    """What came of it: rows, a number, or "refused" by the wall and by nothing else."""
    try:
        return run()
    except REFUSED as refusal:
        cause = refusal if isinstance(refusal, psycopg.Error) else refusal.__cause__
        assert not isinstance(cause, NOT_THE_WALL), refusal
        return "refused"


# --- When it comes --------------------------------------------------------------------------------------------------
def with_nobodys_scope(connection: Any, _own: int, _other: int, run: Callable[[Any], object]) -> object:
    return run(connection)


def with_the_other_ones_scope(connection: Any, own: int, _other: int, run: Callable[[Any], object]) -> object:
    with partner_scope(own):
        return run(connection)


def within_a_transaction(connection: Any, own: int, _other: int, run: Callable[[Any], object]) -> object:
    with partner_scope(own), transaction.atomic(using=WALLED):
        return run(connection)


def after_the_victims_commit(connection: Any, own: int, other: int, run: Callable[[Any], object]) -> object:
    with partner_scope(other), transaction.atomic(using=WALLED):
        Job.objects.using(WALLED).exists()
    return run(connection)


def after_the_victims_savepoint(connection: Any, own: int, other: int, run: Callable[[Any], object]) -> object:
    with partner_scope(own), transaction.atomic(using=WALLED):
        Job.objects.using(WALLED).exists()
        with system_scope("a test"), transaction.atomic(using=WALLED), partner_scope(other):
            Job.objects.using(WALLED).exists()
        return run(connection)


def after_the_victims_savepoint_was_undone(
    connection: Any, own: int, other: int, run: Callable[[Any], object]
) -> object:
    with partner_scope(own), transaction.atomic(using=WALLED):
        with system_scope("a test"), pytest.raises(LookupError), transaction.atomic(using=WALLED):
            with partner_scope(other):
                Job.objects.using(WALLED).exists()
            raise LookupError
        return run(connection)


def after_the_victims_error(connection: Any, own: int, other: int, run: Callable[[Any], object]) -> object:
    with pytest.raises(DatabaseError), partner_scope(other), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / (count(*) - count(*)) FROM partners_job")
    return run(connection)


def on_the_victims_connection(connection: Any, own: int, other: int, run: Callable[[Any], object]) -> object:
    with partner_scope(other):
        Job.objects.using(WALLED).exists()
    connection.close()  # back to the pool, which has no other
    with partner_scope(own):
        return run(connection)


def in_the_systems_scope(connection: Any, own: int, other: int, run: Callable[[Any], object]) -> object:
    with system_scope("a test"):
        return run(connection)


WHENS = (
    with_nobodys_scope, with_the_other_ones_scope, within_a_transaction, after_the_victims_commit,
    after_the_victims_savepoint, after_the_victims_savepoint_was_undone, after_the_victims_error,
    on_the_victims_connection,
)  # fmt: skip
WITHOUT_A_SCOPE = (with_nobodys_scope, after_the_victims_commit, after_the_victims_error)


def test_no_statement_reaches_another_partners_row_whenever_it_comes(login, rows, walled, record_property):
    own, other = rows["b"]["partners.Partner"]["id"], rows["a"]["partners.Partner"]["id"]
    number, leaks = 0, []
    for model in TENANTS:
        probe = Probe(model, rows)
        for when in WHENS:
            for name in STATEMENTS:

                def run(connection: Any, act: Any = getattr(probe, name)) -> object:
                    with connection.cursor() as cursor:
                        return act(cursor)

                came = attempt(lambda: when(login, own, other, run))
                number += 1
                shared = model._meta.label == "tokens.Halt"
                if came not in (*HARMLESS, "refused") or (when in WITHOUT_A_SCOPE and came != "refused"):
                    leaks.append((model._meta.label, when.__name__, name, came, shared))
    assert leaks == []
    with psycopg.connect(walled.superuser_url, row_factory=psycopg.rows.dict_row) as behind:
        for model in TENANTS:
            for name in ("a", "b"):
                row = rows[name][model._meta.label]
                query = sql.SQL("SELECT * FROM {} WHERE id = %s").format(sql.Identifier(model._meta.db_table))
                assert behind.execute(query, [row["id"]]).fetchone() == row, (model, name)
    record_property("figure", f"row level security: {number:,} probes of {len(TENANTS)} tables: 0 leaks")


def test_the_objects_of_a_model_reach_no_further_than_the_statements(login, rows):
    own, other = rows["b"]["partners.Partner"]["id"], rows["a"]["partners.Partner"]["id"]
    for model in TENANTS:
        column = tenancy.owner_of(model)
        with partner_scope(own):
            objects = model._default_manager.using(WALLED)
            readers = (
                lambda: list(objects.filter(**{column: other})),
                lambda: objects.filter(**{column: other}).count(),
                lambda: objects.filter(**{column: other}).delete()[0],
                lambda: list(model._base_manager.using(WALLED).filter(**{column: other})),
                lambda: list(objects.raw(f"SELECT * FROM {model._meta.db_table} WHERE {column} = {other}")),
            )
            for read in readers:
                assert attempt(read) in (*HARMLESS, "refused"), model
    with partner_scope(own), pytest.raises(DatabaseError, match="row-level security"):
        stranger = Customer(partner_id=other, tenant_id=uuid.uuid4(), content_hash=b"")
        models.QuerySet(Customer, using=WALLED).bulk_create([stranger])


def test_beneath_our_own_guard_the_database_still_refuses(walled, rows):
    """As if somebody ran a statement on the login's connection without any of our code."""
    for model in TENANTS:
        probe = Probe(model, rows)
        for name in STATEMENTS:
            with psycopg.connect(walled.login_url) as bare, bare.cursor() as cursor:
                assert attempt(lambda: getattr(probe, name)(cursor)) == "refused", (model, name)


def test_the_system_reads_what_work_needs_and_no_customer(login, rows):
    for model in TENANTS:
        with system_scope("a test"), login.cursor() as cursor:
            if getattr(model, "is_mirrored", False):
                with pytest.raises(NotForSystem):
                    cursor.execute(f"SELECT * FROM {model._meta.db_table}")
            else:
                cursor.execute(f"SELECT count(*) FROM {model._meta.db_table}")
                assert cursor.fetchone()[0] >= 2, model


def test_the_role_of_the_system_has_no_right_to_customers_in_the_database_either(walled, rows):
    for model in TENANTS:
        if getattr(model, "is_mirrored", False):
            with psycopg.connect(walled.login_url) as bare:
                bare.execute("SET ROLE cpv_system")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    bare.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(model._meta.db_table)))


def test_what_was_decided_can_be_added_to_and_never_changed(walled, rows):
    for role in ("cpv_tenant", "cpv_system"):
        for table in ("tokens_auditevent", "tokens_auditlink", "tokens_auditanchor"):
            for statement in ("UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {}"):
                with psycopg.connect(walled.login_url) as bare:
                    bare.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        bare.execute(sql.SQL(statement).format(sql.Identifier(table)))


def test_a_row_points_only_at_rows_of_its_own_partner(login, rows):
    own, other = rows["b"]["partners.Partner"]["id"], rows["a"]["partners.Partner"]["id"]
    with partner_scope(own), login.cursor() as cursor:
        for job_id in (rows["a"]["partners.Job"]["id"], 2**40):  # theirs and none are refused alike
            with pytest.raises(DatabaseError, match="foreign key"):
                cursor.execute(
                    "INSERT INTO partners_run (partner_id, job_id, fence, started_at, outcome, pages, seen, created, "
                    "updated, removed, unchanged, error_code, error, correlation_id) VALUES "
                    "(%s, %s, 1, now(), 'done', 0, 0, 0, 0, 0, 0, '', '', gen_random_uuid())",
                    [own, job_id],
                )
    assert other != own


# The hash of a link covers its line and whose it is, so `verifyaudit` finds a link to somebody else's.
HELD_BY_ITS_HASH = ("tokens_auditlink", "event_id")


def test_every_pointer_between_rows_of_partners_is_held_within_one_partner(walled):
    with psycopg.connect(walled.superuser_url) as behind:
        asked = "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f'"
        keys = behind.execute(asked).fetchall()
    pointers = 0
    for model in TENANTS:
        for field in model._meta.concrete_fields:
            pointed_at = field.related_model
            if not pointed_at or tenancy.owner_of(pointed_at) in ("", "id"):
                continue
            pointers += 1
            table = model._meta.db_table
            held = f"FOREIGN KEY (partner_id, {field.column}) REFERENCES {pointed_at._meta.db_table}(partner_id, id)"
            is_held = any(table == of and definition.startswith(held) for of, definition in keys)
            assert is_held or (table, field.column) == HELD_BY_ITS_HASH, held
    assert pointers >= 13


# --- People ---------------------------------------------------------------------------------------------------------
def test_within_one_partner_no_password_is_read_and_everything_else_of_its_people_is(login, rows, walled):
    own = rows["b"]["partners.Partner"]["id"]
    columns = {field.column for field in User._meta.concrete_fields}
    with partner_scope(own), login.cursor() as cursor:
        granted = "SELECT has_column_privilege('cpv_tenant', 'partners_user', %s, 'SELECT')"
        for column in columns:
            cursor.execute(granted, [column])
            assert cursor.fetchone() == (column != "password",), column
    for statement in (
        "SELECT password FROM partners_user",
        "SELECT * FROM partners_user",
        "SELECT id FROM partners_user WHERE password LIKE 'a%%'",
        "SELECT id FROM partners_user ORDER BY password",
        "SELECT u FROM partners_user u",
        "SELECT count(u.password) FROM partners_member JOIN partners_user u ON u.id = user_id",
        "COPY partners_user TO STDOUT",
    ):
        with partner_scope(own), login.cursor() as cursor, pytest.raises(DatabaseError, match="permission denied"):
            cursor.execute(statement)


def test_people_who_are_read_within_one_partner_come_without_their_password(login, rows):
    own, member = rows["b"]["partners.Partner"]["id"], rows["b"]["partners.Member"]
    with system_scope("a test"):
        assert User.objects.using(WALLED).get(pk=member["user_id"]).password.startswith("canary-b-")
    with partner_scope(own):
        users = User.objects.using(WALLED)
        members = Member.objects.using(WALLED).select_related("user")

        assert users.get(pk=member["user_id"]).password == "!"
        assert members.get(pk=member["id"]).user.password == "!"
        assert not users.get(pk=member["user_id"]).has_usable_password()
        assert list(users.filter(pk=member["user_id"]).values_list("password", flat=True)) == ["!"]
        with pytest.raises(DatabaseError, match="permission denied"):
            users.annotate(begins=Left("password", 1)).filter(begins="!").exists()


# --- What searches beneath the policies -----------------------------------------------------------------------------
SEARCH = "SELECT cpv_search.customers(%s, %s, %s, %s, %s, %s, 1000)"


def searches(row: dict[str, Any]) -> list[list[Any]]:
    """Every way to ask for somebody's customer: all, by name, domain and tenant id, and after a place in the list."""
    name, domain = f"%{row['name_key']}%", f"%{row['domain']}%"
    return [
        ["%", "%", "", None, None, None],
        [name, None, None, None, None, None],
        [None, domain, row["domain"], None, None, None],
        [None, None, None, row["tenant_id"], None, None],
        [name, domain, row["domain"], row["tenant_id"], "", 0],
        [name, domain, row["domain"], row["tenant_id"], row["name_key"], 0],
    ]


@pytest.mark.parametrize(
    ("many", "is_indexed"),
    [(False, False), (True, False), (True, True)],
    ids=["from the first look", "from what is not indexed", "from the index"],
)
def test_the_search_finds_nothing_of_another_partner_whenever_it_is_asked(login, rows, walled, many, is_indexed):
    own, other = rows["b"]["partners.Partner"]["id"], rows["a"]["partners.Partner"]["id"]
    victim, mine = rows["a"]["partners.Customer"], rows["b"]["partners.Customer"]
    if many:  # more than its first look reads
        with psycopg.connect(walled.superuser_url) as behind:
            behind.execute(
                "INSERT INTO partners_customer (partner_id, tenant_id, name, name_key, domain, relationship,"
                " content_hash, first_seen_at, changed_at, removed_reason) SELECT %s, gen_random_uuid(), '', 'a' || n,"
                " '', '', '', now(), now(), '' FROM generate_series(1, 1100) AS n",
                [own],
            )
            behind.execute("UPDATE partners_customer SET is_indexed = %s", [is_indexed])
    for when in (*WHENS, in_the_systems_scope):
        for number, asked in enumerate(searches(victim)):

            def run(connection: Any, asked: list[Any] = asked) -> object:
                with connection.cursor() as cursor:
                    cursor.execute(SEARCH, asked)
                    return {found for (found,) in cursor.fetchall()}

            came = attempt(lambda: when(login, own, other, run))
            refuses = when in (*WITHOUT_A_SCOPE, in_the_systems_scope)
            assert came == "refused" if refuses else victim["id"] not in came, (when.__name__, number)
    with partner_scope(own), login.cursor() as cursor:
        for asked in searches(mine)[1:-1]:
            cursor.execute(SEARCH, asked)
            assert (mine["id"],) in cursor.fetchall(), asked


def test_the_search_says_itself_whose_rows_it_looks_through(walled, rows):
    """As if somebody came to it without any of our code."""
    everything = searches(rows["a"]["partners.Customer"])[0]
    with psycopg.connect(walled.login_url) as bare, pytest.raises(psycopg.errors.InsufficientPrivilege):
        bare.execute(SEARCH, everything)
    for setting, refused in (("", False), ("0", False), ("1 OR true", True), (None, False)):
        with psycopg.connect(walled.login_url) as bare:
            bare.execute("SELECT set_config('role', 'cpv_tenant', true)")
            if setting is not None:
                bare.execute("SELECT set_config('app.partner_id', %s, true)", [setting])
            bare.execute("CREATE TEMP TABLE partners_customer (id bigint)")  # what it reads cannot be put in its way
            if refused:
                with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                    bare.execute(SEARCH, everything)
            else:
                assert bare.execute(SEARCH, everything).fetchall() == [], setting


def test_nobody_may_become_the_one_who_searches_and_it_reads_no_more_than_it_needs(walled, login):
    for url in (walled.login_url, walled.owner_url):
        with psycopg.connect(url) as bare, pytest.raises(psycopg.errors.InsufficientPrivilege):
            bare.execute("SET ROLE cpv_search")
    with psycopg.connect(walled.superuser_url) as behind:
        of_tables, of_columns = (
            behind.execute(sql.SQL("SELECT {} FROM information_schema.{} WHERE grantee = 'cpv_search'").format(*asked))
            for asked in (
                (sql.SQL("table_name, privilege_type"), sql.Identifier("table_privileges")),
                (sql.SQL("table_name, privilege_type, column_name"), sql.Identifier("column_privileges")),
            )
        )
        columns = of_columns.fetchall()
        name = psycopg.conninfo.conninfo_to_dict(walled.login_url)["user"]
        assert of_tables.fetchall() == []
        assert {(table, kind) for table, kind, _ in columns} == {("partners_customer", "SELECT")}
        assert not {"name", "relationship"} & {column for *_, column in columns}
        behind.execute(sql.SQL("GRANT cpv_search TO {}").format(sql.Identifier(name)))
        behind.commit()
        try:
            assert "may become cpv_search" in " ".join(rls.faults(login))
        finally:
            behind.execute(sql.SQL("REVOKE cpv_search FROM {}").format(sql.Identifier(name)))
            behind.commit()
    assert rls.faults(login) == ()


# --- Every table has its wall ---------------------------------------------------------------------------------------
def test_every_table_of_partners_is_closed_by_force_and_has_both_policies(walled):
    with psycopg.connect(walled.superuser_url) as behind:
        asked = "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class WHERE relkind = 'r'"
        closed = {name: (enabled, forced) for name, enabled, forced in behind.execute(asked)}
        policies = set(behind.execute("SELECT tablename, policyname FROM pg_policies"))
    for table in tenancy.tenant_tables():
        assert closed[table] == (True, True), table
        assert {(table, "tenant"), (table, "system")} <= policies, table


def test_every_table_of_partners_has_an_index_that_begins_with_the_partner_and_a_key_over_both(walled):
    with psycopg.connect(walled.superuser_url) as behind:
        indexes = behind.execute("SELECT tablename, indexdef FROM pg_indexes").fetchall()
    for table in tenancy.tenant_tables() - {"partners_partner"}:
        assert any(table == of and "(partner_id" in definition for of, definition in indexes), table


def test_an_unknown_table_with_a_partner_would_be_noticed():
    assert {model._meta.db_table for model in TENANTS} == tenancy.tenant_tables()
    assert {"partners.Customer", "tokens.RefreshToken", "consent.Consent"} <= set(NAMES)


@pytest.mark.parametrize("operation", [EnableRLS("job", tenant="SELECT"), SamePartner("run", "job")])
def test_a_migration_says_what_it_closes_and_can_be_written_down(operation):
    name, args, options = operation.deconstruct()

    assert type(operation).__name__ == name
    assert type(operation)(*args, **options).deconstruct() == (name, args, options)
    assert str(args[0]) in operation.describe()


# --- The login ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("who", "why"), [("superuser_url", "superuser"), ("owner_url", "owns tables"), ("login_url", "")]
)
def test_a_login_that_no_policy_binds_does_not_serve(walled, login, who, why):
    address = psycopg.conninfo.conninfo_to_dict(getattr(walled, who))
    connections.databases[WALLED] |= {"USER": address["user"], "PASSWORD": address.get("password", "")}
    login.close()
    login.close_pool()
    login.settings_dict |= {"USER": address["user"], "PASSWORD": address.get("password", "")}

    found = " ".join(rls.faults(login))

    assert why in found
    assert bool(found) == bool(why)
    if why == "superuser":
        rls.make_roles(login)  # a superuser may become anybody, and gets nothing more
        assert rls.faults(login)[0] in found


def test_a_database_without_logins_has_no_fault():
    assert connection.vendor == "postgresql" or rls.faults(connection) == ()


def test_a_transaction_that_failed_says_so_to_whoever_asks_on(login, rows):
    own = rows["b"]["partners.Partner"]["id"]
    with partner_scope(own), pytest.raises(DatabaseError, match="aborted"), transaction.atomic(using=WALLED):
        with login.cursor() as cursor, suppress(DatabaseError):
            cursor.execute("SELECT 1 / 0")
        with login.cursor() as cursor:
            cursor.execute("SELECT 1")


def test_outside_development_such_a_login_is_refused_at_its_first_connection(login, settings, walled):
    settings.CPV_WALLS_REQUIRED = True
    address = psycopg.conninfo.conninfo_to_dict(walled.owner_url)
    login.close()
    login.close_pool()
    login.settings_dict |= {"USER": address["user"], "PASSWORD": address["password"]}

    for _ in range(2):  # whoever goes on all the same is not served either
        with pytest.raises(ImproperlyConfigured, match="owns tables of partners: migrate with DATABASE_OWNER_URL"):
            login.ensure_connection()


def test_outside_development_the_login_that_is_meant_serves(login, settings):
    settings.CPV_WALLS_REQUIRED = True
    rls._fit.discard(WALLED)
    login.close()
    login.close_pool()

    login.ensure_connection()

    assert WALLED in rls._fit, "not looked at a second time"
    rls._fit.discard(WALLED)


def test_a_savepoint_that_was_undone_does_not_take_the_role_along(login, rows):
    own = rows["b"]["partners.Partner"]["id"]
    with transaction.atomic(using=WALLED):
        with pytest.raises(LookupError), transaction.atomic(using=WALLED):
            with partner_scope(own):
                assert Job.objects.using(WALLED).exists()
            raise LookupError
        with partner_scope(own):
            assert Job.objects.using(WALLED).exists()


def test_rights_that_a_login_got_otherwise_are_a_fault_and_the_next_migrate_takes_them(walled, login):
    name = psycopg.conninfo.conninfo_to_dict(walled.login_url)["user"]
    with psycopg.connect(walled.owner_url) as owner:
        owner.execute(sql.SQL("GRANT SELECT ON partners_customer TO {}").format(sql.Identifier(name)))

    found = rls.faults(login)
    migrate(walled)

    assert len(found) == 1
    assert "has rights of its own" in found[0]
    assert rls.faults(login) == ()


def test_a_login_that_has_its_roles_rights_all_the_time_does_not_serve(walled, login):
    name = sql.Identifier(psycopg.conninfo.conninfo_to_dict(walled.login_url)["user"])
    with psycopg.connect(walled.superuser_url, autocommit=True) as behind:
        new = behind.info.server_version >= 160000  # there each grant says it, whatever the login says by then
        inherits = "GRANT cpv_system TO {} WITH INHERIT TRUE" if new else "ALTER ROLE {} INHERIT"
        behind.execute(sql.SQL(inherits).format(name))
        try:
            found = rls.faults(login)
        finally:
            ends = "GRANT cpv_system TO {} WITH INHERIT FALSE" if new else "ALTER ROLE {} NOINHERIT"
            behind.execute(sql.SQL(ends).format(name))

    assert len(found) == 2
    assert "inherits its roles' rights" in found[0]
    assert "has rights of its own" in found[1], "which are its roles'"
    assert rls.faults(login) == ()


def test_without_temporary_tables_nobody_serves_and_the_next_migrate_allows_them(walled, login):
    with psycopg.connect(walled.superuser_url) as behind:
        [database] = behind.execute("SELECT current_database()").fetchone()
        behind.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM cpv_tenant").format(sql.Identifier(database)))

    found = rls.faults(login)
    migrate(walled)

    assert len(found) == 1
    assert "temporary tables" in found[0]
    assert rls.faults(login) == ()


def test_the_walls_can_be_taken_down_and_put_up_again_by_an_owner_who_may_make_no_role(walled, login):
    """One step back and forth, as an operator who must return to the release before; the roles are there by then."""
    owner = sql.Identifier(psycopg.conninfo.conninfo_to_dict(walled.owner_url)["user"])
    migrate(walled, "partners", "0012")
    migrate(walled, "tokens", "0012")
    with psycopg.connect(walled.superuser_url, autocommit=True) as behind:
        asked = "SELECT relrowsecurity FROM pg_class WHERE relname = 'tokens_refreshtoken'"
        assert behind.execute(asked).fetchone() == (False,)
        behind.execute(sql.SQL("ALTER ROLE {} NOCREATEROLE").format(owner))
        behind.execute(sql.SQL("GRANT cpv_search TO {}").format(owner))
        try:
            migrate(walled)
        finally:
            behind.execute(sql.SQL("REVOKE cpv_search FROM {}").format(owner))
            behind.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(owner))

    assert rls.faults(login) == ()


def test_work_for_one_partner_cannot_reach_for_another(login, rows):
    own, other = rows["b"]["partners.Partner"]["id"], rows["a"]["partners.Partner"]["id"]
    with partner_scope(own), pytest.raises(OtherPartner), partner_scope(other):
        pass
    with partner_scope(own), partner_scope(own):
        assert Partner.objects.using(WALLED).get().pk == own
    with owner_scope(), pytest.raises(DatabaseError, match="permission denied"):
        list(Customer.objects.using(WALLED))


def test_whoever_waits_for_microsoft_holds_no_connection(login, rows):
    """The pool has one, and whoever had it is waiting: the next one gets it all the same."""
    with partner_scope(rows["a"]["partners.Partner"]["id"]):
        Job.objects.using(WALLED).exists()
        outside.give_back_connections()

        assert login.connection is None
        with transaction.atomic(using=WALLED):
            Job.objects.using(WALLED).exists()
            outside.give_back_connections()
            assert login.connection is not None, "what a transaction holds stays"


def test_whoever_waits_for_its_turn_holds_no_connection(login, rows):
    partner_id = rows["a"]["partners.Partner"]["id"]
    with partner_scope(partner_id):
        Job.objects.using(WALLED).exists()
        assert login.connection is not None

        pacing.PartnersTraffic("global", partner_id, "partnercenter")._wait(pacing.too_fast(0.01))

        assert login.connection is None
