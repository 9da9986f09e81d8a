"""What kinds of work there are; a new one is a small declaration in a module that KIND_MODULES names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from tokens.clouds import Audience
from tokens.errors import Permanent

if TYPE_CHECKING:
    from partners.jobs.work import Work

KIND_MODULES = ("partners.sync",)  # each declares its kinds in KINDS


@dataclass(frozen=True)
class Kind:
    """
    One kind of work: its name in the rows, its title for people, what to do, and what it promises.

    It is done `every` so often, and what it brought is old news after `fresh_for`. `purpose` is its dotted word in the
    ledger, `audience` the API it talks to. A kind that asks about each customer by itself has several `lanes`, each
    with its share of the customers, and is `of_customers`. One that is `opt_in` is done for partners who asked for it.
    """

    name: str
    title: str
    run: Callable[[Work], None]
    every: dt.timedelta
    fresh_for: dt.timedelta
    purpose: str
    audience: Audience = Audience.PARTNER_CENTER
    lanes: int = 1
    of_customers: bool = False
    opt_in: bool = False


class UnknownKind(Permanent):
    """No module of this release declares this kind of job."""


@cache
def kinds() -> dict[str, Kind]:
    """Every kind by name."""
    modules = [import_module(name) for name in KIND_MODULES]
    return {kind.name: kind for module in modules for kind in module.KINDS}


def kind_named(name: str) -> Kind:
    """:raises UnknownKind: there is no such kind"""
    try:
        return kinds()[name]
    except KeyError:
        text = f"There is no job {name!r}; there are: {', '.join(kinds())}."
        raise UnknownKind(text, code="unknown_kind") from None
