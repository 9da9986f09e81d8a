"""Delegated admin relationships (GDAP) on pages: which there are, what each means, who sees them, what they cost."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import gdap
from partners.models import ChosenCustomer, Customer, Job, ListState, Member, Partner, Relationship
from partners.models.estate import NO_END
from sandbox.directory import Tenant
from tests.journeys.test_holdings_pages import section, sync
from tests.live import text_of
from tests.statements import asked

pytestmark = pytest.mark.django_db(transaction=True)
READER, GLOBAL_READER = "88d8e3e3-8f55-4a1e-953a-9b9898b8876b", "f2ef992c-3afb-46b9-b7cf-a126ee74c451"
PROVIDER = uuid.UUID(int=77)
A_DAY = dt.timedelta(days=1)


@pytest.fixture
def customer(member) -> Customer:
    sync("customers")
    return Customer.objects.order_by("name_key")[0]


def relationship(customer: Customer, *, days: float | None = 400, **more: Any) -> Relationship:
    """One that is in force for so many days from now."""
    end = None if days is None else timezone.now() + days * A_DAY
    row: dict[str, Any] = {
        "partner": customer.partner, "key": uuid.uuid4().hex, "relationship_id": "A-B", "name": "Contoso care",
        "status": "active", "customer_tenant_id": customer.tenant_id, "customer_name": customer.name, "end_at": end,
        "auto_extend": "PT0S", "duration": "P730D", "roles": f"{READER} {GLOBAL_READER}", "content_hash": b"0" * 16,
        "lists_by": end or NO_END, "lapses_at": end,
    }  # fmt: skip
    return Relationship.objects.create(**row | more)


def read(customer: Customer) -> None:
    ListState.objects.update_or_create(
        partner=customer.partner, kind="relationships", lane="", defaults={"completed_at": timezone.now()}
    )


def on_page(member: Any, customer: Customer) -> str:
    answer = member.portal.get(f"/customers/{customer.tenant_id}/")
    assert answer.status_code == 200
    return section(answer.content.decode(), "relationships")


def at_home(member: Any) -> str:
    return text_of(member.portal.get("/").content.decode())


def listed(member: Any, query: str = "") -> str:
    answer = member.portal.get(f"/relationships/{query}")
    assert answer.status_code == 200
    return str(answer.content.decode())


# --- On a customer's page ---------------------------------------------------------------------------------------------
def test_what_graph_lists_stands_on_the_customers_page_with_the_names_of_its_roles(member, contoso: Tenant):
    sync("customers")
    sync("relationships")
    some = contoso.customers.at(1)

    words = on_page(member, Customer.objects.get(tenant_id=some.tenant_id))

    assert "In force" in words
    assert "Until 1 Jun 2027" in words
    assert "Then Microsoft extends it by itself, by 180 days each time." in words
    assert "Agreed for 730 days" in words
    assert "Roles Directory Readers, Directory Writers, Global Reader" in words
    assert "As of" in words
    assert "What to do" not in words


def test_before_it_is_read_and_where_there_is_none_the_page_says_so(member, customer):
    assert "Not read yet" in on_page(member, customer)
    read(customer)
    words = on_page(member, customer)
    assert "None: Microsoft lists no delegated admin relationship with this customer" in words
    assert "nobody of yours can administer anything there" in words


def test_why_it_could_not_be_read_stands_there_and_what_is_older_stays(member, customer, world):
    sync("relationships")
    world.fail("graph", "forbidden", path="/delegatedAdminRelationships")
    sync("relationships")

    words = on_page(member, customer)

    assert "Could not be read the last time. The account that agreed lacks the role or permission." in words
    assert "In force" in words
    assert "As of" in words


@pytest.mark.parametrize(
    ("more", "expected", "not_expected"),
    [
        ({"days": 400}, ["In force", "It does not extend itself."], ["What to do", "Ends soon"]),
        ({"days": 31}, ["In force", "It does not extend itself."], ["What to do"]),
        (
            {"days": 29},
            ["Ends soon", "Your organisation", "switch auto-extend on for it", "back for nobody", "can do anything"],
            ["take Global Administrator out"],
        ),
        ({"days": 12, "auto_extend": "P180D", "lapses_at": None}, ["by 180 days each time"], ["What to do"]),
        (
            {"days": 12, "roles": gdap.GLOBAL_ADMINISTRATOR},
            ["Ends soon", "It has Global Administrator", "never extends by itself", "take Global Administrator out"],
            ["switch auto-extend on for it"],
        ),
        (
            {"days": 300, "roles": gdap.GLOBAL_ADMINISTRATOR},
            ["In force", "never extends by itself", "Roles Global Administrator"],
            ["What to do"],
        ),
        ({"days": -1}, ["Ends now", "the next reading tells"], ["In force about"]),
        ({"days": None, "lapses_at": None}, ["Microsoft tells no end", "Ends Not told by Microsoft"], ["What to do"]),
        ({"days": -3, "status": "expired", "is_over": True}, ["Ended", "brings it back for nobody"], ["What to do"]),
        ({"days": -3, "status": "terminated", "is_over": True}, ["Ended by somebody"], ["What to do"]),
        ({"status": "terminating", "lapses_at": None}, ["Being ended", "within minutes"], ["What to do"]),
        ({"status": "created", "lapses_at": None}, ["Drafted", "not sent"], ["What to do"]),
        ({"status": "activating", "lapses_at": None}, ["not in force yet", "within minutes"], ["What to do"]),
        (
            {"status": "approvalpending", "days": None, "lapses_at": None},
            ["Waits for the customer", "granularAdminRelationships/A-B", "Your organisation"],
            ["Ends soon"],
        ),
        (
            {"status": "approvalpending", "awaits_partner": True, "lapses_at": None, "provider_tenant_id": PROVIDER},
            ["Waits for you", "Your indirect provider made it", "Approve or refuse it", str(PROVIDER)],
            ["granularAdminRelationships"],
        ),
        ({"status": "newword", "lapses_at": None}, ["newword"], ["What to do"]),
        ({"status": "", "lapses_at": None, "roles": ""}, ["Not told by Microsoft"], ["What to do"]),
        ({"roles": "dd4db9a0-cc4a-4213-9f9f-70242232d97e"}, ["Roles another role dd4db9a0"], []),
    ],
)  # fmt: skip
def test_each_state_is_told_in_plain_words(member, customer, more, expected, not_expected):
    read(customer)
    relationship(customer, **more)

    words = on_page(member, customer)

    for one in expected:
        assert one in words, one
    for one in not_expected:
        assert one not in words, one


def test_outside_the_global_cloud_no_link_is_guessed(member, customer):
    Partner.objects.update(cloud="usgov")
    relationship(customer, status="approvalpending", lapses_at=None)

    words = on_page(member, customer)

    assert "Have an administrator of the customer approve it." in words
    assert "https://" not in words


def test_what_is_in_force_stands_first_and_others_customers_have_their_own(member, customer):
    relationship(customer, name="Old", days=-30, status="expired", is_over=True)
    relationship(customer, name="Later", days=200)
    relationship(customer, name="Sooner", days=100)
    relationship(customer, name="Gone", removed_at=timezone.now())
    relationship(customer, name="Of another", customer_tenant_id=uuid.UUID(int=5))

    words = on_page(member, customer)

    assert words.index("Sooner") < words.index("Later") < words.index("Old")
    assert "Gone" not in words
    assert "Of another" not in words


def test_more_than_twenty_are_said_to_be_more(member, customer):
    for number in range(21):
        relationship(customer, name=f"Number {number:02}", days=100 + number)

    words = on_page(member, customer)

    assert "These are the first 20" in words
    assert "Number 19" in words
    assert "Number 20" not in words


# --- The list ---------------------------------------------------------------------------------------------------------
def names(html: str) -> list[str]:
    return re.findall(r'data-label="Relationship"><span><bdi>([^<]*)</bdi>', html)


def test_the_list_begins_with_what_ends_first_and_ends_with_what_was_told_no_end(member, customer):
    read(customer)
    relationship(customer, name="No end", status="approvalpending", days=None, lapses_at=None)
    relationship(customer, name="Last", days=300)
    relationship(customer, name="First", days=3)
    relationship(customer, name="Extends", days=5, auto_extend="P180D", lapses_at=None)
    relationship(customer, name="Over", days=-5, status="expired", is_over=True, lapses_at=None)
    relationship(customer, name="Long over", days=-50, status="expired", is_over=True, lapses_at=None)
    relationship(customer, name="Gone", removed_at=timezone.now())

    assert names(listed(member)) == ["First", "Extends", "Last", "No end"]
    assert names(listed(member, "?show=soon")) == ["First"]
    assert names(listed(member, "?show=ended")) == ["Over", "Long over"]
    assert names(listed(member, "?show=nonsense")) == ["First", "Extends", "Last", "No end"]
    assert "End within 30 days: 1" in text_of(listed(member))
    assert "Extends itself" in text_of(listed(member))


@pytest.mark.parametrize("show", ["", "soon", "ended"])
def test_the_list_is_read_page_by_page_and_nobody_is_lost(member, customer, show):
    same = timezone.now() + (-5 if show == "ended" else 5) * A_DAY
    status, is_over = ("expired", True) if show == "ended" else ("active", False)
    for number in range(120):
        more = {"end_at": same, "lists_by": same, "lapses_at": same} if number % 3 else {}
        days = -1 - number / 10 if show == "ended" else 1 + number / 10
        relationship(customer, name=f"n{number}", days=days, status=status, is_over=is_over, **more)
    seen: list[str] = []
    more = f"?show={show}"
    while more:
        html = listed(member, more)
        seen += names(html)
        found = re.findall(r'href="(\?[^"]*after=[^"]+)"', html)
        more = found[0].replace("&amp;", "&") if found else ""

    assert len(seen) == len(set(seen)) == 120


@pytest.mark.parametrize("after", ["x", "eyJ.a.b", "%00", "WzEsMl0:abc"])
def test_a_mark_that_is_not_ours_starts_from_the_beginning(member, customer, after):
    relationship(customer)

    assert names(listed(member, f"?after={after}")) == ["Contoso care"]


def test_a_tenant_that_is_none_of_the_customers_is_named_without_a_link(member, customer):
    relationship(customer, name="Theirs")
    relationship(customer, name="Elsewhere", customer_tenant_id=uuid.UUID(int=5), customer_name="Woodgrove")
    relationship(customer, name="Nobody", customer_tenant_id=None, customer_name="")

    html = listed(member)

    assert f'href="/customers/{customer.tenant_id}/#relationships"' in html
    assert f"/customers/{uuid.UUID(int=5)}/" not in html
    assert f"Not among your customers here, tenant {uuid.UUID(int=5)}" in text_of(html)
    assert "Any customer" in text_of(html)


def test_where_there_is_nothing_the_list_says_why(member, customer):
    assert "Not read yet" in text_of(listed(member))
    read(customer)
    assert "Microsoft lists no delegated admin relationship" in text_of(listed(member))
    assert "nothing ends within 30 days" in text_of(listed(member, "?show=soon"))


# --- Who sees them ----------------------------------------------------------------------------------------------------
def test_a_limited_member_sees_those_with_their_customers_alone(member, customer):
    read(customer)
    other = Customer.objects.exclude(pk=customer.pk)[0]
    relationship(customer, name="Theirs", days=3)
    relationship(other, name="Of others", days=3)
    relationship(customer, name="Elsewhere", customer_tenant_id=uuid.UUID(int=5), days=3)
    Member.objects.update(role="operator", limited_at=timezone.now())
    ChosenCustomer.objects.create(partner=customer.partner, member=Member.objects.get(), customer=customer)

    assert names(listed(member)) == ["Theirs"]
    assert "End within 30 days: 1" in text_of(listed(member))
    assert "1 GDAP relationship ends within 30 days" in at_home(member)
    assert "Theirs" in on_page(member, customer)
    assert member.portal.get(f"/customers/{other.tenant_id}/").status_code == 404


def test_an_auditor_sees_none(member, customer):
    relationship(customer, days=3)
    Member.objects.update(role="auditor")

    assert member.portal.get("/relationships/").status_code == 404
    assert "GDAP" not in at_home(member)


def test_home_says_how_many_end_soon_and_nothing_where_none_does(member, customer):
    relationship(customer, days=31)
    relationship(customer, days=5, auto_extend="P180D", lapses_at=None)
    assert "within 30 days" not in at_home(member)

    for days in (2, 29):
        relationship(customer, days=days)

    html = member.portal.get("/").content.decode()
    assert "2 GDAP relationships end within 30 days unless you act" in text_of(html)
    assert 'href="/relationships/?show=soon"' in html


# --- Cost -------------------------------------------------------------------------------------------------------------
def test_the_pages_cost_at_most_six_questions_however_many_there_are(member, customer):
    read(customer)
    Relationship.objects.bulk_create(
        [
            Relationship(
                partner=customer.partner, key=f"k{number}", relationship_id=f"K{number}", content_hash=b"0" * 16,
                status="active", customer_tenant_id=customer.tenant_id, roles=READER, lapses_at=end, lists_by=end,
                end_at=end, is_over=bool(number % 2),
            )
            for number, end in enumerate(timezone.now() + number * A_DAY / 100 for number in range(2_500))
        ]
    )  # fmt: skip
    deep = re.findall(r'href="(\?[^"]*after=[^"]+)"', listed(member))[0]
    addresses = ("", "?show=soon", "?show=ended", deep)

    for address in (f"/customers/{customer.tenant_id}/", "/", *(f"/relationships/{one}" for one in addresses)):
        with CaptureQueriesContext(connection) as queries:
            html = member.portal.get(address).content.decode()
        assert len(asked(queries)) <= 6, (address, asked(queries))
        assert not any(re.search(r"\bCOUNT\b|\bOFFSET\b", sql) for sql in asked(queries)), address
    assert "more than 1,000" in text_of(html)
    assert Job.objects.exists()
