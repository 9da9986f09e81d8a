"""The same on PostgreSQL: migrations, claims at the same time, consent, custody and sync."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
THERE = (
    "tests/partners/test_jobs.py",
    "tests/partners/test_overview.py",
    "tests/partners/test_sync.py",
    "tests/journeys/test_connect.py",
    "tests/journeys/test_refusals.py",
    "tests/journeys/test_work_and_see.py",
    "tests/tokens/test_custody.py",
    "tests/house/test_health.py",
)


@pytest.mark.skipif(not SERVER, reason="set CPV_TEST_POSTGRES_URL to a server where databases may be made")
def test_the_rooms_hold_on_postgresql():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *THERE],
        env={**os.environ, "DATABASE_URL": SERVER},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
