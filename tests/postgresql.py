"""Runs the tests of some folders once more on PostgreSQL, in a process and a database of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

import pytest

from tests.timing import WHOLE_FILES

SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
THERE = pytest.mark.skipif(not SERVER, reason="set CPV_TEST_POSTGRES_URL to a server where databases may be made")
# What starts processes brings its own database, and the same pages need no second look.
KINDS = "not soak and not browser and not processes"


def run_there(*paths: str, but: Sequence[str] = (), database: str, whole: Sequence[str] = ()) -> str:
    """
    Run those of these tests that have rows, `but` some files.

    Returns what pytest counted, and what they measured "on postgresql"; what fails there fails here, with its words.
    With `whole`, of all other files only what PostgreSQL alone can show.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-m",
        KINDS,
        *paths,
        *(f"--ignore={path}" for path in but),
    ]
    # Coverage is counted where the suite itself runs; here it would only take time.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_XDIST", "COV"))}
    env |= {WHOLE_FILES: ",".join(whole), "DATABASE_URL": urlsplit(SERVER)._replace(path=f"/{database}").geturl()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counted = re.findall(r"^(\d+ passed.*) in [\d.]+s", done.stdout, re.MULTILINE)
    assert counted, done.stdout[-2000:]
    figures = re.findall(r"^.* on postgresql: .*", done.stdout, re.MULTILINE)
    return "\n".join([f"on PostgreSQL, {' '.join(paths)}: {counted[-1]}", *figures])
