"""
Workers and their dispatcher, in fresh processes: `python -m bench.dispatching NAME OPTIONS`.

A page is a wait and what a job keeps after each page; what it costs to read and to write one, other benches tell.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import django

django.setup()

from celery import Celery, group  # noqa: E402
from django.db import connection  # noqa: E402

from bench.clock import clock, most_memory  # noqa: E402
from bench.running import warm  # noqa: E402
from cpvpanel.celery import app  # noqa: E402
from partners import jobs, tasks  # noqa: E402
from partners.models import Partner  # noqa: E402
from tokens.tenancy import system_scope  # noqa: E402

PEER_QUEUE = "cpv-bench-peer"
QUEUES = ("work", "control", "interactive", "mail", PEER_QUEUE)
LANES = 16
LONGEST = 120.0  # seconds
SHORTEST_IDLE, LONGEST_IDLE = 0.05, 0.8  # seconds between two looks of a slot that finds nothing


# --- Claimed and on the message broker ------------------------------------------------------------------------------
def dispatch(due: int) -> dict[str, Any]:
    """The product's tick."""
    _emptied(app)
    app.send_task("partners.nothing", expires=1)  # the connection is there
    _emptied(app)
    connection.ensure_connection()
    figures: dict[str, Any] = {}
    with clock(figures):
        tasks.dispatch()
    claimed = _count("claimed_until > now()")
    assert claimed == due, claimed
    figures["messages"] = _emptied(app)
    return figures


def single_tasks(due: int) -> dict[str, Any]:
    """The same claim, and one task for each job in a Celery group, as an application without further ado sends them."""
    peer = Celery("peer", broker=os.environ["CELERY_BROKER_URL"])
    peer.conf.update(task_default_queue=PEER_QUEUE, task_ignore_result=True)

    @peer.task(name="peer.run_job")
    def run_job(job_id: int) -> None:
        """Nobody runs it."""

    _emptied(peer)
    run_job.delay(0)  # the connection is there
    _emptied(peer)
    figures: dict[str, Any] = {}
    with clock(figures):
        claimed = jobs.claim_due(limit=due)
        group(run_job.s(job_id) for job_id in claimed).apply_async()  # one message each
    assert len(claimed) == due, len(claimed)
    figures["messages"] = _emptied(peer)
    return figures


def _count(condition: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM partners_job WHERE {condition}")  # noqa: S608 - our own words
        return int(cursor.fetchone()[0])


def _emptied(celery: Celery[Any]) -> int:
    """How many messages waited; none does any more. A queue that does not exist has none."""
    waited = 0
    for queue in QUEUES:
        with celery.connection_for_write() as broker, suppress(*broker.channel_errors):
            channel: Any = broker.default_channel
            waited += int(channel.queue_purge(queue))
    return waited


# --- Fair turns -----------------------------------------------------------------------------------------------------
def _pages(work: jobs.Work) -> None:
    """This lane's share of the partner's pages, each of which takes its time."""
    place, lanes = work.share
    number = int(os.environ["BENCH_PAGES_OF_FIRST"]) if work.partner.pk == _first() else 1
    seconds = float(os.environ["BENCH_SECONDS_A_PAGE"])
    for page in range(work.job.cursor.get("page", 0), len(range(place, number, lanes))):
        time.sleep(seconds)
        work.keep({"page": page + 1})
        work.count(pages=1, seen=1)
        work.pause()


def _first() -> int:
    return int(os.environ["BENCH_FIRST"])


KIND = jobs.Kind(
    name="bench",
    title="Pages of a bench",
    run=_pages,
    every=dt.timedelta(days=1),
    fresh_for=dt.timedelta(days=2),
    purpose="sync.bench",
    lanes=LANES,
)


def work_off(threads: int, flag: str) -> dict[str, Any]:
    """A worker: it says that it is there, works from when the file `flag` appears, and ends when that says so."""
    for partner in Partner.objects.filter(tenant_id__in=os.environ.get("BENCH_WARM", "").split()):
        warm(partner)
    told, end = Path(flag), time.monotonic() + LONGEST
    Path(f"{flag}.{os.getpid()}").touch()
    while not told.exists():
        time.sleep(0.002)

    def slot() -> None:
        idle = SHORTEST_IDLE
        while time.monotonic() < end and told.read_text() != "end":
            has_worked = jobs.work_off()
            connection.close()  # as after each task
            if has_worked:
                idle = SHORTEST_IDLE
            else:  # a worker hears of work; asking for it without a pause would take the time of the others
                time.sleep(idle)
                idle = min(LONGEST_IDLE, idle * 2)

    slots = [threading.Thread(target=slot) for _ in range(threads)]
    began = time.process_time()
    for thread in slots:
        thread.start()
    for thread in slots:
        thread.join()
    return {"cpu": time.process_time() - began, "memory": most_memory()}


if __name__ == "__main__":
    jobs.kinds()[KIND.name] = KIND
    with system_scope("a bench"):
        found = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(found))  # noqa: T201 - read by bench.ground
