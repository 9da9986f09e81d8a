"""
What partners' credentials opened in a span of time, by the ledger: for the day a worker was in a thief's hands.

A token counts that was alive in the span, whenever it was minted. Where nobody knows whether one was, it counts as
possible: what was missed cannot be mended, what was told in vain can.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db.models import (
    Case,
    CharField,
    Count,
    DateTimeField,
    DurationField,
    ExpressionWrapper,
    F,
    IntegerField,
    Max,
    Min,
    Q,
    QuerySet,
    Value,
    When,
)
from django.db.models.functions import Coalesce

from tokens.models import LONGEST_LIFE, TokenUse

ASSUMED_LIFE = dt.timedelta(seconds=LONGEST_LIFE)  # of a token whose life the ledger does not know
_COUNTS = Q(outcome__in=[TokenUse.Outcome.GRANTED, TokenUse.Outcome.SENT, TokenUse.Outcome.UNAVAILABLE])
_SECOND = Value(dt.timedelta(seconds=1), output_field=DurationField())
_SECONDS = Coalesce(F("lives_s"), LONGEST_LIFE, output_field=IntegerField())
_LIFE = ExpressionWrapper(_SECONDS * _SECOND, output_field=DurationField())
_ENDS_AT = ExpressionWrapper(F("at") + _LIFE, output_field=DateTimeField())


class Why(StrEnum):
    """Why a ledger line counts."""

    MINTED = "minted"  # in the span
    ALIVE = "alive"  # minted before it, and not yet at its end
    LIFE_UNKNOWN = "life_unknown"  # minted before it by a release that kept no lives
    SENT = "sent"  # nobody knows what came
    UNAVAILABLE = "unavailable"  # the answer may have been lost after the effect
    THROWN_AWAY = "thrown_away"  # it came with an id_token that proved nothing, or named somebody else

    @property
    def is_certain(self) -> bool:
        return self in (Why.MINTED, Why.ALIVE)


@dataclass
class Touched:
    """What was touched, or possibly touched, in one partner's name; the times are those of the requests."""

    first_at: dt.datetime
    last_at: dt.datetime
    audiences: set[str] = field(default_factory=set)
    purposes: set[str] = field(default_factory=set)
    customers: set[UUID] = field(default_factory=set)
    why: Counter[Why] = field(default_factory=Counter)  # how many lines

    def add(self, row: dict[str, Any]) -> None:
        self.first_at, self.last_at = min(self.first_at, row["first_at"]), max(self.last_at, row["last_at"])
        self.audiences.add(row["audience"])
        self.purposes.add(row["purpose"])
        self.why[Why(row["why"])] += row["lines"]
        if row["customer_tenant"]:
            self.customers.add(row["customer_tenant"])


@dataclass(frozen=True)
class Exposure:
    """By the partner's primary key: what was touched for certain, and what possibly was."""

    certain: dict[int, Touched] = field(default_factory=dict)
    possible: dict[int, Touched] = field(default_factory=dict)


def exposure(partners: Iterable[int], *, since: dt.datetime, until: dt.datetime) -> Exposure:
    """What tokens of these partners could reach from `since` until just before `until`."""
    found = Exposure()
    for row in _rows(partners, since, until):
        side = found.certain if Why(row["why"]).is_certain else found.possible
        touched = side.setdefault(row["partner"], Touched(row["first_at"], row["last_at"]))
        touched.add(row)
    return found


def _rows(partners: Iterable[int], since: dt.datetime, until: dt.datetime) -> Iterator[dict[str, Any]]:
    """
    One for each partner, audience, purpose, customer and reason. The partners are named so that their index serves.

    Beyond the assumed life only lines can count that are known to live longer: few, and with an index of their own.
    """
    lines = TokenUse.objects.filter(_COUNTS, partner__in=list(partners)).alias(ends_at=_ENDS_AT)
    horizon = since - ASSUMED_LIFE
    near = lines.filter(Q(at__gte=since) | Q(ends_at__gt=since), at__gt=horizon, at__lt=until)
    yield from _grouped(near, since)
    yield from _grouped(lines.filter(lives_s__gt=LONGEST_LIFE, at__lte=horizon, ends_at__gt=since), since)


def _grouped(lines: QuerySet[TokenUse], since: dt.datetime) -> Iterator[dict[str, Any]]:
    why = Case(
        When(outcome=TokenUse.Outcome.SENT, then=Value(Why.SENT)),
        When(outcome=TokenUse.Outcome.UNAVAILABLE, then=Value(Why.UNAVAILABLE)),
        When(~Q(code=""), then=Value(Why.THROWN_AWAY)),  # granted, and we say why nothing of it was used
        When(at__gte=since, then=Value(Why.MINTED)),
        When(lives_s=None, then=Value(Why.LIFE_UNKNOWN)),
        default=Value(Why.ALIVE),
        output_field=CharField(),
    )
    grouped = lines.annotate(why=why).values("partner", "audience", "purpose", "customer_tenant", "why")
    counted = grouped.annotate(lines=Count("pk"), first_at=Min("at"), last_at=Max("at")).order_by()
    return (dict(row) for row in counted)
