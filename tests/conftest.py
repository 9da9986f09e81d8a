"""Three people and a world for every test: member, stranger, support."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import coverage
import pytest
from django.core.cache import cache
from django.test import Client

from consent import invitations
from cpvpanel import counting
from partners import pacing
from partners.jobs import claiming
from partners.models import Partner
from sandbox.directory import Tenant
from sandbox.world import World
from tests import desk, postgresql, pretend
from tests.pretend import Person
from tokens import actors, audit_witness, broker, outside, tenancy

pytest_plugins = ["tests.timing"]

CONTOSO = "c0470500-0000-4000-8000-0000000000c0"
FABRIKAM = "fab51ca0-0000-4000-8000-0000000000f0"
SERVICE = "svc-cpv@contoso.test"


def pytest_configure(config: pytest.Config) -> None:
    postgresql.name_the_template(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    postgresql.drop_the_template(config)


@pytest.fixture(scope="session", autouse=True)
def rows_are_open_to_the_test() -> Iterator[None]:
    """A test looks at everybody's rows; requests, tasks and commands begin with none, whoever calls them."""
    with tenancy.owner_scope():
        yield


@pytest.fixture(autouse=True)
def counted_anew() -> None:
    """No test is turned away for what others tried."""
    counting.forget()


@pytest.fixture(autouse=True)
def sealed_anew() -> None:
    """Each test's audit begins with its database, and not where the one before ended."""
    audit_witness.forget()


@pytest.fixture
def uncounted() -> Iterator[None]:
    """Coverage is counted by the tests that say what each line is for; over thousands of rounds it only takes time."""
    running = coverage.Coverage.current()
    if running:
        running.stop()
    yield
    if running:
        running.start()


@pytest.fixture
def world() -> Iterator[World]:
    """A pretended cloud with the vendor in it; every test has its own."""
    world = pretend.new_world()
    pretend.begin(world)
    outside.forget()
    broker.forget()
    pacing.forget()
    claiming.forget()
    cache.clear()
    yield world
    outside.forget()
    broker.forget()
    pacing.forget()


@pytest.fixture
def known_vault(world: World) -> None:
    """A vault this process has spoken to before: the first request of a process only learns whom to ask for a token."""
    outside.vault("global").put("known", "nothing", tags={})
    world.vault("cpv-demo.vault.azure.net").secrets.clear()


@pytest.fixture
def contoso(world: World) -> Tenant:
    """A partner's tenant with a service account that may consent, and three customers."""
    tenant = world.add_tenant(CONTOSO, "Contoso", customers=3)
    tenant.add_account(SERVICE, groups={"AdminAgents"}, name="CPV Service")
    return tenant


@pytest.fixture
def invited(db: Any, contoso: Tenant) -> tuple[Partner, str]:
    """Contoso as a partner that has an invitation, and its address."""
    partner = Partner.objects.create(cloud="global", tenant_id=CONTOSO, name="Contoso")
    _, url = invitations.invite(partner=partner, by=actors.SYSTEM)
    return partner, url


@pytest.fixture
def person(world: World, client: Client) -> Person:
    return Person(client, world)


@pytest.fixture
def member(person: Person, invited: tuple[Partner, str], contoso: Tenant) -> Person:
    """Somebody who connected Contoso a moment ago and is signed in."""
    answer = person.connect(invited[1], SERVICE)
    assert answer.status_code == 200, answer.content.decode()
    return person


@pytest.fixture
def connected_partner(world: World, db: Any) -> Callable[..., Partner]:
    """Makes connected partners through the whole journey: `connected_partner(customers=3, tenant_id=…, name=…)`."""

    def connect(*, customers: int = 3, tenant_id: str = CONTOSO, name: str = "Contoso") -> Partner:
        tenant = world.add_tenant(tenant_id, name, customers=customers)
        slug = name.lower().replace(" ", "-")
        tenant.add_account(f"svc-cpv@{slug}.test", groups={"AdminAgents"})
        partner = Partner.objects.create(cloud="global", tenant_id=tenant_id, name=name)
        _, url = invitations.invite(partner=partner, by=actors.SYSTEM)
        answer = Person(Client(), world).connect(url, f"svc-cpv@{slug}.test")
        assert answer.status_code == 200, answer.content.decode()
        return partner

    return connect


@pytest.fixture
def support(db: Any) -> Client:
    """One of the vendor's staff at the desk, who may look at everything there."""
    return desk.at_the_desk("support")
