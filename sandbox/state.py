"""Where a world is kept between two starts of the process; nowhere, unless a folder is named."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Store:
    """Keeps nothing: what tests use."""

    def put(self, kind: str, key: str, row: Row) -> None:
        """Keep one row, replacing the one of the same kind and key."""

    def delete(self, kind: str, key: str) -> None:
        """Forget one row."""

    def clear(self) -> None:
        """Forget everything."""

    def rows(self, kind: str) -> list[tuple[str, Row]]:
        """Everything kept of one kind, oldest first."""
        return []


class FileStore(Store):
    """One SQLite file, readable by its owner only, because it holds signing keys and pretended tokens."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "world.sqlite3"
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY, kind TEXT, key TEXT, row TEXT, "
            "UNIQUE (kind, key))"
        )

    def put(self, kind: str, key: str, row: Row) -> None:
        sql = (
            "INSERT INTO kept (kind, key, row) VALUES (?, ?, ?) "
            "ON CONFLICT (kind, key) DO UPDATE SET row = excluded.row"
        )
        with self._lock:
            self._db.execute(sql, (kind, key, json.dumps(row)))

    def delete(self, kind: str, key: str) -> None:
        with self._lock:
            self._db.execute("DELETE FROM kept WHERE kind = ? AND key = ?", (kind, key))

    def clear(self) -> None:
        with self._lock:
            self._db.execute("DELETE FROM kept")

    def rows(self, kind: str) -> list[tuple[str, Row]]:
        with self._lock:
            found = self._db.execute("SELECT key, row FROM kept WHERE kind = ? ORDER BY number", (kind,)).fetchall()
        return [(key, json.loads(row)) for key, row in found]
