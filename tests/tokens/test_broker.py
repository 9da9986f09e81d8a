"""One door: the gate before every send, the ledger before every token request, and one flight for many askers."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from django.utils import timezone

from partners.models import Partner
from tests.conftest import CONTOSO
from tokens import broker, gate, minting, outside
from tokens.access_cache import AccessCache, Key
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.entra import ConsentRequired, EntraUnavailable, Grant
from tokens.errors import Failure, Permanent, Transient
from tokens.http import HostRefused
from tokens.models import RefreshToken, TokenUse
from tokens.secret import Secret

WHERE = "/v1/profiles/organization"


def session(audience=Audience.PARTNER_CENTER, **options):
    return broker.session(RefreshToken.objects.get(), audience, purpose="token.explain", actor=SYSTEM, **options)


def send_until(opened, deadline):
    while time.monotonic() < deadline:
        opened.get(WHERE)


@pytest.mark.django_db(transaction=True)
class TestSending:
    @pytest.mark.parametrize("known", [True, False], ids=["to the API", "to Entra"])
    def test_a_stop_while_a_connection_opens_lets_nothing_leave(self, member, world, known):
        opened = session()
        if known:
            opened.get(WHERE)
        calls = len(world.calls_to("partnercenter")), len(world.calls_to("entra", "/token"))

        def killed() -> None:
            Partner.objects.update(killed_at=timezone.now())
            gate.forget()

        adapter = outside.network("global").session.get_adapter("https://graph.microsoft.com")
        if known:
            adapter.while_opening = killed
        else:  # the vault's is open already when this one is
            world.latency["vault"] = 1
            world.sleep = lambda _seconds: setattr(adapter, "while_opening", killed)
        with pytest.raises(gate.Stopped):
            opened.get(WHERE)

        assert (len(world.calls_to("partnercenter")), len(world.calls_to("entra", "/token"))) == calls
        line = TokenUse.objects.order_by("-pk")[0]
        assert known or (line.outcome, line.code) == ("withheld", "stopped")

    def test_a_stop_while_the_endpoints_are_looked_up_lets_no_token_request_leave(self, member, world):
        outside.forget()  # a process that has not read Microsoft's document yet
        redeemed = len(world.calls_to("entra", f"{CONTOSO}/oauth2/v2.0/token"))
        looked_up: list[float] = []

        def killed(seconds: float) -> None:
            looked_up.append(seconds)
            Partner.objects.update(killed_at=timezone.now())
            gate.forget()

        world.sleep = killed
        world.fail("entra", "slow", path=f"{CONTOSO}/v2.0/.well-known", seconds=1)

        with pytest.raises(gate.Stopped):
            session().get(WHERE)

        assert looked_up == [1]
        assert len(world.calls_to("entra", f"{CONTOSO}/oauth2/v2.0/token")) == redeemed

    def test_the_ledger_line_is_written_before_the_request_leaves(self, member, world):
        lines: list[str] = []
        world.latency["entra"] = 1
        world.sleep = lambda _seconds: lines.extend(
            TokenUse.objects.filter(purpose="token.explain").values_list("outcome", flat=True)
        )

        session().get(WHERE)

        assert "sent" in lines
        assert TokenUse.objects.get(purpose="token.explain").outcome == "granted"

    def test_a_refused_request_closes_its_line_with_the_code(self, member, contoso):
        contoso.revoke()

        with pytest.raises(ConsentRequired):
            session().get(WHERE)

        line = TokenUse.objects.get(purpose="token.explain")
        assert (line.outcome, line.code) == ("refused", "AADSTS50173")

    def test_a_request_that_found_nobody_is_told_apart_from_a_refusal(self, member, world):
        world.fail("entra", "503", path="/token", tenant=CONTOSO)

        with pytest.raises(Transient):
            session().get(WHERE)

        assert TokenUse.objects.get(purpose="token.explain").outcome == "unavailable"

    def test_an_absolute_address_on_another_host_is_refused_and_no_token_asked_for(self, member, world):
        before = len(world.calls)

        with pytest.raises(HostRefused):
            session().get("https://graph.microsoft.com/v1.0/me")

        assert len(world.calls) == before

    def test_one_token_serves_many_sends_and_one_audience(self, member, world):
        for _ in range(3):
            session().get(WHERE)
        session(Audience.GRAPH).get("/v1.0/me")

        audiences = TokenUse.objects.filter(purpose="token.explain").values_list("audience", flat=True)
        assert sorted(audiences) == ["graph", "partnercenter"]

    def test_a_401_makes_the_next_send_ask_anew(self, member, world):
        session().get(WHERE)
        world.fail("partnercenter", "unauthorized", times=1)
        assert session().get(WHERE).status_code == 401

        assert session().get(WHERE).status_code == 200
        assert TokenUse.objects.filter(purpose="token.explain").count() == 2

    def test_the_gate_shuts_within_a_moment_even_while_a_token_is_cached(self, member, world):
        opened = session()
        opened.get(WHERE)
        Partner.objects.update(killed_at=timezone.now())
        killed = time.monotonic()

        with pytest.raises(gate.Stopped):
            send_until(opened, killed + 2)

        assert time.monotonic() - killed < 4 * gate.SNAPSHOT_AGE

    def test_a_generation_that_was_replaced_sends_nothing_more(self, member, world):
        opened = session()
        RefreshToken.objects.update(superseded_at=timezone.now())
        before = len(world.calls)

        with pytest.raises(gate.Stopped):
            opened.get(WHERE)

        assert len(world.calls) == before

    def test_a_customers_tenant_has_a_token_of_its_own(self, member, world, contoso):
        customer = contoso.customers.at(0).tenant_id
        contoso.application_consents.add(customer)

        session(Audience.GRAPH).get("/v1.0/me")
        session(Audience.GRAPH, tenant=customer).get("/v1.0/me")

        uses = TokenUse.objects.filter(purpose="token.explain").order_by("pk")
        tenants = uses.values_list("customer_tenant", flat=True)
        assert [str(tenant) if tenant else None for tenant in tenants] == [None, customer]

    def test_a_refresh_that_brings_no_id_token_is_taken_as_it_is(self, member, contoso):
        contoso.withheld.add("openid")

        assert session().get(WHERE).status_code == 200

    def test_a_grant_that_cannot_last_opens_no_second_audience(self, member, world):
        grant = Grant(None, Secret("access"), None, frozenset(), 60, "")

        with pytest.raises(Permanent, match="no refresh token"):
            broker.probe(broker.FreshGrant(grant), Audience.GRAPH, partner=Partner.objects.get(), actor=SYSTEM)


class NotingKey(Key):
    """A key that says when it has been looked up and its flight is about to be joined."""

    def __new__(cls, key, joining):
        made = super().__new__(cls, *key)
        made.joining, made.hashed = joining, 0
        return made

    def __hash__(self):
        self.hashed += 1
        if self.hashed == 3:  # looked up, looked up to drop what was not there, then on to the flight
            self.joining.set()
        return super().__hash__()


class TestCache:
    def test_who_asks_while_somebody_mints_gets_that_very_token(self):
        cache, joining, got = AccessCache(), threading.Event(), []
        late = threading.Thread(
            target=lambda: got.append(cache.get_or_mint(NotingKey(self.KEY, joining), lambda: 1 / 0).reveal())
        )

        def mint():
            late.start()
            assert joining.wait(5)
            return Secret("one"), time.monotonic() + 60

        cache.get_or_mint(self.KEY, mint)
        late.join(5)

        assert got == ["one"]

    KEY = Key(1, 1, "graph", None)

    def test_eight_askers_cost_one_mint(self):
        cache, minted, together = AccessCache(), [], threading.Barrier(8)

        def mint():
            minted.append(1)
            return Secret("one"), time.monotonic() + 60

        def ask():
            together.wait()
            assert cache.get_or_mint(self.KEY, mint).reveal() == "one"

        askers = [threading.Thread(target=ask) for _ in range(8)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()

        assert len(minted) == 1

    def waiting(self, cache, mint, ask):
        """What a second asker got who came while the first one minted."""
        joining, got = threading.Event(), []

        def late():
            try:
                got.append(ask(NotingKey(self.KEY, joining)).reveal())
            except Failure as failure:
                got.append(failure.code)

        second = threading.Thread(target=late)

        def slowly():
            second.start()
            assert joining.wait(5)
            return mint()

        with contextlib.suppress(Failure, ZeroDivisionError):
            cache.get_or_mint(self.KEY, slowly)
        second.join(5)
        return got

    def test_who_waits_for_a_mint_that_fails_gets_that_failure_and_sends_nothing(self):
        cache = AccessCache()

        def mint():
            raise EntraUnavailable("no", code="entra-503")

        assert self.waiting(cache, mint, lambda key: cache.get_or_mint(key, lambda: 1 / 0)) == ["entra-503"]

    def test_who_waits_for_a_mint_that_breaks_off_mints(self):
        cache = AccessCache()
        new = (Secret("new"), time.monotonic() + 60)

        assert self.waiting(cache, lambda: 1 / 0, lambda key: cache.get_or_mint(key, lambda: new)) == ["new"]

    def test_who_was_refused_with_the_very_token_that_somebody_brings_mints_another(self):
        cache = AccessCache()
        old, new = ((Secret(name), time.monotonic() + 60) for name in ("old", "new"))

        got = self.waiting(cache, lambda: old, lambda key: cache.replace(key, Secret("old"), lambda: new))

        assert got == ["new"]

    def test_who_was_refused_with_an_older_one_gets_what_is_there_by_now(self):
        cache = AccessCache()
        cache.get_or_mint(self.KEY, lambda: (Secret("new"), time.monotonic() + 60))

        assert cache.replace(self.KEY, Secret("old"), lambda: 1 / 0).reveal() == "new"

    def test_who_sets_out_to_mint_and_finds_that_somebody_has_just_landed_takes_that(self):
        cache = AccessCache()
        cache.get_or_mint(self.KEY, lambda: (Secret("new"), time.monotonic() + 60))

        assert cache._share(self.KEY, lambda: 1 / 0).reveal() == "new"

    def test_an_old_token_is_not_handed_out(self):
        cache = AccessCache()
        cache.get_or_mint(self.KEY, lambda: (Secret("old"), time.monotonic() - 1))

        assert cache.get_or_mint(self.KEY, lambda: (Secret("new"), time.monotonic() + 60)).reveal() == "new"

    def test_a_mint_that_fails_leaves_nothing_and_the_next_asker_tries(self):
        cache = AccessCache()
        with pytest.raises(ZeroDivisionError):
            cache.get_or_mint(self.KEY, lambda: 1 / 0)

        assert cache.get_or_mint(self.KEY, lambda: (Secret("new"), time.monotonic() + 60)).reveal() == "new"

    def test_the_least_used_leaves_when_it_is_full(self):
        cache = AccessCache(size=2)
        for number in (1, 2):
            cache.get_or_mint(Key(number, 1, "graph", None), lambda: (Secret("a"), time.monotonic() + 60))
        cache.get_or_mint(Key(1, 1, "graph", None), lambda: (Secret("x"), 0.0))
        cache.get_or_mint(Key(3, 1, "graph", None), lambda: (Secret("a"), time.monotonic() + 60))

        assert cache.get_or_mint(Key(1, 1, "graph", None), lambda: (Secret("new"), 0.0)).reveal() == "a"
        assert cache.get_or_mint(Key(2, 1, "graph", None), lambda: (Secret("new"), 0.0)).reveal() == "new"

    def test_dropping_a_refresh_token_drops_all_its_audiences(self):
        cache = AccessCache()
        for audience in ("graph", "partnercenter"):
            cache.get_or_mint(Key(1, 1, audience, None), lambda: (Secret("old"), time.monotonic() + 60))
        cache.get_or_mint(Key(2, 1, "graph", None), lambda: (Secret("other"), time.monotonic() + 60))

        cache.drop_token(1)

        fresh = (Secret("new"), time.monotonic() + 60)
        assert cache.get_or_mint(Key(1, 1, "graph", None), lambda: fresh).reveal() == "new"
        assert cache.get_or_mint(Key(2, 1, "graph", None), lambda: fresh).reveal() == "other"


def test_a_purpose_that_has_no_business_at_an_audience_is_refused_before_anything_leaves(member, world):
    calls = len(world.calls)
    session = broker.session(RefreshToken.objects.get(), Audience.GRAPH, purpose="sync.customers", actor=SYSTEM)

    with pytest.raises(minting.PurposeRefused):
        session.get("/v1.0/me")

    line = TokenUse.objects.get(purpose="sync.customers", audience="graph")
    assert (line.outcome, line.code) == ("withheld", "purpose")
    assert len(world.calls) == calls


def test_a_purpose_that_no_permission_names_mints_nothing(member, world):
    with pytest.raises(minting.PurposeRefused):
        broker.session(RefreshToken.objects.get(), Audience.PARTNER_CENTER, purpose="mine", actor=SYSTEM).get("/v1/x")


def test_a_token_that_is_there_already_is_not_handed_to_a_purpose_that_has_no_business_there(member, world):
    token = RefreshToken.objects.get()
    assert broker.session(token, Audience.PARTNER_CENTER, purpose="sync.customers", actor=SYSTEM).get(WHERE).ok
    calls = len(world.calls)

    with pytest.raises(minting.PurposeRefused):
        broker.session(token, Audience.PARTNER_CENTER, purpose="consent.redeemed", actor=SYSTEM).get(WHERE)

    line = TokenUse.objects.order_by("-pk")[0]
    assert (line.purpose, line.outcome, line.code) == ("consent.redeemed", "withheld", "purpose")
    assert len(world.calls) == calls
