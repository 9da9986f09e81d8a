"""Many partners that are connected, and workers that do what is due for them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.ground import Broken, Ground
from bench.names import WARMING
from bench.table import Figures

LONGEST = 120.0  # seconds
TOOK = "SELECT extract(epoch FROM max(finished_at) - (SELECT min(started_at) FROM partners_run)) FROM partners_run"
ENDINGS = "SELECT array_agg(DISTINCT concat_ws(' ', outcome, error_code, error)) FROM partners_run"
DUE = "SELECT count(*) FROM partners_job WHERE next_run_at <= now()"

COLUMNS = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = %s AND is_identity = 'NO' ORDER BY ordinal_position
"""
COUNT = "SELECT count(*) FROM partners_partner"


class Crowd:
    """
    The database's partners, seen from behind the wall.

    Most are copies of one that connected the real way: rows in the database, and nothing else.
    """

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

    def endings(self) -> str:
        """How runs ended, in the rows' own words."""
        return ", ".join(self.one(ENDINGS) or [])

    def took(self, whose: str = "true") -> float:
        """Seconds from the first run's start to the end of the last one of which this is true."""
        return float(self.one(f"{TOOK} WHERE {whose}") or 0)


@contextmanager
def a_crowd(where: Ground) -> Iterator[Crowd]:
    """The database's partners, for as long as a bench lasts."""
    crowd = Crowd(where)
    try:
        yield crowd
    finally:
        crowd.close()


def work_off(where: Ground, crowd: Crowd, *, processes: int, threads: int) -> Figures:
    """Have workers begin at the same moment and do what is due, until nothing is."""
    with tempfile.TemporaryDirectory(prefix="cpv-bench-flag-") as folder, ThreadPoolExecutor(processes) as pool:
        flag = Path(folder) / "flag"
        given: dict[str, Any] = {"threads": threads, "flag": str(flag)}
        workers = [pool.submit(where.measure, "dispatching.work_off", **given) for _ in range(processes)]
        try:
            _until(lambda: len(list(flag.parent.iterdir())) == processes, workers, crowd)
            crowd.run("TRUNCATE partners_run CASCADE")
            crowd.run(f"DELETE FROM partners_job WHERE kind = '{WARMING}'")  # noqa: S608 - our own word
            flag.write_text("go")
            _until(lambda: crowd.one(DUE) == 0, workers, crowd)
        finally:
            flag.write_text("end")
        told = [worker.result() for worker in workers]
    return {"cpu": sum(one["cpu"] for one in told), "memory": max(one["memory"] for one in told)}


def _until(it_is_so: Callable[[], bool], workers: list[Future[Any]], crowd: Crowd) -> None:
    """:raises Broken: it takes too long, or a worker ended meanwhile"""
    deadline = time.monotonic() + LONGEST
    while not it_is_so():
        for worker in workers:
            if worker.done():
                worker.result()  # raises what ended it
        if time.monotonic() > deadline:
            raise Broken(f"the workers do not come to an end; runs: {crowd.endings()}")
        time.sleep(0.02)
