"""
How Celery speaks to each kind of message broker. The rows are the truth, so a lost or doubled message does no harm.

Sources: Celery 5.7's configuration reference, and the figures in docs/decisions/0008.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kombu import Exchange, Queue

# Each queue has workers of its own, so that nothing waits behind work that is many.
WORK = "work"  # what is due, for all partners
CONTROL = "control"  # the clock, and what must not wait: stops, secrets, sign-ins
INTERACTIVE = "interactive"  # somebody waits for it at a screen
MAIL = "mail"  # a mail server that does not answer holds up mail alone
QUEUES = (WORK, CONTROL, INTERACTIVE, MAIL)
ROUTES = {
    "partners.run_job": INTERACTIVE,
    "partners.look_up": INTERACTIVE,
    "partners.make_change": INTERACTIVE,
    "partners.work_off": WORK,
    "partners.index_customers": WORK,
    "partners.tell_alarms": MAIL,
    "consent.send_notice": MAIL,
}  # all else comes from the clock, or is about tokens
KINDS = {"filequeue": "files", "amqp": "rabbitmq", "amqps": "rabbitmq", "redis": "redis", "rediss": "redis"}
DELIVERIES = 5  # a message whose readers keep dying is dropped after so many; its row is offered again anyway


def kind_of(url: str) -> str:
    """One of "files", "rabbitmq", "redis"; empty when we do not know it."""
    return KINDS.get(urlsplit(url).scheme, "")


def celery_settings(url: str, *, folder: Path, longest_turn: int, signed: bool) -> dict[str, Any]:
    """
    Celery's settings for this message broker, under the names that Django's settings use.

    `longest_turn` is in seconds: no task takes longer, but for the page it is reading.
    """
    serializer = "auth" if signed else "json"
    settings = {
        "BROKER_URL": url,
        "TASK_DEFAULT_QUEUE": CONTROL,
        "TASK_QUEUES": [Queue(name, Exchange(name, type="direct"), routing_key=name) for name in QUEUES],
        "TASK_ROUTES": {task: {"queue": queue} for task, queue in ROUTES.items()},
        "TASK_SERIALIZER": serializer,
        "ACCEPT_CONTENT": [serializer],
        "BROKER_TRANSPORT_OPTIONS": {},
    }
    if kind_of(url) == "files":
        settings |= {"BROKER_TRANSPORT_OPTIONS": {"data_folder": str(folder)}}
    elif kind_of(url) == "rabbitmq":
        settings |= _rabbitmq()
    elif kind_of(url) == "redis":
        settings |= _redis(longest_turn)
    return {f"CELERY_{name}": value for name, value in settings.items()}


def _rabbitmq() -> dict[str, Any]:
    # Quorum queues survive a lost node. Their delayed messages need a topic exchange, or they hold up the others.
    exchange = Exchange("cpv", type="topic", durable=True)
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERIES}
    return {
        "TASK_QUEUES": [
            Queue(name, exchange, routing_key=name, durable=True, queue_arguments=arguments) for name in QUEUES
        ],
        "TASK_DEFAULT_QUEUE_TYPE": "quorum",
        "TASK_DEFAULT_EXCHANGE": exchange.name,
        "TASK_DEFAULT_EXCHANGE_TYPE": exchange.type,
        "TASK_DEFAULT_ROUTING_KEY": CONTROL,
        "TASK_CREATE_MISSING_QUEUES": False,
        "BROKER_TRANSPORT_OPTIONS": {"confirm_publish": True},
    }


def visibility_timeout(longest_turn: int) -> int:
    """Seconds after which Redis offers a message anew: longer than any turn, or a living worker's work is doubled."""
    return longest_turn + max(2, longest_turn // 2)


def _redis(longest_turn: int) -> dict[str, Any]:
    return {
        "BROKER_TRANSPORT_OPTIONS": {
            "visibility_timeout": visibility_timeout(longest_turn),
            # By default a dead worker's message comes back up to 100 seconds after the timeout; so within five.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": "cpv:",
        },
    }
