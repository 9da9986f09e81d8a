"""The commands of this room, as scripts and people use them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from partners import jobs
from partners.management.commands.sync import Command as Sync
from partners.models import Job, Partner
from sandbox.world import World
from tests.live import until
from tokens import watch
from tokens.models import Sender

pytestmark = pytest.mark.django_db
Connect = Callable[..., Partner]
STRANGER = "99999999-0000-4000-8000-000000000000"


class Ran:
    """What one call of a command printed, and its exit code."""

    def __init__(self, *words: str, **options: Any) -> None:
        out, err = io.StringIO(), io.StringIO()
        self.code: Any = 0
        try:
            call_command(*words, stdout=out, stderr=err, **options)
        except SystemExit as end:
            self.code = end.code
        except CommandError as error:  # what ends the process when a person calls
            self.code = error.returncode
        self.text, self.said = out.getvalue(), err.getvalue()

    @property
    def document(self) -> Any:
        return json.loads(self.text)


def no_waiting(seconds: float) -> None:
    raise AssertionError("nothing should have been waited out")


# --- sync -----------------------------------------------------------------------------------------------------------
def test_sync_runs_to_its_end_and_counts(connected_partner: Connect) -> None:
    partner = connected_partner(customers=3)

    ran = Ran("sync", str(partner.tenant_id), "--json")

    assert ran.code == 0
    assert ran.document == {
        "state": "done", "pages": 1, "created": 3, "updated": 0, "removed": 0, "unchanged": 0, "error": None,
    }  # fmt: skip


def test_sync_tells_people_the_same_in_a_line(connected_partner: Connect) -> None:
    ran = Ran("sync", str(connected_partner(customers=3).tenant_id))

    assert ran.text.startswith("done: 1 pages, 3 created")


def test_sync_waits_out_a_short_retry_after_and_goes_on(connected_partner: Connect, world: World) -> None:
    partner = connected_partner(customers=1200)
    world.sleep = lambda seconds: None
    world.fail("partnercenter", "slow", times=1)
    world.fail("partnercenter", "throttled", times=1, retry_after=7)
    waited: list[float] = []

    ran = Ran("sync", str(partner.tenant_id), "--json", sleep=waited.append)

    assert waited == [7]
    assert (ran.code, ran.document["state"]) == (0, "done")
    assert (ran.document["pages"], ran.document["created"]) == (3, 1200)


def test_sync_does_not_wait_out_a_long_retry_after_and_the_next_call_goes_on(
    connected_partner: Connect, world: World
) -> None:
    partner = connected_partner(customers=600)
    world.fail("partnercenter", "throttled", times=1, retry_after=11)

    first = Ran("sync", str(partner.tenant_id), "--json", sleep=no_waiting)
    second = Ran("sync", str(partner.tenant_id), "--json", sleep=no_waiting)

    assert (first.code, first.document["state"]) == (1, "waiting")
    assert first.document["error"].startswith("http_429: ")
    assert (second.code, second.document["state"], second.document["created"]) == (0, "done", 600)


def test_sync_waits_a_minute_in_all_and_no_longer(connected_partner: Connect, world: World) -> None:
    world.fail("partnercenter", "throttled", retry_after=9)
    waited: list[float] = []

    ran = Ran("sync", str(connected_partner().tenant_id), "--json", sleep=waited.append)

    assert (ran.document["state"], sum(waited)) == ("waiting", 54)


def test_sync_says_when_a_person_must_act(connected_partner: Connect, world: World) -> None:
    partner = connected_partner()
    world.fail("partnercenter", "mfa")

    ran = Ran("sync", str(partner.tenant_id), "--json")

    assert (ran.code, ran.document["state"]) == (1, "refused")
    assert "900421" in ran.document["error"]


def test_sync_leaves_a_run_elsewhere_alone(connected_partner: Connect) -> None:
    partner = connected_partner()
    job = jobs.ensure(partner, "customers", due_now=True)
    assert job.lease()

    ran = Ran("sync", str(partner.tenant_id), "--json")

    assert (ran.code, ran.document["state"]) == (1, "already_running")


@pytest.mark.parametrize("words", [["not-a-tenant"], [STRANGER]])
def test_sync_of_nobody_is_wrong_use(words: list[str]) -> None:
    ran = Ran("sync", *words, "--json")

    assert ran.code == 2
    assert words[0] in ran.document["error"]


def test_sync_of_an_unknown_kind_is_wrong_use(connected_partner: Connect) -> None:
    ran = Ran("sync", str(connected_partner().tenant_id), "--kind", "weather", "--json")

    assert ran.code == 2
    assert "weather" in ran.document["error"]


@pytest.mark.parametrize("words", [["sync", STRANGER], ["work", "--until-idle"]])
def test_a_process_that_may_not_read_the_vault_says_so(words: list[str], settings: Any) -> None:
    settings.CPV_ROLE = "web"

    ran = Ran(*words, "--json")

    assert ran.code == 2
    assert "CPV_ROLE=worker" in ran.document["error"]


def test_wrong_words_are_one_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        Sync().run_from_argv(["manage.py", "sync", "--json"])

    assert end.value.code == 2
    assert "error" in json.loads(capsys.readouterr().out)


@pytest.fixture
def as_from_a_shell(db: None) -> Iterator[None]:
    """A command that is started so reports what it has seen of stops; at its end it says no more."""
    yield
    assert Sender.objects.exists()
    watch.stop()
    assert not Sender.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_from_a_shell")
def test_an_error_is_one_document_for_a_script_and_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        Sync().run_from_argv(["manage.py", "sync", STRANGER, "--json", "--skip-checks"])

    printed = capsys.readouterr()
    until(Sender.objects.exists, what="the command reports")
    assert end.value.code == 2
    assert STRANGER in json.loads(printed.out)["error"]
    assert STRANGER in printed.err


# --- work -----------------------------------------------------------------------------------------------------------
def test_work_runs_everything_due_and_ends(connected_partner: Connect) -> None:
    partner = connected_partner(customers=2)
    job = jobs.ensure(partner, "customers", due_now=True)

    ran = Ran("work", "--until-idle", "--json")
    again = Ran("work", "--until-idle", "--json")

    job.refresh_from_db()
    tenant_id = str(partner.tenant_id)
    assert ran.code == 0
    assert ran.document["ran"] == [{"kind": "customers", "tenant_id": tenant_id, "outcome": "done"}]
    assert job.next_run_at
    assert ran.document["next_due_at"][:19] == job.next_run_at.isoformat()[:19]
    assert again.document["ran"] == []
    assert partner.customers.count() == 2


def test_work_ends_with_one_when_a_person_must_act(connected_partner: Connect, world: World) -> None:
    jobs.ensure(connected_partner(), "customers", due_now=True)
    world.fail("partnercenter", "mfa")

    ran = Ran("work", "--until-idle", "--json")

    assert (ran.code, ran.document["ran"][0]["outcome"]) == (1, "refused")


def test_work_without_partners_says_that_nothing_was_due() -> None:
    assert Ran("work", "--until-idle").text == "Nothing was due.\n"


# --- partners -------------------------------------------------------------------------------------------------------
def test_partners_says_where_each_stands(connected_partner: Connect) -> None:
    partner = connected_partner(customers=3)
    Ran("sync", str(partner.tenant_id))

    (row,) = Ran("partners", "--json").document

    assert {name: row[name] for name in ("tenant_id", "name", "cloud", "state", "owner", "role", "customers")} == {
        "tenant_id": str(partner.tenant_id), "name": partner.name, "cloud": "global", "state": "active",
        "owner": "nobody", "role": "admin_agent", "customers": 3,
    }  # fmt: skip
    assert set(row) == {
        "tenant_id", "name", "cloud", "state", "since", "reason", "owner", "action", "missing_scopes", "role",
        "customers", "last_sync_at", "access_until",
    }  # fmt: skip
    assert row["last_sync_at"]
    assert row["access_until"]
    assert row["missing_scopes"] == []


def test_partners_shows_one_partner_and_a_table_for_people(connected_partner: Connect) -> None:
    partner = connected_partner()
    Partner.objects.create(cloud="china", tenant_id=STRANGER, name="Someone Else")

    one = Ran("partners", str(partner.tenant_id), "--json")
    table = Ran("partners").text.splitlines()

    assert [row["name"] for row in one.document] == [partner.name]
    assert len(table) == 3
    assert "invited" in next(line for line in table if "Someone Else" in line)


def test_partners_of_nobody_is_wrong_use_and_nobody_at_all_is_fine() -> None:
    assert Ran("partners", STRANGER, "--json").code == 2
    assert Ran("partners", "--json").document == []


def test_partners_asks_the_database_as_often_for_thirty_as_for_one(
    connected_partner: Connect, django_assert_max_num_queries: Any
) -> None:
    connected_partner()
    for number in range(30):
        Partner.objects.create(cloud="global", tenant_id=STRANGER[:-2] + f"{number:02}", name=f"Partner {number}")

    with django_assert_max_num_queries(5):
        assert len(Ran("partners", "--json").document) == 31


def test_a_partner_that_left_is_not_listed() -> None:
    left = Partner.objects.create(cloud="global", tenant_id=STRANGER, name="Left", offboarded_at=timezone.now())

    assert Ran("partners", "--json").document == []
    assert not Job.objects.filter(partner=left).exists()
