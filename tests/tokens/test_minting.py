"""Whose turn it is to spend a stored sign-in, and what a refusal of one audience or tenant means for the rest."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from partners import jobs
from partners.models import Job, Partner
from partners.standing import current_token, standing
from tests.conftest import CONTOSO, FABRIKAM, SERVICE
from tests.pretend import text_of
from tokens import broker, custody, gate, minting, outside, rotation, sweeping
from tokens.access_cache import Key, held
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.entra import BadIdToken, BlockedByPartner, ConsentRequired, EntraUnavailable, NoSuchTenant, OurFault
from tokens.envelope import NotOurs
from tokens.models import Alarm, AuditEvent, RefreshToken, TokenUse
from tokens.refusals import WrongHolder
from tokens.secret import Secret
from tokens.vault import SecretMissing, VaultRefused, VaultUnavailable, VersionDisabled

pytestmark = pytest.mark.django_db(transaction=True)
HOST = "cpv-demo.vault.azure.net"
CUSTOMER = uuid.UUID("c0470500-0000-4000-8000-00000000c001")
USERS, GROUPS, GDAP = "User.Read.All", "GroupMember.Read.All", "DelegatedAdminRelationship.ReadWrite.All"
OF_GRAPH = sorted([USERS, GROUPS, GDAP])


def row() -> RefreshToken:
    return RefreshToken.objects.select_related("partner").get()


def graph(purpose: str = "consent.check", **options: Any) -> int:
    broker.forget()
    return broker.session(row(), Audience.GRAPH, purpose=purpose, actor=SYSTEM, **options).get("/v1.0/me").status_code


def sync() -> str:
    broker.forget()
    Job.objects.update(next_run_at=timezone.now(), claimed_until=None)
    run = jobs.run_job(Job.objects.get().pk)
    assert run
    return str(run.outcome)


def state() -> Any:
    partner = Partner.objects.get()
    return standing(partner, current_token(partner))


def of_partner(world: Any, since: int = 0) -> int:
    """Token requests in the partner's tenant."""
    return sum(call.tenant == CONTOSO for call in world.calls_to("entra", "/token")[since:])


# --- Where refresh tokens work once -----------------------------------------------------------------------------------
@pytest.fixture
def single_use(person, invited, contoso, world, settings):
    """A connected partner in a world where each refresh token works once."""
    settings.CPV_REFRESH_STORE_INTERVAL = 0
    world.refresh_tokens("strict")
    person.connect(invited[1], SERVICE)
    broker.forget()
    return person


def test_where_refresh_tokens_work_once_a_consent_stores_the_one_that_no_check_has_spent(
    person, invited, contoso, world, settings
):
    settings.CPV_REFRESH_STORE_INTERVAL, settings.CPV_PERMISSIONS = 0, "standard+arm"
    world.refresh_tokens("strict")
    contoso.unconsented.add(USERS)

    person.connect(invited[1], SERVICE)

    assert rotation.rotate(row().pk)
    assert sync() == "done"


@pytest.mark.parametrize("tenant", [None, CUSTOMER], ids=["own tenant", "customer's tenant"])
def test_where_refresh_tokens_work_once_nobody_spends_one_in_anothers_hands(single_use, world, tenant):
    assert row().lease()
    calls, lines = len(world.calls), TokenUse.objects.count()

    with pytest.raises(minting.InOtherHands) as told:
        graph(tenant=tenant)

    assert told.value.retry_after
    assert (len(world.calls), TokenUse.objects.count()) == (calls, lines), "nothing was read, sent or written"


def test_where_refresh_tokens_work_once_two_at_once_lose_nothing(single_use, world):
    """While one waits for the vault another asks; then that one comes again."""
    told_to_wait = []

    def another_asks(_seconds: float) -> None:
        world.latency.clear()
        with pytest.raises(minting.InOtherHands) as told:
            minting.grant(minting.Wish(row(), Audience.GRAPH, "token.explain", SYSTEM))
        told_to_wait.append(told.value.code)

    world.latency["vault"], world.sleep = 1, another_asks

    assert sync() == "done"
    assert told_to_wait == ["lease-held"]
    assert graph() == 200
    assert sync() == "done"
    assert row().refused_at is None


def test_where_refresh_tokens_work_once_a_customers_tenant_spends_and_stores(single_use, contoso):
    before, customer = row().pinned_version, contoso.customers.at(0).tenant_id
    contoso.application_consents.add(customer)

    graph("token.explain", tenant=uuid.UUID(customer))

    assert row().pinned_version != before
    assert sync() == "done", "what the customer's tenant handed out is what works now"


def test_elsewhere_whoever_finds_it_in_anothers_hands_reads_and_goes_on(member, world):
    assert row().lease()
    before = row().pinned_version

    assert graph() == 200
    assert row().pinned_version == before


def test_who_finds_the_lease_gone_because_of_a_stop_is_told_of_the_stop(single_use):
    token = row()
    gate.check(token)
    Partner.objects.update(killed_at=timezone.now())

    with pytest.raises(gate.Stopped):
        broker.session(token, Audience.GRAPH, purpose="token.explain", actor=SYSTEM).get("/v1.0/me")


# --- One audience refused ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("taken", [[USERS], [GDAP, USERS]], ids=len)
def test_a_permission_taken_back_is_named_and_the_rest_goes_on(member, contoso, world, taken):
    contoso.unconsented.update(taken)

    assert graph() == 200

    assert (state().state, list(state().missing_scopes)) == ("limited", sorted(taken))
    detail = AuditEvent.objects.get(action="connection.limited").detail
    assert (sorted(detail["missing"]), detail["code"]) == (sorted(taken), "AADSTS65001")
    assert sync() == "done"
    asked = of_partner(world)
    assert graph() == 200
    assert of_partner(world) == asked + 1, "what is missing is known now"
    assert TokenUse.objects.count() == sum(
        call.path.endswith("/token") and call.tenant == CONTOSO for call in world.calls_to("entra")
    )


def test_where_all_of_an_audience_was_taken_back_only_that_audience_ends(member, contoso):
    contoso.unconsented.update(OF_GRAPH)

    with pytest.raises(ConsentRequired):
        graph()

    assert (state().state, sorted(state().missing_scopes)) == ("limited", OF_GRAPH)
    with pytest.raises(minting.AudienceNotAsked):
        graph()
    assert sync() == "done"


@pytest.mark.parametrize(("code", "failure"), [(53003, BlockedByPartner), (50076, ConsentRequired)])
def test_a_policy_at_one_audience_limits_the_partner_and_says_what_helps(member, world, settings, code, failure):
    settings.CPV_EGRESS_ADDRESSES = ["192.0.2.7"]
    world.fail("entra", f"AADSTS{code}", path="/token", times=1)

    with pytest.raises(failure):
        graph()

    stands = state()
    assert (stands.state, stands.code, sorted(stands.missing_scopes)) == ("limited", f"AADSTS{code}", OF_GRAPH)
    assert ("192.0.2.7" in stands.action) == (code == 53003)
    assert "Agree again" in stands.action
    assert stands.action in text_of(member.portal.get("/")).replace(" .", ".")
    assert sync() == "done"


def test_a_connection_that_was_replaced_meanwhile_is_marked_by_nobody(member, contoso, world):
    token = row()

    def replaced(_seconds: float) -> None:
        world.latency.clear()
        RefreshToken.objects.update(superseded_at=timezone.now())
        contoso.revoke()

    world.latency["entra"], world.sleep = 1, replaced
    with pytest.raises(ConsentRequired):
        minting.grant(minting.Wish(token, Audience.PARTNER_CENTER, "sync.customers", SYSTEM))

    assert row().refused_at is None
    assert not AuditEvent.objects.filter(action="connection.refused").exists()


def test_a_session_that_is_over_ends_the_connection_whichever_audience_heard_it(member, contoso):
    contoso.revoke()

    with pytest.raises(ConsentRequired):
        graph("token.explain")

    assert state().state == "needs_consent"


def test_a_refusal_that_no_single_permission_explains_changes_nothing(member, world):
    world.fail("entra", "AADSTS65001", path="/token", times=1)

    with pytest.raises(ConsentRequired):
        graph()

    assert state().state == "active"
    assert not AuditEvent.objects.filter(action="connection.limited").exists()


def test_after_a_refusal_nothing_more_leaves_at_once_and_no_access_token_is_kept(member, contoso):
    token, key = row(), Key(row().pk, 1, Audience.GRAPH, None)
    graph("token.explain")
    gate.check(token)
    contoso.revoke()
    with pytest.raises(ConsentRequired):
        minting.grant(minting.Wish(token, Audience.PARTNER_CENTER, "sync.customers", SYSTEM))

    with pytest.raises(gate.Stopped):
        gate.check(token)
    assert held.get_or_mint(key, lambda: (Secret("none was kept"), 0.0)).reveal() == "none was kept"


def test_an_answer_of_the_gate_from_before_a_stop_counts_no_more_once_the_stop_is_known(member):
    token = row()

    def stop_meanwhile(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        done = execute(sql, params, many, context)
        gate.forget()
        return done

    gate.forget()
    with connection.execute_wrapper(stop_meanwhile):
        gate.check(token)
    Partner.objects.update(killed_at=timezone.now())

    with pytest.raises(gate.Stopped):
        gate.check(token)


def test_somebodys_test_of_an_audience_changes_nothing(member, contoso):
    contoso.unconsented.add(USERS)

    with pytest.raises(ConsentRequired):
        graph("token.explain")

    assert state().state == "active"


def test_a_limit_that_a_newer_consent_replaced_is_not_noted(member):
    token = row()
    RefreshToken.objects.update(superseded_at=timezone.now())

    assert token.note_missing([USERS], code="AADSTS65001") is False
    assert row().missing_scopes == []


def test_permissions_that_another_process_found_missing_meanwhile_stay_missing(member):
    stale = row()
    assert row().note_missing([GDAP], code="AADSTS65001")

    assert stale.note_missing([USERS], code="AADSTS65001")

    assert row().missing_scopes == stale.missing_scopes == [GDAP, USERS]


def test_what_fails_while_single_permissions_are_tried_changes_nothing(member, contoso, world):
    contoso.unconsented.add(USERS)
    asked: list[str] = []

    def then_it_fails(_seconds: float) -> None:
        asked.append("")
        if len(asked) == 2:
            world.fail("entra", "AADSTS53003", path="/token", times=1)

    world.latency["entra"], world.sleep = 1, then_it_fails
    with pytest.raises(BlockedByPartner):
        graph()

    assert state().state == "active"


# --- What the next sign-in must bring ---------------------------------------------------------------------------------
@pytest.mark.parametrize("at", ["partnercenter", "graph"])
def test_claims_that_entra_asked_for_go_into_the_next_consent_link(member, world, at):
    world.fail("entra", "AADSTS50076", path="/token", times=1)
    if at == "partnercenter":
        sync()
    else:
        with pytest.raises(ConsentRequired):
            graph()

    address = member.leave("/connection/renew")

    asked = json.loads(parse_qs(urlsplit(address).query)["claims"][0])
    assert asked["access_token"]["capolids"]["essential"] is True
    member.come_back(member.at_microsoft(address, SERVICE))
    newest = RefreshToken.objects.order_by("-generation")[0]
    assert newest.wanted_claims == ""


def test_claims_that_a_first_consent_lacked_go_into_the_next_try(person, invited, contoso, world):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    world.fail("partnercenter", "slow", times=1, seconds=1)
    world.sleep = lambda _seconds: world.fail("entra", "AADSTS50076", path="/token", times=1)
    person.come_back(back)
    assert not RefreshToken.objects.exists()

    address = person.leave(invited[1])

    assert "capolids" in parse_qs(urlsplit(address).query)["claims"][0]
    person.come_back(person.at_microsoft(address, SERVICE))
    assert state().state == "active"


def test_what_an_api_asked_for_goes_into_the_next_link_where_entra_says_nothing(member, world):
    world.fail("graph", "claims")
    world.latency["graph"] = 1
    world.sleep = lambda _seconds: world.fail("entra", "AADSTS50173", path="/token", times=1)
    with pytest.raises(ConsentRequired):
        graph()

    assert json.loads(row().wanted_claims)["access_token"]


# --- A tenant that is not there ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("code", [90002, 90038])
def test_a_customers_tenant_that_is_not_there_is_that_customers_alone(member, world, code):
    world.fail("entra", f"AADSTS{code}", path=str(CUSTOMER), times=1)

    with pytest.raises(minting.CustomerRefused):
        graph("token.explain", tenant=CUSTOMER)

    assert not Alarm.objects.exists()
    assert state().state == "active"


@pytest.mark.parametrize("code", [90002, 90038])
def test_a_partners_tenant_that_is_not_there_parks_that_partner_and_support_acts(
    member, world, code, connected_partner
):
    connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    world.fail("entra", f"AADSTS{code}", path=CONTOSO, times=1)
    broker.forget()
    contoso, fabrikam = Partner.objects.order_by("name")
    token = current_token(contoso)

    with pytest.raises(NoSuchTenant):
        broker.session(token, Audience.GRAPH, purpose="consent.check", actor=SYSTEM).get("/v1.0/me")

    stands = standing(contoso, current_token(contoso))
    assert (stands.state, stands.title, stands.owner) == ("needs_consent", "Tenant not found", "support")
    assert not stands.can_reconnect
    assert not Alarm.objects.exists()
    assert standing(fabrikam, current_token(fabrikam)).state == "active"


# --- A secret that nobody can read ------------------------------------------------------------------------------------
def purged(world: Any, token: RefreshToken) -> None:
    world.vault(HOST).secrets.pop(token.secret_name)


def disabled(world: Any, token: RefreshToken) -> None:
    for version in world.vault(HOST).secrets[token.secret_name]:
        version.enabled = False


def foreign(world: Any, token: RefreshToken) -> None:
    for version in world.vault(HOST).secrets[token.secret_name]:
        version.value = outside.keyring().seal(Secret("somebody else's"), aad=["another place"])


@pytest.mark.parametrize(
    ("harm", "failure"),
    [(purged, SecretMissing), (disabled, VersionDisabled), (foreign, NotOurs)],
    ids=["purged", "disabled", "foreign"],
)
@pytest.mark.parametrize("aged", [False, True], ids=["read", "rotated"])
def test_a_secret_that_nobody_can_read_raises_an_alarm_and_ends_with_a_new_consent(
    member, world, harm, failure, aged, capsys
):
    harm(world, row())
    if aged:
        RefreshToken.objects.update(stored_at=timezone.now() - dt.timedelta(days=2))

    for _ in range(2):
        with pytest.raises(failure):
            graph()

    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.partner, alarm.times) == ("unreadable", Partner.objects.get(), 2)
    assert row().refused_at is None, "a wrong vault or key must not end every connection"
    call_command("partners")
    assert "Contoso" in capsys.readouterr().err
    member.connect("/connection/renew", SERVICE)
    member.portal.post("/connection/renewal", {"answer": "yes"})
    assert Alarm.objects.get().closed_at
    assert sync() == "done"


def test_a_secret_that_can_be_read_again_closes_its_alarm(member, world):
    disabled(world, row())
    with pytest.raises(VersionDisabled):
        graph()
    world.vault(HOST).secrets[row().secret_name][0].enabled = True

    assert graph() == 200

    assert Alarm.objects.get().closed_at


def test_a_secret_that_a_stop_disabled_is_no_alarm(member, world):
    token = row()
    disabled(world, token)

    def stop(_seconds: float) -> None:
        Partner.objects.update(killed_at=timezone.now())

    world.latency["vault"], world.sleep = 1, stop
    with pytest.raises(gate.Stopped):
        graph()

    assert not Alarm.objects.exists()


@pytest.mark.parametrize("fault", ["wrong_tenant", "wrong_oid"])
def test_an_answer_for_another_holder_raises_an_alarm_that_only_a_new_consent_ends(member, world, fault):
    world.id_token_fault = fault
    with pytest.raises(WrongHolder):
        graph()
    world.id_token_fault = None

    assert graph() == 200

    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.partner, alarm.closed_at) == ("wrong_holder", Partner.objects.get(), None)
    assert AuditEvent.objects.filter(action="connection.wrong_holder").count() == 1
    member.connect("/connection/renew", SERVICE)
    assert Alarm.objects.get().closed_at is None
    member.portal.post("/connection/renewal", {"answer": "yes"})
    assert Alarm.objects.get().closed_at


def test_a_proof_that_is_none_raises_an_alarm_until_a_good_one_comes(member, world):
    """Such as with a clock of ours that goes wrong: every partner's, and none of them is to blame."""
    world.id_token_fault = "expired"
    for _ in range(2):
        with pytest.raises(BadIdToken):
            graph()
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.partner, alarm.times) == ("proof", None, 2)
    assert TokenUse.objects.order_by("-pk")[0].outcome == "granted", "a token was handed out, used or not"
    assert state().state == "active"
    world.id_token_fault = None

    assert graph() == 200

    assert Alarm.objects.get().closed_at


def test_keys_that_cannot_be_fetched_spend_no_sign_in(single_use, world):
    outside.forget()
    world.fail("entra", "503", path="/discovery/v2.0/keys")

    with pytest.raises(EntraUnavailable):
        graph()
    world.heal()

    outside.forget()
    assert graph() == 200, "the stored one was not spent"


# --- A vault that says no ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("operation", ["get", "set"])
def test_a_vault_that_refuses_us_raises_one_alarm_until_it_stores_again(member, world, operation):
    world.vault_fault(operation, "forbidden")
    RefreshToken.objects.update(stored_at=timezone.now() - dt.timedelta(days=2))
    for _ in range(2):
        with pytest.raises(VaultRefused):
            graph()
        RefreshToken.objects.update(leased_until=None)

    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.code, alarm.times) == ("vault", "vault-403", 2)
    assert state().state == "active"
    world.heal()
    RefreshToken.objects.update(stored_at=timezone.now())
    assert graph() == 200
    assert Alarm.objects.get().closed_at is None, "reading proves nothing of storing"
    assert rotation.rotate(row().pk)
    assert Alarm.objects.get().closed_at


def test_a_consent_that_the_vault_refuses_to_store_raises_the_alarm_too(person, invited, contoso, world):
    world.vault_fault("set", "forbidden")

    person.connect(invited[1], SERVICE)

    assert Alarm.objects.get().kind == "vault"


def test_secrets_that_the_vault_refuses_to_disable_raise_an_alarm_until_it_does(member, world):
    world.vault_fault("update", "forbidden")
    Partner.objects.update(killed_at=timezone.now())

    for _ in range(2):
        sweeping.close_stopped()
    assert [(alarm.kind, alarm.code, alarm.times) for alarm in Alarm.objects.all()] == [
        ("not_disabled", "vault-403", 2)
    ]
    world.heal()
    sweeping.close_stopped()

    assert Alarm.objects.get().closed_at


@pytest.mark.parametrize("said", ["503", "500", "throttled"])
def test_where_refresh_tokens_work_once_one_no_of_the_vault_loses_nothing(single_use, world, said):
    world.vault_fault("set", said, times=1)

    assert graph() == 200

    assert sync() == "done"
    assert row().refused_at is None


def test_a_version_that_is_there_in_spite_of_a_no_is_not_sent_again(single_use, world):
    """The vault says 503 and has stored it; looking tells."""
    name, looks = row().secret_name, []

    def at_each_look(_seconds: float) -> None:
        looks.append(name)
        if len(looks) == 1:
            world.vault_fault("set", "503", times=1)
            world.fail("vault", "slow", times=1, method="GET", seconds=1)
        else:  # what was denied is there
            token = row()
            world.vault(HOST).put(name, sealed_successor(token), {"fence": str(token.fence)}, None)

    world.fail("vault", "slow", times=1, method="GET", seconds=1)
    world.sleep = at_each_look
    versions = len(world.vault(HOST).secrets[name])

    assert rotation.rotate(row().pk)

    assert len(world.vault(HOST).secrets[name]) == versions + 1


def sealed_successor(token: RefreshToken) -> str:
    return outside.keyring().seal(Secret("as it was sent"), aad=custody.additional_data(token))


def test_what_the_vault_stored_in_spite_of_its_no_is_taken_as_it_is(single_use, world):
    """It is there once, and known."""
    before = len(world.vault(HOST).secrets[row().secret_name])
    world.vault_fault("set", "504-after", times=1)
    with pytest.raises(VaultUnavailable):
        graph()
    assert len(world.vault(HOST).secrets[row().secret_name]) == before + 1, "nobody knows: nothing is sent again"

    RefreshToken.objects.update(leased_until=timezone.now() - dt.timedelta(seconds=1))
    assert graph() == 200
    assert row().refused_at is None


# --- A registration that does not fit one audience --------------------------------------------------------------------
def test_a_fault_of_how_we_ask_for_one_audience_is_not_over_because_another_works(member, world):
    world.fail("entra", "AADSTS70011", path="/token", times=1)
    with pytest.raises(OurFault):
        graph()
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.audience) == ("registration", "graph")

    assert sync() == "done"
    assert Alarm.objects.get().closed_at is None
    assert graph() == 200
    assert Alarm.objects.get().closed_at


# --- Keeping ----------------------------------------------------------------------------------------------------------
def due() -> None:
    RefreshToken.objects.update(next_refresh_at=timezone.now() - dt.timedelta(seconds=1))


def test_a_message_that_comes_five_times_rotates_once(member, world):
    due()
    (claimed,) = rotation.claim_due()
    asked = of_partner(world)

    assert [rotation.rotate_claimed(claimed) for _ in range(5)] == [True, False, False, False, False]
    assert of_partner(world) == asked + 1


def test_a_message_that_nobody_sent_rotates_nothing(member, world):
    asked = of_partner(world)

    assert rotation.rotate_claimed(row().pk) is False
    assert of_partner(world) == asked


def test_who_finds_it_in_anothers_hands_has_not_kept_it(member, world):
    assert row().lease()
    asked = of_partner(world)

    assert rotation.rotate(row().pk) is False
    assert of_partner(world) == asked


def test_whose_lease_went_to_another_has_not_kept_it(member, world):
    """The lease is over while the request is under way, and somebody else rotates meanwhile."""

    def somebody_else(_seconds: float) -> None:
        world.latency.clear()
        RefreshToken.objects.update(leased_until=timezone.now() - dt.timedelta(seconds=1))
        assert rotation.rotate(row().pk)

    world.latency["entra"], world.sleep = 1, somebody_else

    assert rotation.rotate(row().pk) is False


def test_an_answer_without_a_successor_keeps_the_stored_one_for_another_day(member, contoso, world):
    due()
    (claimed,) = rotation.claim_due()
    before = row().pinned_version
    contoso.withheld.add("offline_access")

    assert rotation.rotate_claimed(claimed) is True

    assert row().pinned_version == before
    assert row().leased_until is None
    assert row().next_refresh_at > timezone.now() + dt.timedelta(hours=21)


def test_a_pause_that_microsoft_asks_for_is_kept_where_it_is_longer_than_ours(member, world):
    due()
    (claimed,) = rotation.claim_due()
    world.fail("entra", "AADSTS50196", times=1, path=CONTOSO)

    assert rotation.rotate_claimed(claimed) is False

    assert row().next_refresh_at >= timezone.now() + dt.timedelta(seconds=890)
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=14)):
        assert rotation.claim_due() == []


def test_a_stored_answer_stays_in_the_ledger_as_granted_though_the_vault_takes_nothing(member, world):
    world.fail("vault", "503", method="PUT")

    assert rotation.rotate(row().pk) is False

    assert TokenUse.objects.order_by("-pk")[0].outcome == "granted"
