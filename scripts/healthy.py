"""Whether this container does its work: `python scripts/healthy.py web|worker|beat|sandbox`; exit code 0 or 1."""

import http.client
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

BEAT_SCHEDULE = Path("/run/cpv/beat-schedule")
BEAT_WRITES_EVERY = 180  # seconds; Celery's own


def _answers(port: int, path: str, host: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    connection.request("GET", path, headers={"Host": host})
    return connection.getresponse().status == 200


def web() -> bool:
    """Ready: the database answers and has every migration. Django serves the public host name only."""
    return _answers(8000, "/readyz", urlsplit(os.environ["CPV_BASE_URL"]).netloc)


def sandbox() -> bool:
    return _answers(8400, "/", "localhost:8400")


def worker() -> bool:
    """The worker answers through the message broker."""
    ping = ["celery", "-A", "cpvpanel", "inspect", "ping", "--timeout", "10", "-d", f"celery@{socket.gethostname()}"]
    return subprocess.run(ping, capture_output=True, check=False).returncode == 0  # noqa: S603 - fixed words


def beat() -> bool:
    """It writes down its last ticks again and again."""
    newest = max((file.stat().st_mtime for file in BEAT_SCHEDULE.parent.glob("beat-schedule*")), default=0.0)
    return time.time() - newest < 3 * BEAT_WRITES_EVERY


if __name__ == "__main__":
    try:
        healthy = {"web": web, "worker": worker, "beat": beat, "sandbox": sandbox}[sys.argv[1]]()
    except OSError as error:
        sys.exit(str(error))
    sys.exit(0 if healthy else 1)
