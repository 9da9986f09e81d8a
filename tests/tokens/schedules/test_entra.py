"""The real code at an identity service like Entra, where a spent refresh token stays as good as it was."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("uncounted")]
NUMBER, SOAK = 1000, 50_000


def test_in_no_schedule_anything_is_lost_stale_or_resurrected(play_many, record_property):
    assert set(play_many("entra", range(NUMBER))) == {""}
    record_property("figure", f"real code, entra: {NUMBER:,} schedules: 0 lost, 0 stale, 0 resurrected")


@pytest.mark.soak
def test_in_fifty_times_as_many_neither(play_many, record_property):
    assert set(play_many("entra", range(NUMBER, NUMBER + SOAK))) == {""}
    record_property("figure", f"real code, entra: {SOAK:,} schedules: 0 lost, 0 stale, 0 resurrected")
