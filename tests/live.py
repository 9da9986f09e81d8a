"""
The whole thing as `make run` starts it: stand-in, web, worker and beat as real processes, for tests of the outside.

One stack serves every test of a session that asks for the fixture `live`. Nothing here touches the product's database
from this process: use `live.python(…)`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.scripts import Scripts

ROOT = Path(__file__).resolve().parents[1]
CONTOSO = "c0470500-0000-4000-8000-000000000003"
FABRIKAM = "fab51ca0-0000-4000-8000-000000000001"
NORTHWIND = "0a7b1d00-0000-4000-8000-000000000002"
OURS = re.compile(r"COV|CPV_|KEY_VAULT_|DATABASE_|CELERY_|EMAIL_|DJANGO_|DEBUG$|SECRET_KEY|ALLOWED_HOSTS$|CACHE_URL$")
STARTS_WITHIN, ENDS_WITHIN = 90.0, 40.0  # seconds
LOOK_EVERY = 0.05  # seconds
INVITE = f"""
from django.core.management import call_command
from django.utils import timezone
from partners.models import Partner
Partner.objects.filter(tenant_id="{CONTOSO}", offboarded_at=None).update(offboarded_at=timezone.now())
call_command("invite", name="Contoso", tenant="{CONTOSO}", cloud="global", json=True)
"""
T = TypeVar("T")
BELOW_THE_SYSTEMS_OWN = (15_000, 32_000)


def until(condition: Callable[[], T], seconds: float = 60.0, *, what: str = "") -> T:
    """The first answer of `condition` that is true; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what or condition}")
        time.sleep(LOOK_EVERY)


def free_port() -> int:
    """
    A port that nobody listens on.

    It lies below those the system hands out by itself: until a server binds it, somebody's connection would have it.
    """
    for port in random.sample(range(*BELOW_THE_SYSTEMS_OWN), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports, and none is free")


def text_of(html: str) -> str:
    """A page as somebody reads it: tags out, space folded."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html))).strip()


def service_account(name: str) -> str:
    return f"svc-cpv@{name.lower()}.onmicrosoft.test"


@dataclass
class Live:
    """A running stack on free ports, with everything it keeps in one folder."""

    folder: Path
    port: int = field(default_factory=free_port)
    sandbox_port: int = field(default_factory=free_port)
    said: list[str] = field(default_factory=list)  # lines of stdout, of all starts
    process: subprocess.Popen[str] | None = None
    starts: int = 0
    opens: str = "owner_scope()"  # whose rows a script may touch
    _later: queue.Queue[str | None] = field(default_factory=queue.Queue)
    _scripts: Scripts | None = None

    # --- Addresses --------------------------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def sandbox_url(self) -> str:
        return f"http://localhost:{self.sandbox_port}"

    @property
    def var(self) -> Path:
        return self.folder / "var"

    @property
    def env(self) -> dict[str, str]:
        """What a person's shell has, and nothing that the running tests have set for themselves."""
        clean = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        ports = {"CPV_PORT": str(self.port), "CPV_SANDBOX_PORT": str(self.sandbox_port)}
        return clean | {"DEBUG": "true", "CPV_ENV_FILE": "", "CPV_VAR_DIR": str(self.var)} | ports

    # --- Start and end ----------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start everything, and return when the last line of what to try was printed."""
        command = [sys.executable, "manage.py", "runlocal"]
        with open(self.folder / "runlocal.stderr", "ab") as errors:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.env, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.starts += 1
        self.said.clear()
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, lines), daemon=True).start()
        deadline = time.monotonic() + STARTS_WITHIN
        while not self.line(4):
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                self._kill()
                pytest.fail("runlocal did not start:\n" + (self.folder / "runlocal.stderr").read_text()[-3000:])
            self.said.append(line)
        self._later = lines

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    def later_lines(self) -> list[str]:
        """What was printed after the start: nothing, unless a child died."""
        found = []
        while not self._later.empty():
            line = self._later.get()
            if line is not None:
                found.append(line)
        return found

    def line(self, number: int) -> str:
        """A numbered line of what to try."""
        return next((line for line in self.said if line.startswith(f"{number}. ")), "")

    def stop(self) -> int:
        """Press Ctrl-C; the exit code."""
        assert self.process
        self.end_scripts()
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(ENDS_WITHIN)
        finally:
            self._kill()
            self.process = None

    def _kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped. What ended by itself fails the test that asks."""
        if self.process is not None and self.process.poll() is not None:
            words = "".join(f"--- {name}\n{text[-1500:]}\n" for name, text in self.logs().items())
            code, self.process = self.process.returncode, None
            pytest.fail(f"runlocal ended by itself with {code}: {self.later_lines()}\n{words}", pytrace=False)
        return self.process is not None

    def _processes(self) -> Iterator[tuple[bytes, bytes]]:
        """Environment and command line of the processes of this stack (where the system tells); ours is none of it."""
        mark = f"CPV_VAR_DIR={self.var}".encode()
        ours = str(self._scripts.process.pid) if self._scripts else ""
        for process in Path("/proc").glob("[0-9]*"):
            if process.name == ours:
                continue
            try:
                environment = (process / "environ").read_bytes()
                if mark in environment.split(b"\0"):
                    yield environment, (process / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:  # gone meanwhile, or somebody else's
                continue

    def left_behind(self) -> list[str]:
        """Processes that still belong to this stack."""
        return [command.decode() for _, command in self._processes()]

    def environments(self) -> bytes:
        """What can be read about the processes of this stack from outside."""
        return b"\n".join(part for process in self._processes() for part in process)

    def ports_are_free(self) -> bool:
        return all(not _answers(port) for port in (self.port, self.sandbox_port))

    # --- What to do with it -----------------------------------------------------------------------------------------
    def command(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """`manage.py` with these words in the environment of the stack."""
        command = [sys.executable, "manage.py", *words]
        return subprocess.run(
            command, cwd=ROOT, env=self.env | env, capture_output=True, text=True, timeout=90, check=False
        )

    def asks(self, *words: str) -> Any:
        """The document of a command that must end well."""
        ended = self.command(*words, "--json")
        assert ended.returncode == 0, ended.stderr + ended.stdout
        return json.loads(ended.stdout)

    def python(self, code: str) -> Any:
        """Run a script with Django in a process of its own, which waits for the next; what it printed, as JSON."""
        if self._scripts is None:
            command, said = [sys.executable, str(ROOT / "manage.py")], self.folder / "scripts.stderr"
            self._scripts = Scripts(command, env=self.env, opens=self.opens, errors=said)
        return self._scripts.run(code)

    def end_scripts(self) -> None:
        if self._scripts:
            self._scripts.end()
            self._scripts = None

    def scenario(self, name: str, partner: str = "", **params: float) -> dict[str, str]:
        """Let something happen at the pretended Microsoft."""
        body = {"name": name, "tenant": partner or None, "params": params}
        answer = requests.post(f"{self.sandbox_url}/_sandbox/scenario", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        told: dict[str, str] = answer.json()
        return told

    def calls(self) -> list[dict[str, Any]]:
        """What came in at the pretended Microsoft."""
        calls: list[dict[str, Any]] = requests.get(f"{self.sandbox_url}/_sandbox/calls", timeout=10).json()["calls"]
        return calls

    def invitation(self) -> str:
        """A fresh invitation for Contoso; a Contoso that is connected already leaves first."""
        url: str = self.python(INVITE)["url"]
        return url

    @property
    def desk_password(self) -> str:
        found = re.search(r"user security or support, password (\S+)\)", self.line(3))
        assert found, self.said
        return found[1]

    def logs(self) -> dict[str, str]:
        """Every log by its name, and what runlocal itself said on stderr."""
        files = [*sorted((self.var / "log").glob("*.log*")), self.folder / "runlocal.stderr"]
        return {file.name: file.read_text(errors="replace") for file in files}


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@functools.cache
def _the_stack() -> Live:
    return Live(Path(tempfile.mkdtemp(prefix="cpv-live-")))


@pytest.fixture(scope="session")
def stack() -> Iterator[Live]:
    """The one stack of this session, not started yet; its end is a test too."""
    live = _the_stack()
    yield live
    end_well(live)
    if live.folder.exists():  # else another folder of tests ended it already
        shutil.rmtree(live.folder)


def end_well(live: Live) -> None:
    """End it where it runs; nothing died meanwhile, and nothing is left."""
    live.end_scripts()
    if live.folder.exists() and live.is_running:
        deaths = live.later_lines()
        assert live.stop() == 0, live.logs()
        assert not deaths, deaths
        assert not live.left_behind()
        assert live.ports_are_free()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Where the next file needs no stack it ends: with nothing to do it takes a tenth of a core."""
    if nextitem is None or nextitem.path == item.path or "live" in getattr(nextitem, "fixturenames", ()):
        return
    if _the_stack.cache_info().currsize:  # nobody makes one to end it
        end_well(_the_stack())


@pytest.fixture(scope="module")
def live(stack: Live) -> Live:
    """The running stack; a module that found it ended gets it started again, on the same data."""
    if not stack.is_running:
        stack.start()
    return stack


class Visitor:
    """Somebody with a browser that runs no script; keeps every code, state and challenge that passed through it."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.http = requests.Session()
        self.microsoft = requests.Session()  # the same browser, at Microsoft's
        self.http.trust_env = self.microsoft.trust_env = False
        self.secrets: set[str] = set()
        self.challenges: set[str] = set()

    def get(self, path: str) -> requests.Response:
        if path.startswith(self.live.sandbox_url):
            return self.microsoft.get(path, allow_redirects=False, timeout=30)
        return self.http.get(self._address(path), allow_redirects=False, timeout=30)

    def post(self, path: str, *, read_at: str = "", **form: str) -> requests.Response:
        """Read a page, then send the form that it holds; as a browser does, with Origin and the page's token."""
        page = self.get(read_at or path)
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert found, f"no form at {read_at or path}: {page.status_code} {text_of(page.text)[:400]}"
        data = {"csrfmiddlewaretoken": found[1], **form}
        headers = {"Origin": self.live.url, "Referer": self._address(read_at or path)}
        return self.http.post(self._address(path), data=data, headers=headers, allow_redirects=False, timeout=30)

    def leave(self, path: str, *, read_at: str = "", **form: str) -> str:
        """Continue from a page of ours to Microsoft; the address there."""
        answer = self.post(path, read_at=read_at, **form)
        assert answer.status_code == 302, text_of(answer.text)
        address: str = answer.headers["Location"]
        self._note(address)
        return address

    def at_microsoft(self, address: str, account: str, *, mfa: bool = True) -> str:
        """Sign in there and agree; the address Microsoft sends the browser back to."""
        choice = {"account": account, "mfa": "yes" if mfa else "no", "decision": "accept"}
        answer = self.microsoft.post(address, data=choice, allow_redirects=False, timeout=30)
        assert answer.status_code == 302, text_of(answer.text)
        back: str = answer.headers["Location"]
        self._note(back)
        return back

    def follow(self, address: str) -> requests.Response:
        """Go there, and on to wherever it leads."""
        answer = self.get(address)
        while answer.status_code in (302, 303):
            answer = self.get(answer.headers["Location"])
        return answer

    def sign_in(self, account: str) -> requests.Response:
        return self.follow(self.at_microsoft(self.leave("/signin", cloud="global"), account))

    def _address(self, path: str) -> str:
        return path if path.startswith("http") else self.live.url + path

    def _note(self, address: str) -> None:
        query = parse_qs(urlsplit(address).query)
        self.secrets.update(query.get("code", []) + query.get("state", []))
        self.challenges.update(query.get("code_challenge", []))
