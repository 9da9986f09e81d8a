"""A migrated PostgreSQL database that others begin as copies of: to migrate each anew takes seconds of a core."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

NAME = "CPV_BENCH_TEMPLATE"
"""In the environment: what the copied database is called, and its owner. Whoever needs it first makes it."""
ROOT = Path(__file__).resolve().parents[1]
OURS = ("CPV_", "KEY_VAULT_", "DATABASE_", "CELERY_", "EMAIL_", "DJANGO_", "CACHE_URL", "SECRET_KEY", "DEBUG")


def needed(server: str) -> str:
    """The database to copy on this server, migrated; "" where none is named."""
    name = os.environ.get(NAME, "")
    if not name:
        return ""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("SELECT pg_advisory_lock(hashtext(%s))", [name])  # until the connection ends
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            _make(admin, server, name)
    return name


def _make(admin: psycopg.Connection, server: str, name: str) -> None:
    raw = f"{name}_raw"  # only what is whole has the name
    for statement in (
        f"DROP DATABASE IF EXISTS {raw} WITH (FORCE)",
        f"DROP ROLE IF EXISTS {name}",
        f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{name}'",
        f"CREATE DATABASE {raw} OWNER {name}",
    ):
        admin.execute(sql.SQL(statement))
    host = urlsplit(server).netloc.rpartition("@")[2]
    _migrate(urlsplit(server)._replace(path=f"/{raw}", netloc=f"{name}:{name}@{host}").geturl())
    # A database is nobody's own in the sense of REASSIGN OWNED only when it belongs to somebody else.
    admin.execute(sql.SQL(f"ALTER DATABASE {raw} OWNER TO CURRENT_USER"))
    admin.execute(sql.SQL(f"ALTER DATABASE {raw} RENAME TO {name}"))


def _migrate(url: str) -> None:
    """As an owner who is the application's login as well: so no other login is named in there."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    env |= {"DATABASE_URL": url, "DEBUG": "true", "CPV_ENV_FILE": os.devnull}
    command = [sys.executable, "manage.py", "migrate", "--no-input", "--skip-checks", "--verbosity", "0"]
    subprocess.run(command, cwd=ROOT, env=env, check=True)


def copied(name: str, *, url: str, owner: str) -> None:
    """Give everything in a copy of the database `name` to its owner; `url` is a superuser's."""
    with psycopg.connect(url, autocommit=True) as copy:
        copy.execute(sql.SQL(f"REASSIGN OWNED BY {name} TO {owner}"))


def drop(server: str) -> None:
    """When all is done."""
    name = os.environ.get(NAME, "")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        admin.execute(sql.SQL(f"DROP ROLE IF EXISTS {name}"))
