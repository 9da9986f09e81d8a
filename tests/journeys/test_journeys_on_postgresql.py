"""The journeys lead to the same places on PostgreSQL."""

from __future__ import annotations

from tests.postgresql import THERE, run_there


@THERE
def test_every_journey_passes_on_postgresql(record_property):
    record_property("figure", run_there("journeys"))
