"""What a text in the search for customers looks for, with and without the database's own function."""

from __future__ import annotations

import contextlib
import re
import uuid
from dataclasses import dataclass

from django.db.models import BooleanField, Q, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import StrIndex
from django.db.models.lookups import GreaterThan

SHORTEST = 3  # characters; what is shorter has no line in an index of parts
_HAS_A_LINE = re.compile(r"[^\W_]{2}")  # two letters or digits in a row, and a third sign beside them
_SPECIAL = re.compile(r"([\\%_])")  # in a pattern of LIKE
# Made by partners.0013.
_LOOKED_UP = "partners_customer.id = ANY (ARRAY(SELECT cpv_search.customers(%s, %s, %s, %s, %s, %s, %s)))"


@dataclass(frozen=True)
class Wanted:
    """
    A part of the name or of the domain, or a tenant id; or, if `is_start`, how the name begins.

    That is for less than three characters, and for signs alone: in the middle of names no index has them. In a domain
    the index is asked for the `stem`, what comes before the first dot: what all domains end in, such as
    ".onmicrosoft.com", would have it read a line for each of them.
    """

    key: str
    stem: str
    is_start: bool
    tenant_id: uuid.UUID | None

    @classmethod
    def by(cls, text: str) -> Wanted:
        key, tenant_id = text.strip().casefold(), None
        with contextlib.suppress(ValueError):
            tenant_id = uuid.UUID(key)
        stem = key.partition(".")[0]
        is_start = len(key) < SHORTEST or not _HAS_A_LINE.search(key)
        return cls(key, stem if len(stem) >= SHORTEST else key, is_start, tenant_id)

    def condition(self) -> Q:
        """As a filter; what it costs grows with the number of customers."""
        if self.is_start:
            return Q(name_key__startswith=self.key)
        in_domain = Q(domain__contains=self.stem) & Q(GreaterThan(StrIndex("domain", Value(self.key)), 0))
        found = Q(name_key__contains=self.key) | in_domain
        return found | Q(tenant_id=self.tenant_id) if self.tenant_id else found

    def looked_up(self, *, after: tuple[str, int] | None, most: int) -> RawSQL:
        """As a filter by what the function finds: the first `most` after a place in the list, by name and id."""
        if self.is_start:
            what: list[object] = [f"{_literal(self.key)}%", None, None, None]
            after = after or (self.key, 0)  # no name that begins so comes before
        else:
            what = [f"%{_literal(self.key)}%", f"%{_literal(self.stem)}%", self.key, self.tenant_id]
        return RawSQL(_LOOKED_UP, [*what, *(after or (None, None)), most], output_field=BooleanField())  # noqa: S611


def _literal(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
