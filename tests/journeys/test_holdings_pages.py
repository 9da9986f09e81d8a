"""Licences, users and sign-ins without MFA, as last read: who sees them, how fresh they are, why they are missing."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import holdings, jobs
from partners.models import (
    ChosenCustomer,
    Customer,
    CustomerUser,
    Job,
    ListRefusal,
    ListState,
    Member,
    Partner,
    SubscribedSku,
    UnprovenPrincipal,
)
from sandbox import licences
from sandbox.directory import Tenant
from tests.live import text_of
from tests.statements import asked

pytestmark = pytest.mark.django_db(transaction=True)


def sync(kind: str) -> None:
    partner = Partner.objects.get()
    jobs.ensure(partner, kind, due_now=True)
    for job in partner.jobs.filter(kind=kind):
        jobs.run_job(job.pk)


@pytest.fixture
def customer(member) -> Customer:
    sync("customers")
    return Customer.objects.order_by("name_key")[0]


def page(member: Any, customer: Customer, more: str = "") -> str:
    answer = member.portal.get(f"/customers/{customer.tenant_id}/{more}")
    assert answer.status_code == 200
    return str(answer.content.decode())


def section(html: str, named: str) -> str:
    [found] = re.findall(rf'(?s)<section[^>]*aria-labelledby="{named}".*?</section>', html)
    return text_of(found)


# --- Licences ---------------------------------------------------------------------------------------------------------
def test_the_licences_stand_on_the_page_as_microsoft_lists_them(member, customer, contoso: Tenant):
    sync("licences")

    words = section(page(member, customer), "licences")

    pretended = contoso.customers.find(str(customer.tenant_id))
    assert pretended
    expected = licences.every(contoso, pretended)
    assert expected
    for one in expected:
        numbers = (one["totalUnits"], one["consumedUnits"], one["availableUnits"])
        assert f"{one['productSku']['name']} {' '.join(f'{number:,}' for number in numbers)}" in words
    assert "As of" in words


def test_before_they_are_read_the_page_says_so(member, customer):
    assert "Not read yet" in section(page(member, customer), "licences")


def test_where_there_are_none_the_page_says_so(member, customer):
    sync("licences")
    SubscribedSku.objects.all().delete()

    words = section(page(member, customer), "licences")

    assert "None: Partner Center lists no licences" in words
    assert "As of" in words


@pytest.mark.parametrize(
    ("code", "why", "who"),
    [
        ("900308", "has no role in this customer", "Who acts: Your organisation"),
        ("900309", "A sign-in policy in this customer's tenant", "Who acts: Your organisation"),
        ("3000", "does not know this customer as yours", "Who acts: Your organisation"),
        ("http_503", "does not answer", "Nobody needs to act"),
        ("incomplete", "does not answer, or not in whole", "Nobody needs to act"),
        ("wrong_shape", "could not be used", "Who acts: Support"),
    ],
)
def test_what_cannot_be_read_says_why_since_when_and_who_acts(member, customer, code, why, who):
    sync("licences")
    of_it = {"partner": customer.partner, "customer": customer, "kind": "licences"}
    ListRefusal.objects.create(**of_it, code=code, since=timezone.now() - dt.timedelta(days=2))

    words = section(page(member, customer), "licences")

    assert "Cannot be read since" in words
    assert "What you see is older" in words
    assert why in words
    assert who in words
    assert f"Reference: {code}" in words


def test_a_refusal_of_microsofts_comes_to_the_page(member, customer, contoso: Tenant):
    contoso.gdap_missing = True
    sync("licences")

    words = section(page(member, customer), "licences")

    assert "has no role in this customer" in words
    assert "What you see is older" not in words


def test_the_age_is_that_of_the_lane_which_has_the_customer(member, customer):
    sync("licences")
    lanes = ListState.objects.filter(kind="licences")
    assert lanes.count() == 4
    lanes.exclude(lane=f"{customer.tenant_id.int >> 126}/4").update(completed_at=None)

    assert "As of" in section(page(member, customer), "licences")
    lanes.update(completed_at=None)
    assert "Not read in whole yet" in section(page(member, customer), "licences")


def test_of_subscriptions_too_it_is_told_whether_there_are_none_or_they_are_not_read(member, customer):
    assert "Not read yet" in text_of(page(member, customer, "subscriptions/"))
    sync("subscriptions")
    customer.subscriptions.all().delete()

    words = text_of(page(member, customer, "subscriptions/"))
    assert "None: Partner Center lists no subscriptions" in words
    assert "As of" in words


# --- Users ------------------------------------------------------------------------------------------------------------
def many_users(customer: Customer, number: int) -> None:
    of_it = {"partner": customer.partner, "customer": customer, "content_hash": b"0" * 16, "state": "active"}
    CustomerUser.objects.bulk_create(
        [
            CustomerUser(**of_it, key=f"{index}", user_id=f"{index}", name=f"User {index:04}", sign_in_name=f"u{index}")
            for index in range(number)
        ]
    )


def test_without_an_owners_yes_there_are_no_users_to_list(member, customer):
    assert 'aria-labelledby="users-read"' not in page(member, customer)
    assert "not read: they are personal data" in text_of(page(member, customer, "users/"))


def test_users_are_counted_and_listed_page_by_page_and_nobody_is_lost(member, customer):
    sync("users")
    CustomerUser.objects.all().delete()
    many_users(customer, 120)
    CustomerUser.objects.filter(user_id__gte="5").update(name="The same")

    words = section(page(member, customer), "users-read")
    assert "120 users" in words
    assert "As of" in words
    seen: list[str] = []
    more = "users/"
    while more:
        html = page(member, customer, more)
        seen += re.findall(r'data-label="Sign-in name"><span><bdi>(u\d+)</bdi>', html)
        found = re.findall(r'href="(\?after=[^"]+)"', html)
        more = f"users/{found[0]}" if found else ""

    assert len(seen) == len(set(seen)) == 120


def test_more_than_a_thousand_are_not_counted(member, customer):
    sync("users")
    many_users(customer, 1_001)

    assert "More than 1,000 users" in section(page(member, customer), "users-read")


@pytest.mark.parametrize("after", ["x", "eyJ.a.b", "%00", "WzEsMl0:abc"])
def test_a_mark_that_is_not_ours_starts_from_the_beginning(member, customer, after):
    sync("users")

    assert page(member, customer, f"users/?after={after}").count("(no sign-in name)") == 0


def test_users_are_for_who_may_look_at_users_and_at_this_customer(member, customer):
    sync("users")
    Member.objects.update(role="reader")
    assert 'aria-labelledby="users-read"' not in page(member, customer)
    assert member.portal.get(f"/customers/{customer.tenant_id}/users/").status_code == 404

    Member.objects.update(role="operator", limited_at=timezone.now())
    owner, other = Member.objects.get(), Customer.objects.exclude(pk=customer.pk)[0]
    ChosenCustomer.objects.create(partner=customer.partner, member=owner, customer=customer)
    assert "users" in section(page(member, customer), "users-read")
    assert page(member, customer, "users/")
    assert member.portal.get(f"/customers/{other.tenant_id}/users/").status_code == 404


def test_users_that_went_are_not_shown(member, customer):
    sync("users")
    CustomerUser.objects.update(removed_at=timezone.now())

    assert "None: Partner Center lists no users" in section(page(member, customer), "users-read")
    assert "None: Partner Center lists no users" in text_of(page(member, customer, "users/"))


# --- Sign-ins without MFA ---------------------------------------------------------------------------------------------
def mfa_section(member: Any) -> str:
    return section(member.portal.get("/connection/").content.decode(), "without-mfa")


def test_who_signed_in_without_mfa_is_named_to_owners_alone(member, contoso: Tenant):
    assert "Not read yet" in mfa_section(member)
    contoso.add_account("old@contoso.test", mfa_possible=False)
    sync("mfa")

    words = mfa_section(member)
    assert "old@contoso.test" in words
    assert "As of" in words

    for role in ("operator", "auditor"):
        Member.objects.update(role=role)
        html = member.portal.get("/connection/").content.decode()
        assert "old@contoso.test" not in html
        assert "without-mfa" not in html


def test_nobody_without_mfa_is_said_and_so_is_a_list_that_cannot_be_read(member, world):
    sync("mfa")
    assert re.search(r"None\.$", mfa_section(member))

    world.fail("partnercenter", "forbidden")
    sync("mfa")

    assert "Could not be read the last time" in mfa_section(member)


# --- Cost -------------------------------------------------------------------------------------------------------------
def test_the_pages_cost_at_most_six_questions_however_much_there_is(member, customer):
    for kind in ("licences", "users", "mfa"):
        sync(kind)
    many_users(customer, 2_000)
    of_it = {"partner": customer.partner, "customer": customer, "content_hash": b"0" * 16}
    SubscribedSku.objects.bulk_create([SubscribedSku(**of_it, key=f"k{n}", sku_id=f"K{n}") for n in range(300)])
    UnprovenPrincipal.objects.bulk_create(
        [UnprovenPrincipal(partner=customer.partner, key=f"p{n}", content_hash=b"0" * 16) for n in range(90)]
    )

    for address in (f"/customers/{customer.tenant_id}/", f"/customers/{customer.tenant_id}/users/", "/connection/"):
        with CaptureQueriesContext(connection) as queries:
            html = member.portal.get(address).content.decode()
        assert len(asked(queries)) <= 6, (address, asked(queries))
        assert not any("COUNT(*)" in sql for sql in asked(queries)), address
    assert f"These are the latest {holdings.PEOPLE}" in text_of(html)
    assert "These are the first 200" in text_of(page(member, customer))
    assert Job.objects.filter(kind="users").exists()
