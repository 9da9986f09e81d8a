"""A member limited to some customers sees those, counts those and asks about those; the others are not there."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import jobs, lookups, overview
from partners import team as members
from partners.models import ChosenCustomer, Customer, Job, Lookup, Member, Partner
from tests.conftest import FABRIKAM
from tests.journeys.colleagues import add, joined, portal_of
from tests.pretend import Person, text_of
from tests.statements import asked
from tokens.models import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def known(member) -> list[Customer]:
    """Contoso's three customers, in the order of the list."""
    jobs.run_job(Job.objects.get().pk)
    return list(Customer.objects.order_by("name_key"))


@pytest.fixture
def limited(member, known) -> Member:
    """An operator who may see the first of them, by what an owner pressed."""
    operator = add("opal", "operator")
    member.portal.post(f"/team/{operator.pk}/limit", {"limited": "yes"})
    choose(member, operator, add=[known[0]])
    return Member.objects.get(pk=operator.pk)


def choose(owner, whose: Member, *, follow: bool = True, **changes: list[Customer]):
    form = {name: [str(customer.tenant_id) for customer in customers] for name, customers in changes.items()}
    return owner.portal.post(f"/team/{whose.pk}/customers/choose", form, follow=follow)


def chosen(whose: Member) -> set[int]:
    return set(ChosenCustomer.objects.filter(member=whose).values_list("customer_id", flat=True))


# --- What they see --------------------------------------------------------------------------------------------------
def test_lists_searches_and_numbers_have_the_chosen_customers_only(limited, known):
    portal = portal_of(limited)

    for address in ("/customers/", "/customers/?q=a", f"/customers/?q={known[1].tenant_id}", "/"):
        words = text_of(portal.get(address))
        assert not [customer.name for customer in known[1:] if customer.name in words], address
    assert known[0].name in text_of(portal.get("/customers/"))
    assert "1 customer, " in text_of(portal.get("/customers/"))
    home = portal.get("/")
    assert home.context["customer_count"] == 1
    assert "those that an owner chose for you" in text_of(home)


def test_the_numbers_of_runs_would_tell_how_many_there_are(limited, member):
    for address in ("/", "/progress", "/customers/", "/connect/connected"):
        words = text_of(portal_of(limited).get(address))
        assert "Customers read" not in words, address
        assert "3 customers" not in words, address
        assert "3 new" not in words, address
    assert "Customers read" in text_of(member.portal.get("/"))
    assert "3 customers read" in text_of(member.portal.get("/progress"))


def test_other_customers_are_as_good_as_missing(limited, known, connected_partner):
    portal = portal_of(limited)
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam", customers=1)
    jobs.run_job(Job.objects.get(partner=other).pk)
    foreign = other.customers.get().tenant_id

    for tenant_id in (known[1].tenant_id, foreign, uuid.UUID(int=1)):
        assert portal.get(f"/customers/{tenant_id}/").status_code == 404
        assert portal.post(f"/customers/{tenant_id}/users").status_code == 404
    assert portal.get(f"/customers/{known[0].tenant_id}/").status_code == 200


def test_they_may_ask_about_the_users_of_a_chosen_customer_and_start_a_sync(limited, known):
    portal = portal_of(limited)

    assert portal.post(f"/customers/{known[0].tenant_id}/users").status_code == 302
    assert portal.post("/sync").status_code == 302
    assert AuditEvent.objects.filter(action="sync.asked", actor_label="opal@contoso.test").exists()


def test_an_answer_about_a_customer_who_is_theirs_no_more_is_gone(limited, known, member):
    portal = portal_of(limited)
    look = portal.post(f"/customers/{known[0].tenant_id}/users")["Location"].partition("#")[0]
    lookups.answer(Lookup.objects.get().pk)

    choose(member, limited, drop=[known[0]])

    assert portal.get(look).status_code == 404
    assert not Lookup.objects.exists()


def test_a_question_that_slipped_in_while_they_lost_the_customer_is_not_answered_on_the_page(limited, known, member):
    portal = portal_of(limited)
    choose(member, limited, drop=[known[0]])
    late = lookups.ask(member=limited, customer=known[0])
    lookups.answer(late.pk)

    assert portal.get(f"/customers/{known[0].tenant_id}/?look={late.pk}").status_code == 404


def test_without_any_chosen_customer_they_see_none_and_whom_to_ask(limited, known, member):
    choose(member, limited, drop=[known[0]])

    words = text_of(portal_of(limited).get("/customers/"))

    assert "None is chosen for you. Ask an owner" in words
    assert "0 customers" in words


def test_a_limited_members_pages_cost_at_most_six_queries(limited, known):
    portal = portal_of(limited)
    for address in ("/", "/customers/", "/customers/?q=a", f"/customers/{known[0].tenant_id}/"):
        with CaptureQueriesContext(connection) as captured:
            assert portal.get(address).status_code == 200
        assert len(asked(captured)) <= 6, (address, asked(captured))


def test_the_list_of_somebody_who_sees_everything_asks_nothing_about_limits(limited, member):
    with CaptureQueriesContext(connection) as captured:
        member.portal.get("/customers/")

    assert not [query["sql"] for query in captured if "chosencustomer" in query["sql"]]


def test_a_limited_member_with_more_than_a_thousand_is_not_told_how_many_there_are(limited):
    partner = Partner.objects.get()
    many = [
        Customer(
            partner=partner, tenant_id=uuid.UUID(int=n + 1), name=f"C{n}", name_key=f"c{n}", content_hash=b"0" * 16
        )
        for n in range(overview.COUNTED + 1)
    ]
    Customer.objects.bulk_create(many)
    Partner.objects.get().runs.update(seen=50_000)
    ChosenCustomer.objects.bulk_create(
        ChosenCustomer(partner=partner, member=limited, customer=customer) for customer in many
    )

    assert "More than 1,000 customers" in text_of(portal_of(limited).get("/customers/"))


# --- What owners choose ---------------------------------------------------------------------------------------------
def test_an_owner_chooses_and_takes_away_and_it_is_written_down(limited, member, known):
    answer = choose(member, limited, add=[known[1], known[2]], drop=[known[0]])

    assert "2 added, 1 taken away" in text_of(answer)
    assert chosen(limited) == {known[1].pk, known[2].pk}
    line = AuditEvent.objects.filter(action="member.customers_chosen").latest("pk")
    assert line.object == "opal@contoso.test"
    assert line.detail == {
        "added": sorted(str(customer.tenant_id) for customer in known[1:]),
        "dropped": [str(known[0].tenant_id)],
    }
    assert "Sees 2 chosen customers" in text_of(member.portal.get("/team/"))


def test_what_somebody_sees_is_chosen_after_a_fresh_proof_only(limited, member, known):
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=11)):
        for act, form in (("limit", {"limited": "no"}), ("customers/choose", {"add": str(known[1].tenant_id)})):
            assert member.portal.post(f"/team/{limited.pk}/{act}", form)["Location"] == "/signin/again"
    limited.refresh_from_db()
    assert limited.limited_at


def test_choosing_twice_or_nothing_changes_nothing(limited, member, known):
    before = AuditEvent.objects.filter(action="member.customers_chosen").count()

    assert "0 added, 0 taken away" in text_of(choose(member, limited, add=[known[0]]))
    assert "0 added, 0 taken away" in text_of(choose(member, limited))

    assert chosen(limited) == {known[0].pk}
    assert AuditEvent.objects.filter(action="member.customers_chosen").count() == before


def test_a_customer_of_another_partner_cannot_be_chosen(limited, member, connected_partner, known):
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam", customers=1)
    jobs.run_job(Job.objects.get(partner=other).pk)

    foreign = choose(member, limited, add=[other.customers.get()])
    missing = choose(member, limited, add=[Customer(tenant_id=uuid.UUID(int=1))])

    assert "0 added" in text_of(foreign)
    assert "0 added" in text_of(missing)
    assert chosen(limited) == {known[0].pk}


@pytest.mark.parametrize("field", ["add", "drop"])
def test_what_is_no_tenant_id_is_no_choice(limited, member, field):
    assert member.portal.post(f"/team/{limited.pk}/customers/choose", {field: "x"}).status_code == 404


def test_the_page_shows_the_chosen_and_finds_others(limited, member, known):
    page = f"/team/{limited.pk}/customers/"

    words = text_of(member.portal.get(page))
    assert "Only chosen customers" in words
    assert all(customer.name in words for customer in known)
    found = text_of(member.portal.get(f"{page}?q={known[1].tenant_id}"))
    assert known[1].name in found
    assert known[2].name not in found
    assert "Nothing found for" in text_of(member.portal.get(f"{page}?q=nobody"))
    choose(member, limited, add=known)
    assert "There is no other customer" in text_of(member.portal.get(page))


def test_more_than_500_customers_cannot_be_chosen_for_one_member(limited, member):
    partner = Partner.objects.get()
    many = [
        Customer(
            partner=partner, tenant_id=uuid.UUID(int=n + 1), name=f"C{n}", name_key=f"c{n}", content_hash=b"0" * 16
        )
        for n in range(members.MOST_CHOSEN)
    ]
    Customer.objects.bulk_create(many)

    answer = choose(member, limited, add=many)

    assert "Nothing was changed: 500 customers can be chosen" in text_of(answer)
    assert len(chosen(limited)) == 1


def test_somebody_who_sees_everything_has_nothing_to_choose_from(member, known):
    reader = add("rita", "reader")

    assert "Every customer" in text_of(member.portal.get(f"/team/{reader.pk}/customers/"))
    assert choose(member, reader, add=known).status_code == 404
    assert not chosen(reader)


@pytest.mark.parametrize("role", ["owner", "auditor"])
def test_owners_and_auditors_cannot_be_limited(member, known, role):
    colleague = add("carl", role)

    assert member.portal.get(f"/team/{colleague.pk}/customers/").status_code == 404
    assert member.portal.post(f"/team/{colleague.pk}/limit", {"limited": "yes"}).status_code == 404
    with pytest.raises(members.CannotBeLimited):
        members.limit(member=colleague, limited=True, by=Member.objects.earliest("pk"))


def test_a_limit_that_is_lifted_leaves_no_choice_behind(limited, member, known):
    answer = member.portal.post(f"/team/{limited.pk}/limit", {"limited": "no"}, follow=True)

    assert "sees every customer from now on" in text_of(answer)
    assert not chosen(limited)
    assert known[2].name in text_of(portal_of(limited).get("/customers/"))
    member.portal.post(f"/team/{limited.pk}/limit", {"limited": "no"})
    lines = AuditEvent.objects.filter(action__in=("member.limited", "member.unlimited")).order_by("pk")
    assert [line.action for line in lines] == ["member.limited", "member.unlimited"]
    assert member.portal.post(f"/team/{limited.pk}/limit", {"limited": "maybe"}).status_code == 404


def test_somebody_invited_with_a_limit_sees_nothing_until_an_owner_chooses(member, known, contoso, world):
    browser = Person(Client(), world)
    new = joined(member, browser, contoso.add_account("lea@contoso.test"), "reader", limited="yes")

    assert "0 customers" in text_of(browser.portal.get("/customers/"))
    choose(member, new, add=[known[1]])
    assert known[1].name in text_of(browser.portal.get("/customers/"))


def test_a_removed_customer_stays_chosen_and_is_said_to_be_gone(limited, member, known):
    Customer.objects.filter(pk=known[0].pk).update(removed_at=timezone.now())

    assert "no longer in Partner Center" in text_of(member.portal.get(f"/team/{limited.pk}/customers/"))
    assert "0 customers" in text_of(portal_of(limited).get("/customers/"))
