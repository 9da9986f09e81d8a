"""Starts named children in order, starts the dead ones again, and ends them all on Ctrl-C. `make run` stands on it."""

import ctypes
import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

LOOK_EVERY = 0.05  # seconds between two looks at the children
LONGEST_PAUSE = 30.0  # seconds before a child that keeps dying is started again
STEADY_AFTER = 60.0  # seconds after which a child's earlier deaths are forgotten
HURRIED_GRACE = 1.0  # seconds that a child gets after a second Ctrl-C
LONGEST_LOG = 5_000_000  # bytes, at start

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class StartFailed(Exception):
    """A child did not become ready; the message says which one and shows the end of its log."""


class Stopped(BaseException):
    """Somebody asked for the end. No Exception, so that no step takes it for a failure of its own."""


@dataclass(frozen=True)
class Child:
    """What to run, under which name; `env` is added to our own environment."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Place:
    """A child's place in the order, with the process that fills it now."""

    child: Child
    process: "subprocess.Popen[bytes] | None"
    started: float
    pause: float
    again_at: float = 0.0


def port_is_free(port: int) -> bool:
    """Whether nobody listens on this port of localhost, in IPv4 and in IPv6."""
    return all(_can_bind(*address, port) for address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")))


def _can_bind(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is not "taken"
            probe.bind((host, port))
    except OSError as error:
        return error.errno != errno.EADDRINUSE  # a machine without IPv6 has nobody listening there
    return True


def taken_port(port: int, variable: str) -> str:
    """One clear line for a port that somebody else has."""
    return f"Port {port} is taken. Stop what listens there, or choose another port: {variable}={port + 1} make run"


def http_status(url: str) -> int | None:
    """The status that a GET is answered with, past any proxy; None when nobody answers within two seconds."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=2)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Supervisor:
    """
    The parent of everything that runs on this machine. Use it in a `with` of the main thread.

    The end of the block, SIGINT and SIGTERM stop the children in reverse order; a signal ends the block quietly.
    """

    def __init__(
        self,
        *,
        logs: Path,
        say: Callable[[str], None],
        cwd: Path | None = None,
        grace: float = 20.0,
        pause: float = 1.0,
    ) -> None:
        self.logs, self.say, self.cwd, self.grace, self.pause = logs, say, cwd, grace, pause
        self._places: list[_Place] = []
        self._asked = 0  # how often somebody asked for the end
        self._patience = 0  # how many of those were for the end itself; one more is for haste
        self._interruptible = False

    def __enter__(self) -> Self:
        self.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            if kind is Stopped:
                self._patience = 1
                self.say("Stopping; Ctrl-C again makes it quick")
            self.stop()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        return kind is Stopped

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1
        # Between two looks a note is enough: raising inside Popen could lose a child that just started.
        if self._interruptible:
            raise Stopped

    def _stop_if_asked(self) -> None:
        if self._asked:
            raise Stopped

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def call(self, step: Callable[[], T]) -> T:
        """Run a step in this process; a signal ends it at once."""
        self._interruptible = True
        try:
            self._stop_if_asked()
            return step()
        finally:
            self._interruptible = False

    def start(self, child: Child) -> None:
        """Start a child now and again whenever it dies."""
        self._stop_if_asked()
        log = self.log(child.name)
        if log.exists() and log.stat().st_size > LONGEST_LOG:
            log.replace(log.with_suffix(".log.1"))
        self._places.append(_Place(child, self._launch(child), time.monotonic(), self.pause))

    def wait_for(self, name: str, ready: Callable[[], bool], *, within: float = 60.0) -> None:
        """
        Wait until a started child is ready.

        :raises StartFailed: it ended, or `within` seconds have passed
        """
        place = next(place for place in self._places if place.child.name == name)
        deadline = time.monotonic() + within
        while not ready():
            self._stop_if_asked()
            if place.process is None or _has_ended(place.process):
                raise StartFailed(self._complaint(name, "ended while starting"))
            if time.monotonic() > deadline:
                raise StartFailed(self._complaint(name, f"was not ready after {within:.0f} s"))
            time.sleep(LOOK_EVERY)

    def watch(self) -> None:
        """Start dead children again until somebody asks for the end."""
        while True:
            self._stop_if_asked()
            self.mend()
            time.sleep(LOOK_EVERY)

    def mend(self) -> None:
        """Note the children that died, and start those again whose pause is over."""
        for place in self._places:
            if place.process and _has_ended(place.process):
                self._note_death(place, _bury(place.process))
            elif not place.process and time.monotonic() >= place.again_at:
                place.process, place.started = self._launch(place.child), time.monotonic()

    def stop(self) -> None:
        """End all children, the last one first; a signal while we wait makes it quick."""
        self._interruptible = False
        while self._places:
            process = self._places[-1].process
            if process:
                self._end(process)
            self._places.pop()

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)  # not yet reaped, so the number is still its own
        while not _has_ended(process):
            grace = self.grace if self._asked <= self._patience else min(self.grace, HURRIED_GRACE)
            if time.monotonic() - begun > grace:
                break
            time.sleep(LOOK_EVERY)
        _bury(process)

    def _launch(self, child: Child) -> "subprocess.Popen[bytes]":
        with open(self.log(child.name), "ab") as log:
            return subprocess.Popen(  # noqa: S603  the caller's own commands, no shell
                child.argv,
                cwd=self.cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **child.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C is ours alone; the order of the end is ours too
                preexec_fn=_die_with(os.getpid()),
            )

    def _note_death(self, place: _Place, code: int) -> None:
        if time.monotonic() - place.started > STEADY_AFTER:
            place.pause = self.pause
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.say(
            f"{place.child.name} ended ({how}), starts again in {place.pause:.0f} s; see {self.log(place.child.name)}"
        )
        place.process, place.again_at = None, time.monotonic() + place.pause
        place.pause = min(2 * place.pause, LONGEST_PAUSE)

    def _complaint(self, name: str, what: str) -> str:
        tail = self.log(name).read_text(errors="replace").splitlines()[-12:]
        return "\n".join([f"{name} {what}. The end of {self.log(name)}:", *(f"  {line}" for line in tail)])


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes its program: ask Linux for SIGTERM when our main thread is gone."""

    def ask() -> None:
        if _libc:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # gone before we could ask
                os._exit(1)

    return ask


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether the process has ended. It is left unreaped, so that nobody else can get the number of its group."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _bury(process: "subprocess.Popen[bytes]") -> int:
    """End what is left of the child's group (a web server's workers hold its port) and answer how the child ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
