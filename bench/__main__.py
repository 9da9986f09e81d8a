"""The runner: lays the ground, lets strategies take turns in fresh processes, and prints medians and ratios."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median, quantiles
from typing import Any

from bench import stopping
from bench.ground import POSTGRES, Broken, Ground, a_certificate, ground
from bench.standin import CERTIFICATE

GOAL = 1.3  # p95 of the list at the largest size, against the smallest
WALLS_GOAL = 1.2
ROW = "{:<30}{:>15}{:>15}{:>12}{:>12}"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 measured, 1 something broke, 2 wrong use."""
    options = _parser().parse_args(argv)
    began = time.monotonic()
    try:
        for name in options.only or BENCHES:
            BENCHES[name](options)
    except Broken as broken:
        sys.stderr.write(f"{broken}\n")
        return 1
    say(f"\n{time.monotonic() - began:.0f} s in all, {options.rounds} rounds.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=f"Measured on PostgreSQL if {POSTGRES} is set."
    )
    parser.add_argument("--only", action="append", choices=BENCHES, help="one bench; may be given again")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes for each figure")
    parser.add_argument("--sizes", type=_sizes, default=[10_000, 100_000], help="customers to sync: 10000,100000")
    parser.add_argument("--rows", type=_sizes, default=[1_000, 100_000], help="customers in the list: 1000,100000")
    parser.add_argument("--requests", type=int, default=60, help="requests for each page, size and round")
    parser.add_argument("--tokens", type=int, default=100, help="tokens for each round")
    parser.add_argument("--trials", type=int, default=20, help="how often a partner is stopped")
    return parser


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tenant_of(size: int) -> str:
    """The partner with this many customers."""
    return f"be7c4000-0000-4000-8000-{size:012d}"


def _title(name: str, where: Ground) -> None:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    say(f"\n# {name}, {where.database}, {os.cpu_count()} cores, load {load}")


Strategies = dict[str, tuple[str, dict[str, Any]]]  # name → function of bench.inside and its options


def in_turns(where: Ground, rounds: int, strategies: Strategies) -> dict[str, dict[str, float]]:
    """Medians by strategy: every round runs each of them once, in a fresh process."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for name, (function, given) in strategies.items():
            found[name].append(where.measure(function, **given))
    return {name: _medians(figures) for name, figures in found.items()}


def _medians(figures: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(one[name] for one in figures) for name in figures[0]}


def _print(
    found: dict[str, dict[str, float]], *, unit: str, scale: float, limits: Iterable[str], by: str = "seconds"
) -> None:
    """One row a strategy; the last column is its wall time, or `by` its "cpu", over that of each limit."""
    limits = list(limits)
    say(ROW.format("", f"wall {unit}", f"CPU {unit}", "memory MB", "/ limits"))
    for name, one in found.items():
        ratios = " / ".join(f"{one[by] / found[limit][by]:.1f}" for limit in limits)
        seconds, cpu = one["seconds"] * scale, one["cpu"] * scale
        say(ROW.format(name, f"{seconds:.2f}", f"{cpu:.2f}", f"{one['memory']:.0f}", ratios))


def sync(options: argparse.Namespace) -> None:
    """Customer sync against what the wire and a parser cost."""
    with ground({tenant_of(size): size for size in options.sizes}) as where:
        _title("Customer sync", where)
        for size in options.sizes:
            same = {"tenant": tenant_of(size), "size": size}
            where.measure("connect", **same)
            strategies: Strategies = {
                "limit: raw fetch": ("fetch", same | {"parse": False}),
                "limit: fetch + parse": ("fetch", same | {"parse": True}),
                "first sync": ("sync", same | {"first": True}),
                "unchanged re-sync": ("sync", same | {"first": False}),
            }
            found = in_turns(where, options.rounds, strategies)
            say(f"\n{size:,} customers")
            _print(found, unit="s", scale=1, limits=list(found)[:2])


def pages(options: argparse.Namespace) -> None:
    """The customer list at two sizes; the figure is the ratio between them."""
    few, many = options.rows
    tenants = {str(size): tenant_of(size) for size in options.rows}
    with ground({}) as where:
        for size in options.rows:
            where.measure("fill", tenant=tenant_of(size), size=size)
        _title("Customer list", where)
        same: dict[str, Any] = {"tenants": tenants, "requests_each": options.requests}
        rounds, bare = [], []
        for _ in range(options.rounds):
            rounds.append(where.measure("pages", **same))
            if where.superuser_url:
                bare.append(where.without_walls().measure("pages", **same, walls=False))
    say(ROW.format("ms, p50 / p95", f"{few:,}", f"{many:,}", "p50 ratio", "p95 ratio"))
    for page in rounds[0]:
        small, large = ([_percentiles(one[page][str(size)]) for one in rounds] for size in (few, many))
        words = ["{:.1f} / {:.1f}".format(*map(median, zip(*sized, strict=True))) for sized in (small, large)]
        p50, p95 = (median(b[i] / a[i] for a, b in zip(small, large, strict=True)) for i in (0, 1))
        judged = "" if p95 <= GOAL else " !"
        say(ROW.format(page, *words, f"{p50:.2f}", f"{p95:.2f}{judged}"))
    say(f"The goal is a p95 ratio of at most {GOAL}.")
    if bare:
        _overhead(rounds, bare, str(many))


def _overhead(rounds: list[Any], bare: list[Any], size: str) -> None:
    """What row level security and its guard add to a page: medians with it over medians without."""
    say(ROW.format(f"walls, p50 at {int(size):,}", "with, ms", "without", "ratio", ""))
    for page in rounds[0]:
        within, without = (median(median(one[page][size]) for one in some) for some in (rounds, bare))
        judged = "" if within / without <= WALLS_GOAL else " !"
        say(ROW.format(page, f"{within:.1f}", f"{without:.1f}", f"{within / without:.2f}{judged}", ""))
    say(f"The goal is a ratio of at most {WALLS_GOAL}.")


def _percentiles(values: list[float]) -> tuple[float, float]:
    return median(values), quantiles(values, n=20)[-1]


def tokens(options: argparse.Namespace) -> None:
    """An access token from the cache, from Entra, and by the broker with everything."""
    size = 1
    same = {"tenant": tenant_of(size), "tokens": options.tokens}
    os.environ[CERTIFICATE] = a_certificate()
    with ground({tenant_of(size): size}) as where:
        where.measure("connect", tenant=tenant_of(size), size=size)
        _title("A token that is in the cache, in nanoseconds", where)
        lookups: Strategies = {
            "limit: a dict under a lock": ("look_up", {"times": 200_000, "ours": False}),
            "the cache": ("look_up", {"times": 200_000, "ours": True}),
        }
        _print(in_turns(where, options.rounds, lookups), unit="ns", scale=1e9, limits=["limit: a dict under a lock"])
        say("The goal is a ratio of at most 5.")
        for proof in ("certificate", "secret"):
            _title(f"A redemption at Entra with a {proof}, over TLS; the ratio is of CPU", where)
            how = same | {"certificate": proof == "certificate"}
            ways = {"limit: a session's POST": "post", "entra.redeem": "ours", "an MSAL app per call": "msal"}
            found = in_turns(
                where, options.rounds, {name: ("redeem", how | {"way": way}) for name, way in ways.items()}
            )
            _print(found, unit="ms", scale=1000, limits=["limit: a session's POST"], by="cpu")
        say("The goals: CPU at most 1.6 x a session's POST, and a third of an MSAL app per call.")
        _title("Token refresh, one", where)
        strategies: Strategies = {
            "limit: a plain POST": ("mint", same | {"plain": True}),
            "the broker, with everything": ("mint", same | {"plain": False}),
        }
        _print(in_turns(where, options.rounds, strategies), unit="ms", scale=1000, limits=["limit: a plain POST"])


def kill(options: argparse.Namespace) -> None:
    """How soon nothing leaves any more for a partner that is stopped while four processes send for it."""
    size = 2
    with ground({tenant_of(size): size}) as where:
        where.measure("connect", tenant=tenant_of(size), size=size)
        found = stopping.trials(where, tenant_of(size), number=options.trials, senders=4)
        _title(f"Kill, {options.trials} trials, 4 processes", where)
    say(ROW.format("seconds from the stop", "p50", "p99", "most", "goal"))
    words = {
        "last": "until the last send came in", "seen": "until all have said so", "secrets": "until secrets are disabled"
    }  # fmt: skip
    for name, goal in (("last", 1.0), ("seen", 5.0), ("secrets", 10.0)):
        values = sorted(one[name] for one in found)
        p99 = values[min(len(values) - 1, int(0.99 * len(values)))]
        judged = "" if p99 <= goal else " !"
        say(ROW.format(words[name], f"{median(values):.2f}", f"{p99:.2f}{judged}", f"{values[-1]:.2f}", f"{goal:.0f}"))
    late, calls, tokens = (sum(one[name] for one in found) for name in ("late", "calls", "tokens"))
    sent = f"{calls:,} calls and {tokens:,} token requests"
    say(f"{late:.0f} of {sent} came in after every process had said that it stopped.")


BENCHES: dict[str, Callable[[argparse.Namespace], None]] = {"list": pages, "tokens": tokens, "sync": sync, "kill": kill}

if __name__ == "__main__":
    sys.exit(main())
