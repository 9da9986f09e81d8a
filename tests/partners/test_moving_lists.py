"""Thousands of lists that move, break off and lie: nobody is removed who was not gone, and all ends well."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import time_machine

from partners import jobs, removals, sync, walking
from partners.mirrored_kinds import CUSTOMERS, USERS
from partners.models import LEASE, Customer, CustomerUser, Job, ListPage, ListRefusal, ListState, Partner, Run
from partners.partnercenter import OTHER_TENANT, PartnerCenter
from partners.standing import current_token
from tests.partners.streams import (
    FAULTS,
    INVENTED,
    OF_ANOTHER,
    WAITED_FOR,
    Fault,
    Listing,
    Lists,
    changes,
    one_is_anothers,
    user,
)
from tokens.actors import SYSTEM
from tokens.errors import Failure, Transient

pytestmark = pytest.mark.django_db
A_DAY = dt.timedelta(hours=24)
BEGUN = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
STREAMS_EACH = 10
CLEAN = 2
MOST_READS = 30  # of one story, or it never ends


@pytest.fixture(autouse=True)
def lists_are_short(settings: Any) -> None:
    """One without end shows after some dozens of rows, and need not invent thousands."""
    settings.CPV_LIST_GROWTH = 100


@dataclass
class Read:
    """One run: when, whether it came to the end of the list, and whom it was shown."""

    at: dt.datetime
    is_done: bool
    shown: set[int]


@dataclass
class Story:
    """One partner's list over some days, and what the mirror made of it."""

    work: jobs.Work
    reads: list[Read] = field(default_factory=list)
    pages: int = 0
    gone: set[int] = field(default_factory=set)
    mirrored: dict[int, str] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)  # of the last list that was read to its end

    def run(self, listing: Listing, at: dt.datetime) -> str:
        """One turn; why it did not come to the end, if it did not."""
        job, code = self.work.job, ""
        Job.objects.filter(pk=job.pk).update(leased_until=at + LEASE)
        try:
            sync.follow(self.work, CUSTOMERS, PartnerCenter(listing))
        except Failure as failure:
            code = failure.code
            if not isinstance(failure, Transient):
                job.cursor = {}
        else:
            job.cursor, self.order = {}, list(listing.rows)
        read = Read(at, not code, set().union(*listing.served) if listing.served else set())
        self.reads.append(read)
        self.pages += listing.calls
        gone_before = self.gone
        self.look()
        self.check(self.gone - gone_before, read)
        return code

    def may_have(self, fault: Fault, listing: Listing) -> bool:
        """Whether anybody can know it; of a first list, of a few rows or where all moved nobody can."""
        if fault is one_is_anothers:
            rows, is_seen = listing.rows, listing.size >= 10 and len(listing.rows) >= listing.size + 10
            order = [number for number in self.order if number in rows and number in self.mirrored]
            is_as_before = order == [number for number in rows if number in self.order]
            return is_seen and is_as_before and len(rows) - len(order) <= 2
        return fault not in OF_ANOTHER or (bool(self.mirrored) and not self.work.job.cursor)

    def look(self) -> None:
        """What there is now, of which nothing may be another's."""
        rows = list(self.work.partner.customers.values_list("tenant_id", "name", "removed_at"))
        self.gone = {tenant_id.int for tenant_id, _, removed_at in rows if removed_at}
        self.mirrored = {tenant_id.int: name for tenant_id, name, removed_at in rows if not removed_at}
        assert max(self.mirrored, default=0) < INVENTED, "somebody stayed who never was this partner's"

    def check(self, removed: set[int], last: Read) -> None:
        """Each was lacking in this run and in one a day ago that came to the end, and in all between."""
        for number in removed:
            assert last.is_done, f"{number} was removed by a run that did not end"
            recent = [read for read in self.reads if read.at > last.at - A_DAY]
            assert not any(number in read.shown for read in recent), f"{number} was shown within the day"
            since = [read.at for read in self.reads if number in read.shown]
            before = [
                read for read in self.reads if read.is_done and read.at <= last.at - A_DAY
                and (not since or read.at > max(since))
            ]  # fmt: skip
            assert before, f"{number} was removed after a single list that lacked it"

    def end_well(self, rows: dict[int, str], at: dt.datetime, size: int) -> bool:
        """
        Two whole lists without a fault, 25 hours apart, and the mirror is right; whether a person had to agree first.

        Should one wait for a person they agree, and then two are enough.
        """
        is_held, clean = False, 0
        while clean < CLEAN:
            at += dt.timedelta(hours=25)
            with time_machine.travel(at, tick=False):
                was_begun = bool(self.work.job.cursor)  # its first pages are of a day of trouble
                code = self.run(Listing(dict(rows), size=size), at)
                if code == OTHER_TENANT:
                    Run.objects.filter(pk=self.work.run.pk).update(error_code=code)
                    is_held = removals.accept_strangers(self.work.partner, "customers", by=SYSTEM)
                    assert is_held
                elif code:  # where it stopped is forgotten by now
                    assert was_begun, f"a list that is as it should be was refused: {code}"
                elif removals.accept(self.work.partner, "customers", by=SYSTEM):
                    assert not (is_held and clean), "a person was asked again and again"
                    is_held, clean = True, 0
                else:
                    clean += not was_begun
            assert len(self.reads) < MOST_READS
        assert self.mirrored == rows
        return is_held


def work_of(partner: Partner, kind: str = "customers") -> jobs.Work:
    token = current_token(partner)
    assert token
    job = jobs.ensure(partner, kind)
    job.lease()
    return jobs.Work(job, Run.objects.create(partner=partner, job=job, fence=job.fence), partner, token)


def forget_all(work: jobs.Work) -> None:
    for model in (ListPage, ListState):
        model.objects.all().delete()
    work.partner.customers.all()._raw_delete("default")
    work.job.cursor = {}


@dataclass
class Told:
    """What a story, or many, came to."""

    lists: int = 0
    at_fault: int = 0
    held: int = 0
    removed: int = 0


def tell(work: jobs.Work, seed: int, told: Told) -> None:
    """One story: days of trouble, then days without."""
    dice = random.Random(seed)  # noqa: S311 - the same story for the same seed
    forget_all(work)
    story, at = Story(work), BEGUN
    size = dice.choice((4, 4, 12))
    most = dice.choice((0, 3, 9, 14)) * size // 4
    rows = {number: f"C{number}" for number in dice.sample(range(1, 60), k=most)}
    for _ in range(STREAMS_EACH):
        at += dt.timedelta(hours=dice.choice((1, 13, 25, 49)))
        rows = changes(rows, dice)
        listing = Listing(dict(rows), size=size)
        while not story.may_have(fault := dice.choice(FAULTS), listing):
            pass
        fault(listing, dice)
        with time_machine.travel(at, tick=False):
            story.run(listing, at)
        rows = listing.rows
        told.at_fault += listing.was_at_fault
    try:
        told.held += story.end_well(rows, at, size)
    except AssertionError as failure:
        raise AssertionError(f"story {seed} did not end well") from failure
    told.lists += len(story.reads)
    told.removed += len(story.gone)


@pytest.mark.parametrize("stories", [100, pytest.param(5_000, marks=pytest.mark.soak, id="soak")])
def test_nobody_is_removed_who_is_not_gone(
    connected_partner: Callable[..., Partner], record_property: Callable[[str, object], None], stories: int
) -> None:
    work, told = work_of(connected_partner(customers=0)), Told()

    for seed in range(stories):
        tell(work, seed, told)

    assert told.at_fault > 0.9 * stories * STREAMS_EACH
    figure = f"{told.lists:,} lists of customers, {told.at_fault:,} at fault: {told.removed} removed, 0 wrongly; "
    record_property("figure", figure + f"{stories} stories ended well, {told.held} of them after a person agreed")


# --- A list for each of many customers ------------------------------------------------------------------------------
CUSTOMERS_EACH = 250
DAYS = 19


@dataclass
class Estate:
    """Many customers' users over some days."""

    work: jobs.Work
    customers: dict[str, int]  # tenant id → row
    reads: dict[int, list[Read]] = field(default_factory=dict)
    removed: int = 0
    gone: set[tuple[int, int]] = field(default_factory=set)
    mirrored: dict[tuple[int, int], str] = field(default_factory=dict)

    def run(self, lists: Lists, at: dt.datetime) -> None:
        """Until it comes to its end, however often it has to wait."""
        for _ in range(10 * len(self.customers)):
            Job.objects.filter(pk=self.work.job.pk).update(leased_until=at + LEASE)
            try:
                walking.walk(self.work, USERS, PartnerCenter(lists))
            except Transient:
                continue
            break
        else:
            raise AssertionError("it never came to its end")
        self.work.job.cursor = {}
        refused = set(ListRefusal.objects.values_list("customer_id", flat=True))
        for tenant_id, row in self.customers.items():
            shown = set().union(*lists.of[tenant_id].served) if lists.of[tenant_id].served else set()
            self.reads.setdefault(row, []).append(Read(at, row not in refused, shown))
        gone_before = self.gone
        self.look()
        for row, number in self.gone - gone_before:
            self.removed += 1
            story = Story(self.work, reads=self.reads[row])
            story.check({number}, self.reads[row][-1])

    def look(self) -> None:
        rows = list(CustomerUser.objects.values_list("customer_id", "user_id", "name", "removed_at"))
        self.gone = {(customer, UUID(user_id).int) for customer, user_id, _, removed_at in rows if removed_at}
        there = [row for row in rows if not row[3]]
        self.mirrored = {(customer, UUID(user_id).int): name for customer, user_id, name, _ in there}
        of_others = [keyed for keyed in self.mirrored if keyed[1] >= INVENTED]
        assert not of_others, "somebody stayed who never was this customer's"


@pytest.mark.parametrize("days", [DAYS, pytest.param(400, marks=pytest.mark.soak, id="soak")])
def test_no_user_is_removed_who_is_not_gone(
    connected_partner: Callable[..., Partner], record_property: Callable[[str, object], None], days: int
) -> None:
    work = work_of(connected_partner(customers=0), "users")
    dice = random.Random(7)  # noqa: S311 - the same story each time
    rows = [Customer(partner=work.partner, tenant_id=UUID(int=dice.getrandbits(126))) for _ in range(CUSTOMERS_EACH)]
    Customer.objects.bulk_create(rows)
    estate = Estate(work, {str(row.tenant_id): row.pk for row in rows})
    truth = {tenant_id: {number: f"U{number}" for number in range(1, 9)} for tenant_id in estate.customers}
    at, streams, at_fault = BEGUN, 0, 0

    for day in range(days + 1 + CLEAN):
        is_clean = day >= days
        at += dt.timedelta(hours=25 if is_clean else dice.choice((13, 25, 49)))
        lists = Lists({})
        for tenant_id in truth:
            if dice.random() < 0.05 and not is_clean:
                truth[tenant_id] = changes(truth[tenant_id], dice)
            listing = Listing(dict(truth[tenant_id]), path=f"customers/{tenant_id}/users", make=user)
            fault = dice.choice(FAULTS)
            if not is_clean and (fault not in WAITED_FOR or dice.random() < 0.1):
                fault(listing, dice)
            lists.of[tenant_id] = listing
        with time_machine.travel(at, tick=False):
            estate.run(lists, at)
            if is_clean:
                asked = removals.accept(work.partner, "users", by=SYSTEM)
                assert day == days or not asked, "a person was asked twice"
        streams += len(lists.of)
        at_fault += sum(listing.was_at_fault for listing in lists.of.values())
        truth = {tenant_id: listing.rows for tenant_id, listing in lists.of.items()}

    assert estate.mirrored == {
        (estate.customers[tenant_id], number): name
        for tenant_id, users in truth.items()
        for number, name in users.items()
    }
    assert estate.removed > 50, "little was removed at all, which proves little"
    assert at_fault > 0.8 * days * CUSTOMERS_EACH
    record_property("figure", f"{streams:,} lists of users, {at_fault:,} at fault: {estate.removed} removed, 0 wrongly")
