"""Many partners that are connected, made of one that connected the real way: rows in the database, and nothing else."""

from __future__ import annotations

from typing import Any

import psycopg

from bench.ground import Ground

COLUMNS = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = %s AND is_identity = 'NO' ORDER BY ordinal_position
"""
COUNT = "SELECT count(*) FROM partners_partner"


class Crowd:
    """The database's partners, seen from behind the wall."""

    def __init__(self, where: Ground) -> None:
        self._server = psycopg.connect(where.superuser_url, autocommit=True)

    def close(self) -> None:
        self._server.close()

    def grow(self, number: int) -> None:
        """Copy the one partner that connected, with its job and its sign-in, until there are so many."""
        first, there_are = (
            self.one("SELECT min(id) FROM partners_partner"),
            self.one("SELECT max(id) FROM partners_partner"),
        )
        own = {"tenant_id": "gen_random_uuid()", "name": "'Bench ' || n"}
        self.copy("partners_partner", own, f"o.id = {first}", f"generate_series({self.one(COUNT) + 1}, {number}) n")
        new = f"(SELECT id AS p FROM partners_partner WHERE id > {there_are}) others"  # noqa: S608 - a number
        name = "md5(random()::text || p::text)"
        self.copy("partners_job", {"partner_id": "p"}, f"o.partner_id = {first} AND o.lane = 0", new)
        self.copy("tokens_refreshtoken", {"partner_id": "p", "secret_name": name}, f"o.partner_id = {first}", new)
        self.run("VACUUM ANALYZE")

    def copy(self, table: str, own: dict[str, str], which: str, others: str = "(SELECT) others") -> None:
        """Insert the table's rows of which this is true once for each of the others, with some values of their own."""
        names = [name for (name,) in self._server.execute(COLUMNS, [table])]
        taken = ", ".join(own.get(name, f"o.{name}") for name in names)
        self.run(f"INSERT INTO {table} ({', '.join(names)}) SELECT {taken} FROM {table} o, {others} WHERE {which}")  # noqa: S608

    def run(self, statement: str) -> None:
        self._server.execute(statement.encode())

    def one(self, query: str) -> Any:
        """The first value that comes back."""
        found = self._server.execute(query.encode()).fetchone()
        return found[0] if found else None
