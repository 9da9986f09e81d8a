"""Every address of the portal: who gets in, who gets 404, and what it costs."""

from __future__ import annotations

import ast
import inspect
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from partners import jobs
from partners.models import Change, Customer, Job, Member, Partner, Run, User
from tests.conftest import FABRIKAM
from tests.pretend import text_of
from tests.statements import asked

OPEN = {
    "connect", "callback", "admin_consent", "admin_consent_callback",
    "signin", "signin_callback", "signout", "signed_out", "healthz", "readyz",
    "waiting", "agreed", "join",
}  # fmt: skip
CHANGE = uuid.UUID(int=77)
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
MOST_QUERIES = 6
PORTAL_VIEWS = (
    "partners/views.py",
    "partners/views_switch.py",
    "partners/views_changes.py",
    "partners/views_evidence.py",
    "partners/views_jobs.py",
    "partners/views_users.py",
    "partners/listing.py",
    "consent/views_team.py",
)
CSRF = re.compile(rb'value="[A-Za-z0-9]{64}"')


def portal_patterns(resolver: URLResolver | None = None, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Every route of ours with its whole pattern; the desk has walls of its own."""
    for pattern in (resolver or get_resolver()).url_patterns:
        if isinstance(pattern, URLResolver):
            if pattern.namespace != "admin":
                yield from portal_patterns(pattern, prefix + str(pattern.pattern))
        else:
            yield prefix + str(pattern.pattern), pattern


def closed_addresses(tenant_id: uuid.UUID, *, member_id: int = 1) -> list[str]:
    """The address of every page for members, with the id of a customer or a member where one is asked for."""
    known = {"<uuid:tenant_id>": tenant_id, "<int:member_id>": member_id, "<int:invitation_id>": 1}
    known |= {"<uuid:change_id>": CHANGE, "<slug:kind>": "customers"}
    addresses = ["/" + route for route, pattern in portal_patterns() if pattern.name not in OPEN]
    for parameter, value in known.items():
        addresses = [address.replace(parameter, str(value)) for address in addresses]
    assert not any("<" in address for address in addresses), "a parameter this test does not know"
    return addresses


def allowed(client: Client, address: str) -> str:
    return "post" if client.get(address).status_code == 405 else "get"


@pytest.fixture
def customer(member, transactional_db):
    jobs.run_job(Job.objects.get().pk)
    return Customer.objects.order_by("pk")[0]


def test_the_open_addresses_are_named_one_by_one():
    names = {pattern.name for _, pattern in portal_patterns()}

    assert names >= OPEN
    for _, pattern in portal_patterns():
        view = inspect.unwrap(pattern.callback)
        is_open = not getattr(pattern.callback, "login_required", True)
        assert is_open == (pattern.name in OPEN), view.__name__


def test_signed_out_every_page_leads_to_sign_in(customer):
    for address in closed_addresses(customer.tenant_id):
        for method in METHODS:
            answer = getattr(Client(), method)(address)
            assert answer.status_code == 302, (method, address)
            assert answer["Location"].startswith("/signin?next="), (method, address)


def test_a_stranger_gets_the_404_of_an_address_that_does_not_exist(customer):
    stranger = Client()
    stranger.force_login(User.objects.create_user("stranger"))
    missing = CSRF.sub(b"", stranger.get("/no/such/address/").content)

    for address in closed_addresses(customer.tenant_id):
        answer = getattr(stranger, allowed(stranger, address))(address)
        assert answer.status_code == 404, address
        assert CSRF.sub(b"", answer.content) == missing, address


def test_staff_are_strangers_to_the_portal(customer, support):
    for address in closed_addresses(customer.tenant_id):
        assert getattr(support, allowed(support, address))(address).status_code == 404, address


def test_one_of_the_staff_who_is_somewhere_a_member_is_a_stranger_still(customer, support):
    partner = Partner.objects.get()
    Member.objects.create(partner=partner, user=User.objects.get(username="support"), role="owner")
    session = support.session
    session["partner_id"] = partner.pk
    session.save()

    for address in closed_addresses(customer.tenant_id):
        assert getattr(support, allowed(support, address))(address).status_code == 404, address


def test_the_owner_of_another_partner_sees_nothing_of_this_one(customer, connected_partner, world):
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam", customers=2)
    owner = Client()
    user = other.members.get().user
    owner.force_login(user)
    session = owner.session
    session["partner_id"] = other.pk
    session.save()

    assert owner.get(f"/customers/{customer.tenant_id}/").status_code == 404
    for address in ("/", "/customers/", "/connect/connected", "/progress"):
        words = text_of(owner.get(address))
        assert customer.name not in words
        assert "Contoso" not in words


def test_a_partner_named_in_the_session_that_is_not_yours_is_not_there(customer):
    stranger = Client()
    stranger.force_login(User.objects.create_user("stranger"))
    session = stranger.session
    session["partner_id"] = Partner.objects.get().pk
    session.save()

    assert stranger.get("/").status_code == 404


def test_an_address_that_does_not_exist_needs_no_sign_in_to_say_so(db):
    answer = Client().get("/no/such/address/")

    assert answer.status_code == 404
    assert "<h1" in answer.content.decode()


# --- Cost -----------------------------------------------------------------------------------------------------------
def many(partner: Partner, number: int) -> None:
    rows = (
        Customer(
            partner=partner,
            tenant_id=uuid.UUID(int=index + 1),
            name=f"Customer {index:06}",
            name_key=f"customer {index:06}",
            domain=f"c{index}.test",
            content_hash=b"0" * 16,
        )
        for index in range(number)
    )
    Customer.objects.bulk_create(rows, batch_size=5_000)


@pytest.mark.parametrize("number", [10, 100_000])
def test_every_page_costs_at_most_six_queries_however_many_customers(member, transactional_db, number):
    partner = Partner.objects.get()
    many(partner, number)
    for _ in range(8):
        Run.objects.create(partner=partner, job=Job.objects.get(), fence=1, outcome="done")
    colleague = Member.objects.create(
        user=User.objects.create_user("colleague"), partner=partner, role="reader", limited_at=timezone.now()
    )
    changed = Customer.objects.get(tenant_id=uuid.UUID(int=7))
    Change.objects.create(
        pk=CHANGE, partner=partner, customer=changed, member=partner.members.get(role="owner"), subscription_id="one"
    )
    elsewhere = Partner.objects.create(cloud="global", tenant_id=FABRIKAM, name="Fabrikam")
    Member.objects.create(user=partner.members.get(role="owner").user, partner=elsewhere, role="reader")
    deep = member.portal.get("/customers/").context["page"].next_url or ""
    addresses = [
        *closed_addresses(uuid.UUID(int=7), member_id=colleague.pk),
        "/customers/?q=customer+00000",
        f"/customers/{deep}",
    ]

    for address in addresses:
        method = allowed(member.portal, address)
        if method == "get":
            with CaptureQueriesContext(connection) as queries:
                assert member.portal.get(address).status_code == 200, address
            assert len(asked(queries)) <= MOST_QUERIES, (address, asked(queries))


def test_the_list_is_read_by_key_and_loses_nobody_between_pages(member, transactional_db):
    partner = Partner.objects.get()
    many(partner, 120)
    Customer.objects.filter(tenant_id__lt=uuid.UUID(int=60)).update(name_key="same")
    seen: list[int] = []
    address: str | None = ""
    while address is not None:
        page = member.portal.get(f"/customers/{address}").context["page"]
        seen += [customer.pk for customer in page.customers]
        address = page.next_url

    assert len(seen) == len(set(seen)) == 120


@pytest.mark.parametrize("after", ["x", "eyJ.a.b", "%00", "WzEsMl0:abc"])
def test_a_mark_that_is_not_ours_starts_the_list_from_the_beginning(member, after):
    assert member.portal.get(f"/customers/?after={after}").status_code == 200


# --- Source ---------------------------------------------------------------------------------------------------------
def test_portal_views_start_every_query_at_the_partner():
    for source in PORTAL_VIEWS:
        tree = ast.parse(Path(source).read_text())
        found = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "objects"]
        assert not found, f"{source}: {found}"


def test_portal_views_ask_the_member_and_not_the_partner_for_customers():
    for source in PORTAL_VIEWS:
        assert not re.findall(r"partner\.customers", Path(source).read_text()), source


def test_only_a_few_modules_look_inside_a_secret():
    looking = {
        str(path)
        for room in ("cpvpanel", "consent", "partners", "tokens")
        for path in Path(room).rglob("*.py")
        if ".reveal(" in path.read_text()
    }

    assert looking <= {
        "tokens/sessions.py", "tokens/credential.py", "tokens/entra.py", "tokens/envelope.py", "tokens/id_token.py",
        "tokens/vault.py", "tokens/secret.py", "consent/attempts.py", "consent/posted.py", "partners/lookups.py",
        "partners/change_steps.py",
    }, looking  # fmt: skip
