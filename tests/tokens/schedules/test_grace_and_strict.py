"""The real code where a spent refresh token works a while longer only, or never again."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("uncounted")]
NUMBER, SOAK = 500, 25_000


def test_with_a_grace_nothing_is_lost_stale_or_resurrected(play_many, record_property):
    assert set(play_many("grace", range(NUMBER))) == {""}
    record_property("figure", f"real code, grace: {NUMBER:,} schedules: 0 lost, 0 stale, 0 resurrected")


def test_where_tokens_work_once_what_cannot_be_saved_is_reported(play_many, record_property):
    ends = play_many("strict", range(NUMBER))

    assert set(ends) == {"", "reported"}
    record_property("figure", f"real code, strict: {NUMBER:,} schedules: {ends['reported']} losses, all reported")


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["grace", "strict"])
def test_in_fifty_times_as_many_neither(play_many, mode, record_property):
    ends = play_many(mode, range(NUMBER, NUMBER + SOAK))

    assert set(ends) <= ({""} if mode == "grace" else {"", "reported"})
    record_property("figure", f"real code, {mode}: {SOAK:,} schedules: {ends['reported']:,} losses, all reported")
