"""Of a page that is not as it was, what is kept of it tells which rows are; nobody else has to be asked about those."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import jobs, removals
from partners.mirrors import SHORT
from partners.models import Customer, CustomerUser, ListPage, ListState, Partner
from tests.partners.pretended import answer
from tests.partners.streams import Listing
from tests.partners.test_moving_lists import work_of
from tests.partners.turns import Connect, follow, users_of, walk
from tokens.errors import Transient

pytestmark = pytest.mark.django_db
LIST = {number: f"C{number}" for number in range(1, 41)}  # of which twenty are on a page


@pytest.fixture
def work(connected_partner: Connect) -> jobs.Work:
    """Forty customers are mirrored, and what is kept of their pages is believed."""
    work = work_of(connected_partner(customers=0))
    for _ in range(2):
        shown(work, LIST)
    assert all(len(bytes(page.hashes)) == 20 * 16 for page in ListPage.objects.all())
    return work


def shown(work: jobs.Work, rows: dict[int, str], **how: Any) -> CaptureQueriesContext:
    """One whole reading of such a list; what the database was asked."""
    with CaptureQueriesContext(
        connection,
    ) as asked:
        follow(work, Listing(dict(rows), size=20, **how))
    return asked


def compared(asked: CaptureQueriesContext) -> int:
    """How often it was asked about rows one by one."""
    ways = ("WITH ORDINALITY", '"tenant_id" IN (')
    return sum(
        any(way in one["sql"] and "content_hash" in one["sql"] for way in ways) for one in asked.captured_queries
    )


def names(partner: Partner) -> dict[int, str]:
    return {row.tenant_id.int: row.name for row in partner.customers.present()}


def stale() -> list[int]:
    """How many rows of each page were written since its hashes were."""
    return [len(bytes(page.stale)) // SHORT for page in ListPage.objects.order_by("number")]


def turned(rows: dict[int, str]) -> dict[int, str]:
    """The same on each page, in another order."""
    order = list(rows.items())
    return dict(order[19::-1] + order[:19:-1])


def test_in_another_order_no_row_is_looked_at_and_none_is_written(work: jobs.Work) -> None:
    asked = shown(work, turned(LIST))

    assert compared(asked) == 0
    assert names(work.partner) == LIST
    assert stale() == [0, 0]


def test_one_that_changed_is_written_without_being_looked_at_and_so_is_its_way_back(work: jobs.Work) -> None:
    begun = timezone.now()
    another, third = LIST | {5: "another"}, LIST | {5: "third"}
    for rows, looks in ((another, 0), (turned(another), 1), (third, 1)):  # who was written since is looked at
        assert compared(shown(work, rows)) == looks
        assert names(work.partner) == rows
        assert stale() == [1, 0]

    shown(work, LIST)

    assert names(work.partner) == LIST
    assert stale() == [0, 0], "it is again as it was when the page was kept"
    assert [row.tenant_id.int for row in work.partner.customers.filter(changed_at__gt=begun)] == [5]


def test_of_a_page_on_which_many_changed_all_is_kept_anew(work: jobs.Work) -> None:
    rows = LIST | dict.fromkeys(range(1, 4), "another")

    assert compared(shown(work, rows)) == 0
    assert names(work.partner) == rows
    assert stale() == [0, 0]
    assert compared(shown(work, turned(rows))) == 0


def test_whoever_is_new_on_a_page_is_looked_at_and_the_others_are_not(work: jobs.Work) -> None:
    rows = {**LIST, 41: "C41"}
    shown(work, rows)
    shown(work, rows)

    moved = dict(list(rows.items())[::-1])  # who was on the third page is on the first
    shown(work, moved)

    assert names(work.partner) == rows
    assert work.partner.customers.filter(missing_since=None).count() == 41


def test_what_only_looks_like_somebody_known_is_added_all_the_same(work: jobs.Work) -> None:
    """Two customers whose ids end alike share what stands for them on a page."""
    twin = (7 << 100) + 5
    rows = {twin if number == 5 else number: name for number, name in LIST.items()} | {twin: "The other one"}

    shown(work, rows)

    assert names(work.partner)[twin] == "The other one"
    assert len(names(work.partner)) == 41, "the one who is gone has looked listed, and stays"


def test_of_two_who_look_alike_on_one_page_each_is_looked_at(work: jobs.Work) -> None:
    twin = (7 << 100) + 5
    rows = {twin if number == 6 else number: name for number, name in LIST.items()}
    for changed in ({}, {}, {5: "another"}, {twin: "another"}, {5: "third", twin: "third"}):
        shown(work, rows | changed, says_total=lambda _total: None)  # or they would count as one, and the list as short
        assert {number: name for number, name in names(work.partner).items() if number != 6} == rows | changed
        assert [len(bytes(page.hashes)) for page in ListPage.objects.order_by("number")] == [0, 20 * 16]


def test_where_one_is_listed_twice_nothing_is_told_row_by_row(work: jobs.Work) -> None:
    def moves(now: Listing, page: int) -> None:
        """Who was read on the first page is on the second by then."""
        others = {number: name for number, name in LIST.items() if number != 5}
        now.rows = LIST | {5: "another"} if page == 0 else {**others, 5: "third"}

    shown(work, LIST, between=moves, says_total=lambda _total: None)

    assert names(work.partner)[5] == "third"
    assert not any(bytes(page.hashes) for page in ListPage.objects.all())


def test_what_somebody_wrote_beside_is_not_overlooked(work: jobs.Work) -> None:
    work.partner.customers.filter(tenant_id=uuid.UUID(int=5)).update(name="written beside", content_hash=b"0" * 16)
    ListState.objects.update(is_settled=False)  # as whoever does that says

    shown(work, turned(LIST))

    assert names(work.partner) == LIST


def test_pages_of_an_earlier_release_are_compared_once(work: jobs.Work) -> None:
    ListPage.objects.update(hashes=b"")

    assert compared(shown(work, turned(LIST))) > 0
    assert compared(shown(work, LIST)) == 0


def test_of_rows_that_were_erased_nothing_is_believed(customer: Customer, clock: Any) -> None:
    """They are erased when they have been gone for long, and may come back to the page they stood on."""
    partner, rows = customer.partner, {number: f"U{number}" for number in range(1, 21)}
    work = work_of(partner, "users")
    for _ in range(2):
        walk(work, users_of(customer, rows, size=20))
    CustomerUser.objects.filter(key__endswith="05").update(removed_at="2020-01-01T00:00Z", removed_reason="absent")

    assert removals.erase_old() == 1
    walk(work, users_of(customer, turned(rows), size=20))

    assert CustomerUser.objects.filter(removed_at=None).count() == 20


# --- Who stands on another page than before ---------------------------------------------------------------------------
USERS_OF_ONE = {number: f"U{number}" for number in range(1, 41)}
MOVED = {25: "other", **{number: name for number, name in USERS_OF_ONE.items() if number != 25}}  # from the second page


def refused_on(page: int, status: int, *, times: int = 99) -> Callable[..., requests.Response]:
    left = iter(range(times))

    def spoil(_now: Listing, at: int, was: requests.Response) -> requests.Response:
        if at != page or next(left, None) is None:
            return was
        return answer({"code": 1, "description": "no"}, status=status)

    return spoil


@pytest.fixture
def users(customer: Customer) -> jobs.Work:
    """Forty users of one customer, whose two pages are believed."""
    work = work_of(customer.partner, "users")
    for _ in range(2):
        walk(work, users_of(customer, USERS_OF_ONE, size=20))
    assert ListState.objects.filter(kind="users", is_settled=True).exists()
    return work


def is_right_in_the_end(work: jobs.Work, customer: Customer) -> None:
    for turn in range(3):
        rows = USERS_OF_ONE | {39: f"turn {turn}"}  # the second page is read each time
        walk(work, users_of(customer, rows, size=20))
    there = CustomerUser.objects.filter(removed_at=None, missing_since=None)
    assert {int(key[-12:], 16): name for key, name in there.values_list("key", "name")} == rows


def test_who_was_written_on_another_page_and_is_back_is_written_back(users: jobs.Work, customer: Customer) -> None:
    """Microsoft forgets the place in between, so the list of this customer is read from its beginning."""
    with pytest.raises(Transient):
        walk(users, users_of(customer, MOVED, size=20, spoil=refused_on(1, 503)))
    users.job.refresh_from_db()
    changed = USERS_OF_ONE | {40: "changed"}
    walk(users, users_of(customer, changed, size=20, spoil=refused_on(1, 400, times=1)))

    is_right_in_the_end(users, customer)


def test_so_it_is_where_their_page_could_not_be_read_meanwhile(users: jobs.Work, customer: Customer) -> None:
    for rows in (MOVED, USERS_OF_ONE):
        walk(users, users_of(customer, rows, size=20, spoil=refused_on(1, 404)))

    is_right_in_the_end(users, customer)


def test_and_where_they_changed_once_the_list_was_torn(users: jobs.Work, customer: Customer) -> None:
    came = {25: "U25", **MOVED} | {25: "U25"}
    for rows in (came, MOVED, USERS_OF_ONE):
        walk(users, users_of(customer, rows, size=20, spoil=refused_on(1, 404)))

    is_right_in_the_end(users, customer)


def test_and_where_they_changed_while_the_list_was_read_anew(users: jobs.Work, customer: Customer) -> None:
    with pytest.raises(Transient):
        walk(users, users_of(customer, MOVED | {25: "U25"}, size=20, spoil=refused_on(1, 503)))
    users.job.refresh_from_db()
    forgets, refuses = refused_on(1, 400, times=1), refused_on(1, 404)

    def spoil(now: Listing, at: int, was: requests.Response) -> requests.Response:
        forgotten = forgets(now, at, was)
        return forgotten if forgotten is not was else refuses(now, at, was)

    walk(users, users_of(customer, MOVED, size=20, spoil=spoil))
    walk(users, users_of(customer, USERS_OF_ONE, size=20, spoil=refuses))

    is_right_in_the_end(users, customer)


def test_a_list_that_begins_anew_within_a_batch_keeps_each_page_once(users: jobs.Work, customer: Customer) -> None:
    for rows in (USERS_OF_ONE, USERS_OF_ONE):
        walk(users, users_of(customer, rows, size=10))
    changed = USERS_OF_ONE | {3: "a", 15: "b", 25: "c"}
    with pytest.raises(Transient):
        walk(users, users_of(customer, changed, size=10, spoil=refused_on(1, 503)))
    users.job.refresh_from_db()

    walk(users, users_of(customer, changed | {15: "z"}, size=10, spoil=refused_on(2, 400, times=1)))

    assert CustomerUser.objects.get(key__endswith=f"{15:012x}").name == "z"
    assert CustomerUser.objects.filter(removed_at=None).count() == 40


def test_what_an_earlier_release_wrote_beside_is_not_believed(work: jobs.Work) -> None:
    """It writes a row and its page's digest, and knows nothing of hashes."""
    work.partner.customers.filter(tenant_id=uuid.UUID(int=5)).update(name="by it", content_hash=b"0" * 16)
    ListPage.objects.filter(number=1).update(digest=b"its" * 10)

    shown(work, turned(LIST))

    assert names(work.partner) == LIST
