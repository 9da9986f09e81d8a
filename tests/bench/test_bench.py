"""The bench runs; how fast anything is, no test says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from bench import templates
from bench.ground import DLT
from bench.stopping import sends
from partners.standing import current_token
from tokens import broker, outside
from tokens.actors import SYSTEM
from tokens.clouds import Audience

SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
TINY = (
    *("--rounds", "1", "--sizes", "12,15", "--rows", "60,80", "--requests", "2", "--tokens", "1", "--trials", "1"),
    *("--partners", "40", "--small-partners", "3", "--pages", "5", "--lane-partners", "2", "--customers-each", "4"),
)
RATIO = r"\d+\.\d+"
PAGES = ("first page", "deep page", "search, many found", "search, one found", "prefix search", "substring search")
LIMITS = ("bytes by http.client", "limit: raw fetch", "limit: fetch + parse")
OURS = ("first", "unchanged, stable pages", "unchanged, unstable pages", "1 % changed, unstable pages", "100 % changed")


def bench(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    ours = {name for name in os.environ if name.startswith("CPV_BENCH_")} - {templates.NAME}
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, timeout=900, check=False)


def rows(text: str, *names: str) -> list[str]:
    """What stands behind each of these names, which must each begin a line that ends in a figure."""
    found = [re.search(rf"^{re.escape(name)} +(.*{RATIO}(?: !)?)$", text, re.MULTILINE) for name in names]
    assert all(found), ([name for name, one in zip(names, found, strict=True) if not one], text)
    return [one[1] for one in found if one]


@pytest.fixture(scope="module")
def tiny() -> subprocess.CompletedProcess[str]:
    """What all benches said once: on PostgreSQL where there is a server."""
    where = ["--sqlite"] if not SERVER else []
    brokers = {"CPV_BENCH_REDIS_URL": os.environ.get("CPV_TEST_REDIS_URL", "")}
    return bench(*TINY, *where, CPV_BENCH_POSTGRES_URL=SERVER, **brokers)


@pytest.mark.processes
def test_tiny_sizes_give_every_figure_and_its_ratio(tiny):
    assert tiny.returncode == 0, tiny.stderr
    rows(tiny.stdout, *PAGES, "Paginator, page 1", "Paginator, in the middle")
    rows(tiny.stdout, "the cache", "entra.redeem", "an MSAL app per call", "the broker, with everything")
    rows(tiny.stdout, *LIMITS, *(f"ours: {name}" for name in OURS))
    assert re.search(rf"^until the last send came in .* {RATIO} +1$", tiny.stdout, re.MULTILINE), tiny.stdout
    late = r"^0 of [\d,]+ calls and [\d,]+ token requests came in after every process had said that it stopped\.$"
    assert re.search(late, tiny.stdout, re.MULTILINE), tiny.stdout
    assert tiny.stdout.count("PostgreSQL, " if SERVER else "SQLite, ") >= 8


@pytest.mark.processes
@pytest.mark.skipif(not SERVER, reason="needs CPV_TEST_POSTGRES_URL")
def test_on_postgresql_it_ends_with_the_gates_and_says_which_it_could_not_measure(tiny):
    assert tiny.returncode == 0, tiny.stderr
    rows(tiny.stdout, "limit: raw COPY of ready rows", "limit: fetch + parse + COPY", "bulk_create: first")
    rows(tiny.stdout, "update_or_create: first", "small, all done", "everything", "subscriptions")
    gates = tiny.stdout.partition("# What must hold")[2]
    judged = re.findall(
        r"^(.+?)  +(-|[\d,.]+(?: \w+)?)  +([<>]= [\d,.]+)(?: +[\d.]+)?(?: +([!?]))?$", gates, re.MULTILINE
    )
    named = {name: (figure, mark) for name, figure, _, mark in judged}
    assert {"15, first: fetch + parse + raw COPY / ours", "peak memory at 15"} <= set(named)
    assert named["15, unchanged, stable pages: customer rows written"] == ("0", "")
    assert {"15, first: CPU for 100,000", "15, unchanged, stable pages: CPU for 100,000"} <= set(named)
    has_dlt = DLT.exists()
    assert ("dlt is missing" in tiny.stdout) is not has_dlt
    assert (named["15, first: dlt / ours"] == ("-", "?")) is not has_dlt
    told = re.search(r"^(\d+) gates: (\d+) missed \(!\), (\d+) not measured \(\?\)\.$", tiny.stdout, re.MULTILINE)
    assert told
    marks = [mark for _, mark in named.values()]
    assert [int(number) for number in told.groups()] == [len(marks), marks.count("!"), marks.count("?")]


def test_what_it_cannot_measure_ends_with_its_cause():
    done = bench("--only", "sync", "--rounds", "1", "--sizes", "12", CPV_BENCH_POSTGRES_URL="postgres://127.0.0.1:1/no")

    assert done.returncode == 1
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.django_db(transaction=True)
def test_token_requests_in_a_partners_name_are_sends_and_those_for_our_own_vault_are_not(connected_partner, world):
    partner = connected_partner()
    outside.forget()
    broker.forget()
    before = len(world.calls)

    token = current_token(partner)
    session = broker.session(token, Audience.PARTNER_CENTER, purpose="sync.customers", actor=SYSTEM)
    assert session.get("/v1/profiles/organization").status_code == 200

    came_in = [call.as_row() for call in world.calls[before:]]
    assert [row["detail"]["grant_type"] for row in came_in if row["path"].endswith("/token")] == [
        "client_credentials",
        "refresh_token",
    ]
    assert [(row["service"], row["detail"].get("grant_type")) for row in sends(came_in)] == [
        ("entra", "refresh_token"),
        ("partnercenter", None),
    ]
