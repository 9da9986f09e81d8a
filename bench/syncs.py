"""Customer sync beside its limits and its peers."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from bench.besides import ALL_CHANGED, DLTS, OURS, PEERS, SOME_CHANGED, STABLE, UNSTABLE, Besides, Look, besides
from bench.ground import Ground, ground
from bench.names import tenant_of
from bench.table import Figures, Gate, Strategy, in_turns, print_wide, ratio, say, title

FEW = 2_000  # rows that are written one by one
SLOW = 0.1  # seconds a page
PEERS_UP_TO = 100_000  # customers; beyond, a peer takes minutes and gigabytes for each figure
BARE, RAW, PARSED = "bytes by http.client", "limit: raw fetch", "limit: fetch + parse"
COPIED, LIMIT = "limit: raw COPY of ready rows", "limit: fetch + parse + COPY"
FIRST, UNCHANGED, TURNED = "first", "unchanged, stable pages", "unchanged, unstable pages"
SOME, ALL = "1 % changed, unstable pages", "100 % changed"
# Customers, for whom our process may take so many seconds of CPU where COPY of the same rows takes 0.57 s.
A_SIZE = 100_000
SECONDS = {FIRST: 1.5, UNCHANGED: 0.4}
CPUS = {FIRST: 2.7, UNCHANGED: 0.7}  # the same with the server's, over that of COPY: more to go by on another machine


def measure(options: argparse.Namespace) -> list[Gate]:
    """Every size but the smallest beside everything; the smallest for slow pages and for what memory grows by."""
    small, *larger = options.sizes if len(options.sizes) > 1 else options.sizes * 2
    with ground({tenant_of(size): size for size in options.sizes}) as where, besides(where) as ready:
        for size in options.sizes:
            ready.connect(size)
        at_small, gates = _slow(where, ready, small, options.rounds)
        for size in larger:
            title(f"Sync of {size:,} customers", where)
            if where.superuser_url and not ready.has_dlt:
                say("! dlt is missing: `make bench` could not install it; what it would be compared with stays open.")
            found = in_turns(where, options.rounds, _strategies(ready, size, on_server=bool(where.superuser_url)))
            print_wide(found, size=size, limit=LIMIT if LIMIT in found else PARSED)
            if size > FEW and "update_or_create: first" in found:
                say(f"update_or_create wrote {FEW:,} rows; its row is that, extrapolated to {size:,}.")
            gates += _gates(found, size) + _memory(found, size, at_small, small)
    return gates if where.superuser_url else []


def _strategies(ready: Besides, size: int, *, on_server: bool) -> dict[str, Strategy]:
    """In an order in which each finds what another one left."""
    same: dict[str, Any] = {"tenant": tenant_of(size), "size": size}
    wire = {"size": size} | ready.wire(size)
    stable = partial(ready.show, size, STABLE)
    chosen = {
        BARE: Strategy("limits.bare", wire, stable),
        RAW: Strategy("limits.fetch", wire | {"parse": False}, stable),
        PARSED: Strategy("limits.fetch", wire | {"parse": True}, stable),
    }
    if on_server:
        into = wire | {"table": "bench_limit"}
        chosen[COPIED] = Strategy("limits.copy", into | {"read": False}, stable)
        chosen[LIMIT] = Strategy("limits.copy", into | {"read": True}, stable)
    with_peers = on_server and size <= PEERS_UP_TO
    writes = {"rows": partial(ready.rows, OURS)}
    chosen[f"ours: {FIRST}"] = Strategy("running.sync", same | {"first": True}, partial(ready.empty, size), also=writes)
    if with_peers:
        chosen |= _first_of_peers(ready, size)
    looks: dict[str, Look] = {UNCHANGED: STABLE, TURNED: UNSTABLE, SOME: SOME_CHANGED, ALL: ALL_CHANGED}
    for name, look in looks.items():
        shown = partial(ready.show_tidy, size, look)
        chosen[f"ours: {name}"] = Strategy("running.sync", same | {"first": False}, shown, also=writes)
        if with_peers and ready.has_dlt and name != TURNED:  # a page is as good as another to dlt
            chosen[f"dlt: {name}"] = _dlt(ready, size, shown)
    return chosen


def _dlt(ready: Besides, size: int, prepare: partial[None]) -> Strategy:
    given = {"bearer": ready.bearers[size], "size": size, "folder": ready.state}
    return Strategy("peer_dlt.sync", given, prepare, each=2, also={"rows": partial(ready.rows, DLTS)})


def _first_of_peers(ready: Besides, size: int) -> dict[str, Strategy]:
    empty, also = partial(ready.empty_peer, size), {"rows": partial(ready.rows, PEERS)}
    every = {"bearer": ready.bearers[size], "size": size}
    few = every | {"size": min(FEW, size), "stands_for": size}
    chosen = {f"dlt: {FIRST}": _dlt(ready, size, partial(ready.empty_dlt, size))} if ready.has_dlt else {}
    return chosen | {
        f"bulk_create: {FIRST}": Strategy("peers.bulk_create", every, empty, each=2, also=also),
        f"update_or_create: {FIRST}": Strategy("peers.update_or_create", few, empty, each=2, also=also),
    }


def _slow(where: Ground, ready: Besides, size: int, rounds: int) -> tuple[dict[str, Figures], list[Gate]]:
    """A few pages that take their time, as Microsoft's do: the code must hide behind the wait."""
    title(f"Sync of {size:,} customers at {SLOW * 1000:.0f} ms a page", where)
    same: dict[str, Any] = {"tenant": tenant_of(size), "size": size}
    pages = len(ready.show(size, STABLE))
    wire = {"size": size, "parse": False} | ready.wire(size)
    where.tell("latency", seconds=SLOW)
    chosen = {
        RAW: Strategy("limits.fetch", wire),
        f"ours: {FIRST}": Strategy("running.sync", same | {"first": True}, partial(ready.empty, size)),
        f"ours: {UNCHANGED}": Strategy("running.sync", same | {"first": False}, partial(ready.show_tidy, size, STABLE)),
    }
    found = in_turns(where, rounds, chosen)
    where.tell("latency", seconds=0)
    print_wide(found, size=size, limit=RAW)
    limit = {"seconds": pages * SLOW}
    at = f"{pages} pages of {SLOW * 1000:.0f} ms, "
    return found, [
        Gate(f"{at}{name} / (pages x latency)", ratio(found[f"ours: {name}"], limit), gate, at_most=True)
        for name, gate in ((FIRST, 1.10), (UNCHANGED, 1.05))
    ]


def _gates(found: dict[str, Figures], size: int) -> list[Gate]:
    """The first three lines of the table, CPU, WAL and rows."""
    ours = {name: found[f"ours: {name}"] for name in (FIRST, UNCHANGED, TURNED, SOME, ALL)}
    dlt = {name: found.get(f"dlt: {name}") for name in (FIRST, UNCHANGED, SOME, ALL)}
    at, bulk = f"{size:,}, ", found.get(f"bulk_create: {FIRST}")
    gates = [
        Gate(f"{at}{FIRST}: fetch + parse + raw COPY / ours", ratio(found.get(LIMIT), ours[FIRST]), 0.75, 0.9),
        Gate(f"{at}{UNCHANGED}: raw fetch / ours", ratio(found[RAW], ours[UNCHANGED]), 0.8, 0.9),
    ]
    if size <= PEERS_UP_TO:
        gates += [
            Gate(f"{at}{FIRST}: dlt / ours", ratio(dlt[FIRST], ours[FIRST]), 5, 7),
            Gate(f"{at}{FIRST}: bulk_create / ours", ratio(bulk, ours[FIRST]), 6, 9),
            Gate(f"{at}{UNCHANGED}: dlt / ours", ratio(dlt[UNCHANGED], ours[UNCHANGED]), 20, 25),
            Gate(f"{at}{TURNED}: dlt / ours", ratio(dlt[UNCHANGED], ours[TURNED]), 6, 7.5),
            Gate(f"{at}{SOME}: dlt / ours", ratio(dlt[SOME], ours[SOME]), 6, 7.5),
            Gate(f"{at}{ALL}: dlt / ours", ratio(dlt[ALL], ours[ALL]), 2.5, 3),
        ]
    most = {UNCHANGED: 5.0, TURNED: 15.0, SOME: 15.0}
    gates += [
        Gate(f"{at}{name}: WAL a row", _each(ours[name], "wal", size), gate, at_most=True, unit=" B")
        for name, gate in most.items()
    ]
    gates += [Gate(f"{at}{UNCHANGED}: customer rows written", ours[UNCHANGED].get("rows"), 0, at_most=True, unit="")]
    gates += [
        Gate(f"{at}{name}: CPU for {A_SIZE:,}", _each(ours[name], "cpu", size / A_SIZE), gate, at_most=True, unit=" s")
        for name, gate in SECONDS.items()
    ]
    return gates + [
        Gate(
            f"{at}{name}: CPU with the server's / of raw COPY", _cpus(ours[name], found.get(COPIED)), gate, at_most=True
        )
        for name, gate in CPUS.items()
    ]


def _each(one: Figures, name: str, size: float) -> float | None:
    return one[name] / size if name in one else None


def _cpus(ours: Figures, copied: Figures | None) -> float | None:
    if not copied or not copied.get("server_cpu"):
        return None
    return (ours["cpu"] + ours["server_cpu"]) / (copied["cpu"] + copied["server_cpu"])


def _memory(found: dict[str, Figures], size: int, at_small: dict[str, Figures], small: int) -> list[Gate]:
    many, few = found[f"ours: {FIRST}"], at_small[f"ours: {FIRST}"]
    words = f"peak memory at {size:,}"
    return [
        Gate(f"{words} / at {small:,}", ratio(many, few, "memory"), 1.2, at_most=True),
        Gate(words, many["memory"], 100, at_most=True, unit=" MB"),
    ]
