"""What the strategies of a sync find when they start: how the stand-in's list looks, and what is in whose tables."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import requests

from bench.ground import DLT, Ground
from bench.names import tenant_of

Look = dict[str, Any]  # as `sandbox.drift.Drift`
STABLE: Look = {}
UNSTABLE: Look = {"order": "rotated"}  # each page begins with another customer at each read
SOME_CHANGED: Look = {"order": "rotated", "changes": [0.01]}  # spread over every page
ALL_CHANGED: Look = {"changes": [1.0]}
PAGE = "/v1/customers?size=500"
PARTNER_CENTER = "api.partnercenter.microsoft.com"
OURS = "relname = 'partners_customer'"
DLTS = "schemaname LIKE 'peer_dlt%'"
PEERS = "relname = 'bench_peer'"

# Peers write what the list tells; what else the product's table wants of a row is not asked of theirs.
FORGIVING = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT column_name FROM information_schema.columns
        WHERE table_name = 'bench_peer' AND is_identity = 'NO'
    LOOP EXECUTE format('ALTER TABLE bench_peer ALTER %I DROP NOT NULL', name); END LOOP;
END $$
"""


class Besides:
    """One database with the product's tables, twins of them for limits and peers, and a schema for dlt."""

    def __init__(self, where: Ground, folder: Path) -> None:
        self._where, self._folder = where, folder
        self._server = psycopg.connect(where.superuser_url, autocommit=True) if where.superuser_url else None
        self._mirrored: list[str] = where.measure("mirrored")
        self.bearers: dict[int, str] = {}
        self._tokens: dict[str, list[str]] = {}  # by all that tells kept pages apart
        self.has_dlt = self._server is not None and DLT.exists()
        self.state = str(folder / "state")  # dlt's own
        for table in ("bench_limit", "bench_peer"):
            self._run(f"CREATE TABLE {table} (LIKE partners_customer INCLUDING ALL)")
        self._run(FORGIVING)
        self._run("GRANT ALL ON bench_peer TO PUBLIC")

    def close(self) -> None:
        if self._server:
            self._server.close()

    def _run(self, statement: str) -> None:
        if self._server:
            self._server.execute(statement.encode())

    # what is made ready

    def connect(self, size: int) -> None:
        """The partner with so many customers."""
        self.bearers[size] = self._where.measure("connect", tenant=tenant_of(size))

    def wire(self, size: int) -> dict[str, Any]:
        """What those need who read the list without a broker: a bearer, and the tokens of its pages."""
        return {"bearer": self.bearers[size], "tokens": self.show(size, STABLE)}

    def show(self, size: int, look: Look) -> list[str]:
        """The partner's list looks like this from now on, and every page is made; their continuation tokens."""
        self._where.tell("list", tenant=tenant_of(size), **look)
        made = f"{size} {look.get('changes')}"
        if made not in self._tokens:
            self._tokens[made] = list(self._read(size))
        return self._tokens[made]

    def _read(self, size: int) -> Iterator[str]:
        """The token of each page, page by page."""
        headers = {"Host": PARTNER_CENTER, "Authorization": f"Bearer {self.bearers[size]}"}
        root, uri, token = self._where.env["CPV_SANDBOX_URL"], PAGE, ""
        with requests.Session() as http:
            while uri:
                yield token
                answer = http.get(root + uri, headers=headers | {"MS-ContinuationToken": token}, timeout=60).json()
                following = answer["links"].get("next")
                uri = f"/v1{following['uri']}" if following else ""
                token = following["headers"][0]["value"] if following else ""

    def show_tidy(self, size: int, look: Look) -> None:
        """The same, and the tables are as the server's own housekeeping leaves them sooner or later."""
        self.show(size, look)
        self._run("VACUUM ANALYZE")

    def empty(self, size: int) -> None:
        """Nothing is mirrored."""
        self.show(size, STABLE)
        if self._server:
            self._run(f"TRUNCATE {', '.join(self._mirrored)} CASCADE")
        else:
            with sqlite3.connect(self._where.env["DATABASE_URL"].removeprefix("sqlite:///")) as file:
                for table in self._mirrored:
                    file.execute(f"DELETE FROM {table}")  # noqa: S608 - the product's own names

    def empty_peer(self, size: int) -> None:
        """The twin that peers write is empty."""
        self.show(size, STABLE)
        self._run("TRUNCATE bench_peer")

    def empty_dlt(self, size: int) -> None:
        """Dlt never ran."""
        self.show(size, STABLE)
        for schema in ("peer_dlt", "peer_dlt_staging"):
            self._run(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        shutil.rmtree(self.state, ignore_errors=True)

    # what was written

    def rows(self, tables: str) -> float:
        """Rows inserted, updated or deleted so far in the tables that this condition picks; each write counts."""
        if self._server is None:
            return 0
        counted = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE "
        found = self._server.execute(f"{counted}{tables}".encode()).fetchone()
        return float(found[0] or 0) if found else 0


@contextmanager
def besides(where: Ground) -> Iterator[Besides]:
    """What the strategies find; its files and its connection end with us, its tables with the database."""
    with TemporaryDirectory(prefix="cpv-bench-dlt-") as folder:
        made = Besides(where, Path(folder))
        try:
            yield made
        finally:
            made.close()
