"""Times on pages: in UTC, with how long ago they are."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine

from cpvpanel.templatetags.panel import age, moment

NOW = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (dt.timedelta(0), "now"),
        (dt.timedelta(seconds=1), "1 second ago"),
        (dt.timedelta(seconds=59.9), "59 seconds ago"),
        (dt.timedelta(seconds=119), "1 minute ago"),
        (dt.timedelta(hours=1, minutes=59), "1 hour ago"),
        (dt.timedelta(days=1), "1 day ago"),
        (dt.timedelta(days=1, hours=2), "1 day, 2 hours ago"),
        (dt.timedelta(days=8), "1 week, 1 day ago"),
        (dt.timedelta(days=29), "4 weeks, 1 day ago"),
        (dt.timedelta(days=364), "12 months ago"),
        (dt.timedelta(days=800), "2 years, 2 months ago"),
        (-dt.timedelta(minutes=59, seconds=30), "59 minutes from now"),
        (-dt.timedelta(days=179), "5 months, 4 weeks from now"),
    ],
)
def test_an_age_is_told_in_its_two_largest_units_and_below_a_day_in_one(before, words):
    with time_machine.travel(NOW, tick=False):
        assert age(NOW - before).replace("\xa0", " ") == words


def test_a_moment_is_told_in_utc_wherever_it_was_taken_down():
    in_tokyo = dt.datetime(2026, 11, 5, 7, 4, 59, tzinfo=dt.timezone(dt.timedelta(hours=9)))

    with time_machine.travel(NOW, tick=False):
        said = moment(in_tokyo)

    assert said == (
        '<time datetime="2026-11-04T22:04:59Z">4 Nov 2026, 22:04 UTC</time>'
        ' <span class="cpv-age">(3\xa0weeks, 1\xa0day ago)</span>'
    )
