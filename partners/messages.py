"""Hints to workers. A lost one costs a tick: the row is the truth."""

from __future__ import annotations

import logging

from celery import current_app
from kombu.exceptions import OperationalError as BrokerDown

logger = logging.getLogger(__name__)


def send(task: str, **ids: object) -> None:
    """Tell a worker about a row; without a message broker the tick finds it."""
    try:
        current_app.send_task(task, kwargs=ids, ignore_result=True, retry=False)
    except (BrokerDown, OSError):
        logger.warning("the message broker is down; the tick will find the work", extra={"task": task, **ids})
