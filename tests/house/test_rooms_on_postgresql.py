"""What the rooms do with rows holds on PostgreSQL. The stand-in has no database; the journeys run beside this."""

from __future__ import annotations

from tests.postgresql import THERE, run_there


@THERE
def test_every_test_of_the_rooms_passes_on_postgresql(record_property):
    record_property("figure", run_there("rooms"))
