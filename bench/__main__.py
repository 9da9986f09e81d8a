"""The runner: lays the ground, lets strategies take turns in fresh processes, and prints medians and ratios."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any

from bench import dispatches, lanes, stopping, syncs
from bench.ground import POSTGRES, Broken, a_certificate, ground, tenant_of
from bench.servers import a_postgres
from bench.standin import CERTIFICATE
from bench.table import ROW, Gate, Strategy, in_turns, print_gates, print_table, say, title

GOAL = 1.3  # p95 of the list at the largest size, against the smallest
WALLS_GOAL = 1.2
FULL = {"sizes": [10_000, 100_000, 1_000_000], "rows": [1_000, 1_000_000]}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 measured, 1 something broke, 2 wrong use."""
    options = _parser().parse_args(argv)
    if options.full:
        vars(options).update(FULL)
    began, gates = time.monotonic(), []
    try:
        with _a_server(options):
            for name in options.only or BENCHES:
                gates += BENCHES[name](options) or []
    except Broken as broken:
        sys.stderr.write(f"{broken}\n")
        return 1
    if gates:
        print_gates(gates)
    say(f"\n{time.monotonic() - began:.0f} s in all, {options.rounds} rounds.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"Measured on a PostgreSQL of its own, or on the quiet one that {POSTGRES} names.",
    )
    parser.add_argument("full", nargs="?", choices=["full"], help="up to a million customers, in half an hour")
    parser.add_argument("--only", action="append", choices=BENCHES, help="one bench; may be given again")
    parser.add_argument("--sqlite", action="store_true", help="on SQLite, where nothing is said of WAL and walls")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes for each figure")
    parser.add_argument("--sizes", type=_sizes, default=[10_000, 100_000], help="customers to sync: 10000,100000")
    parser.add_argument("--rows", type=_sizes, default=[1_000, 100_000], help="customers in the list: 1000,100000")
    parser.add_argument("--requests", type=int, default=60, help="requests for each page, size and round")
    parser.add_argument("--tokens", type=int, default=100, help="tokens for each round")
    parser.add_argument("--lane-partners", type=int, default=16, help="with four lanes each")
    parser.add_argument("--customers-each", type=int, default=80, help="of partners whose lanes are measured")
    parser.add_argument("--partners", type=int, default=100_000, help="of whom a tenth is due")
    parser.add_argument("--small-partners", type=int, default=199, help="beside a big one")
    parser.add_argument("--pages", type=int, default=2_000, help="of the big one")
    parser.add_argument("--trials", type=int, default=20, help="how often a partner is stopped")
    return parser


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


@contextmanager
def _a_server(options: argparse.Namespace) -> Iterator[None]:
    """The PostgreSQL that all benches of this run use, unless they shall not; without one it is SQLite."""
    if options.sqlite:
        os.environ[POSTGRES] = ""
    if options.sqlite or os.environ.get(POSTGRES):
        yield
        return
    with a_postgres() as url:
        os.environ[POSTGRES] = url
        if not url:
            say(f"! PostgreSQL is not installed here and {POSTGRES} names none: on SQLite there are no gates.")
        yield


def pages(options: argparse.Namespace) -> None:
    """The customer list at two sizes; the figure is the ratio between them."""
    few, many = options.rows
    tenants = {str(size): tenant_of(size) for size in options.rows}
    with ground({}) as where:
        for size in options.rows:
            where.measure("fill", tenant=tenant_of(size), size=size)
        title("Customer list", where)
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
        where.measure("connect", tenant=tenant_of(size))
        title("A token that is in the cache, in nanoseconds", where)
        lookups = {
            "limit: a dict under a lock": Strategy("look_up", {"times": 200_000, "ours": False}),
            "the cache": Strategy("look_up", {"times": 200_000, "ours": True}),
        }
        print_table(
            in_turns(where, options.rounds, lookups), unit="ns", scale=1e9, limits=["limit: a dict under a lock"]
        )
        say("The goal is a ratio of at most 5.")
        for proof in ("certificate", "secret"):
            title(f"A redemption at Entra with a {proof}, over TLS; the ratio is of CPU", where)
            how = same | {"certificate": proof == "certificate"}
            ways = {"limit: a session's POST": "post", "entra.redeem": "ours", "an MSAL app per call": "msal"}
            redeemed = {name: Strategy("redeem", how | {"way": way}) for name, way in ways.items()}
            found = in_turns(where, options.rounds, redeemed)
            print_table(found, unit="ms", scale=1000, limits=["limit: a session's POST"], by="cpu")
        say("The goals: CPU at most 1.6 x a session's POST, and a third of an MSAL app per call.")
        title("Token refresh, one", where)
        strategies = {
            "limit: a plain POST": Strategy("mint", same | {"plain": True}),
            "the broker, with everything": Strategy("mint", same | {"plain": False}),
        }
        print_table(in_turns(where, options.rounds, strategies), unit="ms", scale=1000, limits=["limit: a plain POST"])


def kill(options: argparse.Namespace) -> None:
    """How soon nothing leaves any more for a partner that is stopped while four processes send for it."""
    size = 2
    with ground({tenant_of(size): size}) as where:
        where.measure("connect", tenant=tenant_of(size))
        found = stopping.trials(where, tenant_of(size), number=options.trials, senders=4)
        title(f"Kill, {options.trials} trials, 4 processes", where)
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


BENCHES: dict[str, Callable[[argparse.Namespace], list[Gate] | None]] = {
    "list": pages,
    "tokens": tokens,
    "sync": syncs.measure,
    "lanes": lanes.measure,
    "dispatch": dispatches.measure,
    "kill": kill,
}

if __name__ == "__main__":
    sys.exit(main())
