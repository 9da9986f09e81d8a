"""Databases of the bench and of the tests begin as copies of one that is migrated once."""

from __future__ import annotations

import psycopg
import pytest

from bench import templates
from bench.walled import a_walled_database
from tests.postgresql import SERVER, THERE

OWNERS = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"


@THERE
@pytest.mark.processes
def test_each_copy_has_all_tables_and_belongs_to_its_own_owner():
    for _ in range(2):  # the second finds the one to copy
        with a_walled_database(SERVER) as made, psycopg.connect(made.owner_url) as inside:
            assert inside.execute(OWNERS).fetchall() == [(inside.info.user,)]
            assert inside.execute("SELECT count(*) FROM tokens_refreshtoken").fetchone() == (0,)


@THERE
@pytest.mark.processes
def test_where_none_is_named_a_database_begins_empty(monkeypatch):
    monkeypatch.delenv(templates.NAME)

    with a_walled_database(SERVER) as made, psycopg.connect(made.owner_url) as inside:
        assert inside.execute(OWNERS).fetchall() == []
