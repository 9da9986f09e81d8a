"""Pages fetched ahead of the writer, and how little is written; on PostgreSQL, where both happen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction

from partners import jobs
from partners.ahead import BREATH, PAGES, fetched_ahead
from partners.mirrors import ReadPage
from partners.models import ListState, Partner, Run
from sandbox.world import World
from tokens import tenancy
from tokens.tenancy import partner_scope

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]
Connect = Callable[..., Partner]
ROWS = 10_000


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_pages_come_in_their_order_and_only_so_many_wait() -> None:
    read: list[int] = []
    may_go_on = threading.Event()

    def pages() -> Iterator[int]:
        for number in range(40):
            read.append(number)
            if number == PAGES + 1:
                may_go_on.set()
            yield number

    with fetched_ahead(pages) as coming:
        first = next(coming)
        assert may_go_on.wait(10)
        assert len(read) <= PAGES + 3  # those that wait, the one taken, and one on its way
        rest = list(coming)

    assert [first, *rest] == list(range(40))
    assert readers() == []


def test_a_failure_comes_in_its_turn() -> None:
    def pages() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    taken = []
    with pytest.raises(KeyError, match="three"), fetched_ahead(pages) as coming:  # noqa: PT012 - it comes in its turn
        for number in coming:
            taken.append(number)

    assert taken == [1, 2]
    assert readers() == []


def test_pages_of_which_nothing_is_to_be_written_come_in_their_turn_though_together() -> None:
    taken: list[int] = []

    def pages() -> Iterator[ReadPage]:
        for number in range(1, 36):
            is_clean = number % 10 > 0
            yield ReadPage(0, number, b"", None, None, 1, is_clean=is_clean)
        raise KeyError("the last ones were clean")

    with pytest.raises(KeyError), fetched_ahead(pages) as coming:  # noqa: PT012 - it comes in its turn
        for page in coming:
            taken.append(page.number)

    assert taken == list(range(1, 36))
    assert readers() == []


def test_what_is_light_waits_for_more_of_its_kind_for_a_moment_only() -> None:
    taken = threading.Event()

    def light(number: int) -> ReadPage:
        return ReadPage(0, number, b"", None, None, 1, is_clean=True)

    def pages() -> Iterator[ReadPage]:
        yield light(1)
        threading.Event().wait(2 * BREATH)
        yield light(2)
        assert taken.wait(10), "it is to be had though nothing follows"
        yield light(3)

    with fetched_ahead(pages) as coming:
        for page in coming:
            if page.number == 2:
                taken.set()

    assert readers() == []


def test_a_row_that_waits_to_be_written_is_not_kept_from_it_by_what_is_light() -> None:
    taken = threading.Event()

    def pages() -> Iterator[ReadPage]:
        yield ReadPage(0, 1, b"", None, None, 1, is_clean=False)
        yield ReadPage(0, 2, b"", None, None, 1, is_clean=True)
        assert taken.wait(10), "whoever writes hears of it, and looks at the time"

    with fetched_ahead(pages) as coming:
        for page in coming:
            if page.number == 2:
                taken.set()

    assert readers() == []


def test_whoever_fails_to_write_ends_the_reading() -> None:
    closed = threading.Event()

    def pages() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    with pytest.raises(KeyError, match="disk"), fetched_ahead(pages) as coming:  # noqa: PT012 - amid the reading
        next(coming)
        raise KeyError("disk")

    assert closed.wait(10)
    assert readers() == []


def test_the_scope_is_open_there_and_nothing_of_its_connection_is_left() -> None:
    seen: list[Any] = []

    def pages() -> Iterator[int]:
        seen.append(tenancy.current())
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        yield 1
        seen.append(connection.connection)

    with partner_scope(17), fetched_ahead(pages) as coming:
        assert list(coming) == [1]

    assert (seen[0].partner_id, seen[1]) == (17, None)


def test_inside_a_transaction_nothing_is_read_ahead() -> None:
    read = []

    def pages() -> Iterator[int]:
        for number in range(3):
            read.append(number)
            yield number

    with transaction.atomic(), fetched_ahead(pages) as coming:
        assert (next(coming), read, readers()) == (0, [0], [])


# --- A whole sync ---------------------------------------------------------------------------------------------------
def sync(partner: Partner) -> Run:
    jobs.ensure(partner, "customers", due_now=True)
    ended = jobs.run_job(jobs.ensure(partner, "customers").pk)
    assert ended
    return ended


def newest_row() -> int:
    """The transaction that last wrote a customer."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(xmin::text::bigint) FROM partners_customer")
        return int(cursor.fetchone()[0])


def logged() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")
        return int(cursor.fetchone()[0])


def test_a_sync_that_finds_nothing_new_writes_no_row_and_five_bytes_for_each_at_most(
    connected_partner: Connect, world: World, record_property: Callable[[str, object], None]
) -> None:
    partner = connected_partner(customers=ROWS)
    world.remember_secrets = False
    first = sync(partner)
    assert (first.outcome, first.created, first.pages) == ("done", ROWS, 20)
    row, figures = newest_row(), {}

    for how in ("pages as they were", "rows compared"):
        calls, bytes_each = len(world.calls_to("partnercenter")), []
        for _ in range(3):  # others use the server, too
            if how == "rows compared":
                ListState.objects.update(is_settled=False)
            before = logged()
            ended = sync(partner)
            bytes_each.append((logged() - before) / ROWS)
            assert (ended.outcome, ended.unchanged, ended.created, ended.updated) == ("done", ROWS, 0, 0)
        assert newest_row() == row
        assert len(world.calls_to("partnercenter")) - calls == 3 * 20
        figures[how] = min(bytes_each)

    text = ", ".join(f"{how}: {number:.2f} bytes of WAL a row" for how, number in figures.items())
    record_property("figure", f"nothing new on postgresql: {text}")
    assert figures["pages as they were"] <= 5, text
    assert figures["rows compared"] <= 15, text
    assert readers() == []


def test_what_was_read_before_a_failure_is_written(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=2_000)
    world.fail("partnercenter", "500", times=1, after=3)

    spoiled = sync(partner)
    rest = sync(partner)

    assert (spoiled.outcome, spoiled.pages, spoiled.created) == ("waiting", 3, 1500)
    assert (rest.outcome, rest.pages, rest.created) == ("done", 1, 500)
    assert readers() == []
