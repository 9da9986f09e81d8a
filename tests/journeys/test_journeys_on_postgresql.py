"""The journeys lead to the same places on PostgreSQL."""

from __future__ import annotations

from tests.postgresql import THERE, run_there

THIS = "tests/journeys/test_journeys_on_postgresql.py"
# Each page and each step with rows of its own. How Microsoft's answers are read is the same for every database.
WHOLE = [
    "activity", "admin_consent", "borrowed_access", "commands", "connect", "connection", "exposure", "joining",
    "ledger", "limited", "notices", "notices_of_looks", "staff_sign_in", "switch", "team", "tidy", "users",
    "work_and_see",
]  # fmt: skip


@THERE
def test_every_journey_passes_on_postgresql(record_property):
    whole = [f"test_{name}" for name in WHOLE]

    record_property("figure", run_there("tests/journeys", but=[THIS], database="cpv_journeys", whole=whole))
