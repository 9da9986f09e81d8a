"""How soon work that is due is under way, and whether everybody gets their turn."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from bench.crowd import Crowd, a_crowd, work_off
from bench.ground import Ground, ground
from bench.names import tenant_of
from bench.servers import a_redis
from bench.table import ROW, Figures, Gate, Strategy, in_turns, medians, print_table, ratio, say, title

RABBITMQ, REDIS = "CPV_BENCH_RABBITMQ_URL", "CPV_BENCH_REDIS_URL"
PAGE, SLOTS, WORKERS, LANES = (
    0.1,
    16,
    2,
    16,
)  # seconds, as Microsoft takes; threads in all; processes; of the big partner
TOMORROW = "UPDATE partners_job SET claimed_until = NULL, leased_until = NULL, next_run_at = now() + interval '1 day'"
SOME = "SELECT id FROM partners_job ORDER BY md5(id::text)"
AT_ONCE = "UPDATE partners_job SET next_run_at = now() - interval '1 minute', cursor = '{}', failures = 0"
NONE = "NOT EXISTS (SELECT FROM partners_job j WHERE j.partner_id = o.partner_id AND j.lane = {})"


def measure(options: argparse.Namespace) -> list[Gate]:
    """The tick of the dispatcher against a Celery group of single tasks; then one big partner and many small ones."""
    with ground({tenant_of(1): 1}) as where:
        if not where.superuser_url:
            say("\n! Dispatch and fair turns are measured on PostgreSQL only.")
            return []
        where.measure("connect", tenant=tenant_of(1))
        where.measure("add_job", tenant=tenant_of(1))
        with a_crowd(where) as crowd:
            crowd.grow(options.small_partners + 1)
            gates = _fair(where, crowd, options)
            crowd.grow(options.partners)
            with _brokers() as brokers:
                for name, url in brokers.items():
                    gates += _dispatch(replace(where, env=where.env | {"CELERY_BROKER_URL": url}), crowd, name, options)
    return gates


@contextmanager
def _brokers() -> Iterator[dict[str, str]]:
    """Name → address of those that are there; a Redis of our own where none is named."""
    with a_redis() as own:
        found = {"Redis": os.environ.get(REDIS) or own, "RabbitMQ": os.environ.get(RABBITMQ, "")}
        for name, variable in (("Redis", REDIS), ("RabbitMQ", RABBITMQ)):
            if not found[name]:
                say(f"! {name} is missing: {variable} names none; what would be sent to it stays open.")
        yield {name: url for name, url in found.items() if url}


# --- Claimed and on the message broker ------------------------------------------------------------------------------
def _dispatch(where: Ground, crowd: Crowd, name: str, options: argparse.Namespace) -> list[Gate]:
    number = options.partners
    due = number // 10
    title(f"{due:,} jobs due of {number:,} partners, on {name}", where)
    prepare = partial(_make_due, crowd, due)
    chosen = {
        "peer: group() of single tasks": Strategy("dispatching.single_tasks", {"due": due}, prepare),
        "ours: the tick": Strategy("dispatching.dispatch", {"due": due}, prepare),
    }
    found = in_turns(where, options.rounds, chosen)
    print_table(found, unit="s", scale=1, limits=["ours: the tick"])
    for one, figures in found.items():
        say(f"{one}: {figures['messages']:,.0f} messages")
    peer, ours = found.values()
    at = f"{due:,} due of {number:,}, {name}: "
    return [
        Gate(f"{at}claimed and on the broker", ours["seconds"], 0.5, 0.1, at_most=True, unit=" s"),
        Gate(f"{at}group() / ours", ratio(peer, ours), 10, 40),
    ]


def _make_due(crowd: Crowd, due: int) -> None:
    """So many jobs are due, here and there in the table; all others tomorrow."""
    crowd.run("TRUNCATE partners_run CASCADE")
    crowd.run("DELETE FROM partners_job WHERE lane > 0")
    crowd.run(TOMORROW)
    crowd.run(f"UPDATE partners_job SET next_run_at = now() - interval '1 minute' WHERE id IN ({SOME} LIMIT {due})")  # noqa: S608
    crowd.run("VACUUM ANALYZE partners_job")


# --- Fair turns -----------------------------------------------------------------------------------------------------
def _fair(where: Ground, crowd: Crowd, options: argparse.Namespace) -> list[Gate]:
    """One partner's lanes were queued first; how long until all small ones are done, and until everything is."""
    pages, small = options.pages, options.small_partners
    title(f"A partner with {pages:,} pages, and {small:,} with one; {PAGE * 1000:.0f} ms a page, {SLOTS} slots", where)
    found = medians([_turn(where, crowd, pages) for _ in range(options.rounds)])
    ideal, limit = _rounds(small + 1) * PAGE, (pages + small) * PAGE / SLOTS
    say(ROW.format("", "s", "ideal or limit", "ratio", ""))
    rows = {"small, all done": (found["small"], ideal), "everything": (found["all"], limit)}
    for name, (seconds, best) in rows.items():
        say(ROW.format(name, f"{seconds:.2f}", f"{best:.2f}", f"{seconds / best:.2f}", ""))
    say(f"CPU of {WORKERS} workers: {found['cpu']:.2f} s; {found['memory']:.0f} MB each.")
    return [
        Gate("the last small partner / fair-share ideal", found["small"] / ideal, 2, 1.5, at_most=True),
        Gate("one big and all small / limit", found["all"] / limit, 2, 1.5, at_most=True),
    ]


def _rounds(number: int) -> int:
    return -(-number // SLOTS)


def _turn(where: Ground, crowd: Crowd, pages: int) -> Figures:
    """One time; the clock starts when the workers do, and they claim what is due themselves."""
    first = int(str(crowd.one("SELECT min(id) FROM partners_partner")))
    _queue(crowd, first)
    env = {"BENCH_PAGES_OF_FIRST": str(pages), "BENCH_SECONDS_A_PAGE": str(PAGE), "BENCH_FIRST": str(first)}
    env["BENCH_WARM"] = tenant_of(1)
    workers = replace(where, env=where.env | env)
    told = work_off(workers, crowd, processes=WORKERS, threads=SLOTS // WORKERS)
    return told | {"small": crowd.took(f"partner_id <> {first}"), "all": crowd.took()}


def _queue(crowd: Crowd, first: int) -> None:
    """Every small partner has one job, and the big one, which came before, a job for each of its lanes."""
    crowd.run("UPDATE partners_job SET kind = 'bench'")
    for lane in range(1, LANES):
        crowd.copy(
            "partners_job", {"lane": str(lane)}, f"o.partner_id = {first} AND o.lane = 0 AND {NONE.format(lane)}"
        )
    crowd.run(TOMORROW)
    crowd.run(AT_ONCE)
    crowd.run(f"UPDATE partners_job SET next_run_at = now() - interval '2 minutes' WHERE partner_id = {first}")  # noqa: S608
    crowd.run("VACUUM ANALYZE")
