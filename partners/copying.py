"""
Writing the mirror on PostgreSQL: only what differs reaches the server, and only what differs is written.

Row level security forbids to COPY into a table of partners; so rows go into a temporary one of this connection, and
from there by UPDATE and INSERT. `ON CONFLICT DO UPDATE` would lock and log each row, changed or not.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import Any

from django.db import IntegrityError, connection
from psycopg import sql

from partners.mirrors import Known, Mirror, ReadPage, Rows, Wanted

SAVEPOINT = "before_rows"
LINES = 1_000  # rows that are put into words at a time


COMPARE = (
    "SELECT u.o, c.id IS NULL FROM unnest({customers} %s::{key_type}[], %s::uuid[]) "
    "WITH ORDINALITY u({customer} k, h, o) "
    # Found one by one: read as a whole for each batch, a large partner's rows would cost ten times as much.
    "LEFT JOIN LATERAL (SELECT id, content_hash, missing_since, removed_at FROM {table} c "
    "WHERE c.partner_id = %s AND c.{key} = u.k {of_customer} OFFSET 0) c ON true "
    "WHERE c.id IS NULL OR c.content_hash <> uuid_send(u.h) OR c.missing_since IS NOT NULL "
    "OR c.removed_at IS NOT NULL"
)
MAKE_ROOM = (
    "CREATE TEMP TABLE IF NOT EXISTS {temporary_name} ON COMMIT DELETE ROWS AS "
    "SELECT {columns}, NULL::uuid AS content_hash, true AS is_new FROM {table} WITH NO DATA"
)
EMPTY = "DELETE FROM {temporary}"  # of what the same transaction wrote before
COPY = "COPY {temporary} ({columns}, content_hash, is_new) FROM STDIN"
UPDATE = (
    "UPDATE {table} c SET {assigned}, content_hash = uuid_send(t.content_hash), {indexed}changed_at = %(now)s, "
    "missing_since = NULL, removed_at = NULL, removed_reason = '' "
    "FROM {temporary} t WHERE NOT t.is_new AND c.partner_id = %(partner)s AND {same}"
)
INSERT = (
    "INSERT INTO {table} (partner_id, {columns}, content_hash, first_seen_at, changed_at, removed_reason) "
    "SELECT %(partner)s, {of_temporary}, uuid_send(t.content_hash), %(now)s, %(now)s, '' "
    "FROM {temporary} t WHERE t.is_new"
)


class Statements:
    """
    What is said to the database for one kind.

    Some of it is said together and answered once: each answer costs a turn of the reading thread's, too.
    """

    def __init__(self, mirror: Mirror[Any]) -> None:
        names = _names(mirror)

        def said(text: str) -> str:
            return sql.SQL(text).format(**names).as_string(None)

        self.compare, self.make_room, self.copy = map(said, (COMPARE, f"{MAKE_ROOM}; {EMPTY}", COPY))
        self.update, self.insert = said(UPDATE), said(f"SAVEPOINT {SAVEPOINT}; {INSERT}; RELEASE SAVEPOINT {SAVEPOINT}")
        self.insert_others = said(f"{INSERT} ON CONFLICT DO NOTHING; RELEASE SAVEPOINT {SAVEPOINT}")


def _names(mirror: Mirror[Any]) -> dict[str, sql.Composable]:
    key = [*(["customer_id"] if mirror.is_of_customers else []), mirror.key_column]
    table, temporary = mirror.model._meta.db_table, f"cpv_new_{mirror.model._meta.db_table}"
    same = (sql.SQL("c.{0} = t.{0}").format(sql.Identifier(name)) for name in key)
    assigned = (sql.SQL("{0} = t.{0}").format(sql.Identifier(name)) for name in mirror.columns)
    return {
        "table": sql.Identifier(table),
        "temporary": sql.Identifier("pg_temp", temporary),
        "temporary_name": sql.Identifier(temporary),
        "columns": _listed([*key, *mirror.columns]),
        "of_temporary": _listed([*key, *mirror.columns], "t"),
        "key": sql.Identifier(mirror.key_column),
        "same": sql.SQL(" AND ").join(same),
        "assigned": sql.SQL(", ").join(assigned),
        "indexed": _still_indexed(mirror.indexed_by),
        "key_type": sql.SQL("uuid" if mirror.key_column == "tenant_id" else "text"),
        "of_customer": sql.SQL("AND c.customer_id = u.customer" if mirror.is_of_customers else ""),
        "customers": sql.SQL("%s::bigint[], " if mirror.is_of_customers else ""),
        "customer": sql.SQL("customer, " if mirror.is_of_customers else ""),
    }


def _listed(columns: Iterable[str], prefix: str = "") -> sql.Composed:
    parts = [prefix] if prefix else []
    return sql.SQL(", ").join(sql.Identifier(*parts, name) for name in columns)


def _still_indexed(by: Sequence[str]) -> sql.Composable:
    """That a row leaves the index which is dear to write, where it would have to be written there anew."""
    if not by:
        return sql.SQL("")
    same = sql.SQL(" AND ").join(sql.SQL("c.{0} = t.{0}").format(sql.Identifier(name)) for name in by)
    return sql.SQL("is_indexed = c.is_indexed AND {}, ").format(same)


@cache
def statements(mirror: Mirror[Any]) -> Statements:
    return Statements(mirror)


def compare(mirror: Mirror[Any], partner_id: int, rows: Rows) -> Wanted:
    """The keys of rows that are not in the mirror as they should be; True for those that are not there at all."""
    keys: Any = [key for _, key in rows] if mirror.is_of_customers else rows
    written = "{" + ",".join([f"{key:032x}" for key in keys]) + "}" if mirror.key_column == "tenant_id" else list(keys)
    hashes = "{" + ",".join([digest.hex() for digest, _ in rows.values()]) + "}"
    customers = [[customer for customer, _ in rows]] if mirror.is_of_customers else []
    with connection.cursor() as cursor:
        cursor.execute(statements(mirror).compare, [*customers, written, hashes, partner_id])
        found = cursor.fetchall()
    places = list(rows) if found else []
    return {places[place - 1]: is_new for place, is_new in found}


def need_not_be_on_disk_at_once() -> None:
    """
    Let this transaction end before the server's disk has it.

    Should the server break within that half second, rows and the place to go on are missing together, and are read
    anew; whatever is committed later waits for its disk, and with it for this.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit TO off")


def make_ready(mirror: Mirror[Any], page: ReadPage) -> None:
    """Put a page's rows into words, as new ones; where they have none, they stay."""
    if mirror.is_text and page.rows:
        page.words = _words(list(_lines(mirror, page.rows, dict.fromkeys(page.rows, True))))
        if page.words is not None:
            page.rows = {}


def add(mirror: Mirror[Any], partner_id: int, pages: Sequence[ReadPage], now: dt.datetime) -> int:
    """Write the rows of pages, all of them new; how many were added. Call it in a transaction."""
    said = statements(mirror)
    with connection.cursor() as cursor:
        with _room(cursor, said) as copy:
            for page in pages:
                if page.words is not None:
                    copy.write(page.words)
            others = mirror.rows_of(pages)
            _copy(copy, mirror, others, dict.fromkeys(others, True))
        return _insert(cursor, said, _given(partner_id, now))


def write(mirror: Mirror[Any], partner_id: int, rows: Rows, wanted: Wanted, now: dt.datetime) -> tuple[int, int]:
    """
    Write those of the rows that are wanted; how many were added and changed. Call it in a transaction.

    A new one that is there all the same is left alone.
    """
    said, given = statements(mirror), _given(partner_id, now)
    changed = added = 0
    with connection.cursor() as cursor:
        with _room(cursor, said) as copy:
            _copy(copy, mirror, rows, wanted)
        if not all(wanted.values()):
            cursor.execute(said.update, given)
            changed = cursor.rowcount
        if any(wanted.values()):
            added = _insert(cursor, said, given)
    return added, changed


def _given(partner_id: int, now: dt.datetime) -> dict[str, Any]:
    return {"partner": partner_id, "now": now}


@contextmanager
def _room(cursor: Any, said: Statements) -> Iterator[Any]:
    """
    The way into the empty temporary table.

    COPY passes by what guards Django's statements; it goes there only, and the statement before it took on the
    partner's role.
    """
    cursor.execute(said.make_room)
    with cursor.copy(said.copy) as copy:
        yield copy


def _copy(copy: Any, mirror: Mirror[Any], rows: Rows, wanted: Wanted) -> None:
    for lines in _some(_lines(mirror, rows, wanted)):
        if (words := _words(lines) if mirror.is_text else None) is not None:
            copy.write(words)
            continue
        for line in lines:
            copy.write_row(line)


def _lines(mirror: Mirror[Any], rows: Rows, wanted: Wanted) -> Iterator[list[Any]]:
    """Each row as the temporary table takes it."""
    values, flags = mirror.values, ("f", "t")
    is_by_tenant, is_of_customers = mirror.key_column == "tenant_id", mirror.is_of_customers
    for keyed, is_new in wanted.items():
        digest, item = rows[keyed]
        key = keyed if is_of_customers else (f"{keyed:032x}" if is_by_tenant else keyed,)
        yield [*key, *values(item), digest.hex(), flags[is_new]]


def _some(lines: Iterator[list[Any]]) -> Iterator[list[list[Any]]]:
    while some := list(islice(lines, LINES)):
        yield some


def _words(lines: list[list[str]]) -> str | None:
    """
    Lines of strings as COPY reads them; None where one of them has a character that COPY takes for something else.

    psycopg looks at each value for these, which takes longer than all the rest.
    """
    words = "\n".join(["\t".join(line) for line in lines]) + "\n"
    between = len(lines) * (len(lines[0]) - 1)
    is_plain = words.count("\t") == between and words.count("\n") == len(lines) and "\\" not in words
    return words if is_plain and "\r" not in words else None


def _insert(cursor: Any, said: Statements, given: dict[str, Any]) -> int:
    """
    Add what is new; how many there were.

    ON CONFLICT writes a row down before it is sure of it, and then once more that it is, which takes a third more. So
    it is used only where something came twice, as in a list that moved while it was read.
    """
    try:
        cursor.execute(said.insert, given)
        cursor.nextset()
    except IntegrityError:
        cursor.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
        cursor.execute(said.insert_others, given)
    return int(cursor.rowcount)


# --- Pages ----------------------------------------------------------------------------------------------------------
KNOWN = (
    "SELECT collection, number, digest, length(keys) / 6 FROM partners_listpage "
    "WHERE partner_id = %s AND kind = %s AND collection = ANY(%s)"
)
AS_BEFORE = (
    "UPDATE partners_listpage p SET digest = u.digest, hashed = u.digest, stale = u.stale "
    "FROM unnest(%s::bigint[], %s::int[], %s::bytea[], %s::bytea[]) u(collection, number, digest, stale) "
    "WHERE p.partner_id = %s AND p.kind = %s AND p.collection = u.collection AND p.number = u.number"
)
KEEP_PAGES = (
    "INSERT INTO partners_listpage (partner_id, kind, collection, number, digest, keys, hashes, stale, hashed) "
    "SELECT %s, %s, u.*, '', u.digest FROM unnest(%s::bigint[], %s::int[], %s::bytea[], %s::bytea[], %s::bytea[]) "
    "u(collection, number, digest, keys, hashes) "
    "ON CONFLICT (partner_id, kind, collection, number) DO UPDATE "
    "SET digest = excluded.digest, keys = excluded.keys, hashes = excluded.hashes, stale = '', hashed = excluded.hashed"
)


def known_pages(mirror: Mirror[Any], partner_id: int, collections: list[int]) -> dict[tuple[int, int], Known]:
    with connection.cursor() as cursor:
        cursor.execute(KNOWN, [partner_id, mirror.kind, collections])
        return {
            (collection, number): Known(bytes(digest), count) for collection, number, digest, count in cursor.fetchall()
        }


def keep_pages(
    mirror: Mirror[Any], partner_id: int, anew: Sequence[ReadPage], as_before: Sequence[tuple[ReadPage, bytes]]
) -> None:
    """Note how pages are now; of those that list the same rows as before only which of these were written since."""
    with connection.cursor() as cursor:
        if as_before:
            fields = zip(
                *((page.collection, page.number, page.digest, stale) for page, stale in as_before), strict=True
            )
            cursor.execute(AS_BEFORE, [*map(list, fields), partner_id, mirror.kind])
        if anew:
            each = ((page.collection, page.number, page.digest, page.keys, page.hashes) for page in anew)
            cursor.execute(KEEP_PAGES, [partner_id, mirror.kind, *map(list, zip(*each, strict=True))])
