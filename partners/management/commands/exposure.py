"""What was touched with partners' credentials in a span of time: for the day somebody asks."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import Count, Max, Min
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from partners.commands import PanelCommand
from partners.models import Partner
from tokens.models import TokenUse


class Command(PanelCommand):
    """Exit code 0: the answer, also when nothing was touched; 2: wrong use."""

    help = "Partners, audiences and customers for whom access tokens were asked for in a span of time, by the ledger."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", required=True, help="a day or a moment, UTC: 2026-11-26 or 2026-11-26T09:00")
        parser.add_argument("--until", help="the same; without it, now")

    def handle(self, *args: Any, since: str, until: str | None, **options: Any) -> None:
        begin, end = self._moment(since), self._moment(until) if until else timezone.now()
        if begin >= end:
            self.wrong_use("--since is not before --until")
        partners = _touched(begin, end)
        lines = [f"{one['name']}: {', '.join(one['audiences'])}; {len(one['customers'])} customers" for one in partners]
        self.answer({"since": begin, "until": end, "partners": partners}, lines or ["Nothing was touched."])

    def _moment(self, text: str) -> dt.datetime:
        try:
            day, moment = parse_date(text), parse_datetime(text)
        except ValueError:
            day = moment = None
        if moment is None and day is not None:
            moment = dt.datetime.combine(day, dt.time())
        if moment is None:
            self.wrong_use(f"{text!r} is no time; write 2026-11-26 or 2026-11-26T09:00")
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _touched(begin: dt.datetime, end: dt.datetime) -> list[dict[str, Any]]:
    used = TokenUse.objects.filter(at__gte=begin, at__lt=end, partner__isnull=False)
    got = used.filter(outcome=TokenUse.Outcome.GRANTED)
    by_partner = got.values("partner").annotate(first=Min("at"), last=Max("at"), tokens=Count("pk")).order_by("partner")
    names = Partner.objects.in_bulk([row["partner"] for row in by_partner])
    return [_described(names[row["partner"]], dict(row), got.filter(partner=row["partner"])) for row in by_partner]


def _described(partner: Partner, row: dict[str, Any], got: Any) -> dict[str, Any]:
    customers = got.filter(customer_tenant__isnull=False).values_list("customer_tenant", flat=True).distinct()
    return {
        "tenant_id": partner.tenant_id,
        "name": partner.name,
        "audiences": sorted(set(got.values_list("audience", flat=True))),
        "customers": sorted(str(tenant) for tenant in customers),
        "purposes": sorted(set(got.values_list("purpose", flat=True))),
        "tokens": row["tokens"],
        "first_at": row["first"],
        "last_at": row["last"],
    }
