"""
Each process that sends in partners' names, web or worker, looks for stops and writes down the newest it has seen.

The gate would notice a stop by itself within a quarter of a second. What this adds is the proof: whoever stops somebody
can wait until every living process has said that it acts upon it, and knows who is silent.
"""

from __future__ import annotations

import atexit
import datetime as dt
import logging
import os
import secrets
import socket
import threading
import time

from django.conf import settings
from django.db import Error, connections
from django.utils import timezone

from tokens import gate, sweeping
from tokens.models import Halt, Sender
from tokens.tenancy import system_scope

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.2  # seconds
ON_ITS_WAY = 0.1  # seconds; what passed the gate before has left by then, and nothing passes after
SAY_EVERY = 2.0  # seconds between two signs of life without news
LIVES = dt.timedelta(seconds=15)  # a process that gave no sign for longer is taken for dead
FORGET = dt.timedelta(hours=1)

_lock = threading.Lock()
_watching: threading.Thread | None = None
_ending = threading.Event()


def start() -> str:
    """
    Begin to watch in a thread of this process, once; returns the name under which it reports.

    A thread does not survive a fork, so whatever forks lets its children start, and does not start itself.
    """
    global _watching
    with _lock:
        if _watching is None:
            name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
            _watching = threading.Thread(target=_watch, name=name, args=(name,), daemon=True)
            _watching.start()
            atexit.register(stop)
        return _watching.name


def stop() -> None:
    """End the watch and take this process off the list; its last send is over."""
    global _watching
    with _lock:
        if _watching is None:
            return
        _ending.set()
        _watching.join(timeout=5)
        try:
            Sender.objects.filter(name=_watching.name).delete()
        except Error:
            logger.warning("this process could not take itself off the list", extra={"sender": _watching.name})
        _watching = None
        _ending.clear()


@system_scope("watching for stops")
def _watch(name: str) -> None:
    seen, said = -1, float("-inf")
    while True:
        try:
            epoch = Halt.objects.epoch()
            if epoch != seen:
                gate.forget()
                if settings.CPV_ROLE == "worker":  # nobody else's vault identity may read, or switch a version off
                    _disable_secrets()
                _ending.wait(ON_ITS_WAY)
            if epoch != seen or time.monotonic() - said >= SAY_EVERY:
                Sender.report(name, epoch)
                seen, said = epoch, time.monotonic()
        except Error as error:  # the gate itself fails closed; we go on looking
            logger.warning("the watch cannot reach the database", extra={"why": type(error).__name__})
        finally:
            connections.close_all()
        if _ending.wait(LOOK_EVERY):
            return


def _disable_secrets() -> None:
    """Let the secrets of whoever was stopped be disabled by a thread of their own: long jobs may hold all others."""
    threading.Thread(target=_close_stopped, name="disables secrets", daemon=True).start()


def _close_stopped() -> None:
    try:
        sweeping.close_stopped()
    except Error as error:  # the clock's next tick comes to it
        logger.warning("secrets could not be disabled at once", extra={"why": type(error).__name__})
    finally:
        connections.close_all()


def silent(epoch: int) -> list[str]:
    """Names of the processes that live and have not said that they act upon this stop."""
    living = Sender.objects.filter(seen_at__gt=timezone.now() - LIVES, epoch__lt=epoch)
    return list(living.order_by("name").values_list("name", flat=True))


def forget_old() -> None:
    """Let go of processes that ended without a word."""
    Sender.objects.filter(seen_at__lt=timezone.now() - FORGET).delete()
