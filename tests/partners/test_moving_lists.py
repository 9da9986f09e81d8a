"""Thousands of lists that move, break off and lie: nobody is removed who was not gone, and all ends well."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import pytest
import time_machine

from partners import jobs, removals, sync
from partners.mirrored_kinds import CUSTOMERS, USERS
from partners.models import LEASE, Customer, CustomerUser, Job, ListPage, ListRefusal, ListState, Partner, Run
from partners.partnercenter import PartnerCenter
from partners.standing import current_token
from partners.writing import Progress
from tests.partners.streams import FAULTS, WAITED_FOR, Listing, Lists, changes, user
from tokens.actors import SYSTEM
from tokens.errors import Failure, Transient

pytestmark = pytest.mark.django_db
A_DAY = dt.timedelta(hours=24)
BEGUN = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
STREAMS_EACH = 6
CLEAN = 2
AT_MOST = 2  # times that a person is asked: whether a list is theirs, and whether so many are gone


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
    faults: int = 0
    yeses: int = 0  # of a person, to what waited for one

    def run(self, listing: Listing, at: dt.datetime) -> Read:
        job = self.work.job
        Job.objects.filter(pk=job.pk).update(leased_until=at + LEASE)
        client = PartnerCenter(listing)
        gone_before = self.gone()
        try:
            sync.read_on(self.work, CUSTOMERS, client, Progress.of(self.work, CUSTOMERS))
            job.cursor, is_done = {}, True
        except Failure as failure:
            is_done = False
            Run.objects.filter(pk=self.work.run.pk).update(error_code=failure.code)
            if not isinstance(failure, Transient):
                job.cursor = {}
        if job.cursor == {}:
            self.shown = set()
        read = Read(at, is_done, set().union(*listing.served) if listing.served else set())
        self.reads.append(read)
        self.pages += listing.calls
        self.check(self.gone() - gone_before, read)
        return read

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

    def gone(self) -> set[int]:
        rows = self.work.partner.customers.exclude(removed_at=None)
        return {tenant_id.int for tenant_id in rows.values_list("tenant_id", flat=True)}

    def mirrored(self) -> dict[int, str]:
        rows = self.work.partner.customers.filter(removed_at=None)
        return {tenant_id.int: name for tenant_id, name in rows.values_list("tenant_id", "name")}


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


def tell(work: jobs.Work, seed: int) -> Story:
    """One story: days of trouble, then two days without; a person says yes to what waits for one."""
    dice = random.Random(seed)  # noqa: S311 - the same story for the same seed
    forget_all(work)
    story, at = Story(work), BEGUN
    rows = {number: f"C{number}" for number in dice.sample(range(1, 60), k=dice.choice((0, 3, 9, 14)))}
    for _ in range(STREAMS_EACH):
        at += dt.timedelta(hours=dice.choice((1, 13, 25, 49)))
        rows = changes(rows, dice)
        listing = Listing(dict(rows))
        if dice.random() < 0.9:
            dice.choice(FAULTS)(listing, dice)
            story.faults += 1
        with time_machine.travel(at, tick=False):
            story.run(listing, at)
        rows = listing.rows
    clean = -bool(work.job.cursor)  # its first pages are of a day of trouble, so that run is not a clean one
    while clean < CLEAN:
        at += dt.timedelta(hours=25)
        clean += 1
        with time_machine.travel(at, tick=False):
            if not story.run(Listing(dict(rows)), at).is_done:
                story.yeses += removals.accept_strangers(work.partner, "customers", by=SYSTEM)
                assert story.run(Listing(dict(rows)), at).is_done, f"story {seed} has no end"
            if removals.accept(work.partner, "customers", by=SYSTEM):
                assert story.yeses < AT_MOST, f"story {seed} waits for a person again and again"
                story.yeses, clean = story.yeses + 1, 0  # nothing counted as missing up to here
    assert story.mirrored() == rows, f"story {seed} did not end well"
    return story


@pytest.mark.parametrize("stories", [220, pytest.param(5_000, marks=pytest.mark.soak, id="soak")])
def test_nobody_is_removed_who_is_not_gone(
    connected_partner: Callable[..., Partner], record_property: Callable[[str, object], None], stories: int
) -> None:
    work = work_of(connected_partner(customers=0))

    told = [tell(work, seed) for seed in range(stories)]

    faults, pages = sum(story.faults for story in told), sum(story.pages for story in told)
    held = sum(story.yeses > 0 for story in told)
    record_property(
        "figure",
        f"{stories:,} partners' lists over days, {faults:,} streams with faults, {pages:,} pages: 0 wrong removals,"
        f" all as they should be after two clean runs, {held} of them with a person's yes",
    )


# --- A list for each of many customers ------------------------------------------------------------------------------
CUSTOMERS_EACH = 250
DAYS = 27
AT_FAULT = 0.7  # of the lists


@dataclass
class Estate:
    """Many customers' users over some days."""

    work: jobs.Work
    customers: dict[str, int]  # tenant id → row
    reads: dict[int, list[Read]] = field(default_factory=dict)
    removed: int = 0

    def run(self, lists: Lists, at: dt.datetime) -> None:
        """Until it comes to its end, however often it has to wait."""
        gone_before = self.gone()
        for _ in range(10 * len(self.customers)):
            Job.objects.filter(pk=self.work.job.pk).update(leased_until=at + LEASE)
            try:
                sync.walk(self.work, USERS, PartnerCenter(lists))
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
        for row, number in self.gone() - gone_before:
            self.removed += 1
            story = Story(self.work, reads=self.reads[row])
            story.check({number}, self.reads[row][-1])

    def gone(self) -> set[tuple[int, int]]:
        rows = CustomerUser.objects.exclude(removed_at=None).values_list("customer_id", "user_id")
        return {(customer, UUID(user_id).int) for customer, user_id in rows}

    def mirrored(self) -> dict[tuple[int, int], str]:
        rows = CustomerUser.objects.filter(removed_at=None).values_list("customer_id", "user_id", "name")
        return {(customer, UUID(user_id).int): name for customer, user_id, name in rows}


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
    at, faults = BEGUN, 0

    for day in range(days + 3):
        at += dt.timedelta(hours=dice.choice((13, 25, 49)) if day < days else 25)
        lists = Lists({})
        for tenant_id in truth:
            if dice.random() < 0.05 and day < days:
                truth[tenant_id] = changes(truth[tenant_id], dice)
            listing = Listing(dict(truth[tenant_id]), path=f"customers/{tenant_id}/users", make=user)
            if day < days and dice.random() < AT_FAULT:
                fault = dice.choice(FAULTS)
                if fault not in WAITED_FOR or dice.random() < 0.1:
                    fault(listing, dice)
                    faults += 1
            lists.of[tenant_id] = listing
        with time_machine.travel(at, tick=False):
            estate.run(lists, at)
            if day >= days:
                removals.accept(work.partner, "users", by=SYSTEM)
        truth = {tenant_id: listing.rows for tenant_id, listing in lists.of.items()}

    assert estate.mirrored() == {
        (estate.customers[tenant_id], number): name
        for tenant_id, users in truth.items()
        for number, name in users.items()
    }
    assert estate.removed > 50, "little was removed at all, which proves little"
    record_property(
        "figure", f"{faults:,} lists of users with faults, others beside them: {estate.removed} removed, 0 wrongly"
    )
