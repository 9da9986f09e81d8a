"""A worker that makes a change dies by `kill -9` at every place; the change is made once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.ground import POSTGRES, ROOT, ground
from sandbox import subscriptions
from sandbox.customers import Customers
from tests.processes.test_dying import SERVER

pytestmark = pytest.mark.processes
TENANT = "c4a49e00-0000-4000-8000-000000000009"


def test_a_worker_that_is_killed_at_any_place_of_a_change_makes_it_once(record_property, monkeypatch):
    if SERVER:
        monkeypatch.setenv(POSTGRES, SERVER)
    with ground({TENANT: 1}) as where:
        where.measure("connect", tenant=TENANT)
        ended = subprocess.run(
            [sys.executable, "-m", "tests.processes.dying_changes"],
            cwd=ROOT, env=where.env | {"SUBSCRIPTION": licences()}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = [json.loads(line) for line in ended.stdout.splitlines()]

    assert [one for one in found if (one["outcome"], one["effects"]) != ("done", 1)] == []
    assert [one["killed"] for one in found] == [True] * (len(found) - 1) + [False]
    assert len(found) > 10
    record_property("figure", f"changes: kill -9 at {len(found) - 1} places, 1 effect each")


def licences() -> str:
    """A subscription of the only customer that has a number of licences."""
    customer = Customers(1, TENANT, 1).at(0)
    found = [subscriptions.at(customer, index) for index in range(subscriptions.count(customer, {}))]
    return next(one["id"] for one in found if one["billingType"] == "license" and one["quantity"] < 9000)
