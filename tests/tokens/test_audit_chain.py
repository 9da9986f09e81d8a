"""The audit is sealed line by line; whatever is changed afterwards shows, and PostgreSQL itself refuses to."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners.models import Partner
from tests.conftest import CONTOSO, FABRIKAM
from tokens import audit, audit_chain, tasks
from tokens.actors import SYSTEM, Actor, ActorKind
from tokens.models import AuditAnchor, AuditEvent, AuditLink

pytestmark = pytest.mark.django_db(transaction=True)
TAMPERINGS = 1_000
TABLES = ("tokens_auditevent", "tokens_auditlink", "tokens_auditanchor")


@pytest.fixture
def partners(db: Any) -> list[Partner | None]:
    rows = [(CONTOSO, "Contoso"), (FABRIKAM, "Fabrikam")]
    made = [Partner.objects.create(cloud="global", tenant_id=tenant, name=name) for tenant, name in rows]
    return [*made, None]


@pytest.fixture
def sealed(partners: list[Partner | None]) -> list[str]:
    """Three chains under three anchors; the anchors' MACs, as the log has them."""
    macs = []
    for number in range(24):
        who = Actor(ActorKind.MEMBER, id=str(number), label=f"person {number}")
        audit.record("consent.given", actor=who, partner=partners[number % 3], object=f"rt-{number}", mfa={"n": number})
        if number % 8 == 7:
            macs.append(audit_chain.seal().mac)
    return macs


def intact() -> bool:
    return audit_chain.verify().intact


# --- Sealing ----------------------------------------------------------------------------------------------------------
def test_each_partners_lines_are_numbered_and_linked_in_a_chain_of_their_own(sealed, partners):
    for partner in partners:
        links = AuditLink.objects.filter(partner=partner).order_by("number")
        assert [link.number for link in links] == list(range(1, 9))
        assert [link.event.partner for link in links] == [partner] * 8
    assert len(set(AuditLink.objects.values_list("hash", flat=True))) == 24
    assert intact()
    assert str(AuditLink.objects.filter(partner=None).order_by("number")[0]) == "link 1 of the vendor"


def test_a_chain_goes_on_where_the_last_seal_ended(sealed, partners):
    audit.record("sync.asked", actor=SYSTEM, partner=partners[0])
    anchor = audit_chain.seal()

    assert AuditLink.objects.filter(partner=partners[0]).count() == 9
    assert (anchor.entries, str(anchor)[:15]) == (25, "25 audit lines ")
    assert intact()


def test_an_anchor_is_made_and_logged_each_minute_though_nothing_was_decided(sealed, caplog):
    with caplog.at_level(logging.INFO, logger="tokens.audit_chain"):
        tasks.seal_audit()

    anchor = AuditAnchor.objects.order_by("-pk")[0]
    [said] = [record for record in caplog.records if record.message == "audit anchor"]
    assert (said.entries, said.mac, said.head) == (24, anchor.mac, anchor.head)
    assert intact()


def test_what_came_after_the_anchor_waits_for_the_next_and_is_no_fault(sealed, partners):
    audit.record("sync.asked", actor=SYSTEM, partner=partners[0])

    assert audit_chain.verify().entries == 24
    assert intact()


def test_a_line_that_another_transaction_finished_later_is_linked_later(partners):
    """Its number is lower than one that is sealed already."""
    late = audit.record("sync.asked", actor=SYSTEM, partner=partners[0])
    audit_chain.seal()
    early = AuditEvent.objects.create(pk=late.pk - 1, actor_kind="system", action="sync.asked", partner=partners[0])

    audit_chain.seal()

    assert list(AuditLink.objects.order_by("number").values_list("event", flat=True)) == [late.pk, early.pk]
    assert intact()


def test_more_lines_than_one_statement_takes_are_all_linked(partners, sealed):
    AuditEvent.objects.bulk_create(
        AuditEvent(actor_kind="system", action="sync.asked", partner=partners[0])
        for _ in range(audit_chain.AT_ONCE + 1)
    )

    assert audit_chain.seal().entries == 24 + audit_chain.AT_ONCE + 1
    assert not AuditEvent.objects.filter(link=None).exists()
    assert intact()


def test_sealing_costs_the_same_however_long_the_audit_is(sealed, partners):
    def queries() -> int:
        audit.record("sync.asked", actor=SYSTEM, partner=partners[0])
        with CaptureQueriesContext(
            connection,
        ) as caught:
            audit_chain.seal()
        return len(caught)

    few = queries()
    AuditEvent.objects.bulk_create(
        AuditEvent(actor_kind="system", action="sync.asked", partner=partners[1]) for _ in range(500)
    )
    audit_chain.seal()

    assert queries() == few


def test_verifying_asks_no_more_often_the_more_anchors_there_are(sealed):
    def queries() -> int:
        with CaptureQueriesContext(connection) as caught:
            assert intact()
        return len(caught)

    few = queries()
    for _minute in range(100):
        audit_chain.seal()

    assert queries() == few


def test_what_is_sealed_while_the_audit_is_walked_is_no_fault(sealed, partners):
    def meanwhile():
        audit.record("more", actor=SYSTEM, partner=partners[0])
        audit_chain.seal()
        yield from ()

    assert audit_chain.verify(logged=meanwhile()).intact


def test_nothing_at_all_is_intact(db):
    assert audit_chain.verify() == audit_chain.Verdict(0, 0, None, None)


# --- Tampering --------------------------------------------------------------------------------------------------------
def let_me(tables: tuple[str, ...] = TABLES) -> None:
    """A thief who owns the database: its own walls are down."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
            for table in tables:
                cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only")


def edit(dice: random.Random) -> None:
    line = dice.choice(list(AuditEvent.objects.all()))
    name = dice.choice(["actor_kind", "actor_id", "actor_label", "action", "object", "detail", "request_id", "at"])
    values: dict[str, Any] = {"detail": {"n": -1}, "at": line.at + dt.timedelta(microseconds=1)}
    AuditEvent.objects.filter(pk=line.pk).update(**{name: values.get(name, "forged")})


def move(dice: random.Random) -> None:
    line = dice.choice(list(AuditEvent.objects.filter(partner__isnull=False)))
    other = Partner.objects.exclude(pk=line.partner_id).order_by("pk")[0]
    AuditEvent.objects.filter(pk=line.pk).update(partner=other)
    if dice.random() < 0.5:
        AuditLink.objects.filter(event=line).update(partner=other, number=99)


def delete(dice: random.Random) -> None:
    line = dice.choice(list(AuditEvent.objects.all()))
    if dice.random() < 0.5:  # or the link stays behind
        AuditLink.objects.filter(event=line.pk)._raw_delete("default")
    AuditEvent.objects.filter(pk=line.pk)._raw_delete("default")


def delete_and_close_up(dice: random.Random) -> None:
    """Takes a line out and numbers the ones behind it anew."""
    gone = dice.choice(list(AuditLink.objects.all()))
    later = list(AuditLink.objects.filter(partner=gone.partner_id, number__gt=gone.number).order_by("number"))
    AuditLink.objects.filter(pk=gone.pk)._raw_delete("default")
    AuditEvent.objects.filter(pk=gone.event_id)._raw_delete("default")
    for link in later:
        AuditLink.objects.filter(pk=link.pk).update(number=link.number - 1)


def swap(dice: random.Random) -> None:
    one, other = dice.sample(list(AuditEvent.objects.values()), 2)
    if dice.random() < 0.3:
        hashes = dict(AuditLink.objects.values_list("event", "hash"))
        AuditLink.objects.filter(event=one["id"]).update(hash=hashes[other["id"]])
        AuditLink.objects.filter(event=other["id"]).update(hash=hashes[one["id"]])
        return
    for target, source in ((one, other), (other, one)):
        AuditEvent.objects.filter(pk=target["id"]).update(
            **{name: value for name, value in source.items() if name != "id"}
        )


def truncate(dice: random.Random) -> None:
    """Cuts off the end, with or without the anchors that cover it."""
    keep = dice.randrange(0, 24)
    links = AuditLink.objects.order_by("pk")[keep:]
    first, lines = links[0].pk, [link.event_id for link in links]
    AuditLink.objects.filter(pk__gte=first)._raw_delete("default")
    AuditEvent.objects.filter(pk__in=lines)._raw_delete("default")
    if dice.random() < 0.5:
        AuditAnchor.objects.filter(last_link__gte=first)._raw_delete("default")


def rebuild(dice: random.Random) -> None:
    """Edits a line and makes every link, and perhaps every anchor, anew: all but the key is there."""
    edit(dice)
    heads = audit_chain._Heads()
    heads._heads = dict.fromkeys([None, *Partner.objects.values_list("pk", flat=True)], (0, audit_chain.BEGINNING))
    for link in AuditLink.objects.select_related("event__partner").order_by("pk"):
        AuditLink.objects.filter(pk=link.pk).update(hash=heads.link(link.event).hash)
    if dice.random() < 0.5:
        before, after = audit_chain.BEGINNING, 0
        for anchor in AuditAnchor.objects.order_by("pk"):
            links = AuditLink.objects.filter(pk__gt=after, pk__lte=anchor.last_link).order_by("pk")
            before, after = audit_chain._anchor_head(before, links.values_list("hash", flat=True)), anchor.last_link
            AuditAnchor.objects.filter(pk=anchor.pk).update(head=before)


def put_in(dice: random.Random) -> None:
    """Adds a line of long ago, with or without a link."""
    at = timezone.now() - dt.timedelta(hours=2)
    line = AuditEvent.objects.create(at=at, actor_kind="system", action="partner.killed")
    if dice.random() < 0.5:
        AuditLink.objects.create(event=line, number=9, hash=audit_chain.BEGINNING)


def anchor(dice: random.Random) -> None:
    one = dice.choice(list(AuditAnchor.objects.all()))
    name = dice.choice(["at", "entries", "last_link", "head", "mac"])
    values: dict[str, Any] = {"at": one.at - dt.timedelta(days=1), "entries": 1, "last_link": 1}
    AuditAnchor.objects.filter(pk=one.pk).update(**{name: values.get(name, "f" * 64)})


WAYS: list[Callable[[random.Random], None]] = [
    edit, move, delete, delete_and_close_up, swap, truncate, rebuild, put_in, anchor,
]  # fmt: skip


def test_a_thousand_tamperings_after_an_anchor_are_all_found(sealed, record_property):
    dice, found = random.Random("tampering"), Counter[str]()  # noqa: S311 - a draw, no secret
    with transaction.atomic():
        let_me()
        for number in range(TAMPERINGS):
            way = WAYS[number % len(WAYS)]
            with transaction.atomic():
                way(dice)
                verdict = audit_chain.verify(logged=sealed)
                assert verdict.first_broken, f"{way.__name__}, number {number}, was not found"
                found[way.__name__] += 1
                transaction.set_rollback(True)
        transaction.set_rollback(True)

    assert sum(found.values()) == TAMPERINGS
    assert audit_chain.verify(logged=sealed).intact, "and nothing of it stayed"
    record_property("figure", f"audit: {TAMPERINGS:,} tamperings after an anchor in {len(found)} ways: all found")


def test_where_an_end_was_cut_off_with_its_anchors_the_log_tells(sealed):
    with transaction.atomic():
        let_me()
        newest = AuditAnchor.objects.order_by("-pk")[0]
        cut = list(AuditLink.objects.filter(pk__gt=AuditAnchor.objects.order_by("-pk")[1].last_link))
        AuditLink.objects.filter(pk__in=[link.pk for link in cut])._raw_delete("default")
        AuditEvent.objects.filter(pk__in=[link.event_id for link in cut])._raw_delete("default")
        AuditAnchor.objects.filter(pk=newest.pk)._raw_delete("default")

        assert audit_chain.verify().intact, "the rows alone cannot tell"
        broken = audit_chain.verify(logged=sealed).first_broken
        transaction.set_rollback(True)

    assert broken == audit_chain.Broken("an anchor that the log has is not here")


def test_an_audit_that_nobody_seals_is_told(sealed):
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=6)):
        broken = audit_chain.verify().first_broken

    assert broken
    assert "nobody seals" in broken.what


def test_another_key_makes_no_anchor_of_ours(sealed, settings):
    settings.CPV_AUDIT_KEY = "another key of thirty-two letters"

    broken = audit_chain.verify().first_broken

    assert broken
    assert "not made with our key" in broken.what


def test_lines_without_any_anchor_are_not_intact(partners):
    audit.record("sync.asked", actor=SYSTEM, partner=partners[0])

    broken = audit_chain.verify().first_broken

    assert broken == audit_chain.Broken("there is no anchor, though there are lines or the log has some")


def test_links_behind_the_newest_anchor_are_told(sealed, partners):
    line = audit.record("sync.asked", actor=SYSTEM, partner=partners[0])
    AuditLink.objects.create(event=line, partner=partners[0], number=9, hash="0" * 64)

    assert audit_chain.verify().first_broken == audit_chain.Broken("there are links that no anchor covers")


@pytest.mark.postgresql
@pytest.mark.parametrize("model", [AuditEvent, AuditLink, AuditAnchor])
@pytest.mark.parametrize("how", ["update", "delete"])
def test_the_database_itself_refuses_to_change_or_delete_a_line(sealed, model, how):
    rows = model.objects.filter(pk=model.objects.order_by("pk")[0].pk)

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        rows.update(id=1_000_000) if how == "update" else rows._raw_delete("default")

    assert intact()


# --- The command ------------------------------------------------------------------------------------------------------
def verifyaudit(*words: str) -> tuple[int, dict[str, Any]]:
    out, code = io.StringIO(), 0
    try:
        call_command("verifyaudit", *words, "--json", stdout=out)
    except SystemExit as ended:
        code = int(str(ended.code))
    return code, json.loads(out.getvalue())


def test_the_command_says_intact_or_what_broke_first(sealed, tmp_path, capsys):
    log = tmp_path / "macs"
    log.write_text("\n".join(sealed))

    code, said = verifyaudit("--logged", str(log))
    assert (code, said["entries"], said["intact"], said["first_broken"]) == (0, 24, True, None)
    call_command("verifyaudit")
    assert "Intact: 24 lines under 3 anchors" in capsys.readouterr().out

    log.write_text("0" * 64)
    code, said = verifyaudit("--logged", str(log))
    assert (code, said["intact"]) == (1, False)
    assert said["first_broken"]["what"] == "an anchor that the log has is not here"


def test_the_command_names_the_partner_and_the_line(sealed, partners, capsys):
    line = AuditEvent.objects.filter(partner=partners[0]).order_by("pk")[2]
    with transaction.atomic():
        let_me()
        AuditEvent.objects.filter(pk=line.pk).update(actor_label="somebody else")
        code, said = verifyaudit()
        with pytest.raises(SystemExit):
            call_command("verifyaudit")
        transaction.set_rollback(True)

    assert code == 1
    assert said["first_broken"] == {"what": "a line is not what it was", "partner": CONTOSO, "event": line.pk}
    assert f"NOT INTACT: a line is not what it was, partner {CONTOSO}, line {line.pk}." in capsys.readouterr().out


@pytest.mark.parametrize("held", [b"not a mac", b"\xff\xfe"])
def test_a_file_that_holds_no_macs_is_wrong_use(sealed, tmp_path, held):
    log = tmp_path / "macs"
    log.write_bytes(held)

    for path in (log, tmp_path / "nowhere"):
        with pytest.raises(CommandError) as ended:
            call_command("verifyaudit", "--logged", str(path))
        assert ended.value.returncode == 2
