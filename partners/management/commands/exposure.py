"""What was touched with partners' credentials in a span of time: for the day somebody asks."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from partners.commands import PanelCommand
from partners.models import Partner
from tokens.exposure import ASSUMED_LIFE, Exposure, Touched, Why, exposure

NAMED = 20  # customers of one partner in the lines for people; --json names all
ASSUMED = f"{ASSUMED_LIFE.total_seconds() / 3600:.0f} hours"
WORDS = {
    Why.ALIVE: "minted before the span",
    Why.SENT: "sent, and nobody knows what came",
    Why.UNAVAILABLE: "failed, and the answer may have been lost",
    Why.THROWN_AWAY: "handed out with an id_token that was not right, and thrown away",
    Why.LIFE_UNKNOWN: f"minted in the {ASSUMED} before the span, with a life that the ledger does not know",
}


class Command(PanelCommand):
    """Exit code 0: the answer, also when nothing was touched; 2: wrong use."""

    help = (
        "Partners, audiences and customers that access tokens opened in a span of time, by the ledger: what was "
        "touched for certain, and what possibly was. Tokens minted before the span count while they lived."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", required=True, help="a day or a moment, UTC: 2026-11-26 or 2026-11-26T09:00")
        parser.add_argument("--until", help="the same; without it, now")

    def handle(self, *args: Any, since: str, until: str | None, **options: Any) -> None:
        begin, end = self._moment(since), self._moment(until) if until else timezone.now()
        if begin >= end:
            self.wrong_use("--since is not before --until")
        partners = Partner.objects.order_by("pk")
        found = exposure(partners.values_list("pk", flat=True), since=begin, until=end)
        by_pk = partners.in_bulk({*found.certain, *found.possible})
        document = {"since": begin, "until": end} | _document(found, by_pk)
        self._explain(document["counts"])
        self.answer(document, _lines(document))

    def _explain(self, counts: dict[str, dict[str, int]]) -> None:
        """What to make of it, for whoever reads this in the middle of the night."""
        if counts["certain"]["tokens"]:
            self.stderr.write(
                "A token for a partner's own tenant reaches all that the partner reaches there, its customers too; "
                "named are the customers whose own tenant a token was for."
            )
        if counts["possibly"]["tokens"]:
            self.stderr.write(
                "Treat what was possibly touched as touched, until somebody has shown otherwise. A life that nobody "
                f"knows is taken as {ASSUMED}; where a policy lets tokens live longer, give an earlier --since."
            )

    def _moment(self, text: str) -> dt.datetime:
        try:
            moment = parse_datetime(text)  # of a day, its first moment
        except ValueError:
            moment = None
        if moment is None:
            self.wrong_use(f"{text!r} is no time; write 2026-11-26 or 2026-11-26T09:00")
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


# --- For scripts ----------------------------------------------------------------------------------------------------
def _document(found: Exposure, by_pk: dict[int, Partner]) -> dict[str, Any]:
    sides = {"partners": found.certain, "possibly": found.possible}
    lists = {name: [_described(by_pk[pk], side[pk]) for pk in sorted(side)] for name, side in sides.items()}
    counts = {"certain": _counts(found.certain), "possibly": _counts(found.possible)}
    return {**lists, "counts": counts, "assumed_life_s": int(ASSUMED_LIFE.total_seconds())}


def _described(partner: Partner, touched: Touched) -> dict[str, Any]:
    return {
        "tenant_id": partner.tenant_id,
        "name": partner.name,
        "audiences": sorted(touched.audiences),
        "customers": sorted(map(str, touched.customers)),
        "purposes": sorted(touched.purposes),
        "tokens": touched.why.total(),
        "first_at": touched.first_at,
        "last_at": touched.last_at,
        "why": dict(sorted(touched.why.items())),
    }


def _counts(side: dict[int, Touched]) -> dict[str, int]:
    customers: set[Any] = set().union(*(touched.customers for touched in side.values()))
    tokens = sum(touched.why.total() for touched in side.values())
    return {"partners": len(side), "customers": len(customers), "tokens": tokens}


# --- For people -----------------------------------------------------------------------------------------------------
def _lines(document: dict[str, Any]) -> list[str]:
    certain, possibly, counts = document["partners"], document["possibly"], document["counts"]
    if not (certain or possibly):
        return ["Nothing was touched."]
    return [
        f"Touched for certain: {_sum(counts['certain'])}.",
        *(line for one in certain for line in _of_partner(one)),
        f"Possibly touched: {_sum(counts['possibly'])}.",
        *(line for one in possibly for line in _of_partner(one)),
    ]


def _sum(counts: dict[str, int]) -> str:
    return ", ".join(_number(number, name) for name, number in counts.items() if number) or "nothing"


def _number(number: int, plural: str) -> str:
    return f"{number} {plural.removesuffix('s') if number == 1 else plural}"


def _of_partner(one: dict[str, Any]) -> list[str]:
    why = "; ".join(f"{number} {WORDS[reason]}" for reason, number in one["why"].items() if reason in WORDS)
    tokens = _number(one["tokens"], "tokens") + (f" ({why})" if why else "")
    lines = [f"  {one['name']} ({one['tenant_id']}): {', '.join(one['audiences'])}; {tokens}"]
    if customers := one["customers"]:
        more = f" and {len(customers) - NAMED} more; --json names all" if len(customers) > NAMED else ""
        lines.append(f"    {_number(len(customers), 'customers')}: {', '.join(customers[:NAMED])}{more}")
    return lines
