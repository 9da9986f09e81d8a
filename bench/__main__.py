"""The runner: lays the ground, lets strategies take turns in fresh processes, and prints medians and ratios."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from bench import dispatches, lanes, lists, stopping, syncs
from bench.ground import POSTGRES, Broken, a_certificate, ground
from bench.names import tenant_of
from bench.servers import a_postgres
from bench.standin import CERTIFICATE
from bench.table import ROW, Gate, Strategy, in_turns, print_gates, print_table, say, title

FULL = {"sizes": [10_000, 100_000, 1_000_000], "rows": [1_000, 1_000_000, 10_000_000]}


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
    parser.add_argument("--customers-each", type=int, default=160, help="of partners whose lanes are measured")
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
    "list": lists.measure,
    "tokens": tokens,
    "sync": syncs.measure,
    "lanes": lanes.measure,
    "dispatch": dispatches.measure,
    "kill": kill,
}

if __name__ == "__main__":
    sys.exit(main())
