"""The bench runs; how fast anything is, no test says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from bench.stopping import sends
from partners.standing import current_token
from tokens import broker, outside
from tokens.actors import SYSTEM
from tokens.clouds import Audience

SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
TINY = ("--rounds", "1", "--sizes", "12", "--rows", "60,80", "--requests", "2", "--tokens", "1", "--trials", "1")
RATIO = r"\d+\.\d+"


def bench(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "CPV_BENCH_POSTGRES_URL"}
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.processes
def test_tiny_sizes_give_every_figure_and_its_ratio():
    done = bench(*TINY, CPV_BENCH_POSTGRES_URL=SERVER)

    assert done.returncode == 0, done.stderr
    pages = ("first page", "deep page", "search, many found", "search, one found", "prefix search", "substring search")
    for name in (*pages, "Paginator, page 1", "Paginator, in the middle"):
        assert re.search(rf"^{name} .* {RATIO}( !)?$", done.stdout, re.MULTILINE), done.stdout
    for name in ("limit: raw fetch", "limit: fetch + parse", "first sync", "unchanged re-sync"):
        assert re.search(rf"^{re.escape(name)} .* {RATIO} / {RATIO}$", done.stdout, re.MULTILINE), done.stdout
    for name in ("the cache", "entra.redeem", "an MSAL app per call"):
        assert re.search(rf"^{name} .* {RATIO}$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(rf"^the broker, with everything .* {RATIO}$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(rf"^until the last send came in .* {RATIO} +1$", done.stdout, re.MULTILINE), done.stdout
    late = r"^0 of [\d,]+ calls and [\d,]+ token requests came in after every process had said that it stopped\.$"
    assert re.search(late, done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.count("PostgreSQL" if SERVER else "SQLite") == 7


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
