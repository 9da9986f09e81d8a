"""How many customers a page names: counted while that is cheap, then Microsoft's own number."""

from __future__ import annotations

import uuid

import pytest
from django.utils import timezone

from partners import jobs, overview
from partners.models import Customer, Partner, Run
from tests.pretend import Person, text_of

pytestmark = pytest.mark.django_db
BOUND = 10


@pytest.fixture
def partner(monkeypatch, member: Person) -> Partner:
    monkeypatch.setattr(overview, "COUNTED", BOUND)
    return Partner.objects.get()


def customers(partner: Partner, number: int) -> None:
    Customer.objects.bulk_create(
        Customer(partner=partner, tenant_id=uuid.uuid4(), name_key=f"{index}", content_hash=bytes(16))
        for index in range(number)
    )


def run(partner: Partner, *, seen: int, outcome: str = "done") -> Run:
    finished = None if outcome == "running" else timezone.now()
    job = jobs.ensure(partner, "customers")
    return Run.objects.create(partner=partner, job=job, fence=1, outcome=outcome, seen=seen, finished_at=finished)


def number(partner: Partner) -> tuple[int, bool]:
    view = overview.overview(partner.members.get())
    return view.customer_count, view.has_more


def test_up_to_the_bound_the_mirror_is_counted_without_those_that_are_gone(partner):
    run(partner, seen=99)
    customers(partner, BOUND + 1)
    Customer.objects.filter(name_key="3").update(removed_at=timezone.now())

    assert number(partner) == (BOUND, False)


def test_beyond_the_bound_it_is_what_microsoft_listed_in_the_newest_complete_run(partner):
    customers(partner, BOUND + 3)
    run(partner, seen=BOUND + 3)
    run(partner, seen=2, outcome="waiting")

    assert number(partner) == (BOUND + 3, False)


def test_while_the_first_run_reads_it_is_what_was_read_so_far(partner):
    customers(partner, BOUND + 5)
    run(partner, seen=BOUND + 5, outcome="running")

    assert number(partner) == (BOUND + 5, False)


def test_when_nobody_knows_the_pages_say_more_than(partner, member):
    customers(partner, BOUND + 1)
    run(partner, seen=0, outcome="failed")

    assert number(partner) == (BOUND, True)
    for address in ("/", "/customers/"):
        assert f"More than {BOUND}" in text_of(member.portal.get(address))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("fabrikam.onmicrosoft.com", True),
        ("rikam.onmicro", True),
        ("Fabrikam.OnMicrosoft", True),
        (".onmicrosoft.com", True),
        ("am.on", True),
        ("fabrikam", True),
        ("fabrikam.example", False),
        ("fabrikam.onmicrosoft.com.au", False),
        ("xabrikam.onmicrosoft.com", False),
    ],
)
def test_a_search_finds_any_part_of_a_domain(partner, text, found):
    Customer.objects.create(
        partner=partner, tenant_id=uuid.uuid4(), name="Wingtip", name_key="wingtip",
        domain="fabrikam.onmicrosoft.com", content_hash=bytes(16),
    )  # fmt: skip

    assert partner.customers.matching(text).exists() == found
