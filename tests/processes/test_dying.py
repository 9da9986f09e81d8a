"""Workers die by `kill -9` at every named place; nothing is lost, and after two sweeps no lease is stuck."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from bench.ground import POSTGRES, ROOT, Ground, ground
from tokens.faultpoints import POINTS

pytestmark = pytest.mark.processes
SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
TENANT = "be7c4000-0000-4000-8000-000000000009"


@pytest.fixture(scope="module")
def where() -> Iterator[Ground]:
    with pytest.MonkeyPatch.context() as patch, _on(patch) as there:
        there.measure("connect", tenant=TENANT)
        yield there


def _on(patch: pytest.MonkeyPatch) -> Any:
    if SERVER:
        patch.setenv(POSTGRES, SERVER)
    return ground({TENANT: 2})


def dying(where: Ground, rounds: int, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.processes.dying", str(rounds)]
    return subprocess.run(command, cwd=ROOT, env=where.env | env, capture_output=True, text=True, check=False)


def deaths(where: Ground, rounds: int) -> list[dict[str, Any]]:
    ended = dying(where, rounds)
    assert ended.returncode == 0, ended.stderr[-2000:]
    sys.stderr.write(ended.stderr)  # why somebody outlived it
    return [json.loads(line) for line in ended.stdout.splitlines()]


def check(found: list[dict[str, Any]], number: int) -> None:
    assert [one["point"] for one in found if not one["killed"]] == []
    assert [one for one in found if one["lost"] or one["leases"] or one["readable"]] == []
    assert len(found) == number


def test_a_worker_that_is_killed_at_any_place_loses_nothing_and_leaves_no_lease(where, record_property):
    found = deaths(where, 1)

    check(found, len(POINTS))
    assert [one["point"] for one in found if one["unpinned"]] == [], "what a crash left unpinned was adopted"
    record_property("figure", f"kill -9 at {len(POINTS)} places: 0 lost, 0 leases stuck after two sweeps")


def test_a_process_dies_at_the_place_that_its_environment_names(where):
    assert dying(where, 0, CPV_FAULTPOINT="after put").returncode == -9


@pytest.mark.soak
def test_a_hundred_deaths_and_more_neither(where, record_property):
    check(deaths(where, 10), 10 * len(POINTS))
    record_property("figure", f"kill -9, {10 * len(POINTS)} times: 0 lost, 0 leases stuck after two sweeps")
