"""Stops for security, their proof, and the end of access; through the stand-in."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.utils import timezone

from consent import invitations
from consent.models import Notice
from consent.notices import find
from partners import jobs, lifecycle
from partners.models import Partner
from partners.standing import current_token, standing
from sandbox.world import World
from tests.conftest import CONTOSO, FABRIKAM, SERVICE
from tests.live import until
from tests.pretend import Person
from tokens import broker, custody, gate, sweeping, tasks, tenancy, watch
from tokens.actors import SYSTEM
from tokens.models import LEASE, AuditEvent, Halt, RefreshToken, SecretVersion, Sender
from tokens.secret import Secret
from tokens.vault import VersionDisabled

pytestmark = pytest.mark.django_db(transaction=True)
Connect = Callable[..., Partner]
VAULT = "cpv-demo.vault.azure.net"


def enabled(world: World) -> int:
    """Versions in the vault that could still be read."""
    return sum(version.enabled for versions in world.vault(VAULT).secrets.values() for version in versions)


def state(partner: Partner) -> str:
    fresh = Partner.objects.get(pk=partner.pk)
    return standing(fresh, current_token(fresh)).state


def a_worker(*_seconds: float) -> None:
    """What a worker does on its next tick."""
    tasks.close_stopped()


def killed(partner: Partner) -> lifecycle.Proof:
    return lifecycle.proof_of(lifecycle.kill(partner=partner, by=SYSTEM, reason="a test"), sleep=a_worker)


def sync(partner: Partner) -> str:
    job = jobs.ensure(partner, "customers", due_now=True)
    run = jobs.run_job(job.pk)
    assert run
    return str(run.outcome)


def command(name: str, *words: str) -> dict[str, Any]:
    out = io.StringIO()
    with contextlib.suppress(SystemExit):
        call_command(name, *words, "--json", stdout=out, stderr=io.StringIO())
    document: dict[str, Any] = json.loads(out.getvalue())
    return document


def later(**by: float) -> Any:
    return time_machine.travel(timezone.now() + dt.timedelta(**by))


# --- One partner ----------------------------------------------------------------------------------------------------
def test_a_killed_partner_sends_nothing_and_its_secrets_are_disabled(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    assert sync(partner) == "done"
    calls = len(world.calls_to("partnercenter"))

    proof = killed(partner)

    assert proof.is_whole
    assert proof.silent_workers == []
    assert enabled(world) == 0
    assert sync(partner) == "refused"
    assert len(world.calls_to("partnercenter")) == calls
    assert state(partner) == "killed"
    assert AuditEvent.objects.get(action="partner.killed").detail == {"reason": "a test"}


def test_a_kill_leaves_every_other_partner_alone(connected_partner: Connect, world: World) -> None:
    contoso, fabrikam = connected_partner(), connected_partner(tenant_id=FABRIKAM, name="Fabrikam")

    killed(contoso)

    assert sync(fabrikam) == "done"
    assert enabled(world) == 1


def test_a_second_kill_changes_nothing_and_is_written_down(connected_partner: Connect) -> None:
    partner = connected_partner()
    first = lifecycle.kill(partner=partner, by=SYSTEM, reason="a test")
    since = Partner.objects.get(pk=partner.pk).killed_at

    assert lifecycle.kill(partner=partner, by=SYSTEM, reason="again") == first
    assert Partner.objects.get(pk=partner.pk).killed_at == since
    again = AuditEvent.objects.filter(action="partner.killed").order_by("pk")[1]
    assert (again.object, again.partner) == (f"stop {first.pk}", partner)
    assert again.detail == {"reason": "again", "again": True}


def test_a_successor_written_while_the_kill_came_is_disabled_when_its_writer_must_have_ended(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner()
    token = RefreshToken.objects.get()
    killed(partner)
    world.vault(VAULT).put(token.secret_name, "written late", {}, None)  # by a worker that passed the gate before
    assert sweeping.close_stopped() == 0

    with later(seconds=LEASE.total_seconds() + 1):
        sweeping.close_stopped()
        again = sweeping.close_stopped()

    assert (enabled(world), again) == (0, 0)


def test_a_row_that_was_reserved_and_never_pinned_is_closed_too(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    token = custody._reserve(partner, oid=RefreshToken.objects.get().oid, upn=SERVICE, limits="")
    world.vault(VAULT).put(token.secret_name, "put and not pinned", {}, None)

    killed(partner)

    assert enabled(world) == 0


def test_a_vault_that_is_down_is_said_and_tried_again(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    world.fail("vault", "503")
    halt = lifecycle.kill(partner=partner, by=SYSTEM, reason="a test")
    seconds = iter(range(1000))

    proof = lifecycle.proof_of(halt, sleep=a_worker, clock=lambda: float(next(seconds)))

    assert proof.calls_stopped_s is not None
    assert proof.secrets_disabled_s is None
    assert not proof.is_whole
    world.heal()
    sweeping.close_stopped()
    assert enabled(world) == 0


# --- Unkill ---------------------------------------------------------------------------------------------------------
def test_after_unkill_the_partner_connects_anew_and_goes_on(
    connected_partner: Connect, world: World, client: Any
) -> None:
    partner = connected_partner()
    killed(partner)

    assert lifecycle.unkill(partner=partner, by=SYSTEM, reason="false alarm")
    assert not lifecycle.unkill(partner=partner, by=SYSTEM, reason="again")

    assert state(partner) == "needs_consent"
    assert standing(partner, current_token(partner)).reason.startswith("Work was stopped"), "and not by Microsoft"
    assert sync(partner) == "refused"
    with pytest.raises(VersionDisabled):
        custody.read(RefreshToken.objects.get())
    _, url = invitations.invite(partner=partner, by=SYSTEM)
    assert Person(client, world).connect(url, SERVICE).status_code == 200
    assert (state(partner), sync(partner)) == ("active", "done")
    assert Halt.objects.get().ended_by == str(SYSTEM)


def test_a_stop_that_is_lifted_before_a_worker_came_leaves_no_secret_enabled(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner()
    lifecycle.kill(partner=partner, by=SYSTEM, reason="a test")
    lifecycle.unkill(partner=partner, by=SYSTEM, reason="false alarm")
    assert enabled(world) == 1, "no worker came yet"

    sweeping.close_stopped()

    assert enabled(world) == 0
    assert state(partner) == "needs_consent"


def test_what_was_refused_before_a_stop_that_was_lifted_is_disabled_too(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner()
    RefreshToken.objects.get().mark_refused("mfa_missing", code="AADSTS50076")
    lifecycle.kill(partner=partner, by=SYSTEM, reason="a test")
    lifecycle.unkill(partner=partner, by=SYSTEM, reason="false alarm")

    sweeping.close_stopped()

    assert enabled(world) == 0


def test_a_successor_written_after_a_lifted_stop_is_disabled_when_its_writer_must_have_ended(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner()
    killed(partner)
    lifecycle.unkill(partner=partner, by=SYSTEM, reason="false alarm")
    world.vault(VAULT).put(RefreshToken.objects.get().secret_name, "written late", {}, None)

    with later(seconds=2 * LEASE.total_seconds() + 1):
        sweeping.close_stopped()

        assert enabled(world) == 0
        assert not RefreshToken.objects.stopped(timezone.now()).exists()


def test_a_consent_that_was_on_its_way_through_a_stop_does_not_come_in_force(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner()
    before = RefreshToken.objects.get()
    token = custody._reserve(partner, oid=before.oid, upn=SERVICE, limits="")
    killed(partner)
    lifecycle.unkill(partner=partner, by=SYSTEM, reason="false alarm")
    version = world.vault(VAULT).put(token.secret_name, "put late", {}, None)

    with pytest.raises(custody.NotOpen):
        custody._pin(token, version.version, before, lambda _token: None)

    assert state(partner) == "needs_consent"
    with later(minutes=11):
        sweeping.sweep()
    assert enabled(world) == 0


def test_a_renewal_that_waited_through_a_stop_is_over(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    before = RefreshToken.objects.get()
    waiting = custody.store(
        partner=partner, refresh_token=Secret("another"), oid=before.oid, upn=SERVICE, limits="", replaces=before,
        on_pin=lambda _token: None, pending=True,
    )  # fmt: skip
    lifecycle.kill(partner=partner, by=SYSTEM, reason="a test")
    lifecycle.unkill(partner=partner, by=SYSTEM, reason="false alarm")

    with pytest.raises(custody.NotOpen):
        custody.confirm(waiting, on_confirm=lambda _token: None)
    sweeping.sweep()
    sweeping.close_stopped()

    assert enabled(world) == 0


def test_a_partner_that_was_not_killed_cannot_be_unkilled(connected_partner: Connect) -> None:
    connected_partner()

    with pytest.raises(CommandError, match="not stopped"):
        call_command("unkill", CONTOSO, "--reason", "a test")


# --- Everything -----------------------------------------------------------------------------------------------------
def test_an_all_stop_stops_everybody_and_disables_every_secret(connected_partner: Connect, world: World) -> None:
    partners = [connected_partner(), connected_partner(tenant_id=FABRIKAM, name="Fabrikam")]
    halt = lifecycle.kill_all(by=SYSTEM, reason="a thief")
    assert lifecycle.kill_all(by=SYSTEM, reason="again") == halt

    proof = lifecycle.proof_of(halt, sleep=a_worker)

    assert proof.is_whole
    assert {partner.pk for partner in proof.stopped} == {partner.pk for partner in partners}
    assert enabled(world) == 0
    assert not SecretVersion.objects.filter(disabled_at=None).exists()
    find()
    assert not Notice.objects.exists(), "nobody is asked to reconnect while nobody may"
    with later(seconds=LEASE.total_seconds() + 1):
        world.vault(VAULT).put(RefreshToken.objects.first().secret_name, "written late", {}, None)
        sweeping.close_stopped()
        assert enabled(world) == 0
        assert not RefreshToken.objects.stopped(timezone.now()).exists()


# --- Who has seen it ------------------------------------------------------------------------------------------------
def test_a_living_process_that_says_nothing_is_named(connected_partner: Connect) -> None:
    Sender.report("host:1:silent", 0)
    Sender.report("host:2:dead", 0)
    Sender.objects.filter(name="host:2:dead").update(seen_at=timezone.now() - dt.timedelta(minutes=2))
    halt = lifecycle.kill(partner=connected_partner(), by=SYSTEM, reason="a test")

    assert watch.silent(halt.pk) == ["host:1:silent"]
    Sender.report("host:1:silent", halt.pk)
    assert watch.silent(halt.pk) == []


@pytest.mark.postgresql
def test_whoever_has_seen_a_stop_has_seen_every_stop_of_a_lower_number() -> None:
    """Of two at once the second gets its number when the first is committed."""
    partner = Partner.objects.create(cloud="global", tenant_id=CONTOSO, name="Contoso")
    written, may_commit = threading.Event(), threading.Event()

    @tenancy.owner_scope()
    def stop_one() -> None:
        with transaction.atomic():
            lifecycle.kill(partner=partner, by=SYSTEM, reason="written first")
            written.set()
            may_commit.wait(30)
        connections.close_all()

    @tenancy.owner_scope()
    def stop_all() -> None:
        written.wait(30)
        lifecycle.kill_all(by=SYSTEM, reason="written second")
        connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(stop_one), pool.submit(stop_all)]
        try:
            until(lambda: ends[1].done() or somebody_waits_for_a_turn(), what="the second is committed or waits")
            epoch, seen = Halt.objects.epoch(), stops_up_to(Halt.objects.epoch())
        finally:
            may_commit.set()
        for end in ends:
            end.result(30)

    assert stops_up_to(epoch) == seen
    assert stops_up_to(Halt.objects.epoch()) == ["written first", "written second"]


@pytest.mark.postgresql
def test_two_who_stop_everything_at_once_make_one_stop(transactional_db: None) -> None:
    together = threading.Barrier(2)

    @tenancy.owner_scope()
    def stop_all(_: int) -> int:
        together.wait(10)
        try:
            return lifecycle.kill_all(by=SYSTEM, reason="at once").pk
        finally:
            connections.close_all()

    for _ in range(10):
        with ThreadPoolExecutor(2) as pool:
            assert len(set(pool.map(stop_all, range(2)))) == 1
        Halt.objects.update(ended_at=timezone.now())


def stops_up_to(epoch: int) -> list[str]:
    return list(Halt.objects.filter(pk__lte=epoch).order_by("pk").values_list("reason", flat=True))


def somebody_waits_for_a_turn() -> bool:
    """Whether PostgreSQL has somebody waiting for an advisory lock in this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return bool(cursor.fetchone()[0])


def test_a_process_that_ended_without_a_word_is_forgotten_after_an_hour() -> None:
    Sender.report("host:1:gone", 0)
    Sender.objects.update(seen_at=timezone.now() - dt.timedelta(hours=2))

    watch.forget_old()

    assert not Sender.objects.exists()


def test_a_yes_from_before_a_stop_is_not_kept(connected_partner: Connect) -> None:
    """The answer of the rows was on its way when this process learnt of the stop."""
    connected_partner()
    token = RefreshToken.objects.select_related("partner").get()
    broker.forget()

    def learns(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        answer = execute(sql, params, many, context)
        gate.forget()
        return answer

    with connection.execute_wrapper(learns):
        gate.check(token)
    Partner.objects.update(killed_at=timezone.now())

    with pytest.raises(gate.Stopped):
        gate.check(token)


# --- The end of access ----------------------------------------------------------------------------------------------
def test_revoked_access_is_over_and_a_new_consent_opens_it_again(
    connected_partner: Connect, world: World, client: Any
) -> None:
    partner = connected_partner()

    assert command("revoke", CONTOSO, "--reason", "their wish")["state"] == "withdrawn"
    assert command("revoke", CONTOSO, "--reason", "again")["state"] == "withdrawn"
    sweeping.close_stopped()

    assert (enabled(world), sync(partner), state(partner)) == (0, "refused", "withdrawn")
    assert AuditEvent.objects.filter(action="partner.withdrawn").count() == 1
    _, url = invitations.invite(partner=partner, by=SYSTEM)
    assert Person(client, world).connect(url, SERVICE).status_code == 200
    assert (state(partner), sync(partner), enabled(world)) == ("active", "done", 1)
    with later(seconds=LEASE.total_seconds() + 1):
        sweeping.close_stopped()
        sweeping.sweep()
    assert enabled(world) == 1, "the new generation is nobody's to disable"


# --- Commands -------------------------------------------------------------------------------------------------------
def test_the_command_prints_the_proof(connected_partner: Connect) -> None:
    connected_partner()
    lifecycle.kill(partner=Partner.objects.get(), by=SYSTEM, reason="a test")
    a_worker()

    document = command("kill", CONTOSO, "--reason", "a test")

    assert set(document) == {"stopped", "calls_stopped_s", "secrets_disabled_s", "silent_workers"}
    assert document["stopped"] == [CONTOSO]
    assert document["calls_stopped_s"] < 1
    assert document["secrets_disabled_s"] < 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kill", ["--reason", "x"]),
        ("kill", [CONTOSO, "--all", "--reason", "x"]),
        ("kill", [CONTOSO, "--reason", "  "]),
        ("kill", ["not-a-tenant", "--reason", "x"]),
        ("unkill", ["--reason", "x"]),
        ("unkill", ["--all", "--reason", "x"]),
        ("unkill", [CONTOSO, "--reason", ""]),
        ("revoke", [CONTOSO, "--reason", " "]),
        ("revoke", [FABRIKAM, "--reason", "x"]),
    ],
)
def test_wrong_use_changes_nothing(connected_partner: Connect, name: str, words: list[str]) -> None:
    partner = connected_partner()

    with pytest.raises(CommandError) as ended:
        call_command(name, *words)

    assert ended.value.returncode == 2
    assert state(partner) == "active"
    assert not Halt.objects.exists()
