"""What Celery is told about each kind of message broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpvpanel import messagebroker
from cpvpanel.management.commands import runlocal
from tests import rehearsal

FOLDER = Path("messages")


def told(url: str, *, longest_turn: int = 600, signed: bool = False) -> dict[str, object]:
    return messagebroker.celery_settings(url, folder=FOLDER, longest_turn=longest_turn, signed=signed)


def test_rabbitmq_gets_quorum_queues_behind_a_topic_exchange():
    settings = told("amqps://cpv@mq.example/cpv")

    queues = settings["CELERY_TASK_QUEUES"]
    assert [(queue.name, queue.exchange.type, queue.durable) for queue in queues] == [
        (name, "topic", True) for name in messagebroker.QUEUES
    ]
    assert all(queue.queue_arguments == {"x-queue-type": "quorum", "x-delivery-limit": 5} for queue in queues)
    assert {queue.exchange.name for queue in queues} == {settings["CELERY_TASK_DEFAULT_EXCHANGE"]}
    assert settings["CELERY_BROKER_TRANSPORT_OPTIONS"] == {"confirm_publish": True}


@pytest.mark.parametrize("turn", [1, 5, 600, 3600])
def test_redis_offers_a_message_anew_only_after_the_longest_turn(turn):
    options = told("redis://cache.example/0", longest_turn=turn)["CELERY_BROKER_TRANSPORT_OPTIONS"]

    assert options["visibility_timeout"] > turn
    assert options["unacked_restore_interval"] * options["unacked_restore_throttle"] < 10


def test_the_folder_is_for_the_embedded_one_only():
    assert told("filequeue://")["CELERY_BROKER_TRANSPORT_OPTIONS"] == {"data_folder": "messages"}
    assert "data_folder" not in told("rediss://cache.example/0")["CELERY_BROKER_TRANSPORT_OPTIONS"]


@pytest.mark.parametrize("url", ["filequeue://", "amqp://mq/", "redis://cache/0"])
def test_with_a_key_only_signed_messages_are_sent_and_taken(url):
    for signed, serializer in ((True, "auth"), (False, "json")):
        settings = told(url, signed=signed)
        assert settings["CELERY_TASK_SERIALIZER"] == serializer
        assert settings["CELERY_ACCEPT_CONTENT"] == [serializer]


def test_an_unknown_kind_is_known_as_unknown():
    assert messagebroker.kind_of("sqs://") == ""


def test_each_queue_has_workers_of_its_own_so_that_no_flood_of_one_delays_another(settings, tmp_path):
    settings.VAR_DIR = tmp_path
    here = [child.argv[child.argv.index("-Q") + 1] for child in runlocal.product() if "-Q" in child.argv]

    assert sorted(here) == sorted(messagebroker.QUEUES)
    assert set(rehearsal.QUEUES.values()) == set(messagebroker.QUEUES)
