"""Runs the tests of some folders once more on PostgreSQL, in a process and a database of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
THERE = pytest.mark.skipif(not SERVER, reason="set CPV_TEST_POSTGRES_URL to a server where databases may be made")
# What starts processes brings its own database, and the same pages need no second look.
KINDS = "not soak and not browser and not processes"


def run_there(*paths: str, database: str) -> str:
    """Run these tests; what pytest counted in the end. A failing test fails the caller, with its words."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", KINDS, *paths]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    env |= {"DATABASE_URL": urlsplit(SERVER)._replace(path=f"/{database}").geturl()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counted = re.findall(r"^(\d+ passed.*) in [\d.]+s", done.stdout, re.MULTILINE)
    assert counted, done.stdout[-2000:]
    return f"on PostgreSQL, {' '.join(paths)}: {counted[-1]}"
