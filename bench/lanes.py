"""What is asked about each customer by itself: many calls that wait, in one worker with many slots."""

from __future__ import annotations

import argparse
from dataclasses import replace

from bench.crowd import Crowd, a_crowd, work_off
from bench.ground import Ground, ground
from bench.names import tenant_of
from bench.table import ROW, Figures, Gate, medians, say, title

SLOTS, LATENCY = 64, 0.2  # threads; seconds a call
KIND = "subscriptions"
FIRST_NAME = 9_000_000  # of the partners: no size of another bench


def measure(options: argparse.Namespace) -> list[Gate]:
    """Subscriptions of every customer of some partners, against as many calls as the slots can wait for."""
    tenants = [tenant_of(FIRST_NAME + place) for place in range(options.lane_partners)]
    with ground(dict.fromkeys(tenants, options.customers_each)) as where:
        if not where.superuser_url:
            say("\n! Lanes are measured on PostgreSQL only.")
            return []
        where.measure("running.mirror_customers", tenants=tenants, kind=KIND)
        calls = len(tenants) * options.customers_each
        title(f"{KIND.title()} of {calls:,} customers, {LATENCY * 1000:.0f} ms a call, {SLOTS} slots", where)
        where.tell("latency", seconds=LATENCY)
        warm = replace(where, env=where.env | {"BENCH_WARM": " ".join(tenants)})
        with a_crowd(where) as crowd:
            found = medians([_turn(warm, crowd) for _ in range(options.rounds)])
            ends = crowd.endings()
    speed, busy, limit = found["calls"] / found["all"], found["calls"] / found["in_runs"] * SLOTS, SLOTS / LATENCY
    say(ROW.format("", "s", "calls/s", "limit", "of limit"))
    say(ROW.format(KIND, f"{found['all']:.2f}", f"{speed:.0f}", f"{limit:.0f}", f"{speed / limit:.2f}"))
    say(ROW.format("the same while slots are busy", "", f"{busy:.0f}", f"{limit:.0f}", f"{busy / limit:.2f}"))
    say(f"CPU: {found['cpu']:.2f} s, {found['cpu'] / calls * 1000:.1f} ms a call; {found['memory']:.0f} MB.")
    if found["calls"] < calls:
        say(f"! Runs that were done asked about {found['calls']:,.0f} customers only; others ended: {ends}.")
    at = f"{SLOTS} slots, {LATENCY * 1000:.0f} ms a call"
    return [
        Gate(f"{at}: calls a second / (slots / latency)", speed / limit, 0.9),
        Gate(f"{at}: peak memory", found["memory"], 120, at_most=True, unit=" MB"),
    ]


def _turn(where: Ground, crowd: Crowd) -> Figures:
    crowd.run("UPDATE partners_job SET next_run_at = now() + interval '1 day', claimed_until = NULL")
    crowd.run(f"UPDATE partners_job SET next_run_at = now() - interval '1 minute' WHERE kind = '{KIND}'")  # noqa: S608
    told = work_off(where, crowd, processes=1, threads=SLOTS)
    calls = crowd.one("SELECT sum(pages) FROM partners_run WHERE outcome = 'done'")
    in_runs = crowd.one("SELECT extract(epoch FROM sum(finished_at - started_at)) FROM partners_run")
    return told | {"all": crowd.took(), "calls": float(calls or 0), "in_runs": float(in_runs or 1)}
