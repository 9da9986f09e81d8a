"""Every test of the rooms holds on PostgreSQL too. The stand-in has no database; the journeys run beside this."""

from __future__ import annotations

from tests.postgresql import THERE, run_there


@THERE
def test_every_test_of_the_rooms_passes_on_postgresql(record_property):
    house = [
        f"tests/house/test_{name}.py" for name in ("desk", "health", "sweep", "walls", "who_may")
    ]  # the others look at files
    rooms = ("tests/tokens", "tests/partners", "tests/cpvpanel", *house)

    record_property(
        "figure",
        run_there(
            *rooms,
            but="tests/house/test_rooms_on_postgresql.py",
            database="cpv_rooms",
            names="not explorer and not schedules",
        ),
    )
