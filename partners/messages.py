"""Hints to workers. A lost one costs a tick: the row is the truth."""

from __future__ import annotations

import logging
import time

from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError as BrokerDown

logger = logging.getLogger(__name__)

HINT_LIFE = 60.0  # seconds: so long a claim lasts, and by then the tick has sent newer ones


def send(task: str, **ids: object) -> None:
    """Tell a worker about a row; without a message broker the tick finds it."""
    _send(task, ids)


def work_waits() -> None:
    """
    Tell some worker that jobs wait for one.

    Whoever finds more than they can do sends such a hint in place of the one they read, and the tick sends more; so
    there may be many, and mail waits in the same queue. Workers pass over what is older than `HINT_LIFE`; but not over
    one that its dead reader gave back, which on Redis comes after more than a turn.
    """
    _send("partners.work_off", {"good_until": time.time() + HINT_LIFE}, expires=2 * settings.CPV_TURN_SECONDS + 60)


def is_too_old(good_until: float | None) -> bool:
    """Whether a hint that came with this time need not be followed any more."""
    return good_until is not None and time.time() > good_until


def _send(task: str, ids: dict[str, object], *, expires: float | None = None) -> None:
    try:
        current_app.send_task(task, kwargs=ids, ignore_result=True, retry=False, expires=expires)
    except (BrokerDown, OSError):
        logger.warning("the message broker is down; the tick will find the work", extra={"task": task, **ids})
