"""What templates say in one way everywhere."""

from __future__ import annotations

import datetime as dt

from django import template
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe

register = template.Library()
UNITS = (
    ("year", 365 * 86_400),
    ("month", 30 * 86_400),
    ("week", 7 * 86_400),
    ("day", 86_400),
    ("hour", 3_600),
    ("minute", 60),
    ("second", 1),
)
BELOW_A_DAY = 4  # the place in UNITS from which on one unit says enough


@register.filter
def moment(at: dt.datetime) -> SafeString:
    """A time as people read it, in UTC, with how long ago that is; written by hand, for a list says it 50 times."""
    at = at.astimezone(dt.UTC)
    when = f"{at.day} {at:%b %Y, %H:%M} UTC"
    said = f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{when}</time> <span class="cpv-age">({age(at)})</span>'
    return mark_safe(said)  # noqa: S308 - numbers and words of ours, nothing that anybody wrote


def age(at: dt.datetime) -> str:
    """How long ago, or from now, in the two largest units; a month counts 30 days, for the date stands beside it."""
    past = (timezone.now() - at).total_seconds()
    seconds = int(abs(past))
    for place, (unit, size) in enumerate(UNITS):
        if seconds >= size:
            words = [_of(unit, seconds // size)]
            if place < BELOW_A_DAY and (rest := seconds % size // UNITS[place + 1][1]):
                words.append(_of(UNITS[place + 1][0], rest))
            return f"{', '.join(words)} {'ago' if past > 0 else 'from now'}"
    return "now"


def _of(unit: str, number: int) -> str:
    return f"{number}\xa0{unit}{'' if number == 1 else 's'}"
