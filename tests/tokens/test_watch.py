"""A process says which stops it has seen, as long as it lives and the database is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from tests.live import until
from tokens import watch
from tokens.models import Halt, Sender

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def name(transactional_db: None) -> Iterator[str]:
    yield watch.start()
    watch.stop()


def reported() -> int:
    return Sender.objects.values_list("epoch", flat=True).first() or 0


def test_a_process_reports_once_and_follows_every_stop(name):
    assert watch.start() == name, "a second start changes nothing"
    until(Sender.objects.exists, what="it reports")
    assert Sender.objects.get().name == name

    halt = Halt.objects.create(reason="a drill", started_by="a test")

    until(lambda: reported() == halt.pk, what="it has seen the stop")
    assert watch.silent(halt.pk) == []


def test_without_news_it_still_gives_a_sign_of_life(name):
    until(Sender.objects.exists, what="it reports")
    first = Sender.objects.get()

    until(lambda: Sender.objects.get().seen_at > first.seen_at, 8, what="a second sign")

    assert str(first) == name


def test_at_its_end_it_is_off_the_list(name):
    until(Sender.objects.exists, what="it reports")

    watch.stop()
    watch.stop()

    assert not Sender.objects.exists()


def test_a_database_that_is_away_ends_no_watch(name, caplog):
    until(Sender.objects.exists, what="it reports")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokens_halt RENAME TO tokens_halt_away")
    until(lambda: "the watch cannot reach the database" in caplog.text, what="it notices")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokens_halt_away RENAME TO tokens_halt")

    halt = Halt.objects.create(reason="a drill", started_by="a test")

    until(lambda: reported() == halt.pk, what="it goes on")


def test_an_end_without_a_database_is_an_end_too(name, caplog):
    until(Sender.objects.exists, what="it reports")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokens_sender RENAME TO tokens_sender_away")

    watch.stop()

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokens_sender_away RENAME TO tokens_sender")
    assert "could not take itself off the list" in caplog.text
