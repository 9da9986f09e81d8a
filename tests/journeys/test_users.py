"""A customer's users, read live: asked on the page, answered by a worker, shown once, stored nowhere."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import jobs, lookups, tasks
from partners.access import SESSION_KEY
from partners.models import Customer, Job, Lookup, Member, Partner, Run, User
from partners.partnercenter import AccessRefused
from partners.standing import current_token, standing
from sandbox import users
from sandbox.directory import Tenant
from tests.conftest import FABRIKAM
from tests.pretend import text_of
from tests.statements import asked
from tokens import broker
from tokens.models import AuditEvent, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def customer(member) -> Customer:
    jobs.run_job(Job.objects.get().pk)
    return Customer.objects.order_by("name_key")[0]


@pytest.fixture
def expected(customer: Customer, contoso: Tenant) -> list[str]:
    pretended = contoso.customers.find(str(customer.tenant_id))
    assert pretended
    return [users.at(pretended, index)["userPrincipalName"] for index in range(users.count(pretended, {}))]


def page(customer: Customer) -> str:
    return f"/customers/{customer.tenant_id}/"


def ask(portal: Client, customer: Customer, **form: str) -> str:
    """Ask for the users; the address that will show them."""
    answer = portal.post(f"{page(customer)}users", form)
    assert answer.status_code == 302, answer.content.decode()
    return answer["Location"].partition("#")[0]


def work() -> list[bool]:
    return [lookups.answer(pk) for pk in Lookup.objects.values_list("pk", flat=True)]


def look(portal: Client, customer: Customer, **form: str) -> Any:
    address = ask(portal, customer, **form)
    work()
    return portal.get(address)


def users_calls(world) -> list:
    return world.calls_to("partnercenter", "/users")


# --- The way of an answer -------------------------------------------------------------------------------------------
def test_the_users_are_shown_as_microsoft_lists_them(member, customer, expected):
    answer = look(member.portal, customer)

    words = text_of(answer)
    assert f"{len(expected)} users, as Microsoft answered at" in words
    assert all(name in words for name in expected)
    assert "Active" in words
    assert "no-store" in answer["Cache-Control"]


def test_the_page_says_that_it_asks_and_reads_itself_again(member, customer):
    answer = member.portal.get(ask(member.portal, customer))

    content = answer.content.decode()
    assert "Asking Microsoft" in text_of(answer)
    assert 'hx-trigger="every 1s"' in content
    assert '<noscript><meta http-equiv="refresh" content="2; url=/customers/' in content
    assert content.count("&amp;auto=1") == 1, "and says that nobody pressed anything"
    assert "#" not in re.findall(r'content="2; url=([^"]+)"', content)[0], "a browser would only scroll there"
    assert "Show the users" not in content


def test_the_web_process_itself_asks_nobody(member, customer, world, expected):
    before = len(world.calls)

    address = ask(member.portal, customer)
    member.portal.get(address)
    assert len(world.calls) == before

    work()
    after = len(world.calls)
    assert after > before
    assert expected[0] in text_of(member.portal.get(address))
    assert len(world.calls) == after


def test_looking_at_the_page_asks_nothing(member, customer, world):
    before = len(world.calls)

    assert "Show the users" in text_of(member.portal.get(page(customer)))

    assert not Lookup.objects.exists()
    assert len(world.calls) == before


def test_microsoft_is_asked_as_it_documents(member, customer, world):
    look(member.portal, customer)

    [call] = users_calls(world)
    assert (call.path, call.query) == (f"/v1/customers/{customer.tenant_id}/users", "size=500")
    assert call.headers["X-Locale"] == "en-US"
    assert uuid.UUID(call.headers["Ms-Requestid"]) != uuid.UUID(call.headers["Ms-Correlationid"])


def test_the_ledger_and_the_audit_name_the_member(member, customer):
    broker.forget()
    look(member.portal, customer)

    user = Member.objects.get().user
    use = TokenUse.objects.get(purpose="users.read")
    assert (use.audience, use.actor_kind, use.actor_id) == ("partnercenter", "member", str(user.pk))
    event = AuditEvent.objects.get(action="users.asked")
    assert (event.actor_id, event.object) == (str(user.pk), str(customer.tenant_id))


# --- Nothing stays --------------------------------------------------------------------------------------------------
def database() -> str:
    rows: list[str] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - names come from the schema itself
            rows += [str(value) for row in cursor.fetchall() for value in row]
    return "\n".join(rows)


def test_an_answer_that_waits_is_sealed_and_one_that_was_read_is_gone(member, customer, expected):
    address = ask(member.portal, customer)
    work()
    assert Lookup.objects.get().sealed_answer
    assert not any(name in database() for name in expected)

    assert expected[0] in text_of(member.portal.get(address))

    assert not Lookup.objects.exists()
    again = text_of(member.portal.get(address))
    assert "There is no answer to show" in again
    assert expected[0] not in again


def test_a_head_request_does_not_use_up_the_answer(member, customer, expected):
    address = ask(member.portal, customer)
    work()

    assert member.portal.head(address).status_code == 200

    assert expected[0] in text_of(member.portal.get(address))


def test_an_answer_nobody_reads_is_gone_within_a_minute(member, customer, expected):
    address = ask(member.portal, customer)
    work()

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=61), tick=True):
        assert "There is no answer to show" in text_of(member.portal.get(address))
        tasks.dispatch()

    assert not Lookup.objects.exists()


def test_an_answer_that_comes_too_late_is_dropped(member, customer):
    ask(member.portal, customer)
    lookup = Lookup.objects.get()
    assert lookup.take()

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=61), tick=True):
        assert not lookup.mark_answered("sealed")

    assert Lookup.objects.get().sealed_answer == ""


def test_asking_again_forgets_the_earlier_answer(member, customer):
    first = ask(member.portal, customer)
    work()

    second = ask(member.portal, customer)

    assert Lookup.objects.count() == 1
    assert "There is no answer to show" in text_of(member.portal.get(first))
    assert "Asking Microsoft" in text_of(member.portal.get(second))


def test_of_two_who_take_the_answer_one_gets_it(member, customer):
    ask(member.portal, customer)
    work()
    one, other = Lookup.objects.get(), Lookup.objects.get()

    assert [lookups.take(one).state, lookups.take(other).state] == ["users", "gone"]


# --- Walls ----------------------------------------------------------------------------------------------------------
def signed_in(user: User, partner: Partner) -> Client:
    client = Client()
    client.force_login(user)
    session = client.session
    session[SESSION_KEY] = partner.pk
    session.save()
    return client


def test_a_colleague_cannot_read_the_answer(member, customer, expected):
    partner = Partner.objects.get()
    colleague = User.objects.create_user("colleague")
    Member.objects.create(user=colleague, partner=partner, role=Member.Role.OWNER)
    address = ask(member.portal, customer)
    work()

    words = text_of(signed_in(colleague, partner).get(address))

    assert "There is no answer to show" in words
    assert expected[0] not in words
    assert expected[0] in text_of(member.portal.get(address))


def test_another_partner_can_neither_ask_nor_read(member, customer, connected_partner):
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam", customers=2)
    owner = signed_in(other.members.get().user, other)
    address = ask(member.portal, customer)
    work()

    assert owner.post(f"{page(customer)}users").status_code == 404
    assert owner.get(address).status_code == 404
    assert Lookup.objects.get().sealed_answer


def test_the_answer_of_one_customer_is_not_shown_on_anothers_page(member, customer):
    other = Customer.objects.exclude(pk=customer.pk)[0]
    address = ask(member.portal, customer)
    work()

    answer = member.portal.get(f"{page(other)}?{urlsplit(address).query}")

    assert "There is no answer to show" in text_of(answer)
    assert Lookup.objects.exists()


@pytest.mark.parametrize("field", ["customer_id", "member_id"])
def test_an_answer_that_was_moved_does_not_open(member, customer, field):
    ask(member.portal, customer)
    work()
    lookup = Lookup.objects.get()
    setattr(lookup, field, getattr(lookup, field) + 1)

    assert lookups.take(lookup).state == "gone"


@pytest.mark.parametrize("mark", ["x", "%00", "00000000-0000-4000-8000-000000000000"])
def test_a_look_that_is_none_says_so(member, customer, mark):
    assert "There is no answer to show" in text_of(member.portal.get(f"{page(customer)}?look={mark}"))


def test_an_operator_may_look_and_a_reader_may_not(member, customer, expected):
    Member.objects.update(role=Member.Role.OPERATOR)
    assert expected[0] in text_of(look(member.portal, customer))
    asked = ask(member.portal, customer)
    work()

    Member.objects.update(role=Member.Role.READER)

    assert "Show the users" not in text_of(member.portal.get(page(customer)))
    assert expected[0] not in text_of(member.portal.get(asked))
    assert member.portal.post(f"{page(customer)}users").status_code == 404


def test_every_step_costs_at_most_six_queries(member, customer):
    address = ask(member.portal, customer)
    for step in ("asking", "answered", "gone"):
        with CaptureQueriesContext(connection) as queries:
            assert member.portal.get(address).status_code == 200
        assert len(asked(queries)) <= 6, (step, asked(queries))
        work()


# --- More than one page ---------------------------------------------------------------------------------------------
def more(answer: Any) -> str:
    found = re.search(r'name="after" value="([^"]+)"', answer.content.decode())
    return found[1] if found else ""


def test_users_beyond_the_first_page_come_by_a_button(member, customer, contoso, world):
    index = contoso.customers.find(str(customer.tenant_id)).index
    contoso.customer_overrides = {index: {"users": 1203}}
    seen: list[str] = []
    answer = look(member.portal, customer)
    while True:
        seen += re.findall(r"(user\d+)@", text_of(answer))
        if not more(answer):
            break
        assert "MS-ContinuationToken" not in answer.content.decode()
        answer = look(member.portal, customer, after=more(answer))

    assert seen == [f"user{number}" for number in range(1203)]
    assert len(users_calls(world)) == 3


@pytest.mark.parametrize("after", ["x", "a:b:c", "%00"])
def test_a_mark_that_is_not_ours_starts_from_the_first_page(member, customer, after, world):
    look(member.portal, customer, after=after)

    assert "seekOperation" not in users_calls(world)[0].query


def test_a_mark_of_another_customer_starts_from_the_first_page(member, customer, contoso, world):
    index = contoso.customers.find(str(customer.tenant_id)).index
    contoso.customer_overrides = {index: {"users": 600}}
    mark = more(look(member.portal, customer))
    other = Customer.objects.exclude(pk=customer.pk)[0]

    look(member.portal, other, after=mark)

    assert "seekOperation" not in users_calls(world)[-1].query


def test_a_place_microsoft_forgot_leads_back_to_the_first_page(member, customer, contoso, world):
    index = contoso.customers.find(str(customer.tenant_id)).index
    contoso.customer_overrides = {index: {"users": 600}}
    mark = more(look(member.portal, customer))
    Lookup.objects.all().delete()
    ask(member.portal, customer, after=mark)
    lookup = Lookup.objects.get()
    Lookup.objects.update(cursor=lookup.cursor | {"token": "forgotten"})

    work()

    words = text_of(member.portal.get(f"{page(customer)}?look={lookup.pk}"))
    assert "The list cannot be continued here" in words
    assert "From the first page" in words or "Ask again" in words


# --- When there is no list ------------------------------------------------------------------------------------------
def state() -> str:
    partner = Partner.objects.get()
    return standing(partner, current_token(partner)).state


def test_a_missing_role_is_said_clearly_and_marks_nobody(member, customer, contoso):
    contoso.gdap_missing = True

    words = text_of(look(member.portal, customer))

    assert "A role is missing in this customer" in words
    assert "Who acts: Your organisation" in words
    assert "Directory Reader" in words
    assert "900308" in words
    assert state() == "active"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("forbidden", "A role is missing"),
        ("503", "Microsoft does not answer now"),
        ("500", "Microsoft does not answer now"),
        ("html", "Microsoft does not answer now"),
        ("truncated", "Microsoft does not answer now"),
        ("unauthorized", "Microsoft does not answer now"),
        ("timeout-before", "Microsoft does not answer now"),
    ],
)
def test_what_goes_wrong_at_partner_center_is_said_in_words(member, customer, world, kind, says):
    world.fail("partnercenter", kind, path="/users")

    answer = look(member.portal, customer)

    assert answer.status_code == 200
    assert says in text_of(answer)
    assert state() == "active"


def test_throttling_says_when_to_ask_again(member, customer, world):
    world.fail("partnercenter", "throttled", path="/users", retry_after=90)

    answer = look(member.portal, customer)

    assert "Microsoft asks us to wait until" in text_of(answer)
    wait = answer.context["look"].retry_at - timezone.now()
    assert dt.timedelta(seconds=60) < wait <= dt.timedelta(seconds=90)


def test_a_customer_that_left_is_unknown_there(member, customer, contoso):
    contoso.customers.removed.add(contoso.customers.find(str(customer.tenant_id)).index)

    assert "Partner Center does not know this customer as yours" in text_of(look(member.portal, customer))


def test_a_lost_mfa_is_the_connections_trouble(member, customer, world):
    world.fail("partnercenter", "mfa", path="/users")

    words = text_of(look(member.portal, customer))

    assert "The connection needs attention" in words
    assert state() == "mfa_missing"
    assert AuditEvent.objects.filter(action="connection.refused").count() == 1


def test_a_revoked_sign_in_is_the_connections_trouble(member, customer, contoso):
    contoso.revoke()
    broker.forget()

    words = text_of(look(member.portal, customer))

    assert "The connection needs attention" in words
    assert "AADSTS50173" in words
    assert state() == "needs_consent"


def test_a_policy_of_the_customers_is_told_apart():
    assert lookups._because(AccessRefused("no", code="900309"))["refusal"] == "policy"


def test_our_own_fault_is_ours(member, customer, world):
    world.fail("entra", "AADSTS7000215", path="/token")
    broker.forget()

    words = text_of(look(member.portal, customer))

    assert "This is our own mistake" in words
    assert "Who acts: Support" in words
    assert state() == "active"


def test_a_partner_that_is_stopped_cannot_ask(member, customer, world):
    Partner.objects.update(suspended_at=timezone.now())
    before = len(world.calls)

    answer = member.portal.post(f"{page(customer)}users", follow=True)

    assert not Lookup.objects.exists()
    assert "Show the users" not in text_of(answer)
    assert len(world.calls) == before


def test_a_partner_stopped_after_the_question_is_not_called_for(member, customer, world):
    address = ask(member.portal, customer)
    Partner.objects.update(killed_at=timezone.now())
    before = len(world.calls)

    work()

    assert "The connection needs attention" in text_of(member.portal.get(address))
    assert len(world.calls) == before


# --- Workers and messages -------------------------------------------------------------------------------------------
def test_two_workers_ask_microsoft_once(member, customer, world):
    ask(member.portal, customer)
    lookup = Lookup.objects.get()

    assert [lookups.answer(lookup.pk), lookups.answer(lookup.pk)] == [True, False]

    assert len(users_calls(world)) == 1


def test_a_message_about_nothing_does_nothing(member, world):
    tasks.look_up(lookup_id=str(uuid.uuid4()))

    assert not users_calls(world)


def test_a_question_whose_message_was_lost_is_offered_again(member, customer):
    ask(member.portal, customer)
    assert lookups.offer_waiting() == []

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=11), tick=True):
        assert len(lookups.offer_waiting()) == 1
        assert lookups.offer_waiting() == []


def test_the_customers_row_and_the_runs_stay_as_they_were(member, customer):
    before = list(Customer.objects.values()), Run.objects.count()

    look(member.portal, customer)

    assert (list(Customer.objects.values()), Run.objects.count()) == before
