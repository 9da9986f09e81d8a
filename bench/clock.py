"""The clock of a fresh process: what it took itself, and what the database's server did meanwhile."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

WATCHED = "BENCH_WATCHED_URL"  # a superuser's address of the database; the server is read only if it is quiet
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def clock(figures: dict[str, Any]) -> Iterator[None]:
    """
    Seconds by the wall and of this process's CPU, and the most memory it ever had, in MB.

    Where a server is watched, `server_cpu` in seconds and `wal` in bytes are its own meanwhile.
    """
    server = Server(os.environ[WATCHED]) if os.environ.get(WATCHED) else None
    before = server.read() if server else {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    figures["seconds"] = time.perf_counter() - wall
    figures["cpu"] = time.process_time() - cpu
    figures["memory"] = most_memory()
    if server:
        figures |= {name: value - before[name] for name, value in server.read().items()}


def most_memory() -> float:
    """MB this process had at its peak; without what a process had before it became this program, where that is told."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Server:
    """A PostgreSQL server that does nothing else: its CPU and its WAL belong to whoever works with it just now."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._parent = _parent(self._connection.info.backend_pid)

    def read(self) -> dict[str, float]:
        found = self._connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
        return {"wal": float(found[0]) if found else 0.0, "server_cpu": self._cpu()}

    def _cpu(self) -> float:
        """Seconds of all its processes, those that ended included; 0 on another machine, which tells nothing."""
        if not self._parent:
            return 0.0
        processes = [_stat(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        own = sum(_ticks(one, 13, 14) for one in processes if one and one[3] == str(self._parent))
        main = _stat(str(self._parent))
        return (own + _ticks(main, 13, 14, 15, 16)) / TICKS


def _parent(backend: int) -> int:
    """The server's main process, if the connection's is one of this machine; else 0."""
    found = _stat(str(backend))
    return int(found[3]) if found and found[1] == "postgres" else 0


def _stat(pid: str) -> list[str]:
    """The fields of /proc/PID/stat; empty where there is no such process."""
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
    except OSError:
        return []
    number, _, name = head.partition(" (")
    return [number, name, *tail.split()]


def _ticks(fields: list[str], *places: int) -> int:
    return sum(int(fields[place]) for place in places if fields)
