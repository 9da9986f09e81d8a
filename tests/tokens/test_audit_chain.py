"""The audit is sealed line by line; whatever is changed afterwards shows, and PostgreSQL itself refuses to."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from cpvpanel import logs
from partners import alarm_mails
from partners.models import Partner
from tests.conftest import CONTOSO, FABRIKAM
from tokens import audit, audit_chain, audit_witness, tasks
from tokens.actors import SYSTEM, Actor, ActorKind
from tokens.models import Alarm, AuditAnchor, AuditEvent, AuditLink, AuditWitness
from tokens.tenancy import partner_scope

pytestmark = pytest.mark.django_db(transaction=True)
TAMPERINGS = 1_000


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
def let_me() -> None:
    """A thief who owns the database: until the transaction ends its own walls are down."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")


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


def relink() -> None:
    """Makes every link anew."""
    heads = audit_chain._Heads()
    heads._heads = dict.fromkeys([None, *Partner.objects.values_list("pk", flat=True)], (0, audit_chain.BEGINNING))
    for link in AuditLink.objects.select_related("event__partner").order_by("pk"):
        AuditLink.objects.filter(pk=link.pk).update(hash=heads.link(link.event).hash)


def rebuild(dice: random.Random) -> None:
    """Edits a line and makes every link, and perhaps every anchor, anew: all but the key is there."""
    edit(dice)
    relink()
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


def begin_anew(dice: random.Random) -> None:
    """Edits a line, makes every link anew, and takes all anchors away: the next seal would cover what is there."""
    edit(dice)
    relink()
    AuditAnchor.objects.all()._raw_delete("default")
    spoil_the_witness(dice)


def wipe(dice: random.Random) -> None:
    """Takes everything."""
    AuditLink.objects.all()._raw_delete("default")
    AuditEvent.objects.all()._raw_delete("default")
    AuditAnchor.objects.all()._raw_delete("default")


def cut(dice: random.Random) -> None:
    """Takes everything after one anchor, so that what stays fits."""
    last = dice.choice(list(AuditAnchor.objects.order_by("pk")[:2]))
    gone = AuditLink.objects.filter(pk__gt=last.last_link)
    lines = list(gone.values_list("event", flat=True))
    gone._raw_delete("default")
    AuditEvent.objects.filter(pk__in=lines)._raw_delete("default")
    AuditAnchor.objects.filter(pk__gt=last.pk)._raw_delete("default")
    spoil_the_witness(dice)
    if AuditWitness.objects.exists() and dice.random() < 0.5:  # as it says of that anchor, but for the key
        AuditWitness.objects.update(number=last.number, mac=last.mac)


def spoil_the_witness(dice: random.Random) -> None:
    if dice.random() < 0.3:
        AuditWitness.objects.all()._raw_delete("default")


WAYS: list[Callable[[random.Random], None]] = [
    edit, move, delete, delete_and_close_up, swap, truncate, rebuild, put_in, anchor, begin_anew, wipe, cut,
]  # fmt: skip


@pytest.fixture
def remembers_nothing() -> None:
    """The processes that sealed before are gone."""
    audit_witness.forget()


@pytest.mark.usefixtures("remembers_nothing")
def test_a_thousand_tamperings_after_an_anchor_are_all_found_before_and_after_the_next_one(sealed, record_property):
    """By the rows alone: no log is asked, and no process remembers."""
    dice, found = random.Random("tampering"), Counter[str]()  # noqa: S311 - a draw, no secret
    with transaction.atomic():
        let_me()
        for number in range(TAMPERINGS):
            way = WAYS[number % len(WAYS)]
            with transaction.atomic():
                way(dice)
                said = f"{way.__name__}, number {number}, was not found"
                assert audit_chain.verify().first_broken, said
                audit_chain.seal()
                assert audit_chain.verify().first_broken, f"{said} once it was sealed over"
                if dice.random() < 0.1:
                    audit_chain.seal()
                    assert audit_chain.verify().first_broken, f"{said} once it was sealed over twice"
                found[way.__name__] += 1
                transaction.set_rollback(True)
        transaction.set_rollback(True)

    assert sum(found.values()) == TAMPERINGS
    assert audit_chain.verify(logged=sealed).intact, "and nothing of it stayed"
    record_property(
        "figure",
        f"audit: {TAMPERINGS:,} tamperings after an anchor in {len(found)} ways: all found, sealed over or not",
    )


@pytest.mark.parametrize("way", [begin_anew, cut, wipe])
def test_what_the_sealer_finds_changed_is_an_alarm_and_what_is_new_is_sealed_all_the_same(
    sealed, partners, way, remembers_nothing, caplog
):
    with transaction.atomic():
        let_me()
        way(random.Random("one"))  # noqa: S311 - a draw, no secret
        audit.record("sync.asked", actor=SYSTEM, partner=partners[0])
        with caplog.at_level(logging.CRITICAL):
            audit_chain.seal()
        assert AuditEvent.objects.latest("pk").link
        alarm = Alarm.objects.get(kind=Alarm.Kind.AUDIT, closed_at=None, mailed_at=None)
        audit_chain.seal()
        alarm.refresh_from_db()
        transaction.set_rollback(True)

    assert "the audit is not as it was sealed" in caplog.messages
    assert alarm.times == 1, "what was found once is no news a minute later"


def test_an_audit_that_is_as_it_was_sealed_raises_no_alarm(sealed):
    audit_chain.seal()

    assert not Alarm.objects.exists()
    assert list(AuditAnchor.objects.order_by("pk").values_list("number", flat=True)) == [1, 2, 3, 4]


def take_everything() -> None:
    """The thief thinks of the row that says what was sealed last as well."""
    wipe(random.Random())  # noqa: S311 - nothing is drawn
    AuditWitness.objects.all()._raw_delete("default")


def test_where_everything_was_taken_whoever_sealed_before_remembers(sealed):
    with transaction.atomic():
        let_me()
        take_everything()
    audit_chain.seal()

    assert Alarm.objects.get().code == "anchor 3, which this process made, is not here"
    assert audit_chain.verify().first_broken


def test_where_everything_was_taken_and_nobody_remembers_only_the_log_tells(sealed, remembers_nothing):
    with transaction.atomic():
        let_me()
        take_everything()
    audit_chain.seal()

    assert audit_chain.verify().intact, "the rows alone cannot tell"
    broken = audit_chain.verify(logged=sealed).first_broken
    assert broken == audit_chain.Broken("an anchor that the log has is not here")


def test_a_copy_of_everything_put_back_is_told_by_memory_and_log_alone(sealed, partners):
    tables = [AuditWitness, AuditAnchor, AuditLink, AuditEvent]
    copy = [(model, list(model.objects.values())) for model in tables]
    audit.record("partner.killed", actor=SYSTEM, partner=partners[0])
    sealed.append(audit_chain.seal().mac)
    with transaction.atomic():
        let_me()
        take_everything()
        for model, rows in reversed(copy):
            model.objects.bulk_create(model(**row) for row in rows)

    assert audit_chain.verify().intact, "the rows alone cannot tell"
    assert not audit_chain.verify(logged=sealed).intact
    audit_chain.seal()
    assert Alarm.objects.get().code == "anchor 4, which this process made, is not here"
    assert not audit_chain.verify().intact


def test_anchors_made_before_they_had_numbers_still_hold(sealed, partners, remembers_nothing):
    with transaction.atomic():
        let_me()
        AuditWitness.objects.all()._raw_delete("default")
        for one in AuditAnchor.objects.all():
            one.number, one.before = None, ""
            AuditAnchor.objects.filter(pk=one.pk).update(number=None, before="", mac=audit_chain._mac(one))
    assert intact()

    audit_chain.seal()

    assert intact()
    assert not Alarm.objects.exists()
    with transaction.atomic():
        let_me()
        AuditAnchor.objects.filter(number=None).order_by("-pk")[:1].get().delete()
        assert not intact()
        transaction.set_rollback(True)


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


def test_lines_without_any_anchor_are_not_intact_once_somebody_should_have_sealed_them(partners):
    audit.record("consent.given", actor=SYSTEM, partner=partners[0])
    assert intact(), "an installation of a minute"

    with time_machine.travel(timezone.now() + audit_chain.ANCHORED_WITHIN + dt.timedelta(seconds=1)):
        broken = audit_chain.verify().first_broken

    assert broken
    assert broken.what.startswith("there is no anchor")


def test_links_behind_the_newest_anchor_are_told(sealed, partners):
    line = audit.record("sync.asked", actor=SYSTEM, partner=partners[0])
    AuditLink.objects.create(event=line, partner=partners[0], number=9, hash="0" * 64)

    assert audit_chain.verify().first_broken == audit_chain.Broken("there are links that no anchor covers")


@pytest.mark.postgresql
@pytest.mark.parametrize("model", [AuditEvent, AuditLink, AuditAnchor, AuditWitness])
@pytest.mark.parametrize("how", ["update", "delete", "truncate"])
def test_the_database_itself_refuses_to_change_or_delete_a_line(sealed, model, how):
    words = {"update": "UPDATE {} SET id = id", "delete": "DELETE FROM {}", "truncate": "TRUNCATE {} CASCADE"}[how]

    with connection.cursor() as cursor, pytest.raises(DatabaseError, match=f"{how.upper()} .* refused"):
        cursor.execute(words.format(model._meta.db_table))

    assert intact()


@pytest.mark.postgresql
def test_the_database_does_not_set_back_what_was_sealed_last(sealed):
    with pytest.raises(DatabaseError, match="goes on and never back"), transaction.atomic():
        AuditWitness.objects.update(number=2)


@pytest.mark.postgresql
@pytest.mark.parametrize("years", [-3, 3])
def test_the_database_says_when_a_line_was_written_whatever_its_writer_says(sealed, partners, years):
    """Or a line of long ago would never be sealed and never be taken out."""
    began = timezone.now()
    with partner_scope(partners[0]):
        line = AuditEvent.objects.create(
            partner=partners[0], at=began + dt.timedelta(days=365 * years), actor_kind="system", action="sync.asked"
        )
    line.refresh_from_db()
    audit_chain.seal()

    assert began - dt.timedelta(seconds=5) < line.at < timezone.now() + dt.timedelta(seconds=5)
    assert line.link
    assert intact()


# --- The command ------------------------------------------------------------------------------------------------------
def verifyaudit(*words: str) -> tuple[int, dict[str, Any]]:
    out, code = io.StringIO(), 0
    try:
        call_command("verifyaudit", *words, "--json", stdout=out)
    except SystemExit as ended:
        code = int(str(ended.code))
    return code, json.loads(out.getvalue())


def a_log(*, debug: bool, tmp_path: Path) -> Path:
    """What a worker writes when it seals, among other lines and behind what a collector puts before them."""
    written, path = io.StringIO(), tmp_path / "worker.log"
    keeper = logging.StreamHandler(written)
    maker = logs.line_format(debug=debug)
    keeper.setFormatter(maker.pop("()")(**maker))
    logger = logging.getLogger("tokens.audit_chain")
    logger.addHandler(keeper)
    try:
        logger.warning("no audit anchor at all")
        audit_chain.seal()
        audit_chain.seal()
    finally:
        logger.removeHandler(keeper)
    path.write_text("".join(f"worker-1  | {line}\n" for line in written.getvalue().splitlines()))
    return path


@pytest.mark.parametrize("debug", [True, False])
def test_the_command_takes_the_log_as_workers_write_it(sealed, tmp_path, debug, monkeypatch):
    log = a_log(debug=debug, tmp_path=tmp_path)

    code, said = verifyaudit("--log", str(log))
    assert (code, said["logged"], said["intact"]) == (0, 2, True)

    with transaction.atomic():
        let_me()
        AuditAnchor.objects.filter(number=5).delete()
    monkeypatch.setattr("sys.stdin", io.StringIO(log.read_text()))
    code, said = verifyaudit("--log", "-")
    assert (code, said["logged"], said["intact"]) == (1, 2, False)


def test_the_command_says_intact_or_what_broke_first(sealed, tmp_path, capsys):
    log = tmp_path / "macs"
    log.write_text("\n".join(sealed))

    code, said = verifyaudit("--log", str(log))
    assert (code, said["entries"], said["intact"], said["first_broken"]) == (0, 24, True, None)
    call_command("verifyaudit", "--log", str(log))
    told = capsys.readouterr().out
    assert "Intact: 24 lines under 3 anchors" in told
    assert "Compared with 3 anchors of the log." in told
    call_command("verifyaudit")
    assert "Compared" not in capsys.readouterr().out

    log.write_text("0" * 64)
    code, said = verifyaudit("--log", str(log))
    assert (code, said["intact"]) == (1, False)
    assert said["first_broken"]["what"] == "an anchor that the log has is not here"


def test_who_looked_into_it_closes_the_alarm_with_a_reason(sealed, settings, mailoutbox):
    settings.CPV_ALARM_MAIL = ["security@vendor.test"]
    with transaction.atomic():
        let_me()
        AuditAnchor.objects.filter(number=3).delete()
    audit_chain.seal()
    assert alarm_mails.tell() == 1
    [mail] = mailoutbox
    assert mail.subject == "ALARM at CPV Panel: the audit is not as it was sealed"
    assert "verifyaudit --log FILE" in mail.body

    with pytest.raises(CommandError, match="--reason is empty"):
        call_command("verifyaudit", "--looked-into")
    call_command("verifyaudit", "--looked-into", "--reason", "a backup was put back")

    assert Alarm.objects.get().closed_at
    line = AuditEvent.objects.latest("pk")
    assert (line.action, line.detail) == ("audit.looked_into", {"reason": "a backup was put back"})
    assert verifyaudit()[0] == 1, "what is missing stays missing"
    with pytest.raises(CommandError, match="no such alarm"):
        call_command("verifyaudit", "--looked-into", "--reason", "again")


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


@pytest.mark.parametrize("held", [b"no anchor", b"\xff\xfe", b""])
def test_a_log_without_any_anchor_is_wrong_use(sealed, tmp_path, held):
    log = tmp_path / "macs"
    log.write_bytes(held)

    for path in (log, tmp_path / "nowhere"):
        with pytest.raises(CommandError) as ended:
            call_command("verifyaudit", "--log", str(path))
        assert ended.value.returncode == 2
