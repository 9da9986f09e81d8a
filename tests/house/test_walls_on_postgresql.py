"""The walls where there are all of them."""

from __future__ import annotations

from tests.postgresql import THERE, run_there


@THERE
def test_the_walls_hold_on_postgresql(record_property):
    record_property("figure", run_there("walls"))
