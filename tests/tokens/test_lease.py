"""Of several who claim one sign-in at once, one gets it; and nobody who was stopped does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections

from partners import lifecycle
from partners.models import Partner
from tests.conftest import CONTOSO
from tokens import custody, rotation, tenancy
from tokens.actors import SYSTEM
from tokens.models import RefreshToken

pytestmark = pytest.mark.django_db(transaction=True)
ROUNDS, ASKERS = 20, 4


@pytest.fixture
def token(connected_partner) -> RefreshToken:
    connected_partner()
    return RefreshToken.objects.select_related("partner").get()


def at_once(ask, number: int = ASKERS) -> list:
    """What each of several threads with a connection of its own got; on SQLite writers take turns anyway."""
    if connection.vendor == "sqlite":
        return [ask() for _ in range(number)]
    line = threading.Barrier(number)

    @tenancy.owner_scope()
    def one(_: int):
        try:
            connection.ensure_connection()
            line.wait(10)
            return ask()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


def test_of_several_who_ask_at_once_one_gets_the_lease(token):
    for _ in range(ROUNDS):
        RefreshToken.objects.update(leased_until=None)
        fence = RefreshToken.objects.get().fence

        won = at_once(lambda: RefreshToken.objects.get().lease())

        assert sorted(won) == [False] * (ASKERS - 1) + [True]
        assert RefreshToken.objects.get().fence == fence + 1


def test_an_update_asks_the_row_itself_and_no_copy_of_it(token, django_assert_num_queries):
    """What makes it so on PostgreSQL: the row's own conditions are looked at again after waiting for another's."""
    with django_assert_num_queries(2) as asked:
        assert token.lease()

    update = asked[0]["sql"]
    assert update.startswith("UPDATE")
    assert update.count('FROM "tokens_refreshtoken"') == 0, update


def test_nobody_gets_the_lease_while_everything_is_stopped(token):
    lifecycle.kill_all(by=SYSTEM, reason="a drill")

    assert not token.lease()
    assert RefreshToken.objects.get().fence == token.fence


def test_a_lease_from_before_an_all_stop_pins_nothing(token):
    assert token.lease()
    lifecycle.kill_all(by=SYSTEM, reason="a drill")

    assert not token.point_at("a-version", next_refresh_at=custody.next_refresh_at(token.reserved_at))
    assert RefreshToken.objects.get().pinned_version == token.pinned_version


def test_an_all_stop_claims_no_rotation(token):
    RefreshToken.objects.update(next_refresh_at=token.reserved_at)
    lifecycle.kill_all(by=SYSTEM, reason="a drill")

    assert rotation.claim_due() == []


def test_a_consent_that_comes_back_in_an_all_stop_is_thrown_away(token):
    partner = Partner.objects.get(tenant_id=CONTOSO)
    late = custody._reserve(partner, oid=token.oid, upn="late@contoso.test", limits="")
    lifecycle.kill_all(by=SYSTEM, reason="a drill")

    with pytest.raises(custody.NotOpen):
        custody._pin(late, "a-version", token, lambda _token: None)

    assert RefreshToken.objects.current().get() == token
