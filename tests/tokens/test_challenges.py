"""A claims challenge is answered once: redeem with the claims, send again; a second one is told in plain words."""

from __future__ import annotations

import base64
import json
import threading

import pytest
from django.db import connections

from consent.refusal_words import REASONS
from partners import jobs, lookups
from partners.models import Customer, Job, Lookup
from sandbox.challenges import CLAIMS
from tests.conftest import SERVICE
from tests.pretend import text_of
from tokens import broker, gate, tenancy
from tokens.actors import SYSTEM
from tokens.challenges import ChallengedAgain, claims_in
from tokens.clouds import Audience
from tokens.entra import ConsentRequired
from tokens.errors import Transient
from tokens.models import RefreshToken, TokenUse

ME = "/v1.0/me"
PURPOSE = "token.explain"


def challenge(claims=CLAIMS, *, encode=base64.b64encode, error="insufficient_claims", scheme="Bearer"):
    coded = encode(claims.encode()).decode()
    return (
        f'{scheme} realm="", authorization_uri="https://login.microsoftonline.com/x", error="{error}", claims="{coded}"'
    )


# --- Reading --------------------------------------------------------------------------------------------------------
LONG = json.dumps({"access_token": {"nbf": {"essential": True, "value": "1604106651"}, "note": "~~~???>>>"}})


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode], ids=["standard", "urlsafe"])
@pytest.mark.parametrize("claims", [CLAIMS, LONG, LONG + " ", LONG + "  "])
def test_the_claims_come_out_as_they_were_put_in(encode, claims):
    assert claims_in({"WWW-Authenticate": challenge(claims, encode=encode)}) == claims
    assert claims_in({"WWW-Authenticate": challenge(claims, encode=encode).replace('="', '"').replace("=,", ",")}) == ""


def test_padding_may_be_missing():
    assert claims_in({"WWW-Authenticate": challenge(LONG + " ").replace('=="', '"').replace('A="', 'A"')}) == LONG + " "


def test_of_several_challenges_the_bearers_counts():
    pop = challenge('{"other": {}}', scheme="PoP")

    assert claims_in({"WWW-Authenticate": f"{pop}, {challenge()}"}) == CLAIMS
    assert claims_in({"WWW-Authenticate": f"{challenge()}, {pop}"}) == CLAIMS
    assert claims_in({"WWW-Authenticate": pop}) == ""


@pytest.mark.parametrize(
    "header",
    [
        "",
        'Bearer realm=""',
        challenge(error="invalid_token"),
        challenge("[1]"),
        challenge("no json"),
        challenge("[" * 3000),
        'Bearer error="insufficient_claims", claims="!"',
        'Bearer error="insufficient_claims"',
        "Bearer " + "a" * 60_000,
    ],
)
def test_what_is_no_challenge_asks_for_nothing(header):
    assert claims_in({"WWW-Authenticate": header}) == ""


# --- Answering ------------------------------------------------------------------------------------------------------
def session(audience=Audience.GRAPH, *, purpose=PURPOSE, **options):
    return broker.session(RefreshToken.objects.get(), audience, purpose=purpose, actor=SYSTEM, **options)


def redeemed(world):
    """What each token request of the session asked for in `claims`."""
    asked = [call for call in world.calls_to("entra", "/token") if call.tenant and call.client]
    return [call.detail.get("claims") for call in asked if call.detail["grant_type"] == "refresh_token"]


@pytest.fixture
def quiet(member, world):
    """A connected partner, and what it took to connect forgotten."""
    broker.forget()
    world.calls.clear()
    return member


@pytest.mark.django_db(transaction=True)
class TestAnswering:
    @pytest.mark.parametrize(
        ("audience", "service", "path"),
        [(Audience.GRAPH, "graph", ME), (Audience.PARTNER_CENTER, "partnercenter", "/v1/profiles/organization")],
    )
    def test_a_challenge_is_answered_with_a_token_made_for_it(self, quiet, world, audience, service, path):
        world.fail(service, "claims")

        answer = session(audience).get(path)

        assert answer.status_code == 200
        assert redeemed(world) == [None, CLAIMS]
        assert [call.status for call in world.calls_to(service)] == [401, 200]
        lines = TokenUse.objects.filter(purpose=PURPOSE).values_list("outcome", flat=True)
        assert list(lines) == ["granted", "granted"], "each token request has its line"

    def test_the_token_made_for_it_serves_the_next_sends_too(self, quiet, world):
        world.fail("graph", "claims")

        for _ in range(3):
            assert session().get(ME).status_code == 200

        assert redeemed(world) == [None, CLAIMS]

    def test_a_second_challenge_is_told_in_plain_words_and_not_answered(self, quiet, world):
        world.fail("graph", "claims-again")

        with pytest.raises(ChallengedAgain, match="The partner's administrator must exempt this application"):
            session().get(ME)

        assert len(redeemed(world)) == 2
        assert len(world.calls_to("graph")) == 2
        assert RefreshToken.objects.get().refused_at is None, "the sign-in itself works"

    def test_after_a_second_challenge_nothing_of_it_is_kept(self, quiet, world):
        world.fail("graph", "claims-again", times=2)
        with pytest.raises(ChallengedAgain):
            session().get(ME)

        assert session().get(ME).status_code == 200
        assert redeemed(world) == [None, CLAIMS, None]

    def test_an_ordinary_401_is_not_sent_again(self, quiet, world):
        world.fail("graph", "unauthorized", times=1)

        assert session().get(ME).status_code == 401
        assert len(redeemed(world)) == 1

    def test_an_ordinary_401_after_the_challenge_is_the_answer(self, quiet, world):
        world.fail("graph", "claims", times=1)
        world.fail("graph", "unauthorized", times=1)

        assert session().get(ME).status_code == 401
        assert session().get(ME).status_code == 200
        assert redeemed(world) == [None, CLAIMS, None]

    def test_where_entra_refuses_the_claims_the_partner_is_told_what_to_do(self, quiet, world):
        world.fail("graph", "claims")
        session_ = session(purpose="consent.check")
        world.latency["graph"] = 1
        world.sleep = lambda _seconds: world.fail("entra", "AADSTS50076", times=1, path="/token")

        with pytest.raises(ConsentRequired):
            session_.get(ME)

        row = RefreshToken.objects.get()
        assert (row.refused_at, row.refusal_code) == (None, "AADSTS50076"), "Partner Center goes on"
        assert row.missing_scopes, "what Graph was asked for is out of reach until the next consent"

    def test_while_entra_is_away_the_challenge_waits(self, quiet, world):
        world.fail("graph", "claims")
        session_ = session()
        world.latency["graph"] = 1
        world.sleep = lambda _seconds: world.fail("entra", "503", times=1, path="/token")

        with pytest.raises(Transient):
            session_.get(ME)
        world.latency["graph"] = 0

        assert RefreshToken.objects.get().refused_at is None
        assert session().get(ME).status_code == 200

    def test_nothing_is_sent_again_for_a_partner_that_was_stopped_meanwhile(self, quiet, world):
        world.fail("graph", "claims")
        world.latency["graph"] = 1

        def stop(_seconds):
            RefreshToken.objects.update(superseded_at="2026-01-01T00:00:00Z")
            gate.forget()

        world.sleep = stop

        with pytest.raises(gate.Stopped):
            session().get(ME)

        assert len(world.calls_to("graph")) == 1

    def test_eight_who_are_challenged_at_once_cost_one_new_token(self, quiet, world):
        session().get(ME)
        world.fail("graph", "claims")
        world.latency["graph"] = 1
        together = threading.Barrier(8)
        world.sleep = lambda _seconds: together.wait(10)
        answers = []

        @tenancy.owner_scope()
        def ask():
            answers.append(session().get(ME).status_code)
            connections.close_all()

        askers = [threading.Thread(target=ask) for _ in range(8)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()

        assert answers == [200] * 8
        assert redeemed(world) == [None, CLAIMS]

    def test_a_sync_that_cannot_give_the_proof_is_refused_and_says_who_acts(self, quiet, world):
        world.fail("partnercenter", "claims-again")

        run = jobs.run_job(Job.objects.get().pk)

        assert (run.outcome, run.error_code) == ("refused", "claims-challenge")
        assert "administrator must exempt" in run.error

    def test_a_sync_goes_on_through_a_challenge(self, quiet, world):
        world.fail("partnercenter", "claims")

        assert jobs.run_job(Job.objects.get().pk).outcome == "done"

    def test_a_member_who_asks_for_users_is_told_of_the_policy(self, quiet, world):
        jobs.run_job(Job.objects.get().pk)
        customer = Customer.objects.order_by("name_key")[0]
        world.fail("partnercenter", "claims-again")
        asked = quiet.portal.post(f"/customers/{customer.tenant_id}/users")["Location"]

        lookups.answer(Lookup.objects.get().pk)

        page = text_of(quiet.portal.get(asked.partition("#")[0]))
        assert "policy" in page
        assert "claims-challenge" in page, "the reference for support"


@pytest.mark.django_db(transaction=True)
class TestAtConsent:
    @pytest.mark.parametrize("service", ["graph", "partnercenter"])
    def test_a_challenge_while_consent_is_checked_is_answered_too(self, person, invited, world, service):
        world.fail(service, "claims")

        answer = person.connect(invited[1], SERVICE)

        assert "Connected" in answer.content.decode()
        assert CLAIMS in redeemed(world)

    def test_a_second_one_refuses_and_stores_nothing(self, person, invited, world):
        world.fail("graph", "claims-again")

        answer = person.connect(invited[1], SERVICE)

        assert not RefreshToken.objects.exists()
        assert REASONS["blocked"].title in text_of(answer)
