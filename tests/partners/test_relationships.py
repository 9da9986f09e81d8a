"""Delegated admin relationships (GDAP), mirrored from Graph through the stand-in, job and all."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from partners import gdap, jobs, removals
from partners.mirrored_kinds import RELATIONSHIPS
from partners.models import ListState, Partner, Relationship, Run
from partners.models.estate import NO_END
from partners.reading import ListedPage
from sandbox import gdap as pretended
from sandbox.world import World
from tests.partners.test_kinds import Connect, of, sync
from tokens.actors import SYSTEM

pytestmark = pytest.mark.django_db
A_DAY = dt.timedelta(days=1, minutes=1)
CONTOSO, FABRIKAM = uuid.UUID(int=21), uuid.UUID(int=22)


@pytest.fixture
def partner(connected_partner: Connect) -> Partner:
    return connected_partner(customers=60)


def run(partner: Partner) -> Run:
    [ended] = sync(partner, "relationships")
    return ended


def rows_of(body: bytes) -> list[dict[str, Any]]:
    """What becomes of a page's items, by the columns' names."""
    page = RELATIONSHIPS.take(ListedPage(body, None, None), collection=0, number=1, known=None)
    return [dict(zip(RELATIONSHIPS.columns, RELATIONSHIPS.values(item), strict=True)) for _, item in page.rows.values()]


# --- Mirrored ---------------------------------------------------------------------------------------------------------
def test_every_relationship_is_mirrored_as_graph_lists_it(partner: Partner, world: World) -> None:
    ended = run(partner)

    tenant = of(world, partner)
    expected = {
        (
            one["id"], one["displayName"], one["status"].lower(), uuid.UUID(one["customer"]["tenantId"]),
            frozenset(role["roleDefinitionId"] for role in one["accessDetails"]["unifiedRoles"]),
            one["endDateTime"] and dt.datetime.fromisoformat(one["endDateTime"][:26] + "+00:00"),
        )
        for customer in tenant.customers
        for one in pretended.relationships(tenant, customer)
    }  # fmt: skip
    columns = ("relationship_id", "name", "status", "customer_tenant_id", "roles", "end_at")
    rows = Relationship.objects.values_list(*columns)
    assert {(*row[:4], frozenset(row[4].split()), row[5]) for row in rows} == expected
    assert (ended.outcome, ended.created, ended.pages) == ("done", 60, 1)


def test_it_is_read_in_pages_of_three_hundred_and_written_once(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=1203)

    first, second = run(partner), run(partner)

    assert (first.pages, first.created) == (5, 1203)
    assert (second.pages, second.created, second.updated, second.removed) == (5, 0, 0, 0)
    asked = [call for call in world.calls_to("graph") if call.path.endswith("delegatedAdminRelationships")]
    assert [call.detail["items"] for call in asked] == [300, 300, 300, 300, 3] * 2


def test_a_customer_may_be_none_of_the_partners(partner: Partner, world: World) -> None:
    elsewhere = {"tenantId": str(FABRIKAM), "displayName": "Of another"}
    of(world, partner).customer_overrides = {0: {"relationships": [{"customer": elsewhere}, {"customer": None}]}}

    run(partner)

    names = dict(Relationship.objects.values_list("customer_tenant_id", "customer_name"))
    assert names[FABRIKAM] == "Of another"
    assert names[None] == ""


def test_what_changes_is_written_and_what_comes_back_is_there_again(partner: Partner, world: World) -> None:
    run(partner)
    of(world, partner).customer_overrides = {3: {"relationships": [{"status": "terminated"}]}, 4: {"relationships": []}}

    ended = run(partner)
    changed = Relationship.objects.get(customer_tenant_id=of(world, partner).customers.at(3).tenant_id)
    gone = Relationship.objects.get(customer_tenant_id=of(world, partner).customers.at(4).tenant_id)

    assert (ended.updated, changed.status, changed.is_over, changed.lapses_at) == (1, "terminated", True, None)
    assert (gone.missing_since is None, gone.removed_at) == (False, None)

    of(world, partner).customer_overrides = {}
    run(partner)
    gone.refresh_from_db()
    assert (gone.missing_since, gone.removed_at) == (None, None)


# --- Never wrong ------------------------------------------------------------------------------------------------------
def test_a_relationship_is_gone_when_two_whole_lists_a_day_apart_lack_it(partner: Partner, world: World) -> None:
    run(partner)
    of(world, partner).customer_overrides = {4: {"relationships": []}}

    assert (run(partner).removed, run(partner).removed) == (0, 0)
    with time_machine.travel(timezone.now() + A_DAY, tick=True):
        assert run(partner).removed == 1
    assert Relationship.objects.present().count() == 59


def test_many_that_are_missing_at_once_wait_for_a_person(partner: Partner, world: World) -> None:
    run(partner)
    of(world, partner).customer_overrides = {index: {"relationships": []} for index in range(12)}

    run(partner)
    with time_machine.travel(timezone.now() + A_DAY, tick=True):
        assert run(partner).removed == 0
        assert ListState.objects.get(kind="relationships").held_at
        assert removals.accept(partner, "relationships", by=SYSTEM) == 12
        run(partner)  # from now on they count as missing
    with time_machine.travel(timezone.now() + 2 * A_DAY, tick=True):
        assert run(partner).removed == 12


@pytest.mark.parametrize(
    ("fault", "outcome", "code"),
    [
        ("other-tenant", "failed", "other_tenant"),
        ("foreign-next", "failed", "foreign_link"),
        ("cyclic-next", "failed", "cyclic_link"),
        ("circle-next", "failed", "cyclic_link"),
        ("no-items", "failed", "wrong_shape"),
        ("cursor-rejected", "failed", "cursor"),
        ("404", "failed", ""),
        ("forbidden", "refused", ""),
        ("unauthorized", "refused", "401/Unauthorized"),
        ("throttled", "waiting", "TooManyRequests"),
        ("503", "waiting", ""),
        ("html", "waiting", "html"),
        ("truncated", "waiting", "not_json"),
    ],
)
def test_a_list_that_goes_wrong_takes_nothing_away(
    connected_partner: Connect, world: World, fault: str, outcome: str, code: str
) -> None:
    partner = connected_partner(customers=320)
    other = world.add_tenant(str(CONTOSO), "Another", customers=320)
    run(partner)
    before = dict(Relationship.objects.values_list("key", "content_hash"))
    of(world, partner).customer_overrides = {n: {"relationships": [{"status": "expired"}]} for n in (0, 319)}
    world.fail("graph", fault, path="/delegatedAdminRelationships")

    with time_machine.travel(timezone.now() + A_DAY, tick=True):
        ended = run(partner)

    assert (ended.outcome, ended.error_code) == (outcome, code or ended.error_code)
    assert ended.error_code
    after = Relationship.objects.filter(removed_at=None, missing_since=None)
    assert {*after.values_list("key", flat=True)} == {*before}
    assert str(other.id) not in "".join(before)


def test_what_is_listed_twice_is_kept_once_and_what_has_no_facts_says_so(partner: Partner, world: World) -> None:
    world.fail("graph", "duplicates", times=1, path="/delegatedAdminRelationships")
    assert run(partner).outcome == "done"
    assert Relationship.objects.count() == 60

    world.fail("graph", "holes", times=1, path="/delegatedAdminRelationships")
    assert run(partner).outcome == "done"
    empty = Relationship.objects.filter(status="")
    assert empty.count() == 8
    assert set(empty.values_list("is_over", "lists_by", "lapses_at", "roles")) == {(False, NO_END, None, "")}


def test_the_permission_is_used_for_it_and_for_nothing_wider(partner: Partner, world: World) -> None:
    run(partner)

    [call] = [call for call in world.calls_to("graph") if "tenantRelationships" in call.path]
    assert call.method == "GET"
    assert jobs.kind_named("relationships").audience == "graph"


# --- What a row says --------------------------------------------------------------------------------------------------
WHOLE = """[{"@odata.type": "#microsoft.graph.delegatedAdminRelationship", "id": "A-B", "displayName": "Name",
"duration": "P730D", "customer": {"tenantId": "52EAAD04-13a2-4a2f-9ce8-93a294fadf36", "displayName": "Contoso Inc"},
"accessDetails": {"unifiedRoles": [{"roleDefinitionId": "F2EF992C-3afb-46b9-b7cf-a126ee74c451"}, {"other": 1}, 7,
{"roleDefinitionId": "29232cdf-9323-42fd-ade2-1d097af3e4de"}, {"roleDefinitionId": null}]}, "status": "%(status)s",
"autoExtendDuration": "%(extend)s", "createdDateTime": "2022-02-10T11:24:42.3148266Z",
"lastModifiedDateTime": "2022-02-10T11:26:44.9941884Z", "activatedDateTime": "%(activated)s",
"endDateTime": %(end)s}]"""
END = dt.datetime(2024, 2, 10, 11, 24, 42, 314826, tzinfo=dt.UTC)


def told(
    *, status: str = "active", extend: str = "PT0S", activated: str = "", end: str = '"2024-02-10T11:24:42.3148266Z"'
) -> dict[str, Any]:
    [row] = rows_of((WHOLE % {"status": status, "extend": extend, "activated": activated, "end": end}).encode())
    return row


def test_a_row_has_what_graph_wrote_however_it_wrote_it() -> None:
    row = told(status="Active", activated="")

    assert row["relationship_id"] == "A-B"
    assert (row["status"], row["activated_at"], row["end_at"], row["lists_by"]) == ("active", None, END, END)
    assert row["customer_tenant_id"] == uuid.UUID("52eaad04-13a2-4a2f-9ce8-93a294fadf36")
    assert row["roles"] == "29232cdf-9323-42fd-ade2-1d097af3e4de f2ef992c-3afb-46b9-b7cf-a126ee74c451"


@pytest.mark.parametrize(
    ("status", "extend", "lapses", "is_over"),
    [
        ("active", "PT0S", True, False),
        ("active", "P0D", True, False),
        ("active", "", True, False),
        ("active", "soon", True, False),
        ("expiring", "PT0S", True, False),
        ("active", "P180D", False, False),
        ("active", "P6M", False, False),
        ("created", "PT0S", False, False),
        ("approvalPending", "PT0S", False, False),
        ("terminating", "PT0S", False, False),
        ("expired", "PT0S", False, True),
        ("terminated", "P180D", False, True),
        ("somethingNew", "PT0S", False, False),
    ],
)
def test_what_lapses_unless_somebody_acts(status: str, extend: str, lapses: bool, is_over: bool) -> None:
    row = told(status=status, extend=extend)

    assert (row["lapses_at"], row["is_over"]) == (END if lapses else None, is_over)


def test_one_that_was_told_no_end_is_listed_last_and_does_not_lapse() -> None:
    row = told(end="null")

    assert (row["end_at"], row["lists_by"], row["lapses_at"]) == (None, NO_END, None)


def test_with_global_administrator_nothing_extends_itself_whatever_is_said() -> None:
    assert gdap.extends_itself("P180D", ["f2ef992c-3afb-46b9-b7cf-a126ee74c451"])
    assert not gdap.extends_itself("P180D", [gdap.GLOBAL_ADMINISTRATOR])
    assert not gdap.extends_itself("PT0S", [])


@pytest.mark.parametrize(
    ("duration", "words"),
    [("P730D", "730\xa0days"), ("P1D", "1\xa0day"), ("P2Y", "2\xa0years"), ("P1Y6M", "1\xa0year, 6\xa0months"),
     ("PT0S", ""), ("P0D", ""), ("", ""), ("a while", "")],
)  # fmt: skip
def test_durations_are_read_as_people_say_them(duration: str, words: str) -> None:
    assert gdap.length(duration) == words


def test_roles_have_names_and_what_has_none_keeps_its_id() -> None:
    named, unnamed = gdap.role_names(["dd4db9a0-cc4a-4213-9f9f-70242232d97e", gdap.GLOBAL_ADMINISTRATOR])

    assert (named, unnamed) == (["Global Administrator"], ["dd4db9a0-cc4a-4213-9f9f-70242232d97e"])
    assert all(uuid.UUID(one) for one in gdap.ROLES)
    assert len(set(gdap.ROLES.values())) == len(gdap.ROLES) > 70
