"""The journeys lead to the same places on PostgreSQL."""

from __future__ import annotations

from tests.postgresql import THERE, run_there


@THERE
def test_every_journey_passes_on_postgresql(record_property):
    this = "tests/journeys/test_journeys_on_postgresql.py"

    # The way by which Microsoft's answer comes back is the same for every database, and so is what its numbers mean;
    # the file of the former walks both.
    names = "(not form_post] or test_form_post) and not test_every_answer and not test_refusals"

    record_property("figure", run_there("tests/journeys", but=this, database="cpv_journeys", names=names))
