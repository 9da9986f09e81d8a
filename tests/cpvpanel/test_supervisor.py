"""The supervisor behind `make run`: order, restarts, and an end that leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cpvpanel import supervisor
from cpvpanel.supervisor import Child, StartFailed, Stopped, Supervisor

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.processes

# Writes its number to a file in one rename, so that a reader never sees half of it; then waits for its end.
CHILD = """
import os, pathlib, signal, sys
note = pathlib.Path(sys.argv[1])
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "note-the-end" in sys.argv:
    def end(*_):
        with open(note.parent / "ends", "a") as ends:
            ends.write(note.stem + "\\n")
        sys.exit(0)
    signal.signal(signal.SIGTERM, end)
if "parent" in sys.argv and os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note = note.with_suffix(".worker")
part = note.with_name(note.name + ".part")
part.write_text(str(os.getpid()))
part.rename(note)
print("hello from", note.stem, flush=True)
while True:
    signal.pause()
"""

PARENT = """
import sys
from pathlib import Path
from cpvpanel.supervisor import Child, Supervisor
here = Path(sys.argv[1])
with Supervisor(logs=here, say=lambda line: print(line, flush=True), grace=float(sys.argv[3])) as everything:
    for name in ("first", "second"):
        argv = [sys.executable, "-S", "-c", sys.argv[2], str(here / f"{name}.pid"), *sys.argv[4:]]
        everything.start(Child(name, argv))
        everything.wait_for(name, (here / f"{name}.pid").exists)
    print("started", flush=True)
    everything.watch()
"""


def child(tmp_path: Path, name: str, *manners: str) -> Child:
    return Child(name, [sys.executable, "-S", "-c", CHILD, str(tmp_path / f"{name}.pid"), *manners])


def until(fact: Callable[[], object], within: float = 60.0) -> None:
    """Wait for a fact, and fail when it has not come true in time."""
    deadline = time.monotonic() + within
    while not fact():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process runs; one that ended and was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def pid(tmp_path: Path, name: str) -> int:
    return int((tmp_path / name).read_text())


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def everything(tmp_path, said) -> Iterator[Supervisor]:
    with Supervisor(logs=tmp_path / "log", say=said.append, grace=5, pause=0.01) as everything:
        yield everything


@pytest.fixture
def parent(tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A supervisor in a process of its own, with two started children."""
    started = []

    def parent(*manners: str, grace: float = 5) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", PARENT, str(tmp_path), CHILD, str(grace), *manners]
        process = subprocess.Popen(argv, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == "started\n"
        return process

    yield parent
    for process in started:
        process.kill()
        process.communicate()
    for note in tmp_path.glob("*.pid"):  # stubborn children of a failed test
        with suppress(ProcessLookupError):
            os.kill(int(note.read_text()), signal.SIGKILL)


# --- starting -------------------------------------------------------------------------------------------------------


def test_children_start_in_order_with_their_own_environment_and_log(everything, tmp_path):
    code = "import os, sys; print(os.environ['WHO'], os.environ['PATH'] != '', file=sys.stderr)"

    everything.start(child(tmp_path, "first"))
    everything.wait_for("first", (tmp_path / "first.pid").exists)
    assert not (tmp_path / "log" / "second.log").exists()
    everything.start(Child("second", [sys.executable, "-c", code], {"WHO": "me"}))

    until(lambda: everything.log("second").read_text() == "me True\n")
    assert everything.log("first").read_text() == "hello from first\n"


def test_each_child_leads_a_session_of_its_own(everything, tmp_path):
    everything.start(child(tmp_path, "first"))
    everything.wait_for("first", (tmp_path / "first.pid").exists)

    assert os.getsid(pid(tmp_path, "first.pid")) == pid(tmp_path, "first.pid")


def test_a_child_that_ends_while_starting_is_named_with_the_end_of_its_log(everything):
    everything.start(Child("web", [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"]))

    with pytest.raises(StartFailed, match=r"(?s)web ended while starting.*web\.log.*no such table"):
        everything.wait_for("web", lambda: False)


def test_a_child_that_is_not_ready_in_time_is_named(everything, tmp_path):
    everything.start(child(tmp_path, "web"))

    with pytest.raises(StartFailed, match="web was not ready after 0 s"):
        everything.wait_for("web", lambda: False, within=0.1)


def test_a_log_of_more_than_five_megabytes_is_put_aside_at_start(everything, tmp_path):
    everything.log("first").write_bytes(b"x" * (supervisor.LONGEST_LOG + 1))

    everything.start(child(tmp_path, "first"))

    everything.wait_for("first", (tmp_path / "first.pid").exists)
    until(lambda: everything.log("first").read_text() == "hello from first\n")
    assert (tmp_path / "log" / "first.log.1").stat().st_size == supervisor.LONGEST_LOG + 1


# --- dying ----------------------------------------------------------------------------------------------------------


def test_a_killed_child_is_started_again_and_said_in_one_line(everything, tmp_path, said):
    everything.start(child(tmp_path, "worker"))
    everything.wait_for("worker", (tmp_path / "worker.pid").exists)
    first = pid(tmp_path, "worker.pid")

    os.kill(first, signal.SIGKILL)
    until(lambda: everything.mend() or pid(tmp_path, "worker.pid") != first)

    assert said == [f"worker ended (signal SIGKILL), starts again in 0 s; see {everything.log('worker')}"]
    assert lives(pid(tmp_path, "worker.pid"))


def test_a_child_that_keeps_dying_is_started_again_ever_later(everything, said, monkeypatch):
    everything.pause = 1
    now = [0.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    everything.start(Child("worker", [sys.executable, "-S", "-c", "raise SystemExit(7)"]))

    for death in range(7):
        while len(said) == death:
            everything.mend()
        now[0] += 31

    assert [line.partition(";")[0].removeprefix("worker ended (exit code 7), starts again in ") for line in said] == [
        "1 s", "2 s", "4 s", "8 s", "16 s", "30 s", "30 s",
    ]  # fmt: skip


def test_what_a_dead_child_leaves_behind_is_ended_before_it_starts_again(everything, tmp_path, said):
    everything.start(child(tmp_path, "web", "parent"))
    everything.wait_for("web", lambda: (tmp_path / "web.pid").exists() and (tmp_path / "web.worker").exists())
    left_behind = pid(tmp_path, "web.worker")

    os.kill(pid(tmp_path, "web.pid"), signal.SIGKILL)
    until(lambda: everything.mend() or said)

    until(lambda: not lives(left_behind))


# --- stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_children_in_reverse_order_without_a_trace(parent, tmp_path, number):
    process = parent("note-the-end")
    children = [pid(tmp_path, "first.pid"), pid(tmp_path, "second.pid")]

    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err) == (0, "Stopping; Ctrl-C again makes it quick\n", "")
    assert (tmp_path / "ends").read_text() == "second\nfirst\n"
    assert not any(lives(number) for number in children)


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(parent, tmp_path):
    process = parent("stubborn", grace=0.1)

    process.terminate()

    assert process.wait(10) == 0
    assert not lives(pid(tmp_path, "first.pid"))
    assert not lives(pid(tmp_path, "second.pid"))


def test_a_second_signal_makes_it_quick(parent, tmp_path):
    process = parent("stubborn", grace=60)

    process.send_signal(signal.SIGINT)
    assert process.stdout.readline().startswith("Stopping")
    process.send_signal(signal.SIGINT)

    assert process.wait(10) == 0
    assert not lives(pid(tmp_path, "second.pid"))


def test_children_die_when_their_parent_is_killed(parent, tmp_path):
    process = parent()
    children = [pid(tmp_path, "first.pid"), pid(tmp_path, "second.pid")]

    process.kill()

    until(lambda: not any(lives(number) for number in children))


def test_a_signal_interrupts_a_step_of_our_own(tmp_path):
    reached, before = [], signal.getsignal(signal.SIGTERM)

    with Supervisor(logs=tmp_path, say=reached.append) as everything:
        everything.call(lambda: signal.raise_signal(signal.SIGTERM))
        reached.append("after the step")

    assert "after the step" not in reached
    assert signal.getsignal(signal.SIGTERM) is before


def test_nothing_starts_after_a_signal(everything, tmp_path):
    signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped):
        everything.start(child(tmp_path, "first"))
    with pytest.raises(Stopped):
        everything.watch()


# --- ports and probes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104  what others may listen on
def test_a_taken_port_is_noticed(host):
    with socket.create_server((host, 0)) as server:
        port = server.getsockname()[1]
        assert not supervisor.port_is_free(port)

    assert supervisor.port_is_free(port)


def test_the_line_about_a_taken_port_names_the_port_and_the_variable():
    line = supervisor.taken_port(8400, "CPV_SANDBOX_PORT")

    assert "Port 8400 is taken" in line
    assert "CPV_SANDBOX_PORT=8401 make run" in line


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_a_probe_tells_an_answer_from_silence(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"

    assert supervisor.http_status(f"{url}/healthz") == 200
    assert supervisor.http_status(url) == 404
    server.shutdown()
    server.server_close()
    assert supervisor.http_status(url) is None
