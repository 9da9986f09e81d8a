"""What a change of a subscription means, as far as Microsoft's documents tell."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.utils import dateformat

from partners.models import Change

# New terms that end from May 2026 on: https://learn.microsoft.com/partner-center/customers/extended-service-terms
EXTENDED_SINCE = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)


def of(change: Change, *, now: dt.datetime) -> list[str]:
    """Sentences for whoever is about to confirm, or did."""
    said = _seats(change, now) if change.what == Change.What.QUANTITY else _renewal(change, now)
    if change.before.get("next_term"):
        said.append(
            "A change that is scheduled for the next term is taken back by Microsoft; schedule it anew afterwards."
        )
    return said


def facts(told: dict[str, Any]) -> dict[str, Any]:
    """What Microsoft told of a subscription, for a page: times as times."""
    return told | {"term_ends": _moment(told.get("term_ends"))} if told else {}


def _seats(change: Change, now: dt.datetime) -> list[str]:
    """https://learn.microsoft.com/partner-center/customers/new-commerce-cancellation-policy"""
    more, until = int(change.wanted_value) - int(change.before["quantity"]), _moment(change.before.get("fewer_until"))
    ends = _moment(change.before.get("term_ends"))
    if more > 0:
        until_then = f" to the end of the term on {_day(ends)}" if ends and ends > now else ""
        return [
            f"{more:,} more licence{'s' if more > 1 else ''}, which Microsoft charges from now on{until_then},"
            " by its own prices: we do not know them.",
            "Added licences can be given back within 168 hours (seven days) of adding them, and not later.",
        ]
    said = [f"{-more:,} fewer licence{'s' if more < -1 else ''}. Whoever loses theirs is decided at the customer."]
    if until is None or until <= now:
        when = f" For these that ended on {_day(until)}." if until else ""
        return [
            *said,
            f"Microsoft allows fewer only within 168 hours (seven days) of buying, adding or renewing them.{when}"
            " It will probably refuse, and then nothing is changed.",
        ]
    return [*said, f"Microsoft allows fewer until {_moment_in_words(until)}, and pays back what was not used."]


def _renewal(change: Change, now: dt.datetime) -> list[str]:
    """https://learn.microsoft.com/partner-center/customers/extended-service-terms"""
    ends, quantity = _moment(change.before.get("term_ends")), change.before.get("quantity")
    when = f"At the end of the term, on {_day(ends)}," if ends and ends > now else "At the end of the term"
    if change.wanted_value:
        many = f" with {quantity:,} licence{'s' if quantity != 1 else ''}" if quantity else ""
        return [f"{when} it renews for another term{many}, at the price of that day."]
    if ends and ends < EXTENDED_SINCE:
        return [f"{when} it ends."]
    return [
        f"{when} it does not renew.",
        "That alone does not end it. Since May 2026 there are three ends of a term: renew, go on by the month, and end."
        " Most licence subscriptions that do not renew go on by the month at a higher price (3 % more, or 23 % where"
        " there is no monthly plan), until somebody cancels.",
        "To have it end, also choose to cancel at the end of the term in Partner Center: no document tells us how to"
        " choose that for you.",
    ]


def _moment(text: object) -> dt.datetime | None:
    return dt.datetime.fromisoformat(text) if isinstance(text, str) and text else None


def _day(moment: dt.datetime) -> str:
    return dateformat.format(moment, "j M Y")


def _moment_in_words(moment: dt.datetime) -> str:
    return f"{dateformat.format(moment, 'j M Y, H:i')} UTC"
