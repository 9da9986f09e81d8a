"""The stand-in as it really runs: a process with sockets, signals and a command line."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from sandbox import demo
from sandbox.state import FileStore
from sandbox.world import World

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CPV_", "KEY_VAULT_"))}
    command = [sys.executable, "-m", "sandbox", *words]
    return subprocess.run(command, cwd=ROOT, env=clean | env, capture_output=True, text=True, timeout=60, check=False)


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def start(state: Path, *words: str) -> Running:
    command = [sys.executable, "-m", "sandbox", "serve", "--port", "0", "--state", str(state), *words]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CPV_", "KEY_VAULT_"))}
    process = subprocess.Popen(command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    found = re.search(r"listens on [\d.]+:(\d+)", process.stdout.readline())
    assert found
    return Running(process, int(found[1]))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = start(tmp_path)
    yield running
    running.process.kill()
    running.process.communicate()


def test_connections_are_kept_and_the_host_picks_the_service(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.connect()
    first = connection.sock

    connection.request("GET", "/_sandbox/health")
    healthy = json.loads(connection.getresponse().read())
    connection.request("POST", "/v1/customers", body=b"x" * 1000, headers={"Host": "graph.microsoft.com"})
    refused = connection.getresponse()
    refused.read()
    connection.request("HEAD", "/_sandbox/health")
    connection.getresponse().read()

    assert healthy == {"status": "ok"}
    assert refused.status == 401
    assert connection.sock is first
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success(running: Running, number: signal.Signals) -> None:
    running.process.send_signal(number)

    assert running.process.wait(timeout=30) == 0


def test_scenarios_by_command_line_survive_a_restart(running: Running, tmp_path: Path) -> None:
    done = run("scenario", "throttled", "Contoso", "--url", running.url)
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(timeout=30)
    again = start(tmp_path)

    connection = http.client.HTTPConnection("127.0.0.1", again.port, timeout=10)
    connection.request("GET", "/_sandbox/world")
    faults = json.loads(connection.getresponse().read())["faults"]
    connection.close()
    again.process.terminate()
    again.process.communicate()

    assert (done.returncode, done.stderr) == (0, "")
    assert "429" in done.stdout
    assert f"python -m sandbox scenario healthy {demo.CONTOSO}" in done.stdout
    assert [(fault["kind"], fault["tenant"]) for fault in faults] == [("throttled", demo.CONTOSO)]


def test_a_broken_connection_brings_no_answer_and_the_mode_of_the_start_counts(tmp_path: Path) -> None:
    running = start(tmp_path, "--refresh-tokens", "strict")
    ahead = run("scenario", "clock-skew", "--seconds", "-86400", "--url", running.url)
    mild = run("scenario", "refresh-tokens", "--mode", "entra", "--url", running.url)
    broken = run("scenario", "vault-fault", "--kind", "down", "--times", "1", "--url", running.url)
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    to_vault = {"Host": "cpv-demo.vault.azure.net"}

    connection.request("GET", "/secrets/a/?api-version=7.5", headers=to_vault)
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    connection.close()
    connection.request("GET", "/secrets/a/?api-version=7.5", headers=to_vault)
    answer = connection.getresponse()
    connection.close()
    running.process.terminate()
    running.process.communicate()
    again = World(store=FileStore(tmp_path), usual_refresh_mode="strict")
    again.restore()

    assert [done.returncode for done in (ahead, mild, broken)] == [0, 0, 0]
    assert answer.status == 401
    assert [name for name, _ in answer.getheaders()].count("Date") == 1
    yesterday = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert yesterday < time.time() - 86_000
    assert (again.refresh_mode, again.clock_skew) == ("entra", -86_400)


def test_wrong_use_is_exit_2_with_a_reason(running: Running) -> None:
    scenario, partner = (
        run("scenario", *words, CPV_SANDBOX_URL=running.url) for words in (("sulks",), ("token-revoked", "Nobody"))
    )

    assert (scenario.returncode, partner.returncode) == (2, 2)
    assert "There is no scenario 'sulks'" in scenario.stderr
    assert "There is no partner 'Nobody'" in partner.stderr


def test_a_file_of_scenarios_is_played_in_order_until_one_is_wrong(running: Running, tmp_path: Path) -> None:
    lines = [
        {"name": "limit", "tenant": "Contoso", "params": {"requests": 5, "seconds": 1, "per": "customer"}},
        {"name": "latency", "params": {"seconds": 0.25, "path": "/customers"}},
        {"name": "customers", "tenant": "Contoso", "params": {"number": 1_000_000}},
        {"name": "changed", "tenant": "Contoso", "params": {"share": 0.5}},
        {"name": "quirks", "tenant": "Contoso", "params": {"kind": "bom,pascal"}},
    ]
    sound, wrong = tmp_path / "sound.json", tmp_path / "wrong.json"
    sound.write_text(json.dumps(lines))
    wrong.write_text(json.dumps([{"name": "changed", "tenant": "Contoso", "params": {"share": 7}}, *lines]))

    done = [run("scenario", "--file", str(name), "--url", running.url) for name in (sound, wrong, tmp_path / "none")]
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(timeout=30)
    again = World(store=FileStore(tmp_path))
    demo.build(again)
    again.restore()

    assert [one.returncode for one in done] == [0, 2, 2]
    assert "a share is a number from 0 to 1" in done[1].stderr
    contoso = again.tenants[demo.CONTOSO]
    assert (contoso.customers.count, contoso.customers.drift.changes) == (1_000_000, [0.5])
    assert contoso.quirks == ["bom", "pascal"]
    assert [limit.per for limit in again.throttle.limits] == ["customer"]
    assert [delay.seconds for delay in again.delays] == [0.25]


def test_where_nothing_runs_the_command_says_so() -> None:
    done = run("scenario", "healthy", "--url", "http://127.0.0.1:9")

    assert done.returncode == 1
    assert "Nothing answers" in done.stderr


def test_the_list_of_scenarios_needs_no_server() -> None:
    done = run("scenario", "--list")

    assert done.returncode == 0
    assert "vault-down" in done.stdout


def test_a_taken_port_gets_one_clear_line(running: Running) -> None:
    done = run("serve", "--port", str(running.port))

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(running.port) in done.stderr
