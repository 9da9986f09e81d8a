"""The customer list: the largest partner beside a small one and beside the plain list, with the walls and without."""

from __future__ import annotations

import argparse
import shutil
from statistics import median, quantiles
from typing import Any

from bench.ground import Ground, ground
from bench.names import tenant_of
from bench.table import ROW, Gate, say, title

DEEPER = 1.3  # p95 at the largest partner, over that at the smallest
WALLS = 1.2
STATEMENTS = 6
SEARCHES = {"prefix search": 10, "substring search": 40}  # most milliseconds of the statement, p50
ROOM = 3_000  # bytes of disk for a customer with its indexes, and as much again while they are made
PLAIN = "Paginator"  # how the pages begin that are not ours

Sized = dict[str, dict[str, Any]]  # by the number of customers: what `bench.leafing.pages` found


def measure(options: argparse.Namespace) -> list[Gate]:
    """Pages and searches at each size, in rounds of fresh processes; what must hold."""
    sizes = _that_fit(options.rows)
    few = str(sizes[0])
    with ground({}) as where:
        for size in sizes:
            where.measure("leafing.fill", tenant=tenant_of(size), size=size)
        title("Customer list", where)
        rounds, bare = _rounds(where, options, sizes)
    gates = []
    for many in map(str, sizes[1:]):
        gates += _against_size(rounds, few, many)
        _against_the_plain_one(rounds, many)
        gates += _searches(rounds, many)
        gates += _against_no_walls(rounds, bare, many) if bare else []
    return gates


def _that_fit(sizes: list[int]) -> list[int]:
    """Those there is room for; the two smallest always count as such."""
    free, fit = shutil.disk_usage("/").free, sizes[:2]
    for size in sizes[2:]:
        if size * ROOM > free:
            say(f"! {size:,} customers are left out: {size * ROOM / 1e9:.0f} GB of disk are wanted for them.")
        else:
            fit.append(size)
    return fit


def _rounds(where: Ground, options: argparse.Namespace, sizes: list[int]) -> tuple[list[Any], list[Any]]:
    """What every round found, with the walls and without them, in turns."""
    same = {"tenants": {str(size): tenant_of(size) for size in sizes}, "requests_each": options.requests}
    rounds, bare = [], []
    for _ in range(options.rounds):
        rounds.append(where.measure("leafing.pages", **same))
        if where.superuser_url:
            bare.append(where.without_walls().measure("leafing.pages", **same, walls=False))
    return rounds, bare


def _against_size(rounds: list[dict[str, Sized]], few: str, many: str) -> list[Gate]:
    gates = []
    say(ROW.format("ms, p50 / p95", f"{int(few):,}", f"{int(many):,}", "p50 ratio", "p95 ratio"))
    for page in rounds[0]:
        small, large = ([_percentiles(one[page][size]["ms"]) for one in rounds] for size in (few, many))
        words = ["{:.1f} / {:.1f}".format(*map(median, zip(*sized, strict=True))) for sized in (small, large)]
        p50, p95 = (median(b[i] / a[i] for a, b in zip(small, large, strict=True)) for i in (0, 1))
        say(ROW.format(page, *words, f"{p50:.2f}", f"{p95:.2f}"))
        if not page.startswith(PLAIN):
            gates.append(Gate(f"{page} at {int(many):,} / at {int(few):,}, p95", p95, DEEPER, at_most=True))
    most = max(one[page][many]["statements"] for one in rounds for page in one if not page.startswith(PLAIN))
    return [*gates, Gate("statements of a page, at most", most, STATEMENTS, at_most=True, unit="")]


def _against_the_plain_one(rounds: list[dict[str, Sized]], many: str) -> None:
    for plain, ours in ((f"{PLAIN}, page 1", "first page"), (f"{PLAIN}, in the middle", "deep page")):
        times = median(_p50(one[plain][many]) / _p50(one[ours][many]) for one in rounds)
        say(f"{plain} at {int(many):,} takes {times:.1f} times as long as our {ours}.")


def _searches(rounds: list[dict[str, Sized]], many: str) -> list[Gate]:
    return [
        Gate(
            f"{page}, its statement at {int(many):,}, p50",
            median(median(one[page][many]["sql"]) for one in rounds),
            limit,
            at_most=True,
            unit=" ms",
        )
        for page, limit in SEARCHES.items()
    ]


def _against_no_walls(rounds: list[dict[str, Sized]], bare: list[dict[str, Sized]], many: str) -> list[Gate]:
    """What row level security and its guard add to a page: medians with it over medians without."""
    gates = []
    say(ROW.format(f"walls, p50 at {int(many):,}", "with, ms", "without", "ratio", ""))
    for page in rounds[0]:
        within, without = (median(_p50(one[page][many]) for one in some) for some in (rounds, bare))
        say(ROW.format(page, f"{within:.1f}", f"{without:.1f}", f"{within / without:.2f}", ""))
        if not page.startswith(PLAIN):
            gates.append(Gate(f"{page}, with the walls / without, p50", within / without, WALLS, at_most=True))
    return gates


def _p50(sized: dict[str, Any]) -> float:
    values: list[float] = sized["ms"]
    return median(values)


def _percentiles(values: list[float]) -> tuple[float, float]:
    return median(values), quantiles(values * 2, n=20)[-1]  # of one alone there are none
