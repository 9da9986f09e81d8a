"""
A rehearsal of production: web, workers and two clocks on real servers, against the stand-in, by environment alone.

Needs PostgreSQL and the message broker that is asked for; the addresses come from CPV_TEST_POSTGRES_URL and so on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import requests

from bench.ground import environment
from bench.walled import Walled, a_walled_database
from sandbox import demo
from tests.live import OURS, ROOT, Live, until
from tests.pem import pair

WEB = {
    "CPV_ROLE": "web",
    "KEY_VAULT_CLIENT_ID": demo.VAULT_WEB_CLIENT_ID,
    "KEY_VAULT_CLIENT_SECRET": demo.VAULT_WEB_CLIENT_SECRET,
}
QUEUES = {
    "worker-1": "work",
    "worker-2": "work",
    "worker-control": "control",
    "worker-now": "interactive",
    "worker-mail": "mail",
}
WORKERS, BEATS = tuple(QUEUES), ("beat-1", "beat-2")


@dataclass
class Rehearsal(Live):
    """The stack in production's ways. Each process has a name, a log and a life of its own."""

    database: Walled = field(default_factory=lambda: Walled("", "", ""))
    broker_url: str = ""
    opens: str = "system_scope('a rehearsal')"
    turn_seconds: int = 600
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        signing = pair("rehearsal")
        (self.folder / "message-key.pem").write_text(signing.key)
        (self.folder / "message-cert.pem").write_text(signing.certificate)

    @property
    def env(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        production = environment(self.folder, self.sandbox_url, self.database.login_url)
        return clean | production | {
            "DJANGO_SETTINGS_MODULE": "cpvpanel.settings",
            "CPV_BASE_URL": self.url,
            "DATABASE_OWNER_URL": self.database.owner_url,
            "ALLOWED_HOSTS": "localhost",
            "CELERY_BROKER_URL": self.broker_url,
            "CPV_TURN_SECONDS": str(self.turn_seconds),
            "CPV_MESSAGE_KEY_FILE": str(self.folder / "message-key.pem"),
            "CPV_MESSAGE_CERT_FILE": str(self.folder / "message-cert.pem"),
            "CPV_MESSAGE_CERT_STORE": str(self.folder / "message-cert.pem"),
        }  # fmt: skip

    # --- Start and end ----------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Everything, in the order of need."""
        python = [sys.executable, "-m"]
        where = ["--port", str(self.sandbox_port), "--state", str(self.folder / "sandbox")]
        self.launch("stand-in", [*python, "sandbox", "serve", *where])
        until(lambda: self._answers(self.sandbox_url), what="the stand-in answers")
        migrated = self.command("migrate", "--no-input")
        assert migrated.returncode == 0, migrated.stderr
        serve = [*python, "gunicorn", "cpvpanel.wsgi:application", "--bind", f"127.0.0.1:{self.port}"]
        self.launch("web", serve, **WEB)
        for name in WORKERS:
            self.start_worker(name)
        for name in BEATS:
            schedule = ["-s", str(self.folder / f"{name}-schedule"), "--pidfile="]
            self.launch(name, [*python, "celery", "-A", "cpvpanel", "beat", *schedule])
        until(lambda: self._answers(f"{self.url}/readyz"), 40, what="the portal is ready")
        until(lambda: self.ready["broker"] == "ok", 40, what="a tick reaches a worker")

    def start_worker(self, name: str) -> None:
        flags = [
            "--pool",
            "threads",
            "-c",
            "4",
            "-n",
            f"{name}@%h",
            "-Q",
            QUEUES[name],
            "-l",
            "INFO",
            "--without-mingle",
            "--without-gossip",
        ]
        self.launch(name, [sys.executable, "-m", "celery", "-A", "cpvpanel", "worker", *flags])

    def launch(self, name: str, command: list[str], **env: str) -> None:
        (self.folder / "log").mkdir(exist_ok=True)
        with open(self.folder / "log" / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                command, cwd=ROOT, env=self.env | env, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """SIGKILL to the process and whatever it started."""
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> int:
        """End everything; 0 when each process ended well by itself within 40 seconds."""
        self.end_scripts()
        codes = []
        for name in reversed(list(self.running)):
            self.running[name].terminate()
        for process in self.running.values():
            try:
                codes.append(process.wait(40))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                codes.append(process.wait())
        self.running.clear()
        return max((abs(code) for code in codes), default=0)

    def logs(self) -> dict[str, str]:
        return {file.name: file.read_text(errors="replace") for file in sorted((self.folder / "log").glob("*.log"))}

    # --- Looking ----------------------------------------------------------------------------------------------------
    @property
    def ready(self) -> dict[str, str]:
        answer: dict[str, str] = requests.get(f"{self.url}/readyz", timeout=10).json()
        return answer

    def rows(self, query: str, *given: Any) -> list[tuple[Any, ...]]:
        """What a query finds in the database of the stack."""
        with psycopg.connect(self.database.superuser_url, autocommit=True) as connection:
            cursor = connection.execute(query, given)
            return cursor.fetchall() if cursor.description else []

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            return requests.get(url, timeout=2).status_code == 200
        except requests.RequestException:
            return False


@contextmanager
def rehearsal(folder: Path, *, postgres: str, broker: str, turn_seconds: int) -> Iterator[Rehearsal]:
    """A running stack; at its end everything has ended."""
    with a_walled_database(postgres) as database:
        stack = Rehearsal(folder, database=database, broker_url=broker, turn_seconds=turn_seconds)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()
