"""What the rooms do with rows holds on PostgreSQL too. The stand-in has no database; the journeys run beside this."""

from __future__ import annotations

from tests.postgresql import THERE, run_there

THIS = "tests/house/test_rooms_on_postgresql.py"
PLAYED = ["tests/tokens/explorer", "tests/tokens/schedules"]  # on a model, and all on one connection: no matter of rows


@THERE
def test_every_test_of_the_rooms_passes_on_postgresql(record_property):
    house = [f"tests/house/test_{name}.py" for name in ("desk", "health", "walls", "who_may")]  # others look at files
    rooms = ["tests/tokens", "tests/partners", "tests/cpvpanel", *house]

    record_property("figure", run_there(*rooms, but=[THIS, *PLAYED], database="cpv_rooms"))
