"""Servers of the bench's own: a quiet PostgreSQL whose WAL and CPU are nobody else's, and a Redis."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_wal_size": "4GB",  # no checkpoint in the middle of a figure, whose page images would be somebody's WAL
    "checkpoint_timeout": "30min",
    "shared_buffers": "512MB",
}
SECONDS = 20  # until a server answers


def _postgres() -> Path | None:
    """The folder of the newest PostgreSQL's programs."""
    folders = [Path(found).parent for found in [shutil.which("initdb") or ""] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


@contextmanager
def a_postgres() -> Iterator[str]:
    """Its address; empty where PostgreSQL's programs are not installed. Gone at the end."""
    programs = _postgres()
    if programs is None:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="cpv-bench-pg-") as folder:
        data, port = Path(folder) / "data", free_port()
        data.mkdir()
        run = _as_postgres(Path(folder), data)
        control = [*run, str(programs / "pg_ctl"), "-D", str(data), "-w"]
        options = " ".join(f"-c {name}='{value}'" for name, value in (SETTINGS | {"port": str(port)}).items())
        _run(
            [
                *run,
                str(programs / "initdb"),
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
                "-D",
                str(data),
            ]
        )
        _run([*control, "-o", options, "-l", str(data / "log"), "start"])
        try:
            yield f"postgres://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"])


def _as_postgres(folder: Path, data: Path) -> list[str]:
    """PostgreSQL refuses to run as root: then its own user owns the data, and runs it."""
    if os.getuid():
        return []
    user = pwd.getpwnam("postgres")
    folder.chmod(0o711)
    os.chown(data, user.pw_uid, user.pw_gid)
    return ["runuser", "-u", "postgres", "--"]


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd="/", stdout=subprocess.DEVNULL, check=True)


@contextmanager
def a_redis() -> Iterator[str]:
    """Its address; empty where it is not installed. Gone at the end."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        yield ""
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cpv-bench-redis-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
            try:
                _wait_for(port)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
