"""The processes that serve the portal look for stops, and a kill waits for each of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench.ground import POSTGRES, ROOT, Ground, ground
from tests.live import free_port, until
from tests.rehearsal import WEB

pytestmark = pytest.mark.processes
SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
SERVE = 2  # processes, as gunicorn.conf.py says
UNUSED = {"CELERY_BROKER_URL": "redis://localhost:1/0"}  # nobody here sends a message


@pytest.fixture(scope="module")
def where() -> Iterator[Ground]:
    if not SERVER:
        pytest.skip("set CPV_TEST_POSTGRES_URL to a server where databases may be made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(POSTGRES, SERVER)
        with ground({}) as there:
            yield replace(there, env=there.env | UNUSED)


@contextmanager
def gunicorn(where: Ground, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The web server as production starts it; ends with us."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "cpvpanel.wsgi:application", "--bind", address, *words]
    with subprocess.Popen(command, cwd=ROOT, env=where.env | WEB, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


def senders(where: Ground) -> list[str]:
    """The list of processes that a kill waits for."""
    with psycopg.connect(where.env["DATABASE_URL"]) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM tokens_sender ORDER BY name")]


def serving(where: Ground) -> list[int]:
    """The ids of the processes on the list, once all are there."""
    until(lambda: len(senders(where)) == SERVE, what="every serving process reports")
    names = [name.split(":") for name in senders(where)]
    assert {host for host, _, _ in names} == {socket.gethostname()}
    return [int(number) for _, number, _ in names]


def parent_of(number: int) -> int:
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def kill_everything(where: Ground) -> dict[str, Any]:
    command = [sys.executable, "manage.py", "kill", "--all", "--reason", "a drill", "--json"]
    ended = subprocess.run(command, cwd=ROOT, env=where.env, stdout=subprocess.PIPE, text=True, check=False)
    proof: dict[str, Any] = json.loads(ended.stdout)
    return proof


@pytest.mark.parametrize("words", [(), ("--preload",)], ids=["each loads", "one loads and forks"])
def test_each_process_that_serves_reports_and_the_one_that_forks_them_does_not(where, words):
    with gunicorn(where, *words) as server:
        numbers = serving(where)
        assert [parent_of(number) for number in numbers] == [server.pid] * SERVE

    assert server.returncode == 0
    assert senders(where) == [], "who ended is off the list"


def test_a_kill_waits_for_each_process_that_serves_and_names_the_one_that_hangs(where):
    with gunicorn(where):
        hanging = serving(where)[0]
        os.kill(hanging, signal.SIGSTOP)
        try:
            proof = kill_everything(where)
        finally:
            os.kill(hanging, signal.SIGCONT)
        [silent] = proof["silent_workers"]
        assert f":{hanging}:" in silent
        assert proof["calls_stopped_s"] is None

        proof = kill_everything(where)
        assert proof["silent_workers"] == [], "it acts upon the stop as soon as it goes on"
