"""The journeys lead to the same places on PostgreSQL, each test of them."""

from __future__ import annotations

from tests.postgresql import THERE, run_there


@THERE
def test_every_journey_passes_on_postgresql(record_property):
    this = "tests/journeys/test_journeys_on_postgresql.py"

    record_property("figure", run_there("tests/journeys", but=this, database="cpv_journeys"))
