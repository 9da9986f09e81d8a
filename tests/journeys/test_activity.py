"""What was decided about a partner: its owners and auditors read it, filter it and take it along; nobody else does."""

from __future__ import annotations

import ast
import csv
import datetime as dt
import io
import json
from pathlib import Path

import pytest

from partners import activity
from partners.models import Member, Partner
from tests.conftest import FABRIKAM, SERVICE
from tests.history import history_open
from tests.pretend import text_of
from tokens import audit, audit_chain
from tokens.actors import SYSTEM, Actor, ActorKind
from tokens.models import AuditEvent, AuditLink

pytestmark = pytest.mark.django_db(transaction=True)
PAGE, EXPORT = "/activity/", "/activity/export"
ROOT = Path(__file__).parents[2]


def written(number: int, *, action: str = "sync.asked", **fields: object) -> None:
    partner = Partner.objects.get(name="Contoso")
    with history_open():  # or the database would say when it was
        AuditEvent.objects.bulk_create(
            AuditEvent(partner=partner, actor_kind="member", actor_label=f"person {n}", action=action, **fields)
            for n in range(number)
        )


def taken_along(member, kind: str, **fields: str) -> str:
    answer = member.portal.post(EXPORT, {"format": kind, **fields})
    assert answer.status_code == 200
    return b"".join(answer.streaming_content).decode()


def test_an_owner_sees_what_was_decided_in_words(member):
    words = text_of(member.portal.get(PAGE))

    assert "Consent given" in words
    assert SERVICE in words
    assert "role: admin_agent" in words
    assert "Invitation made" in words


@pytest.mark.parametrize(("role", "status"), [("owner", 200), ("auditor", 200), ("operator", 404), ("reader", 404)])
def test_owners_and_auditors_read_it_and_others_do_not_even_see_the_way(member, role, status):
    Member.objects.update(role=role)

    assert member.portal.get(PAGE).status_code == status
    assert member.portal.post(EXPORT, {"format": "csv"}).status_code == status
    assert ("Activity" in text_of(member.portal.get("/"))) == (status == 200)


def test_another_partners_lines_and_the_vendors_own_are_not_among_them(member, connected_partner):
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    audit.record("partner.killed", actor=Actor(ActorKind.STAFF, label="canary"), partner=other, reason="canary")
    audit.record("everything.killed", actor=Actor(ActorKind.STAFF, label="canary"), reason="canary")

    for shown in (text_of(member.portal.get(PAGE)), taken_along(member, "json"), taken_along(member, "csv")):
        assert "canary" not in shown


def test_fifty_a_page_the_newest_first_and_the_earlier_ones_behind(member):
    written(120)

    first = member.portal.get(PAGE)
    second = member.portal.get(PAGE + first.context["page"].next_url)
    third = member.portal.get(PAGE + second.context["page"].next_url)

    shown = [line.event.pk for answer in (first, second, third) for line in answer.context["page"].lines]
    assert shown == list(AuditEvent.objects.order_by("-pk").values_list("pk", flat=True))
    assert "person 119" in text_of(first)
    assert third.context["page"].next_url is None
    assert third.context["page"].first_url == "?"


@pytest.mark.parametrize("mark", ["nonsense", "MQ", "1", "WyJ4Il0:1a:2b"])
def test_a_mark_that_is_not_ours_starts_from_the_newest(member, mark):
    assert member.portal.get(PAGE, {"before": mark}).context["page"].first_url is None


def test_lines_are_found_by_what_was_decided_and_when(member):
    then = dt.datetime(2026, 3, 4, 23, 59, tzinfo=dt.UTC)
    written(2, action="users.asked", at=then)

    page = member.portal.get(PAGE, {"action": "users.asked"}).context["page"]
    assert [line.event.at for line in page.lines] == [then, then]
    for since, until, number in (
        ("2026-03-04", "2026-03-04", 2), ("2026-03-05", "", 0), ("", "2026-03-03", 0), ("nonsense", "2026-13-01", 2),
    ):  # fmt: skip
        asked = {"action": "users.asked", "since": since, "until": until}
        shown = member.portal.get(PAGE, asked)
        assert len(shown.context["page"].lines) == number, asked
        assert ("is no day" in text_of(shown)) == (since == "nonsense")
    nothing = text_of(member.portal.get(PAGE, {"action": "partner.killed"}))
    assert "No line fits what you asked for." in nothing


def test_an_action_that_is_none_is_not_asked_for(member):
    assert member.portal.get(PAGE, {"action": "<script>"}).context["asked"].action == ""


def test_a_csv_holds_every_line_with_its_number_and_hash(member):
    written(3)
    audit_chain.seal()

    rows = list(csv.DictReader(io.StringIO(taken_along(member, "csv"))))

    links = {link.event_id: link for link in AuditLink.objects.all()}
    sealed = [row for row in rows if row["action"] != "activity.exported"]
    assert [(int(row["number"]), row["hash"]) for row in sealed] == [
        (links[int(row["line"])].number, links[int(row["line"])].hash) for row in sealed
    ]
    assert len(sealed) == AuditEvent.objects.exclude(action="activity.exported").count()
    assert rows[-1]["what"] == "Activity exported"
    assert rows[-1]["number"] == "", "sealed within a minute"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "  ="])
def test_no_cell_of_a_csv_is_taken_for_a_formula(member, start):
    written(1, object=f'{start}HYPERLINK("http://evil.example")')

    rows = list(csv.DictReader(io.StringIO(taken_along(member, "csv"))))

    [cell] = [row["object"] for row in rows if "HYPERLINK" in row["object"]]
    assert cell == f'\'{start}HYPERLINK("http://evil.example")'


def test_a_json_holds_the_same_and_may_be_filtered(member):
    written(2, action="users.asked", detail={"n": [1, 2]})

    lines = json.loads(taken_along(member, "json", action="users.asked"))

    assert [line["detail"] for line in lines] == [{"n": [1, 2]}] * 2
    assert json.loads(taken_along(member, "json", since="2999-01-01")) == []
    assert AuditEvent.objects.filter(action="activity.exported")[0].detail == {"asked": {"action": "users.asked"}}


CUSTOMER, SUBSCRIPTION = "c0ffee00-0000-4000-8000-000000000001", "5ab5c000-0000-4000-8000-000000000002"
SAID = (
    ("users.asked", CUSTOMER, {}),
    ("change.asked", SUBSCRIPTION, {"customer": CUSTOMER}),
    ("change.confirmed", SUBSCRIPTION, {"customer": CUSTOMER, "what": "quantity", "from": 4711, "to": 4712}),
    ("change.sent", SUBSCRIPTION, {"customer": CUSTOMER}),
    ("change.ended", SUBSCRIPTION, {"customer": CUSTOMER, "outcome": "canary"}),
    ("member.customers_chosen", "a member canary", {"added": [CUSTOMER], "dropped": []}),
    ("access.used", f"customer {CUSTOMER}", {"opened": f"customer {CUSTOMER}", "reason": "names are missing"}),
)


@pytest.mark.parametrize(("role", "sees"), [("owner", True), ("auditor", False)])
def test_what_lines_say_about_a_customer_is_for_owners_and_auditors_hear_that_there_is_something(member, role, sees):
    for action, about, detail in SAID:
        written(1, action=action, object=about, detail=detail)
    Member.objects.update(role=role)

    shown = {"page": text_of(member.portal.get(PAGE))}
    shown |= {kind: taken_along(member, kind) for kind in ("csv", "json")}

    for where, text in shown.items():
        for told in (CUSTOMER, SUBSCRIPTION, "4711", "canary"):
            if not sees or (where, told) != ("page", SUBSCRIPTION):  # beside a detail the page has no object
                assert (told in text) == sees, (where, told)
        assert ("not shown: it is about a customer" in text) == (not sees), where
        assert "names are missing" in text, "why staff looked is for both"
    assert ("What lines say about a customer is not shown to your role" in shown["page"]) == (not sees)
    lines = [line for line in json.loads(shown["json"]) if line["action"] in dict.fromkeys(said[0] for said in SAID)]
    assert len(lines) == len(SAID), "that something was done is known"
    assert lines[-1]["object"] == f"customer {CUSTOMER if sees else '(not shown)'}"


def test_taking_it_along_is_a_line_itself_and_no_link_can_do_it(member):
    assert member.portal.get(EXPORT).status_code == 405
    assert not AuditEvent.objects.filter(action="activity.exported").exists()

    taken_along(member, "csv")

    event = AuditEvent.objects.get(action="activity.exported")
    assert (event.object, event.actor_kind) == ("csv", "member")


@pytest.mark.parametrize("kind", ["", "xlsx", "../csv"])
def test_a_file_of_another_kind_is_not_there(member, kind):
    assert member.portal.post(EXPORT, {"format": kind}).status_code == 404


def test_what_is_markup_in_a_line_stays_text(member):
    audit.record("sync.asked", actor=SYSTEM, partner=Partner.objects.get(), reason="<script>alert(1)</script>")

    shown = member.portal.get(PAGE).content.decode()

    assert "<script>alert" not in shown
    assert "&lt;script&gt;" in shown


def test_every_action_of_a_partner_that_is_ever_written_down_has_words():
    named = set()
    for path in (path for room in ("consent", "partners", "tokens") for path in (ROOT / room).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call):
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                asked = call.args[2:3] if name == "_asked" else []  # partners.jobs.schedule hands it on
                words = call.args[:1] if name == "record" else asked
                named |= {arg.value for arg in words if isinstance(arg, ast.Constant)}

    vendors = ("everything.", "staff.", "breakglass.", "audit.", "credential.")
    ours = {action for action in named if action.startswith(vendors)}
    assert named - set(activity.ACTIONS) == ours, "of no partner"
    assert set(activity.ACTIONS) <= named
