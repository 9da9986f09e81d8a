"""
Production's parts in production's ways: PostgreSQL with RabbitMQ and with Redis, workers that die, messages that lie.

The stand-in is the witness of what left, the rows are the witness of what came of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import kombu
import pytest
import redis

from cpvpanel.messagebroker import QUEUES, visibility_timeout
from tests.live import CONTOSO, FABRIKAM, ROOT, Visitor, service_account, text_of, until
from tests.rehearsal import WORKERS, Rehearsal, rehearsal

pytestmark = pytest.mark.processes

POSTGRES = os.environ.get("CPV_TEST_POSTGRES_URL", "")
BROKERS = {name: os.environ.get(f"CPV_TEST_{name.upper()}_URL", "") for name in ("rabbitmq", "redis")}
TURN = 8  # seconds; Redis offers a dead worker's message anew after one and a half, a slow but living one's must not be
RESUMED_WITHIN = {"rabbitmq": 5.0, "redis": visibility_timeout(TURN) + 10.0}
CUSTOMERS, PAGES = {"Contoso": 1200, "Fabrikam": 1200}, {"Contoso": 3, "Fabrikam": 3}  # a page of Contoso takes 1.2 s


@pytest.fixture(scope="module", params=BROKERS)
def kind(request: pytest.FixtureRequest) -> str:
    if not (POSTGRES and BROKERS[request.param]):
        pytest.skip(f"set CPV_TEST_POSTGRES_URL and CPV_TEST_{request.param.upper()}_URL to servers of this kind")
    return str(request.param)


@pytest.fixture(scope="module")
def stack(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    wipe(kind)
    folder = tmp_path_factory.mktemp(kind)
    with rehearsal(folder, postgres=POSTGRES, broker=BROKERS[kind], turn_seconds=TURN) as stack:
        yield stack
        wipe(kind)


@pytest.fixture(scope="module")
def connected(stack: Rehearsal) -> dict[str, Visitor]:
    """Both partners connected by their own people, and synced once."""
    visitors = {}
    for name, tenant in (("Contoso", CONTOSO), ("Fabrikam", FABRIKAM)):
        visitors[name] = visitor = Visitor(stack)
        url = stack.asks("invite", "--name", name, "--tenant", tenant, "--cloud", "global")["url"]
        visitor.follow(visitor.at_microsoft(visitor.leave(url), service_account(name)))
        until(lambda name=name: newest(stack, name)[1:] == ("done", CUSTOMERS[name]), 30, what=f"{name} is synced")
    return visitors


def wipe(kind: str) -> None:
    """Lose everything the message broker holds, queues included."""
    if kind == "redis":
        redis.Redis.from_url(BROKERS[kind]).flushdb()
        return
    with kombu.Connection(BROKERS[kind]) as connection:
        for queue in QUEUES:
            connection.default_channel.queue_delete(queue)


def runs(stack: Rehearsal, partner: str) -> list[tuple[int, str, int]]:
    """The partner's runs in their order: (id, outcome, customers seen)."""
    query = (
        "SELECT r.id, r.outcome, r.seen FROM partners_run r JOIN partners_partner p ON p.id = r.partner_id "
        "JOIN partners_job j ON j.id = r.job_id WHERE p.name = %s AND j.kind = 'customers' AND j.lane = 0 ORDER BY r.id"
    )
    return stack.rows(query, partner)


def newest(stack: Rehearsal, partner: str) -> tuple[int, str, int]:
    return (runs(stack, partner) or [(0, "", 0)])[-1]


def endings(stack: Rehearsal, partner: str, *, after: int) -> list[str]:
    """
    How the work after this run of the partner ended.

    A run whose turn was over ended nothing: on a slow machine a sync takes longer than TURN, and another run goes on
    where it stopped.
    """
    query = (
        "SELECT r.outcome FROM partners_run r JOIN partners_partner p ON p.id = r.partner_id "
        "JOIN partners_job j ON j.id = r.job_id AND j.kind = 'customers' "
        "WHERE p.name = %s AND r.id > %s AND r.error_code <> 'turn_over' ORDER BY r.id"
    )
    return [outcome for (outcome,) in stack.rows(query, partner, after)]


def mirror(stack: Rehearsal, partner: str) -> set[tuple[object, ...]]:
    query = (
        "SELECT c.tenant_id, c.name, c.domain, c.relationship, c.content_hash FROM partners_customer c "
        "JOIN partners_partner p ON p.id = c.partner_id WHERE p.name = %s AND c.removed_at IS NULL"
    )
    return set(stack.rows(query, partner))


def make_due(stack: Rehearsal, *partners: str) -> None:
    query = (
        "UPDATE partners_job SET next_run_at = now(), claimed_until = NULL "
        "WHERE kind = 'customers' AND partner_id IN (SELECT id FROM partners_partner WHERE name = ANY(%s))"
    )
    stack.rows(query, list(partners))


def pages_read(stack: Rehearsal, tenant: str, since: int) -> int:
    calls = [call for call in stack.calls() if call["number"] > since and call["tenant"] == tenant]
    return sum(call["service"] == "partnercenter" and call["path"] == "/v1/customers" for call in calls)


def last_call(stack: Rehearsal) -> int:
    return max((call["number"] for call in stack.calls()), default=0)


def worker_logs(stack: Rehearsal) -> str:
    return "".join(stack.logs()[f"{name}.log"] for name in WORKERS)


def holder(stack: Rehearsal, partner: str) -> str:
    """The worker that runs the partner's job, as its log says."""
    query = (
        "SELECT j.lease_message FROM partners_job j JOIN partners_partner p ON p.id = j.partner_id "
        "WHERE p.name = %s AND j.kind = 'customers'"
    )
    message = stack.rows(query, partner)[0][0]
    return next((name for name in WORKERS if message and message in stack.logs()[f"{name}.log"]), "")


# --- The whole way ---------------------------------------------------------------------------------------------------
def test_settings_of_the_rehearsal_are_clean(stack):
    checked = stack.command("check", "--deploy", "--fail-level", "ERROR")

    assert checked.returncode == 0, checked.stderr


def test_a_partner_connects_and_its_customers_are_there(stack, connected):
    visitor = connected["Contoso"]

    assert "Connection: Connected" in text_of(visitor.get("/").text)
    assert "1,200 customers" in text_of(visitor.get("/customers/").text)
    ready = stack.ready
    assert ready.pop("vault") in ("ok", "not used yet")  # one of two web processes stored the consents
    assert ready == {"database": "ok", "migrations": "ok", "broker": "ok"}
    assert {row["tenant_id"]: row["state"] for row in stack.asks("partners")} == {
        CONTOSO: "active",
        FABRIKAM: "active",
    }


def test_a_kill_would_wait_for_web_and_workers_alike(stack):
    serving = 2  # processes, as gunicorn.conf.py says
    fresh = "SELECT name FROM tokens_sender WHERE seen_at > now() - interval '15 seconds'"

    until(lambda: len(stack.rows(fresh)) == serving + len(WORKERS), what="all that may send are on the list")


def test_web_and_worker_speak_to_the_vault_as_two_identities(stack, connected):
    ended = stack.command("sync", FABRIKAM, "--json", CPV_ROLE="web")
    assert ended.returncode == 2

    done = stack.asks("sync", FABRIKAM)
    assert (done["state"], done["unchanged"]) == ("done", CUSTOMERS["Fabrikam"])


def test_a_worker_is_healthy_while_ticks_reach_it(stack):
    here = socket.gethostname()
    until(lambda: all(healthy(stack, f"{name}@{here}") for name in WORKERS), what="ticks reach all")

    assert not healthy(stack, f"worker-3@{here}")


def healthy(stack: Rehearsal, worker: str) -> bool:
    command = [sys.executable, "scripts/healthy.py", "worker", worker]
    return subprocess.run(command, cwd=ROOT, env=stack.env, capture_output=True, check=False).returncode == 0


def test_pages_come_with_their_style_though_nobody_collected_it(stack):
    page = Visitor(stack).get("/signin")

    for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
        assert Visitor(stack).get(path).status_code == 200, path


# --- Who dies --------------------------------------------------------------------------------------------------------
def test_a_worker_killed_in_the_middle_is_resumed_in_time_and_nothing_differs(stack, connected, kind, record_property):
    undisturbed = mirror(stack, "Contoso")
    stack.rows("DELETE FROM partners_customer")
    before = newest(stack, "Contoso")[0]
    make_due(stack, "Contoso")
    until(lambda: newest(stack, "Contoso")[0] > before and newest(stack, "Contoso")[2] >= 500, what="a page is read")
    dying, first = holder(stack, "Contoso"), newest(stack, "Contoso")[0]

    stack.kill(dying)  # from here on somebody may take over, be it before this has returned
    killed_at = time.monotonic()
    until(lambda: newest(stack, "Contoso")[0] > first, RESUMED_WITHIN[kind] + 5, what="somebody took over")
    resumed_after = time.monotonic() - killed_at
    until(lambda: newest(stack, "Contoso")[1] == "done", 30, what="the sync is done")

    record_property("figure", f"{kind}: a killed worker's sync was resumed after {resumed_after:.1f} s")
    assert resumed_after <= RESUMED_WITHIN[kind]
    assert mirror(stack, "Contoso") == undisturbed
    assert endings(stack, "Contoso", after=before) == ["taken_over", "done"]
    stack.start_worker(dying)


def test_a_worker_that_is_told_to_end_hands_its_sync_on(stack, connected, kind):
    before = newest(stack, "Contoso")[0]
    make_due(stack, "Contoso")
    until(lambda: newest(stack, "Contoso")[0] > before, what="it begins to read")
    ending = holder(stack, "Contoso")

    process = stack.running.pop(ending)
    process.send_signal(signal.SIGTERM)
    code = process.wait(30)
    until(lambda: newest(stack, "Contoso")[1] == "done", 30, what="the sync is done")

    assert code == 0
    assert [outcome for _, outcome, _ in runs(stack, "Contoso")[-2:]] == ["waiting", "done"]
    assert newest(stack, "Contoso")[2] == CUSTOMERS["Contoso"]
    stack.start_worker(ending)


# --- Messages that come twice, lie or get lost -----------------------------------------------------------------------
SEND_MANY = """
import json, random
from celery import current_app
from partners.models import Job
jobs = list(Job.objects.filter(kind="customers").values_list("pk", flat=True))
ids = jobs * 6 + [10**6, 10**6 + 1]
random.Random(7).shuffle(ids)
send = lambda number: current_app.send_task("partners.run_job", kwargs={"job_id": number}, ignore_result=True)
print(json.dumps([send(number).id for number in ids]))
"""


def test_doubled_and_swapped_messages_and_two_clocks_do_everything_once(stack, connected):
    before = {name: newest(stack, name)[0] for name in CUSTOMERS}
    since = last_call(stack)

    make_due(stack, *CUSTOMERS)
    sent = stack.python(SEND_MANY)
    for name in CUSTOMERS:
        until(lambda name=name: newest(stack, name)[0] > before[name], what=f"{name} runs")
        until(lambda name=name: newest(stack, name)[1] == "done", what=f"{name} is done")
    sent += stack.python(SEND_MANY)  # once more, after the work is done
    until(lambda: all(f"run_job[{message}] succeeded" in worker_logs(stack) for message in sent), what="all are taken")
    assert len(sent) == 28
    assert {name: endings(stack, name, after=before[name]) for name in CUSTOMERS} == {
        name: ["done"] for name in CUSTOMERS
    }
    assert {tenant: pages_read(stack, tenant, since) for tenant in (CONTOSO, FABRIKAM)} == {
        CONTOSO: PAGES["Contoso"],
        FABRIKAM: PAGES["Fabrikam"],
    }


FORGE = """
import json
from celery import current_app
from partners.models import Job
job = Job.objects.get(partner__name="Fabrikam", kind="customers")
options = {"ignore_result": True, "serializer": "json"}
current_app.send_task("partners.run_job", kwargs={"job_id": job.pk}, **options)
print(json.dumps(job.pk))
"""


def test_a_message_that_nobody_signed_is_refused(stack, connected):
    def refused() -> int:
        return worker_logs(stack).count("Refusing to deserialize")

    before = (refused(), len(runs(stack, "Fabrikam")))

    stack.python(FORGE)
    until(lambda: refused() > before[0], what="a worker refuses it")

    assert len(runs(stack, "Fabrikam")) == before[1]


FLOOD = """
import json
from celery import current_app
for _ in range(300):
    current_app.send_task("partners.work_off", ignore_result=True)
print(json.dumps("sent"))
"""
LANES = """
INSERT INTO partners_job
    (partner_id, kind, lane, next_run_at, turn, lease_message, fence, "cursor", failures, wait_code)
SELECT id, 'customers', lane, now(), 1, '', 0, '{}', 0, '' FROM partners_partner, generate_series(1, 200) lane
WHERE name = 'Contoso'
"""
RUNNING_LANES = "SELECT 1 FROM partners_job WHERE leased_until > now() AND lane > 0"


@contextmanager
def lanes_to_read(stack: Rehearsal) -> Iterator[None]:
    """More of Contoso's lists to read, all of them due, than there are threads; at the end there are none."""
    stack.rows(LANES)
    try:
        yield
    finally:
        stack.rows("UPDATE partners_job SET paused_at = now() WHERE lane > 0")
        until(lambda: not stack.rows(RUNNING_LANES), 60, what="the flood is over")
        stack.rows("DELETE FROM partners_run WHERE job_id IN (SELECT id FROM partners_job WHERE lane > 0)")
        stack.rows("DELETE FROM partners_job WHERE lane > 0")


def test_a_flood_of_work_delays_no_question_of_a_member(stack, connected):
    """Every thread of every worker for `work` is taken, and hundreds of messages wait before them."""
    visitor = connected["Contoso"]
    customer = re.findall(r'<a href="(/customers/[0-9a-f-]{36}/)"', visitor.get("/customers/").text)[0]
    with lanes_to_read(stack):
        stack.python(FLOOD)
        until(lambda: len(stack.rows(RUNNING_LANES)) >= 8, what="all threads of both workers are taken")

        asked = time.monotonic()
        answer = visitor.post(f"{customer}users", read_at=customer)
        page = answer.headers["Location"].partition("#")[0]
        until(lambda: "Asking Microsoft" not in visitor.get(page).text, what="the answer comes")
        took, left = time.monotonic() - asked, len(stack.rows(RUNNING_LANES))

        assert left >= 8, "the flood lasted longer than the question"
        assert took < 10


FLOOD_AT_SCREENS = """
import json
from celery import current_app
from partners.models import Job
lanes = list(Job.objects.filter(kind="customers", lane__gt=0).values_list("pk", flat=True)) * 6
for job_id in lanes:
    current_app.send_task("partners.run_job", kwargs={"job_id": job_id}, ignore_result=True)
print(json.dumps(len(lanes)))
"""
CLOSE = """
import json
from celery import current_app
print(json.dumps(current_app.send_task("tokens.close_stopped", ignore_result=True).id))
"""


def test_a_flood_of_what_people_wait_for_delays_no_stop(stack, connected):
    with lanes_to_read(stack):
        stack.python(FLOOD_AT_SCREENS)
        until(lambda: len(stack.rows(RUNNING_LANES)) >= 8, 60, what="the workers are busy")

        asked = time.monotonic()
        message = stack.python(CLOSE)
        until(lambda: f"close_stopped[{message}] succeeded" in worker_logs(stack), what="the secrets are closed")
        took, left = time.monotonic() - asked, len(stack.rows(RUNNING_LANES))

        assert left, "the flood lasted longer"
        assert took < 10


MAIL = """
import json
from celery import current_app
print(json.dumps(current_app.send_task("consent.send_notice", kwargs={"notice_id": 0}, ignore_result=True).id))
"""


def test_work_without_end_delays_no_mail(stack, connected):
    with lanes_to_read(stack):
        stack.python(FLOOD)
        until(lambda: len(stack.rows(RUNNING_LANES)) >= 8, what="all threads of both workers are taken")

        message = stack.python(MAIL)
        until(lambda: f"send_notice[{message}] succeeded" in worker_logs(stack), 10, what="the mail is looked at")

        assert len(stack.rows(RUNNING_LANES)) >= 8, "the flood lasted longer than the mail took"


def test_a_wiped_message_broker_costs_a_tick(stack, connected, kind):
    wipe_in_the_middle(stack, kind)


@pytest.mark.soak
def test_a_message_broker_wiped_ten_times_loses_no_job(stack, connected, kind):
    for _ in range(10):
        wipe_in_the_middle(stack, kind)


def wipe_in_the_middle(stack: Rehearsal, kind: str) -> None:
    before = {name: newest(stack, name)[0] for name in CUSTOMERS}
    make_due(stack, "Contoso")
    until(lambda: newest(stack, "Contoso")[0] > before["Contoso"], what="work is under way")

    wipe(kind)
    make_due(stack, "Fabrikam")
    begun = time.monotonic()
    until(lambda: newest(stack, "Fabrikam")[0] > before["Fabrikam"], 20, what="new work is found")
    until(lambda: newest(stack, "Contoso")[1] == "done", 30, what="the work under way ends well")
    until(lambda: newest(stack, "Fabrikam")[1] == "done", 30, what="and the new work too")

    assert time.monotonic() - begun < 30
    assert newest(stack, "Contoso")[2] == CUSTOMERS["Contoso"]


# --- The end ---------------------------------------------------------------------------------------------------------
def test_nothing_broke_on_the_way_and_everything_ends_by_itself(stack, connected):
    assert stack.stop() in (0, signal.SIGTERM)  # gunicorn and Celery end with 0
    assert stack.left_behind() == []

    mistakes = {
        line for name, log in stack.logs().items() for line in re.findall(r'"event": "(a job broke|a job failed)', log)
    }
    assert mistakes == set()
    assert json.dumps(sorted(stack.logs())).count("worker") == len(WORKERS)
