"""Fifty who ask at once cost one token request, one read of the vault and no discovery."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from tests.conftest import CONTOSO, FABRIKAM
from tokens import broker, outside, rotation, tenancy
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.models import RefreshToken, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
ASKERS = 50
WHERE = "/v1/profiles/organization"


def ask_at_once(token: RefreshToken, number: int = ASKERS) -> list[int]:
    """The status that each of so many threads got."""
    line = threading.Barrier(number)

    @tenancy.owner_scope()
    def one(_: int) -> int:
        try:
            line.wait(30)
            opened = broker.session(token, Audience.PARTNER_CENTER, purpose="token.explain", actor=SYSTEM)
            return opened.get(WHERE).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


def row_of(tenant: str) -> RefreshToken:
    return RefreshToken.objects.select_related("partner").get(partner__tenant_id=tenant)


class Since:
    """What came in at Microsoft since then."""

    def __init__(self, world: Any) -> None:
        self._world, self._begun = world, len(world.calls)

    def count(self, service: str, part: str, *, tenant: str | None = None, method: str | None = None) -> int:
        return sum(
            call.service == service
            and part in call.path
            and tenant in (None, call.tenant)
            and method in (None, call.method)
            and (service != "vault" or call.has_bearer)
            for call in self._world.calls[self._begun :]
        )


@pytest.fixture
def two(connected_partner):
    connected_partner()
    connected_partner(tenant_id=FABRIKAM, name="Fabrikam")


def test_fifty_askers_of_a_fresh_process_cost_one_token_request_and_one_read(two, world):
    outside.forget()
    broker.forget()
    since = Since(world)

    assert ask_at_once(row_of(CONTOSO)) == [200] * ASKERS

    assert since.count("entra", "/token", tenant=CONTOSO) == 1
    assert since.count("vault", "/secrets/", method="GET") == 1
    assert since.count("partnercenter", WHERE) == ASKERS
    assert TokenUse.objects.filter(purpose="token.explain").count() == 1


def test_whoever_comes_first_discovers_for_all_tenants(two, world):
    outside.forget()
    broker.forget()
    ask_at_once(row_of(CONTOSO))
    since = Since(world)

    assert ask_at_once(row_of(FABRIKAM)) == [200] * ASKERS

    assert since.count("entra", "/token", tenant=FABRIKAM) == 1
    assert since.count("vault", "/secrets/", method="GET") == 1
    assert since.count("entra", "openid-configuration") == 0
    assert since.count("entra", "discovery") == 0


def test_a_refresh_that_stores_its_successor_reads_the_vault_once(two, world):
    since = Since(world)

    assert rotation.rotate(row_of(CONTOSO).pk)

    assert since.count("vault", "/secrets/", method="GET") == 1
    assert since.count("vault", "/secrets/", method="PUT") == 1
