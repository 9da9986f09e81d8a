"""A PostgreSQL database as in production: an owner that migrates, and a login that the policies bind."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from bench import templates


@dataclass(frozen=True)
class Walled:
    """Addresses of one database: the application's, the owner's, and that of a superuser, who looks behind the wall."""

    login_url: str
    owner_url: str
    superuser_url: str


@contextmanager
def a_walled_database(server: str) -> Iterator[Walled]:
    """
    A new database on this server with two logins of its own; all are gone at the end.

    It is empty, or a copy of the migrated one that the environment names; whoever uses it migrates in either case.
    """
    mark = uuid.uuid4().hex[:12]
    name, owner, login = f"cpv_walled_{mark}", f"cpv_owner_{mark}", f"cpv_login_{mark}"

    def url(user: str = "") -> str:
        parts = urlsplit(server)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(path=f"/{name}", netloc=f"{user}:{mark}@{host}" if user else parts.netloc).geturl()

    template = templates.needed(server)
    with psycopg.connect(server, autocommit=True) as admin:
        for statement in (
            f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD '{mark}'",
            f"CREATE ROLE {login} LOGIN NOINHERIT PASSWORD '{mark}'",
            f"CREATE DATABASE {name} OWNER {owner} {f'TEMPLATE {template}' if template else ''}",
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {name} TO {login}",
        ):
            admin.execute(sql.SQL(statement))
        try:
            if template:
                templates.copied(template, url=url(), owner=owner)
            yield Walled(url(login), url(owner), url())
        finally:
            admin.execute(sql.SQL(f"DROP DATABASE {name} WITH (FORCE)"))
            admin.execute(sql.SQL(f"DROP ROLE {login}, {owner}"))
