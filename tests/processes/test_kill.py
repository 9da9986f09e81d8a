"""Four processes call and mint for a partner, somebody kills it, and the stand-in sees nothing more."""

from __future__ import annotations

import os

import pytest

from bench.ground import POSTGRES, ground
from bench.stopping import trials

pytestmark = pytest.mark.processes

SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
TENANT = "be7c4000-0000-4000-8000-000000000002"
TRIALS = 10


@pytest.mark.skipif(not SERVER, reason="set CPV_TEST_POSTGRES_URL to a server where databases may be made")
def test_after_every_process_has_seen_a_kill_no_call_and_no_token_request_leaves(monkeypatch, record_property):
    monkeypatch.setenv(POSTGRES, SERVER)
    with ground({TENANT: 2}) as where:
        where.measure("connect", tenant=TENANT)
        found = trials(where, TENANT, number=TRIALS, senders=4)

    assert len(found) == TRIALS
    assert min(min(one["calls"], one["tokens"]) for one in found) > 0, "both were on their way"
    assert [one["late"] for one in found] == [0] * TRIALS
    assert max(one["seen"] for one in found) < 5
    last, seen = max(one["last"] for one in found), max(one["seen"] for one in found)
    record_property(
        "figure",
        f"kill: last call or token request after {last:.2f} s, all processes sure after {seen:.2f} s, 10 trials",
    )
