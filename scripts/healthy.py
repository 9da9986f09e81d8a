"""Whether this container does its work: `python scripts/healthy.py web|worker [NAME]|beat|sandbox`; exit 0 or 1."""

import http.client
import os
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

BEAT_SCHEDULE = Path("/run/cpv/beat-schedule")
PULSE_WITHIN = 60.0  # seconds; a tick comes every two
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


def worker(name: str = f"celery@{socket.gethostname()}") -> bool:
    """A tick came through the message broker to this very worker within the last minute."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cpvpanel.settings")
    import django

    django.setup()
    from partners.models import Pulse

    silent_for = Pulse.silent_for(name)
    return silent_for is not None and silent_for < PULSE_WITHIN


def beat() -> bool:
    """It writes down its last ticks again and again."""
    newest = max((file.stat().st_mtime for file in BEAT_SCHEDULE.parent.glob("beat-schedule*")), default=0.0)
    return time.time() - newest < 3 * BEAT_WRITES_EVERY


if __name__ == "__main__":
    try:
        healthy = {"web": web, "worker": worker, "beat": beat, "sandbox": sandbox}[sys.argv[1]](*sys.argv[2:])
    except OSError as error:
        sys.exit(str(error))
    sys.exit(0 if healthy else 1)
