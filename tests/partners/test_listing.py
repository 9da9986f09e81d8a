"""The list of customers: what a text finds, and what a page and a search cost however many customers there are."""

from __future__ import annotations

import re
import uuid

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import jobs
from partners.listing import PAGE_SIZE, customer_page
from partners.models import Customer, Partner, Run
from tests.conftest import FABRIKAM
from tests.statements import asked
from tokens.tenancy import partner_scope

pytestmark = pytest.mark.django_db
TENANT = uuid.UUID("c0ffee00-0000-4000-8000-00000000cafe")
MOST = 6  # statements of a page


@pytest.fixture
def partner(member) -> Partner:
    return Partner.objects.get()


def add(partner: Partner, name: str, domain: str = "", **more: object) -> Customer:
    tenant_id = more.pop("tenant_id", None) or uuid.uuid4()
    return Customer.objects.create(
        partner=partner, tenant_id=tenant_id, name=name, name_key=(name or domain).casefold(), domain=domain,
        content_hash=bytes(16), **more,
    )  # fmt: skip


def fill(partner: Partner, number: int) -> None:
    described = (
        Customer(
            partner=partner, tenant_id=uuid.uuid4(), name=f"Company {index:06}", name_key=f"company {index:06}",
            domain=f"company{index:06}.example", content_hash=bytes(16),
        )
        for index in range(number)
    )  # fmt: skip
    Customer.objects.bulk_create(described, batch_size=2_000)


def names(partner: Partner, text: str) -> list[str]:
    """Everything a member meets who leafs through what the text finds."""
    found: list[str] = []
    after = ""
    with partner_scope(partner):
        while True:
            page = customer_page(partner.customers.all(), text=text, after=after)
            found += [customer.name for customer in page.customers]
            if page.next_url is None:
                return found
            after = page.next_url.rpartition("after=")[2].replace("%3A", ":")


# --- What is found --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("wood", ["Oak 100% Wood", "Woodgrove"]),
        ("GROVE", ["Woodgrove"]),
        ("grove.on", ["Woodgrove"]),
        ("woodgrove.onmicrosoft.test", ["Woodgrove"]),
        ("woodgrove.onmicrosoft.com", []),
        (str(TENANT), ["Woodgrove"]),
        (str(TENANT).upper(), ["Woodgrove"]),
        ("100%", ["Oak 100% Wood"]),
        ("1%w", []),
        ("w_od", []),
        ("back\\slash", ["Back\\slash"]),
        ("straße", ["Straße & Söhne"]),
        ("株式会社", ["日本株式会社"]),
        # Less than three characters, or signs alone: how the name begins.
        ("wo", ["Woodgrove"]),
        ("日本", ["日本株式会社"]),
        ("会社", []),
        ("& s", []),
        ("%", []),
        ("'; --", []),
        # Who has no name is listed, and found, by the domain.
        ("nameless", [""]),
        ("na", [""]),
    ],
)
def test_a_text_finds_a_part_of_a_name_or_domain_or_a_whole_tenant_id(partner, text, found):
    add(partner, "Woodgrove", "woodgrove.onmicrosoft.test", tenant_id=TENANT)
    add(partner, "Oak 100% Wood", "oak.example")
    add(partner, "Back\\slash", "back.example")
    add(partner, "Straße & Söhne", "strasse.example")
    add(partner, "日本株式会社", "kk.example")
    add(partner, "", "nameless.example")
    add(partner, "Woodgone", "woodgone.example", removed_at=timezone.now())

    assert names(partner, text) == found


def test_what_a_search_finds_is_leafed_through_without_losing_or_doubling_anybody(partner):
    fill(partner, 1_300)  # more than the database's function walks through before it asks an index
    for number in range(130):
        add(partner, "Woodgrove" if number % 2 else f"Woodgrove {number:03}", f"w{number}.example")

    found = names(partner, "woodgrove")

    assert len(found) == 130
    assert found == sorted(found)
    assert names(partner, "company") == [f"Company {index:06}" for index in range(1_300)]
    assert names(partner, "") == sorted(names(partner, "company") + found)
    assert names(partner, "wo") == found


def test_a_limited_member_and_the_page_that_chooses_for_them_search_as_well(partner, member):
    fill(partner, 120)
    first = list(Customer.objects.order_by("name_key")[:70])
    some = partner.customers.filter(pk__in=[customer.pk for customer in first])
    others = partner.customers.exclude(pk__in=[customer.pk for customer in first])
    with partner_scope(partner):
        page = customer_page(some, text="company", after="", left_out=None)
        rest = customer_page(others, text="company", after="", left_out=len(first))

    assert [customer.name for customer in page.customers] == [customer.name for customer in first[:PAGE_SIZE]]
    assert [customer.name for customer in rest.customers] == [f"Company {index:06}" for index in range(70, 120)]
    assert page.next_url
    assert rest.next_url is None


def test_a_search_finds_nothing_of_another_partner(partner):
    other = Partner.objects.create(cloud="global", tenant_id=FABRIKAM, name="Fabrikam")
    add(other, "Woodgrove", "woodgrove.example", tenant_id=TENANT)
    add(partner, "Wingtip")

    for text in ("woodgrove", "wo", "woodgrove.example", str(TENANT), "example"):
        assert names(partner, text) == [], text
        assert names(other, text) == ["Woodgrove"], text


# --- What it costs --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [60, 3_000])
def test_a_page_counts_nothing_and_skips_nothing_however_deep_it_lies(partner, member, number):
    """By key alone, in six statements at most, whatever is asked: a count and an offset grow with the list."""
    fill(partner, number)
    job = jobs.ensure(partner, "customers")
    for _ in range(8):
        Run.objects.create(partner=partner, job=job, fence=1, outcome="done", finished_at=timezone.now(), seen=number)
    deep = member.portal.get("/customers/").context["page"].next_url

    for address in ("", deep, "?q=company", "?q=company000059", "?q=co", "?q=nobody", f"?q={uuid.uuid4()}"):
        with CaptureQueriesContext(connection) as captured:
            assert member.portal.get(f"/customers/{address}").status_code == 200
        assert len(asked(captured)) <= MOST, (address, asked(captured))
        for statement in asked(captured):
            assert not re.search(r"\bCOUNT\b|\bOFFSET\b", statement, re.I), statement


@pytest.mark.postgresql
def test_under_the_walls_a_rare_text_is_looked_up_in_the_index_and_a_page_is_read_in_order(partner):
    fill(partner, 1)
    add(partner, "Woodgrove", "woodgrove.example", is_indexed=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO partners_customer (partner_id, tenant_id, name, name_key, domain, relationship, content_hash,"
            " first_seen_at, changed_at, removed_reason, is_indexed) SELECT partner_id, gen_random_uuid(), name,"
            " name_key || n, 'company' || n || '.example', '', content_hash, now(), now(), '', n % 100 > 0"
            " FROM partners_customer, generate_series(1, 20000) AS n WHERE name_key LIKE 'company%'"
        )
        cursor.execute("ANALYZE partners_customer")
        cursor.execute("SELECT gin_clean_pending_list('customer_parts')")  # as the server does after a while

    with partner_scope(partner), transaction.atomic():
        first = partner.customers.present().order_by("name_key", "id")[:51].explain()
        plain = partner.customers.present().matching("woodgrove").explain()
        before = scans()
        found = customer_page(partner.customers.all(), text="woodgrove", after="").customers
        rare = [now - was for now, was in zip(scans(), before, strict=True)]
        before = scans()
        customer_page(partner.customers.all(), text="company", after="")
        common = [now - was for now, was in zip(scans(), before, strict=True)]

    assert "customer_present_by_name" in first
    assert "Sort" not in first
    assert "customer_parts" not in plain, "a policy lets it, by now: the function is needed no more"
    assert [customer.name for customer in found] == ["Woodgrove"]
    assert rare[:1] + rare[2:] == [2, 0, 1_000], (
        "a first look in the order of the list, then names and domains by parts"
    )
    assert 200 <= rare[1] < 210, "and only what is not indexed is read through"
    assert common == [0, 0, 0, 1_000], "the first look was enough"


def scans() -> list[int]:
    """
    In this transaction: uses of the index of parts, rows read that are not in it, reads of the whole table, rows read
    in the list's order.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_stat_get_xact_numscans('customer_parts'::regclass),"
            " pg_stat_get_xact_tuples_returned('customer_not_indexed'::regclass),"
            " pg_stat_get_xact_numscans('partners_customer'::regclass),"
            " pg_stat_get_xact_tuples_fetched('customer_present_by_name'::regclass)"
        )
        row: tuple[int, ...] = cursor.fetchone()
    return list(row)
