"""Lists partners: where each stands and who acts next."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from partners.commands import PanelCommand
from partners.models import Partner, Run
from partners.standing import current_token, standing, with_tokens
from tokens.models import Alarm


class Command(PanelCommand):
    help = "List the partners (or one), where each stands and who acts next."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant_id", nargs="?", metavar="TID", help="only the partner of this tenant")

    def handle(self, *args: Any, tenant_id: str | None, **options: Any) -> None:
        rows = Partner.objects.living().order_by("name", "pk")
        if tenant_id:
            rows = rows.filter(pk=self.partner(tenant_id).pk)
        for alarm in Alarm.objects.filter(closed_at=None).select_related("partner"):
            self.stderr.write(f"Ours to repair: {alarm}. No partner is to blame; docs/errors.md says what to do.")
        described = [_described(partner) for partner in with_tokens(_with_last_sync(rows))]
        self.answer(described, _table(described) if described else ["No partner yet: `manage.py invite` invites one."])


def _with_last_sync(rows: QuerySet[Partner]) -> QuerySet[Partner]:
    """With what the last good sync found and when, whatever the number of partners; nobody's customers are read."""
    synced = Run.objects.filter(partner=OuterRef("pk"), outcome=Run.Outcome.DONE, job__kind="customers")
    last = synced.order_by("-finished_at")
    return rows.annotate(
        customer_count=Coalesce(Subquery(last.values("seen")[:1]), 0),
        last_sync_at=Subquery(last.values("finished_at")[:1]),
    )


def _described(partner: Partner) -> dict[str, Any]:
    token = current_token(partner)
    state = standing(partner, token)
    consent = getattr(token, "consent", None)
    return {
        "tenant_id": partner.tenant_id,
        "name": partner.name,
        "cloud": partner.cloud,
        "state": state.state,
        "since": state.since,
        "reason": state.reason,
        "owner": state.owner,
        "action": state.action,
        "missing_scopes": list(state.missing_scopes),
        "role": consent.role if consent else None,
        "customers": partner.customer_count,  # type: ignore[attr-defined]
        "last_sync_at": partner.last_sync_at,  # type: ignore[attr-defined]
        "access_until": partner.lapses_at,
    }


def _table(described: list[dict[str, Any]]) -> list[str]:
    heads = ("Partner", "Tenant", "Cloud", "State", "Customers", "Last sync (UTC)", "Next: who and what")
    rows = [
        (
            row["name"],
            str(row["tenant_id"]),
            row["cloud"],
            row["state"],
            str(row["customers"]),
            _minute(row["last_sync_at"]),
            f"{row['owner']}: {row['action']}",
        )
        for row in described
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows))
    return [line.rstrip() for line in lines]


def _minute(at: dt.datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else "never"
