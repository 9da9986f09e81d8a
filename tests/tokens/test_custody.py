"""Name first, vault second, pin third: what is left after each way it can break off, and what the sweep does."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.db.models import F
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import jobs, lifecycle
from partners.models import Job, Partner
from tests.conftest import CONTOSO, FABRIKAM, SERVICE
from tests.statements import asked
from tokens import broker, custody, gate, outside, rotation, sweeping
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.envelope import NotOurs
from tokens.models import RefreshToken, SecretVersion, TokenUse
from tokens.outside import NetworkInTransaction
from tokens.refusals import WrongHolder
from tokens.secret import Secret
from tokens.tasks import sweep
from tokens.vault import VaultUnavailable

pytestmark = pytest.mark.django_db(transaction=True)
HOST = "cpv-demo.vault.azure.net"
LATER = dt.timedelta(minutes=11)


def enabled(world) -> list[str]:
    """The names under which the vault holds something that can be read."""
    secrets = world.vault(HOST).secrets
    return [name for name, versions in secrets.items() if any(version.enabled for version in versions)]


def puts(world) -> list:
    return [call for call in world.calls if call.service == "vault" and call.method == "PUT" and call.status == 200]


def let_leases_run_out() -> None:
    RefreshToken.objects.filter(leased_until__isnull=False).update(
        leased_until=timezone.now() - dt.timedelta(seconds=1)
    )


def session(token, audience=Audience.PARTNER_CENTER):
    return broker.session(token, audience, purpose="token.explain", actor=SYSTEM)


# --- Breaking off ---------------------------------------------------------------------------------------------------
def test_the_name_is_in_a_committed_row_before_the_vault_hears_it(person, invited, world, known_vault):
    world.fail("vault", "timeout-after", method="PUT")

    person.connect(invited[1], SERVICE)

    [row] = RefreshToken.objects.all()
    assert enabled(world) == [row.secret_name]
    assert (row.stored_at, row.pinned_version) == (None, "")


def test_the_sweep_disables_what_was_stored_and_never_pinned(person, invited, world, known_vault):
    world.fail("vault", "timeout-after", method="PUT")
    person.connect(invited[1], SERVICE)
    world.heal()

    with time_machine.travel(timezone.now() + LATER):
        assert sweeping.sweep() == 1

    assert enabled(world) == []
    row = RefreshToken.objects.get()
    assert row.closed_at
    assert row.versions.get().disabled_at


def test_a_sweep_comes_again_without_doing_it_twice(person, invited, world, known_vault):
    world.fail("vault", "timeout-after", method="PUT")
    person.connect(invited[1], SERVICE)
    world.heal()

    with time_machine.travel(timezone.now() + LATER):
        sweep()
        calls = len(world.calls)
        assert sweeping.sweep() == 0

    assert len(world.calls) == calls


def test_a_sweep_that_was_cut_short_is_finished_by_the_next(person, invited, world, known_vault):
    world.fail("vault", "timeout-after", method="PUT")
    person.connect(invited[1], SERVICE)
    world.heal()
    with time_machine.travel(timezone.now() + LATER):
        sweeping.sweep()
        RefreshToken.objects.update(closed_at=None)

        assert sweeping.sweep() == 0

    assert RefreshToken.objects.get().closed_at


def test_the_sweep_lets_a_name_go_that_never_reached_the_vault(person, invited, world, known_vault):
    world.fail("vault", "503", method="PUT")
    person.connect(invited[1], SERVICE)
    world.heal()

    with time_machine.travel(timezone.now() + LATER):
        assert sweeping.sweep() == 0

    assert RefreshToken.objects.get().closed_at


def test_the_sweep_leaves_a_consent_alone_that_is_on_its_way(person, invited, world, known_vault):
    world.fail("vault", "timeout-after", method="PUT")
    person.connect(invited[1], SERVICE)
    world.heal()

    assert sweeping.sweep() == 0
    assert RefreshToken.objects.get().closed_at is None


def test_the_sweep_disables_the_generation_a_reconnect_replaced_and_no_other(member, contoso, world):
    contoso.revoke()
    jobs.run_job(Job.objects.get().pk)
    member.connect("/connection/renew", SERVICE)

    assert sweeping.sweep() == 1

    assert enabled(world) == [RefreshToken.objects.current().get().secret_name]


def test_a_late_pin_under_an_abandoned_name_is_refused(member, world):
    """A web process that froze between PUT and pin for longer than the sweep waits must not bring the name back."""
    partner = Partner.objects.get()
    token = custody._reserve(partner, oid=SYSTEM_OID, upn="late@contoso.test", limits="")
    RefreshToken.objects.filter(pk=token.pk).update(closed_at=timezone.now())

    with pytest.raises(custody.NotOpen):
        custody._pin(token, "some-version", RefreshToken.objects.current().get(), lambda _token: None)

    assert RefreshToken.objects.current().get().pk != token.pk


SYSTEM_OID = "99999999-0000-4000-8000-000000000001"


def test_two_consents_at_once_take_two_generations(member):
    partner = Partner.objects.get()

    first = custody._reserve(partner, oid=SYSTEM_OID, upn="", limits="")
    second = custody._reserve(partner, oid=SYSTEM_OID, upn="", limits="")

    assert {first.generation, second.generation} == {2, 3}


def test_a_row_that_cannot_be_closed_holds_up_no_other(connected_partner, world):
    ours, other = connected_partner(), connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    RefreshToken.objects.update(superseded_at=timezone.now())
    del world.vault(HOST).secrets[ours.refresh_tokens.get().secret_name]  # purged by somebody
    other_name = other.refresh_tokens.get().secret_name

    sweeping.sweep()

    assert other_name not in enabled(world)
    assert not RefreshToken.objects.filter(closed_at=None).exists()


def test_a_name_the_vault_refuses_is_left_for_the_next_sweep(connected_partner, world):
    ours, other = connected_partner(), connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    RefreshToken.objects.update(superseded_at=timezone.now())
    refused = ours.refresh_tokens.get().secret_name
    world.fail("vault", "forbidden", path=refused)

    sweeping.sweep()
    assert enabled(world) == [refused]

    world.heal()
    sweeping.sweep()
    assert enabled(world) == []
    assert other.refresh_tokens.get().closed_at


def test_with_the_vault_down_a_sweep_gives_up_soon(member, world, known_vault):
    partner = Partner.objects.get()
    for _ in range(10):
        custody._reserve(partner, oid=SYSTEM_OID, upn="", limits="")
    world.fail("vault", "503")
    before = len(world.calls)

    with time_machine.travel(timezone.now() + LATER):
        assert sweeping.sweep() == 0

    assert len(world.calls) - before <= 2 * sweeping.ENOUGH_TROUBLE


def test_a_rotation_that_broke_off_after_the_put_leaves_nothing_enabled_in_the_end(member, contoso, world, settings):
    settings.CPV_REFRESH_STORE_INTERVAL = 0
    for _ in range(2):  # twice in a row: the second finds what the first left
        world.fail("vault", "timeout-after", method="PUT", times=1)
        with pytest.raises(VaultUnavailable):
            session(RefreshToken.objects.get()).get("/v1/profiles/organization")
        let_leases_run_out()
    name = RefreshToken.objects.get().secret_name
    assert len(world.vault(HOST).secrets[name]) == 3
    contoso.revoke()
    broker.forget()
    jobs.run_job(Job.objects.get().pk)
    member.connect("/connection/renew", SERVICE)

    sweeping.sweep()

    assert enabled(world) == [RefreshToken.objects.current().get().secret_name]


def test_a_rotation_that_loses_to_a_reconnect_leaves_nothing_enabled_in_the_end(member, contoso, world):
    token = RefreshToken.objects.get()
    assert token.lease()
    RefreshToken.objects.update(refused_at=timezone.now(), refusal="needs_consent")
    member.connect("/connection/renew", SERVICE)
    sweeping.sweep()
    assert RefreshToken.objects.get(pk=token.pk).closed_at is None  # its lease is not over

    assert custody.rotate(token, Secret("a successor that comes late")) is False
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=15)):
        sweeping.sweep()

    assert enabled(world) == [RefreshToken.objects.current().get().secret_name]


def test_a_version_noted_after_a_name_was_closed_is_found_again(member, contoso, world):
    contoso.revoke()
    jobs.run_job(Job.objects.get().pk)
    member.connect("/connection/renew", SERVICE)
    sweeping.sweep()
    old = RefreshToken.objects.get(generation=1)
    version = outside.vault("global").put(old.secret_name, "late", tags={})
    SecretVersion.objects.create(partner=old.partner, token=old, version=version)

    sweeping.sweep()

    assert enabled(world) == [RefreshToken.objects.current().get().secret_name]


def test_one_clouds_broken_vault_holds_up_no_other(member, world, settings):
    settings.CPV_VAULTS = {
        **settings.CPV_VAULTS,
        "china": settings.CPV_VAULTS["global"] | {"url": "https://c.vault.azure.cn"},
    }
    settings.CPV_APPS = {**settings.CPV_APPS, "china": settings.CPV_APPS["global"]}
    partner = Partner.objects.get()
    elsewhere = Partner.objects.create(cloud="china", tenant_id=FABRIKAM, name="Elsewhere")
    for _ in range(sweeping.ENOUGH_TROUBLE + 1):
        row = custody._reserve(elsewhere, oid=SYSTEM_OID, upn="", limits="")
        world.fail("vault", "503", path=row.secret_name)
    ours = custody._reserve(partner, oid=SYSTEM_OID, upn="", limits="")

    with time_machine.travel(timezone.now() + LATER):
        sweeping.sweep()

    ours.refresh_from_db()
    assert ours.closed_at


def reserved_in_vain(partner: Partner, number: int) -> None:
    """So many rows of names that were never pinned."""
    then = timezone.now() - LATER
    RefreshToken.objects.bulk_create(
        RefreshToken(
            partner=partner,
            generation=generation,
            oid=SYSTEM_OID,
            secret_name=RefreshToken.new_secret_name(),
            reserved_at=then,
        )
        for generation in range(1, number + 1)
    )


def test_an_all_stop_disables_what_lies_behind_a_batch_of_rows_that_cannot_be_closed(connected_partner, world, caplog):
    elsewhere = Partner.objects.create(cloud="china", tenant_id=FABRIKAM, name="Of a cloud that was given up")
    reserved_in_vain(elsewhere, sweeping.SWEEP_BATCH + 1)
    connected_partner()
    lifecycle.kill_all(by=SYSTEM, reason="a drill")

    assert sweeping.close_stopped() == 1

    assert enabled(world) == []
    assert caplog.text.count("a secret could not be swept") == 1
    [others] = [record for record in caplog.records if record.message == "further secrets could not be swept"]
    assert others.number == sweeping.SWEEP_BATCH, "each was tried once"


def test_a_vault_that_is_down_is_left_alone_behind_the_first_batch_too(member, world, settings):
    there = settings.CPV_VAULTS["global"] | {"url": "https://c.vault.azure.cn"}
    settings.CPV_VAULTS = {**settings.CPV_VAULTS, "china": there}
    elsewhere = Partner.objects.create(cloud="china", tenant_id=FABRIKAM, name="Elsewhere")
    reserved_in_vain(elsewhere, 4 * sweeping.SWEEP_BATCH)
    reserved_in_vain(Partner.objects.create(cloud="global", tenant_id=SYSTEM_OID, name="Behind"), 1)
    world.fail("vault", "503", path="rt-", times=sweeping.ENOUGH_TROUBLE)

    with CaptureQueriesContext(connection) as queries:
        sweeping.sweep()

    assert RefreshToken.objects.get(partner__name="Behind").closed_at
    assert not elsewhere.refresh_tokens.exclude(closed_at=None).exists()
    assert len(asked(queries)) < 30, "its rows were neither asked about nor read again"
    reads = [query for query in asked(queries) if f"LIMIT {sweeping.SWEEP_BATCH}" in query]
    assert len(reads) == len(["crashed", "over", "over, behind", "over, none left", "with aged versions"])


def test_a_rotation_reads_the_pin_when_the_newest_is_disabled_or_another(member, world, settings):
    settings.CPV_REFRESH_STORE_INTERVAL = 0
    token = RefreshToken.objects.get()
    versions = world.vault(HOST).secrets[token.secret_name]
    outside.vault("global").put(token.secret_name, "somebody else's", tags={})
    versions[-1].enabled = False

    assert session(token).get("/v1/profiles/organization").status_code == 200
    assert RefreshToken.objects.get().pinned_version == versions[-1].version


# --- The envelope ---------------------------------------------------------------------------------------------------
def test_a_secret_that_was_swapped_in_the_vault_does_not_open_and_nothing_is_sent(connected_partner, world):
    ours = connected_partner()
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    secrets = world.vault(HOST).secrets
    mine, theirs = (partner.refresh_tokens.get() for partner in (ours, other))
    secrets[mine.secret_name][0].value = secrets[theirs.secret_name][0].value
    asked = len(world.calls_to("entra", "/token"))

    with pytest.raises(NotOurs):
        session(mine).get("/v1/profiles/organization")

    # the vault's own identity asked for its token; nobody asked for the partner's
    assert all(call.tenant not in (CONTOSO, FABRIKAM) for call in world.calls_to("entra", "/token")[asked:])


@pytest.mark.parametrize(
    "changed",
    [
        {"partner.cloud": "usgov"},
        {"partner.tenant_id": FABRIKAM},
        {"secret_name": "rt-another"},
        {"generation": 2},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_sealed_value_opens_only_for_the_row_it_was_sealed_for(member, changed):
    token = RefreshToken.objects.select_related("partner").get()
    sealed = outside.keyring().seal(Secret("the refresh token"), aad=custody.additional_data(token))
    [(path, value)] = changed.items()
    holder = token.partner if path.startswith("partner.") else token
    setattr(holder, path.rsplit(".", 1)[-1], value)
    apps = {**settings_apps(), "usgov": settings_apps()["global"]}

    with pytest.raises(NotOurs), override_settings(CPV_APPS=apps):
        outside.keyring().open(sealed, aad=custody.additional_data(token))


def settings_apps():
    return django_settings.CPV_APPS


def test_another_applications_sealed_value_does_not_open(member):
    token = RefreshToken.objects.select_related("partner").get()
    sealed = outside.keyring().seal(Secret("the refresh token"), aad=custody.additional_data(token))
    apps = {**settings_apps(), "global": settings_apps()["global"] | {"app_id": "another"}}

    with pytest.raises(NotOurs), override_settings(CPV_APPS=apps):
        outside.keyring().open(sealed, aad=custody.additional_data(token))


def test_what_lies_in_the_vault_is_sealed_and_names_its_key(member, world):
    [versions] = world.vault(HOST).secrets.values()

    refresh_tokens = [value for kind, value in world.issued if kind == "refresh_token"]
    assert not any(token in versions[0].value for token in refresh_tokens)
    assert versions[0].tags == {"generation": "1", "fence": "0", "key": "dev"}


# --- Rotation -------------------------------------------------------------------------------------------------------
def test_who_has_lost_the_lease_stores_nothing(member, world):
    token = RefreshToken.objects.get()
    assert token.lease()
    RefreshToken.objects.update(leased_until=None)
    winner = RefreshToken.objects.get()
    assert winner.lease()

    assert custody.rotate(token, Secret("an older successor")) is False
    assert custody.rotate(winner, Secret("the newest successor")) is True

    row = RefreshToken.objects.get()
    assert row.pinned_version == winner.pinned_version
    assert SecretVersion.objects.count() == len(puts(world)) == 2
    assert custody.read(row) == Secret("the newest successor")


def test_who_loses_the_lease_while_storing_leaves_its_version_and_does_not_pin(member, world):
    token = RefreshToken.objects.get()
    pinned = token.pinned_version
    assert token.lease()

    def somebody_else_leases(_seconds: float) -> None:
        RefreshToken.objects.update(leased_until=None)
        assert RefreshToken.objects.get().lease()

    world.sleep = somebody_else_leases
    world.fail("vault", "slow", times=1, method="PUT")
    assert custody.rotate(token, Secret("a successor")) is False

    assert RefreshToken.objects.get().pinned_version == pinned
    assert SecretVersion.objects.count() == 2


def test_a_version_that_the_next_holder_saw_first_breaks_nothing(member, world):
    token = RefreshToken.objects.select_related("partner").get()
    assert token.lease()
    network = outside.network("global")

    def the_next_holder_looks() -> None:
        for version in world.vault(HOST).secrets[token.secret_name]:
            custody.note_version(token, version.version)

    class Witness(type(network.session.get_adapter("https://graph.microsoft.com"))):
        def send(self, request, *args, **options):
            answer = super().send(request, *args, **options)
            if request.method == "PUT":
                the_next_holder_looks()
            return answer

    network.session.get_adapter("https://graph.microsoft.com").__class__ = Witness
    assert custody.rotate(token, Secret("a successor")) is True

    assert SecretVersion.objects.count() == 2


def test_where_tokens_work_once_the_next_takes_up_a_version_whose_answer_was_lost(member, world):
    token = RefreshToken.objects.get()
    assert rotation.rotate(token.pk)  # the first one was spent when the consent was checked
    world.refresh_tokens("strict")
    world.vault_fault("set", "lost", times=1)
    assert not rotation.rotate(token.pk)
    assert not rotation.rotate(token.pk), "what was sent may still arrive"

    let_leases_run_out()
    assert rotation.rotate(token.pk)

    row = RefreshToken.objects.get()
    assert row.refused_at is None
    assert SecretVersion.objects.filter(token=row).count() == 4


@pytest.mark.parametrize("tags", [{}, {"fence": "99"}, {"fence": "x"}, {"fence": "-1"}])
def test_a_version_that_somebody_else_put_under_the_name_is_noted_and_never_pinned(member, world, tags, caplog):
    token = RefreshToken.objects.get()
    foreign = world.vault(HOST).put(token.secret_name, "not ours", tags, None).version

    assert rotation.rotate(token.pk)

    row = RefreshToken.objects.get()
    assert row.pinned_version not in (foreign, token.pinned_version)
    assert row.versions.filter(version=foreign).exists()
    assert ("the vault holds a version that is not ours" in caplog.text) == (tags == {"fence": "99"})


def test_a_holder_works_with_what_was_pinned_since_it_read_the_row(member, world):
    early = RefreshToken.objects.select_related("partner").get()
    assert rotation.rotate(early.pk)
    world.refresh_tokens("strict")
    assert rotation.rotate(early.pk)

    broker.keep(early, Audience.PARTNER_CENTER, purpose="token.keep", actor=SYSTEM)

    assert RefreshToken.objects.get().refused_at is None


def test_who_has_lost_the_lease_adopts_nothing(member):
    token = RefreshToken.objects.get()
    assert token.lease()
    RefreshToken.objects.update(fence=F("fence") + 1)

    assert not token.adopt("a version")
    assert RefreshToken.objects.get().pinned_version == token.pinned_version


def test_only_one_of_two_gets_the_lease(member):
    token, again = RefreshToken.objects.get(), RefreshToken.objects.get()

    assert token.lease() is True
    assert again.lease() is False


@pytest.mark.parametrize("stop", ["killed_at", "suspended_at", "withdrawn_at", "lapses_at"])
def test_nobody_gets_the_lease_of_a_partner_that_is_stopped(member, stop):
    Partner.objects.update(**{stop: timezone.now()})

    assert RefreshToken.objects.get().lease() is False


def test_a_kill_while_the_vault_is_read_stops_the_redeem(member, world):
    def kill(_seconds):
        Partner.objects.update(killed_at=timezone.now())
        broker.forget()  # what 250 ms would do

    world.latency["vault"], world.sleep = 1, kill

    with pytest.raises(gate.Stopped):
        session(RefreshToken.objects.get()).get("/v1/profiles/organization")

    assert not [call for call in world.calls_to("entra", "/token")[2:] if call.tenant == CONTOSO]


def test_a_lease_of_a_dead_process_runs_out(member):
    token = RefreshToken.objects.get()
    token.lease()

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=121)):
        assert RefreshToken.objects.get().lease() is True


def test_nothing_is_pinned_for_a_partner_that_was_killed_meanwhile(member):
    token = RefreshToken.objects.get()
    token.lease()
    Partner.objects.update(killed_at=timezone.now())

    assert custody.rotate(token, Secret("too late")) is False


def test_with_an_interval_of_zero_every_redeem_stores(member, world, settings):
    settings.CPV_REFRESH_STORE_INTERVAL = 0
    before = len(puts(world))

    session(RefreshToken.objects.get()).get("/v1/profiles/organization")
    session(RefreshToken.objects.get(), Audience.GRAPH).get("/v1.0/me")

    assert len(puts(world)) == before + 2


def test_a_store_without_an_answer_lets_its_lease_run_out_and_the_old_pin_stays(member, world, settings):
    settings.CPV_REFRESH_STORE_INTERVAL = 0
    before = RefreshToken.objects.get()
    world.fail("vault", "503", method="PUT")

    with pytest.raises(VaultUnavailable):
        session(RefreshToken.objects.get()).get("/v1/profiles/organization")

    row = RefreshToken.objects.get()
    assert row.pinned_version == before.pinned_version
    assert row.leased_until > timezone.now(), "the version may arrive late, and the next holder must find it"
    let_leases_run_out()
    world.heal()
    sweeping.sweep()
    assert RefreshToken.objects.get().leased_until is None
    assert rotation.rotate(row.pk)


def test_a_holder_that_was_frozen_before_it_redeemed_spends_nothing(member, world):
    """Its lease is over, and somebody else has rotated meanwhile."""
    token = RefreshToken.objects.select_related("partner").get()
    redeemed = len(world.calls_to("entra", "/token"))

    def frozen(_seconds: float) -> None:
        world.latency.clear()
        let_leases_run_out()
        assert rotation.rotate(token.pk)

    world.latency["vault"], world.sleep = 1, frozen

    assert not rotation.rotate(token.pk)

    of_partner = [call for call in world.calls_to("entra", "/token")[redeemed:] if call.tenant == CONTOSO]
    assert len(of_partner) == 1, "the other's alone"
    assert TokenUse.objects.order_by("-pk").filter(code="lease-lost").get().outcome == "withheld"


def test_whoever_was_frozen_while_it_got_the_lease_has_none(member):
    """Another took it after two minutes; its fence is not ours to use."""
    token = RefreshToken.objects.get()

    def another(execute, sql, params, many, context):
        done = execute(sql, params, many, context)
        if sql.startswith("UPDATE") and "fence" in sql and not taken:
            taken.append(True)
            let_leases_run_out()
            assert RefreshToken.objects.get().lease()
        return done

    taken: list[bool] = []
    with connection.execute_wrapper(another):
        assert token.lease() is False

    assert (token.fence, RefreshToken.objects.get().fence) == (0, 2)


def test_a_refresh_that_answers_for_another_holder_is_used_for_nothing(member, world):
    world.id_token_fault = "wrong_tenant"
    asked = len(world.calls_to("partnercenter"))

    with pytest.raises(WrongHolder):
        session(RefreshToken.objects.get()).get("/v1/profiles/organization")

    assert len(world.calls_to("partnercenter")) == asked
    line = TokenUse.objects.order_by("-pk")[0]
    assert (line.outcome, line.code) == ("granted", "wrong-holder"), "somebody handed out a token, used or not"


# --- Order ----------------------------------------------------------------------------------------------------------
def test_a_request_inside_a_transaction_is_refused_before_it_leaves(member, world):
    before = len(world.calls)

    with pytest.raises(NetworkInTransaction), transaction.atomic():
        session(RefreshToken.objects.get()).get("/v1/profiles/organization")

    assert len(world.calls) == before


def test_outside_development_the_guard_costs_nothing(world, settings, transactional_db):
    settings.CPV_GUARD_TRANSACTIONS = False
    outside.forget()

    with transaction.atomic():
        answer = outside.network("global").request("GET", "https://graph.microsoft.com/v1.0/me")

    assert answer.status_code == 401


def test_without_a_stand_in_the_network_goes_to_the_real_addresses(world, settings):
    settings.CPV_SANDBOX_URL = ""
    outside.forget()

    adapter = outside.network("global").session.get_adapter("https://login.microsoftonline.com/")

    assert not type(adapter).__module__.startswith("tests.")


# --- What a crash left ----------------------------------------------------------------------------------------------
def crash_in_rotation(world, *, fence: int = 0) -> str:
    """A worker took the lease, stored a successor under its fence, and died before it could pin it; the new version."""
    token = RefreshToken.objects.select_related("partner").get()
    assert token.lease()
    successor = custody.read(token)
    sealed = outside.keyring().seal(successor, aad=custody.additional_data(token))
    tags = {"generation": str(token.generation), "fence": str(fence or token.fence), "key": "dev"}
    version = outside.vault("global").put(token.secret_name, sealed, tags=tags)
    RefreshToken.objects.update(leased_until=timezone.now() - dt.timedelta(seconds=1))
    return version


def test_a_version_that_a_crash_left_unpinned_is_adopted(member, world):
    version = crash_in_rotation(world)

    sweeping.sweep()
    sweeping.sweep()

    token = RefreshToken.objects.select_related("partner").get()
    assert (token.pinned_version, token.leased_until) == (version, None)
    assert custody.read(token).reveal()
    assert token.versions.count() == 2


def test_a_losers_version_is_noted_and_not_adopted(member, world):
    pinned = RefreshToken.objects.get().pinned_version
    version = crash_in_rotation(world, fence=99)

    sweeping.sweep()

    token = RefreshToken.objects.get()
    assert (token.pinned_version, token.leased_until) == (pinned, None)
    assert token.versions.filter(version=version, disabled_at=None).exists()


def test_what_somebody_else_stored_after_a_crash_is_not_adopted(member, world):
    token = RefreshToken.objects.get()
    assert token.lease()
    world.vault(HOST).put(token.secret_name, "not ours", {"fence": str(token.fence)}, None)
    RefreshToken.objects.update(leased_until=timezone.now() - dt.timedelta(seconds=1))

    sweeping.sweep()

    row = RefreshToken.objects.get()
    assert (row.pinned_version, row.leased_until) == (token.pinned_version, None)


def test_a_crash_before_anything_was_stored_only_gives_the_lease_back(member, world):
    pinned = RefreshToken.objects.get().pinned_version
    assert RefreshToken.objects.get().lease()
    RefreshToken.objects.update(leased_until=timezone.now() - dt.timedelta(seconds=1))

    sweeping.sweep()

    token = RefreshToken.objects.get()
    assert (token.pinned_version, token.leased_until) == (pinned, None)
    assert token.lease()


def test_whoever_rotated_while_the_sweeper_looked_wins(member, world):
    crash_in_rotation(world)

    def somebody_rotates(_seconds: float) -> None:
        world.sleep = lambda seconds: None
        rotation.rotate(RefreshToken.objects.get().pk)

    world.sleep = somebody_rotates
    world.fail("vault", "slow", times=1, method="GET")
    sweeping.sweep()

    token = RefreshToken.objects.select_related("partner").get()
    newest = outside.vault("global").newest(token.secret_name)
    assert token.pinned_version == newest.version, "the later one stays pinned"


def test_whoever_began_to_rotate_while_the_sweeper_looked_is_let_be(member, world):
    crash_in_rotation(world)
    pinned = RefreshToken.objects.get().pinned_version
    world.sleep = lambda _seconds: RefreshToken.objects.get().lease()
    world.fail("vault", "slow", times=1, method="GET")

    sweeping.sweep()

    token = RefreshToken.objects.get()
    assert token.pinned_version == pinned
    assert token.leased_until > timezone.now()


def test_a_lease_that_is_held_is_left_alone(member, world):
    assert RefreshToken.objects.get().lease()
    before = RefreshToken.objects.values().get()

    sweeping.sweep()

    assert RefreshToken.objects.values().get() == before


def test_a_vault_that_is_down_leaves_the_crash_to_the_next_sweep(member, world):
    version = crash_in_rotation(world)
    world.fail("vault", "503", times=1)

    sweeping.sweep()
    assert RefreshToken.objects.get().pinned_version != version
    sweeping.sweep()

    token = RefreshToken.objects.get()
    assert (token.pinned_version, token.leased_until) == (version, None)


def test_versions_of_more_than_a_day_ago_are_disabled_but_for_the_pinned_and_the_two_newest(member, world):
    for _ in range(4):
        rotation.rotate(RefreshToken.objects.get().pk)
    SecretVersion.objects.update(seen_at=F("seen_at") - dt.timedelta(days=2))
    oldest = SecretVersion.objects.order_by("pk")[0]
    RefreshToken.objects.update(pinned_version=oldest.version)

    assert sweeping.sweep() == 2
    assert sweeping.sweep() == 0

    kept = set(SecretVersion.objects.filter(disabled_at=None).values_list("version", flat=True))
    newest = set(SecretVersion.objects.order_by("-pk").values_list("version", flat=True)[:2])
    assert kept == {oldest.version} | newest
    versions = next(iter(world.vault("cpv-demo.vault.azure.net").secrets.values()))
    assert sum(version.enabled for version in versions) == 3


def test_versions_of_today_stay(member, world):
    for _ in range(4):
        rotation.rotate(RefreshToken.objects.get().pk)

    assert sweeping.sweep() == 0
