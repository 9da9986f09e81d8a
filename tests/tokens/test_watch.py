"""A process says which stops it has seen, as long as it lives and the database is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from django.db import OperationalError, connection

from tests.live import until
from tokens import watch
from tokens.models import Halt, Sender

T = TypeVar("T")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def name(transactional_db: None) -> Iterator[str]:
    yield watch.start()
    watch.stop()


def read(what: Callable[[], T]) -> T | None:
    """What the rows say; nothing while SQLite's shared memory is locked by the thread that writes."""
    try:
        return what()
    except OperationalError:
        return None


def rename(table: str, name: str) -> None:
    def now() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO {name}")
        return True

    until(lambda: read(now), what=f"{table} is {name}")


def there() -> bool:
    return bool(read(Sender.objects.exists))


def reported() -> int:
    return read(Sender.objects.values_list("epoch", flat=True).first) or 0


def test_a_process_reports_once_and_follows_every_stop(name):
    assert watch.start() == name, "a second start changes nothing"
    until(there, what="it reports")
    assert until(lambda: read(Sender.objects.get)).name == name

    halt = until(lambda: read(lambda: Halt.objects.create(reason="a drill", started_by="a test")))

    until(lambda: reported() == halt.pk, what="it has seen the stop")
    assert until(lambda: read(lambda: watch.silent(halt.pk) == []))


def test_without_news_it_still_gives_a_sign_of_life(name):
    until(there, what="it reports")
    first = until(lambda: read(Sender.objects.get))

    until(lambda: read(lambda: Sender.objects.get().seen_at > first.seen_at), 8, what="a second sign")

    assert str(first) == name


def test_at_its_end_it_is_off_the_list(name):
    until(there, what="it reports")

    watch.stop()
    watch.stop()

    assert not Sender.objects.exists()


def test_a_database_that_is_away_ends_no_watch(name, caplog):
    until(there, what="it reports")
    rename("tokens_halt", "tokens_halt_away")
    until(lambda: "the watch cannot reach the database" in caplog.text, what="it notices")
    rename("tokens_halt_away", "tokens_halt")

    halt = until(lambda: read(lambda: Halt.objects.create(reason="a drill", started_by="a test")))

    until(lambda: reported() == halt.pk, what="it goes on")


def test_an_end_without_a_database_is_an_end_too(name, caplog):
    until(there, what="it reports")
    rename("tokens_sender", "tokens_sender_away")

    watch.stop()

    rename("tokens_sender_away", "tokens_sender")
    assert "could not take itself off the list" in caplog.text


def test_secrets_are_disabled_without_waiting_for_a_tick(name, connected_partner, world):
    until(there, what="it reports")
    partner = until(lambda: read(connected_partner))

    def disabled() -> bool:
        versions = [one for kept in world.vault("cpv-demo.vault.azure.net").secrets.values() for one in kept]
        return not any(version.enabled for version in versions)

    def stopped_and_disabled() -> bool:
        """On SQLite a thread may find its table locked; the next stop lets it try again."""
        read(lambda: Halt.objects.create(partner=partner, reason="a drill", started_by="a test"))
        read(partner.mark_killed)
        return disabled()

    until(stopped_and_disabled, what="the secrets are disabled")


@pytest.fixture
def web(settings) -> None:
    """This process may only set secrets."""
    settings.CPV_ROLE = "web"


def test_a_process_that_may_not_disable_secrets_leaves_that_to_those_that_may(web, name, connected_partner, world):
    until(there, what="it reports")
    partner = until(lambda: read(connected_partner))
    before = len(world.calls_to("vault"))

    until(lambda: read(lambda: partner.mark_killed() or True), what="it is killed")
    halt = until(lambda: read(lambda: Halt.objects.create(partner=partner, reason="a drill", started_by="a test")))
    until(lambda: reported() == halt.pk, what="it has seen the stop")

    assert "disables secrets" not in [thread.name for thread in threading.enumerate()]
    assert len(world.calls_to("vault")) == before


def test_where_the_database_is_away_the_next_tick_disables(name, caplog):
    until(there, what="it reports")
    rename("tokens_halt", "tokens_halt_away")

    watch._close_stopped()

    rename("tokens_halt_away", "tokens_halt")
    assert "secrets could not be disabled at once" in caplog.text
