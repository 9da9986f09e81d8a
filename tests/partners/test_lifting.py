"""A stop of everything is lifted by two different people of security, each with their own second factor."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connections
from django.utils import timezone

from partners import lifecycle, lifting, second_factor
from partners.models import LiftRequest, Partner, User
from partners.standing import current_token, standing
from tests.desk import code_of, later, somebody, typed
from tokens import tasks
from tokens.actors import SYSTEM
from tokens.models import AuditEvent, Halt, SecretVersion
from tokens.tenancy import owner_scope

pytestmark = pytest.mark.django_db(transaction=True)


def command(*words: str, code: str) -> dict[str, Any]:
    out = io.StringIO()
    with typed(code):
        call_command("unkill", "--all", *words, "--json", stdout=out, stderr=io.StringIO())
    document: dict[str, Any] = json.loads(out.getvalue())
    return document


def ask(name: str, reason: str = "all is well") -> dict[str, Any]:
    return command("request", "--reason", reason, "--as", name, code=code_of(name))


def agree(name: str) -> dict[str, Any]:
    return command("approve", "--as", name, code=code_of(name))


@pytest.fixture
def stopped(db) -> Halt:
    """Everything is stopped, and there are two of security and one of support."""
    for role, name in (("security", "sam"), ("security", "kim"), ("support", "pat")):
        somebody(role, name)
    return lifecycle.kill_all(by=SYSTEM, reason="a thief")


def is_lifted() -> bool:
    return not Halt.objects.in_force().exists()


def test_two_different_people_lift_it(stopped):
    asked = ask("sam")
    assert not is_lifted()
    lifted = agree("kim")

    assert is_lifted()
    assert asked | {"until": ""} == {"state": "asked", "asked_by": "sam", "approved_by": None, "until": ""}
    assert lifted | {"until": ""} == {"state": "lifted", "asked_by": "sam", "approved_by": "kim", "until": ""}
    assert Halt.objects.get().ended_by == "sam and kim"
    lines = AuditEvent.objects.filter(action__startswith="everything.").order_by("pk")
    assert [(line.action, line.actor_label) for line in lines] == [
        ("everything.killed", "CPV Panel"), ("everything.lift_asked", "sam"), ("everything.unkilled", "kim"),
    ]  # fmt: skip
    assert lines.last().detail == {"asked_by": "sam", "reason": "all is well"}


def test_nobody_agrees_to_their_own_asking(stopped):
    ask("sam")

    with later(seconds=70), pytest.raises(CommandError, match="somebody else must agree") as refused:
        agree("sam")

    assert refused.value.returncode == 1
    assert not is_lifted()


def test_not_even_the_database_takes_one_person_for_two(stopped):
    sam = User.objects.get(username="sam")

    with pytest.raises(IntegrityError):
        LiftRequest.objects.create(halt=stopped, asked_by=sam, approved_by=sam, reason="x")


def test_both_may_ask_and_each_agrees_to_the_others(stopped):
    ask("sam", "first")
    ask("kim", "second")

    with later(seconds=70):
        assert agree("sam")["asked_by"] == "kim"


@pytest.mark.parametrize("code", ["000000", "", "aaaa-bbbb-cccc-dddd"])
def test_without_the_persons_own_code_nothing_happens(stopped, code):
    sam = User.objects.get(username="sam")
    with pytest.raises(lifting.Refused, match="no code of sam"):
        lifting.request(by=sam, code=code, reason="x")
    ask("kim")
    with pytest.raises(lifting.Refused, match="no code of sam"):
        lifting.approve(by=sam, code=code_of("kim"))

    assert not is_lifted()
    assert LiftRequest.objects.count() == 1


def test_a_code_serves_for_one_step_only(stopped):
    code = code_of("sam")
    command("request", "--reason", "x", "--as", "sam", code=code)

    with pytest.raises(CommandError, match="no code of sam"):
        command("request", "--reason", "x", "--as", "sam", code=code)


def test_a_recovery_code_proves_a_person_too(stopped):
    [code, *_] = second_factor.new_recovery_codes(User.objects.get(username="sam"))

    assert command("request", "--reason", "x", "--as", "sam", code=code)["state"] == "asked"


def test_what_was_asked_is_over_after_an_hour(stopped):
    ask("sam")

    with later(minutes=61), pytest.raises(CommandError, match="Nobody has asked for it within the last hour"):
        agree("kim")

    assert not is_lifted()


@pytest.mark.parametrize("change", [{"staff_role": "support"}, {"is_active": False}])
def test_who_asked_must_be_of_security_still(stopped, change):
    ask("sam")
    User.objects.filter(username="sam").update(**change)

    with pytest.raises(CommandError, match="Nobody has asked"):
        agree("kim")


def test_other_roles_can_do_neither(stopped):
    with pytest.raises(CommandError, match="role security"):
        ask("pat")
    ask("sam")
    with pytest.raises(CommandError, match="role security"):
        agree("pat")

    assert not is_lifted()


def test_where_nothing_is_stopped_there_is_nothing_to_lift(stopped):
    ask("sam")
    agree("kim")

    with later(seconds=70):
        for step in (ask, agree):
            with pytest.raises(CommandError, match="Nothing is stopped"):
                step("kim")


def test_an_old_yes_does_not_count_for_the_next_stop(stopped):
    ask("sam")
    Halt.objects.get().end(by="somebody")
    lifecycle.kill_all(by=SYSTEM, reason="another thief")

    with pytest.raises(CommandError, match="Nobody has asked"):
        agree("kim")


def test_a_second_stop_is_written_down_and_voids_what_was_asked_before_it(stopped):
    ask("sam", "the thief is out")

    assert lifecycle.kill_all(by=SYSTEM, reason="ANOTHER thief") == stopped

    line = AuditEvent.objects.filter(action="everything.killed").latest("pk")
    assert line.detail == {"reason": "ANOTHER thief", "again": True, "voided": 1}
    with pytest.raises(CommandError, match="stopped anew since somebody asked"):
        agree("kim")
    assert not is_lifted()
    with later(seconds=70):
        ask("sam", "both are out")
        agree("kim")
    assert is_lifted()


def test_a_yes_to_what_became_void_while_it_was_read_lifts_nothing(stopped):
    ask("sam")
    asked = LiftRequest.objects.get()
    lifecycle.kill_all(by=SYSTEM, reason="another thief")

    assert not asked.mark_approved(User.objects.get(username="kim"))


def test_what_was_disabled_stays_disabled_and_partners_connect_anew(stopped_with_a_partner):
    partner = stopped_with_a_partner
    ask("sam")
    agree("kim")
    tasks.close_stopped()

    assert not SecretVersion.objects.filter(disabled_at=None).exists()
    fresh = Partner.objects.get(pk=partner.pk)
    assert standing(fresh, current_token(fresh)).state == "needs_consent"


def test_a_partner_that_was_stopped_by_itself_stays_stopped(stopped_with_a_partner):
    lifecycle.kill(partner=stopped_with_a_partner, by=SYSTEM, reason="its own thief")
    ask("sam")
    agree("kim")

    assert Partner.objects.get().killed_at
    assert Halt.objects.get(ended_at=None).partner == stopped_with_a_partner


@pytest.fixture
def stopped_with_a_partner(connected_partner: Callable[..., Partner], stopped_later: Callable[[], Halt]) -> Partner:
    partner = connected_partner()
    stopped_later()
    return partner


@pytest.fixture
def stopped_later(db) -> Callable[[], Halt]:
    def stop() -> Halt:
        for name in ("sam", "kim"):
            somebody("security", name)
        return lifecycle.kill_all(by=SYSTEM, reason="a thief")

    return stop


@pytest.mark.parametrize(
    "words",
    [
        ("--all",),
        ("--all", "request", "--reason", "x"),
        ("--all", "request", "--as", "sam"),
        ("--all", "approve"),
        ("--all", "lift", "--as", "sam"),
        ("--all", "approve", "--as", "nobody"),
        ("--all", "approve", "--as", "sam"),
        ("request", "--as", "sam"),
        ("approve",),
        (),
    ],
    ids=" ".join,
)
def test_wrong_use_says_how(stopped, words):
    with typed(""), pytest.raises(CommandError) as wrong:
        call_command("unkill", *words, stdout=io.StringIO(), stderr=io.StringIO())

    assert wrong.value.returncode == 2
    assert str(wrong.value)


def test_no_code_is_taken_from_the_command_line_where_other_people_of_the_machine_read_it(stopped):
    with typed(code_of("sam")), pytest.raises(CommandError, match="unrecognized arguments: --code"):
        call_command("unkill", "--all", "request", "--reason", "x", "--as", "sam", "--code", code_of("sam"))

    assert not LiftRequest.objects.exists()


def test_people_read_what_comes_next(stopped, capsys):
    with typed(code_of("sam")):
        call_command("unkill", "--all", "request", "--reason", "x", "--as", "sam")
    with typed(code_of("kim")):
        call_command("unkill", "--all", "approve", "--as", "kim")

    said = capsys.readouterr().out
    assert "must approve until" in said
    assert "is lifted" in said


def test_at_a_terminal_the_code_is_asked_for(stopped, monkeypatch, capsys):
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or code_of("sam"))

    call_command("unkill", "--all", "request", "--reason", "x", "--as", "sam")

    assert asked == ["Code of sam: "]
    assert "must approve until" in capsys.readouterr().out


# --- At once --------------------------------------------------------------------------------------------------------
def together(*steps: Callable[[], Any]) -> list[str]:
    """Run these at the same moment; how each ended."""
    start, ended = threading.Barrier(len(steps)), []

    @owner_scope()
    def run(step: Callable[[], Any]) -> None:
        start.wait()
        try:
            step()
            ended.append("done")
        except lifting.Refused as why:
            ended.append(str(why))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[step]) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ended)


@pytest.mark.postgresql
def test_of_two_who_agree_at_once_one_lifts(stopped):
    somebody("security", "lee")
    ask("sam")
    people = {name: (User.objects.get(username=name), code_of(name)) for name in ("kim", "lee")}

    ended = together(*(lambda pair=pair: lifting.approve(by=pair[0], code=pair[1]) for pair in people.values()))

    assert ended == sorted(["done", "Nothing is stopped for everybody."])
    assert AuditEvent.objects.filter(action="everything.unkilled").count() == 1


@pytest.mark.postgresql
def test_a_stop_that_comes_while_one_is_lifted_is_not_lost(stopped):
    ask("sam")
    kim, code = User.objects.get(username="kim"), code_of("kim")

    together(lambda: lifting.approve(by=kim, code=code), lambda: lifecycle.kill_all(by=SYSTEM, reason="another thief"))

    newest = Halt.objects.latest("pk")
    assert newest.pk == stopped.pk or newest.ended_at is None, "the second stop holds, unless it came first"


def test_whoever_comes_second_with_the_same_request_in_hand_gets_nothing(stopped):
    ask("sam")
    asked = LiftRequest.objects.get()
    kim, sam = User.objects.get(username="kim"), User.objects.get(username="sam")

    assert not asked.mark_approved(sam)
    assert asked.mark_approved(kim)
    assert not LiftRequest.objects.get().mark_approved(kim)
    LiftRequest.objects.update(
        approved_at=None, approved_by=None, asked_at=timezone.now() - timezone.timedelta(hours=2)
    )
    assert not LiftRequest.objects.get().mark_approved(kim)
