"""The whole story over real HTTP, with real web, worker, beat and stand-in, and nothing but what a person could do."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from sandbox import demo
from tests.canary import Leak, in_any_shape, jwts, unpacked, verifiers
from tests.live import CONTOSO, FABRIKAM, NORTHWIND, ROOT, Live, Visitor, service_account, text_of, until

pytestmark = pytest.mark.processes

CONTOSO_ACCOUNT, FABRIKAM_ACCOUNT = service_account("contoso"), service_account("fabrikam")
COUNT = re.compile(r"([\d,]+)(?: / ([\d,]+))? customers")


def number(words: str) -> int:
    return int(words.replace(",", ""))


@dataclass
class Story:
    """What happened on the way from the invitation to the list of customers."""

    visitor: Visitor
    invitation: str
    steps: dict[str, requests.Response] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)
    stored_after_refusal: Any = None
    stored: list[int] = field(default_factory=list)  # secrets in the vault: before, after the refusal, at the end


@pytest.fixture(scope="module")
def visitors(live: Live) -> Callable[[], Visitor]:
    """Makes visitors, and remembers them: what they carried is looked for at the end."""
    return lambda: EVERYBODY.append(Visitor(live)) or EVERYBODY[-1]


EVERYBODY: list[Visitor] = []


@pytest.fixture(scope="module")
def story(live: Live, visitors: Callable[[], Visitor]) -> Story:
    if not live.is_running:  # somebody picked single tests
        live.start()
    visitor = visitors()
    story = Story(visitor, live.invitation())
    visitor.secrets.add(story.invitation.rpartition("/")[2])
    story.stored.append(secrets_stored(live))
    story.steps["invitation"] = visitor.get(story.invitation)

    back = visitor.at_microsoft(visitor.leave(story.invitation), CONTOSO_ACCOUNT, mfa=False)
    story.steps["refused"] = visitor.follow(back)
    story.stored.append(secrets_stored(live))
    story.stored_after_refusal = live.asks("partners", CONTOSO)[0]

    back = visitor.at_microsoft(visitor.leave(story.invitation), CONTOSO_ACCOUNT)
    story.steps["callback"] = visitor.get(back)
    story.steps["connected"] = visitor.get("/connect/connected")
    story.stored.append(secrets_stored(live))
    story.steps["arrived"] = until(lambda: _watch(story), 40, what="the first sync ends")
    return story


def secrets_stored(live: Live) -> int:
    puts = [call for call in live.calls() if call["service"] == "vault" and call["method"] == "PUT"]
    return sum(call["status"] == 200 for call in puts)  # the vault asks a new process first who it is: 401


def _watch(story: Story) -> requests.Response | None:
    """One look at the progress line, as htmx takes it each second; the answer that sends the browser on."""
    answer = story.visitor.get("/progress?then=customers")
    found = COUNT.search(text_of(answer.text))
    if found:
        story.counts.append(number(found[1]))
        story.expected |= {number(found[2])} if found[2] else set()
    return answer if "HX-Redirect" in answer.headers else None


# --- From the invitation to the customers ---------------------------------------------------------------------------
def test_the_start_ends_with_the_address_and_four_things_to_try(live):
    assert any(line.startswith(f"CPV Panel runs at {live.url} ") for line in live.said)
    assert all(live.line(number) for number in (1, 2, 3, 4))
    assert requests.get(f"{live.url}/healthz", timeout=5).status_code == 200
    ready = until(lambda: works(live), what="a tick reaches the worker")
    assert ready | {"vault": ""} == {"database": "ok", "migrations": "ok", "broker": "ok", "vault": ""}


def works(live: Live) -> dict[str, str]:
    ready: dict[str, str] = requests.get(f"{live.url}/readyz", timeout=5).json()
    return ready if ready["broker"] == "ok" else {}


def test_the_invitation_names_the_tenant_and_what_is_asked(story):
    words = text_of(story.steps["invitation"].text)

    assert story.steps["invitation"].status_code == 200
    assert CONTOSO in words
    assert "user_impersonation" in words


def test_without_mfa_the_visitor_is_refused_and_nothing_is_stored(story):
    words = text_of(story.steps["refused"].text)

    assert story.steps["refused"].status_code in (400, 403)
    assert "MFA" in words
    assert "Nothing was stored." in words
    assert (story.stored_after_refusal["state"], story.stored_after_refusal["customers"]) == ("invited", 0)


def test_with_mfa_the_code_leaves_the_address_and_the_connection_stands(story):
    callback, connected = story.steps["callback"], story.steps["connected"]

    assert (callback.status_code, callback.headers["Location"]) == (303, "/connect/connected")
    assert callback.headers["Referrer-Policy"] == "no-referrer"
    assert connected.status_code == 200
    assert f"Connected as {CONTOSO_ACCOUNT} · MFA seen · roles ok · stored at" in text_of(connected.text)


def test_a_refusal_touches_no_vault_and_a_success_stores_exactly_once(story):
    before, refused, connected = story.stored

    assert (refused - before, connected - before) == (0, 1)


def test_a_worker_reads_the_customers_and_the_visitor_sees_it_count_up(story):
    assert story.counts == sorted(story.counts)
    assert {500, 1000} <= set(story.counts) or {500, 1200} <= set(story.counts)
    assert story.expected == {1200}
    assert story.steps["arrived"].headers["HX-Redirect"] == "/customers/"
    assert "1,200 customers read" in text_of(story.steps["arrived"].text)


def test_the_worker_that_read_them_is_the_real_one(live, story):
    log = live.logs()["worker-now.log"]  # somebody waits for a first sync

    assert re.search(r"partners\.run_job\[[\w-]+\] succeeded", log)
    assert "Traceback" not in log


def test_the_list_shows_pages_of_customers_and_search_finds_one(story):
    listed = story.visitor.get("/customers/").text
    names = [text_of(name) for name in re.findall(r'(?s)<a href="/customers/[^"]+" dir="auto">(.*?)</a>', listed)]
    assert "1,200 customers" in text_of(listed)
    assert len(names) == 50

    wanted = names[7]
    found = story.visitor.http.get(f"{story.visitor.live.url}/customers/", params={"q": wanted}, timeout=10).text

    assert wanted in text_of(found)
    assert found.count('dir="auto">') < listed.count('dir="auto">')
    nothing = text_of(story.visitor.get("/customers/?q=no-such-customer-anywhere").text)
    assert "Nothing found for" in nothing


def test_signing_out_closes_the_door_and_signing_in_opens_it(story):
    visitor = story.visitor
    assert visitor.get("/").status_code == 200

    answer = visitor.follow(visitor.live.url + visitor.post("/signout", read_at="/").headers["Location"])
    assert "You are signed out" in text_of(answer.text)
    assert visitor.get("/customers/").headers["Location"].startswith("/signin")

    answer = visitor.sign_in(CONTOSO_ACCOUNT)
    assert answer.status_code == 200
    assert "Connection: Connected" in text_of(answer.text)


def test_a_spent_invitation_says_so(story):
    answer = story.visitor.get(story.invitation)

    assert answer.status_code == 410


# --- Going red and coming back --------------------------------------------------------------------------------------
def test_a_revoked_sign_in_shows_on_the_page_and_one_button_mends_it(live, visitors):
    visitor = visitors()
    visitor.sign_in(FABRIKAM_ACCOUNT)
    assert "Connection: Connected" in text_of(visitor.get("/").text)

    assert "AADSTS50173" in live.scenario("token-revoked", "Fabrikam")["effect"]
    assert visitor.post("/sync", read_at="/").status_code == 302
    home = until(lambda: _says(visitor, "Sign-in needed"), 20, what="home says that a sign-in is needed")
    assert "Who acts: Your organisation" in home
    assert "AADSTS50173" in home
    assert live.asks("partners", FABRIKAM)[0]["state"] == "needs_consent"

    back = visitor.at_microsoft(visitor.leave("/connection/renew", read_at="/"), FABRIKAM_ACCOUNT)
    assert visitor.follow(back).status_code == 200
    until(lambda: _says(visitor, "Connection: Connected"), 20, what="home says connected")
    assert live.asks("partners", FABRIKAM)[0]["state"] == "active"


def _says(visitor: Visitor, words: str) -> str | None:
    home = text_of(visitor.get("/").text)
    return home if words in home else None


# --- The desk -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def desk(live: Live, story: Story, visitors: Callable[[], Visitor]) -> Visitor:
    visitor = visitors()
    form = {"username": "support", "password": live.desk_password, "next": "/admin/"}
    assert visitor.post("/admin/login/", **form).headers["Location"] == "/admin/second-factor/"
    code = live.asks("deskcode", "support")["code"]
    answer = visitor.post("/admin/second-factor/", code=code)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")
    return visitor


def test_support_sees_every_list_and_its_first_row_and_no_secret(live, desk):
    index = desk.get("/admin/")
    lists = sorted(set(re.findall(r'href="(/admin/[a-z]+/[a-z]+/)"', index.text)))
    assert {f"/admin/{name}/" for name in ("partners/partner", "partners/run", "tokens/refreshtoken")} <= set(lists)
    assert "/admin/tokens/auditevent/" in lists

    pages = {}
    for path in lists:
        pages[path] = desk.get(path)
        first = re.search(rf'href="({path}[^"/?]+/change/)', pages[path].text)
        if first:
            pages[first[1]] = desk.get(first[1])

    assert {path: page.status_code for path, page in pages.items() if page.status_code != 200} == {}
    assert len(pages) > len(lists) + 5
    whole = "".join(page.text for page in pages.values()).encode()
    assert [secret[:12] for secret in secrets_of(live) if in_any_shape(secret, whole)] == []
    assert jwts(whole) == []


def test_support_may_change_nothing(desk):
    for path in ("/admin/partners/partner/add/", "/admin/tokens/refreshtoken/add/"):
        assert desk.get(path).status_code == 403


def test_a_wrong_password_opens_nothing(live, visitors):
    answer = visitors().post("/admin/login/", username="support", password="not-" + live.desk_password)

    assert answer.status_code == 200
    assert "errornote" in answer.text


def test_a_member_of_a_partner_has_no_business_at_the_desk(story):
    assert story.visitor.get("/admin/").headers["Location"].startswith("/admin/login/")


# --- Commands -------------------------------------------------------------------------------------------------------
NEW_TENANT = "7a115917-0000-4000-8000-000000000004"
INVITE = ("invite", "--name", "Tailspin", "--tenant")
TOKEN = ("token", FABRIKAM, "--reason", "a test", "--audience")


@pytest.mark.parametrize(
    ("words", "code", "holds"),
    [
        (("partners",), 0, {}),
        (("sync", FABRIKAM), 0, {"state": "done", "error": None}),
        (("sync", NORTHWIND), 1, {"state": "refused"}),
        (("sync", NEW_TENANT), 2, {}),
        (("work", "--until-idle"), 0, {}),
        ((*TOKEN, "graph"), 0, {"ok": True, "audience": "graph", "mfa": True, "error": None}),
        ((*TOKEN, "partnercenter"), 0, {"ok": True, "audience": "partnercenter"}),
        ((*TOKEN, "mail"), 2, {}),
        ((*INVITE, NEW_TENANT.replace("7a", "8b", 1), "--cloud", "global"), 0, {}),
        ((*INVITE, CONTOSO, "--cloud", "global"), 1, {}),
        ((*INVITE, NEW_TENANT, "--cloud", "germany"), 2, {}),
        ((*INVITE, NEW_TENANT), 2, {}),
    ],
    ids=lambda value: " ".join(word for word in value if word[0] != "-")[:40] if isinstance(value, tuple) else "",
)
def test_a_command_prints_one_document_and_ends_as_promised(live, story, words, code, holds):
    ended = live.command(*words, "--json")

    document = json.loads(ended.stdout)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout.count("\n") == 1
    if code == 2:
        assert set(document) == {"error"}
    else:
        assert holds.items() <= (document[0] if isinstance(document, list) else document).items()
    assert jwts((ended.stdout + ended.stderr).encode()) == []


PROMISED = {"tenant_id", "name", "cloud", "state", "since", "reason", "owner", "action", "missing_scopes", "role"}
PROMISED |= {"customers", "last_sync_at", "access_until"}


def test_the_list_of_partners_has_every_promised_field(live, story):
    rows = {row["tenant_id"]: row for row in live.asks("partners")}

    contoso = rows[CONTOSO]
    assert set(contoso) == PROMISED
    assert (contoso["state"], contoso["customers"], contoso["role"]) == ("active", 1200, "admin_agent")
    assert (rows[NORTHWIND]["state"], rows[NORTHWIND]["owner"]) == ("mfa_missing", "partner")


def test_a_process_that_may_not_read_the_vault_says_so(live):
    ended = live.command("sync", FABRIKAM, "--json", CPV_ROLE="web")

    assert ended.returncode == 2
    assert "CPV_ROLE=worker" in json.loads(ended.stdout)["error"]


# --- Starting wrongly -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variable", ["CPV_PORT", "CPV_SANDBOX_PORT"])
def test_a_taken_port_is_one_clear_line(tmp_path, variable):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    env = Live(tmp_path).env | {variable: str(port)}

    command = [sys.executable, "manage.py", "runlocal"]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)

    taken.close()
    assert ended.returncode == 2
    assert re.fullmatch(rf"Port {port} is taken\. .*{variable}=.*\n", ended.stderr)
    assert ended.stdout == ""


# --- The end --------------------------------------------------------------------------------------------------------
def secrets_of(live: Live) -> set[str]:
    """What must be nowhere: the codes and states that passed by, and every refresh token the stand-in gave."""
    with sqlite3.connect(f"file:{live.var}/sandbox/world.sqlite3?mode=ro", uri=True) as world:
        refreshes = {key for (key,) in world.execute("SELECT key FROM kept WHERE kind = 'refresh'")}
    world.close()
    assert len(refreshes) >= 4
    passed = {secret for visitor in EVERYBODY for secret in visitor.secrets}
    assert len(passed) >= 5  # two codes, two states, an invitation; more when the whole story was told
    return refreshes | passed | {demo.APP_SECRET, demo.VAULT_WEB_CLIENT_SECRET, demo.VAULT_WORKER_CLIENT_SECRET}


def sinks_of(live: Live) -> dict[str, bytes]:
    """Everything the product wrote: files as they are, and what is packed inside them unpacked."""
    sinks = files_of(live)
    sinks["sessions"] = json.dumps(live.python(DECODED_SESSIONS)).encode()
    sinks["process environments"] = live.environments()
    sinks["runlocal"] = "\n".join([*live.said, live.logs()["runlocal.stderr"]]).encode()
    return sinks


def files_of(live: Live, tries: int = 50) -> dict[str, bytes]:
    """What lies in its folder; anew where a file went meanwhile, as the database's log does into the database."""
    files = [file for file in live.var.rglob("*") if file.is_file() and live.var / "sandbox" not in file.parents]
    try:
        return {str(file.relative_to(live.var)): file.read_bytes() for file in files if file.name != "desk-password"}
    except FileNotFoundError:
        if not tries:
            raise
    return files_of(live, tries - 1)


DECODED_SESSIONS = """
import json
from django.contrib.sessions.models import Session
print(json.dumps([[session.session_key, session.get_decoded()] for session in Session.objects.all()]))
"""
WORK_WAITING = """
from partners import jobs
from partners.models import Job
jobs.queue_now(Job.objects.first())
"""
PLANT = """
from celery import current_app
from django.contrib.sessions.backends.db import SessionStore
from partners.models import Partner
current_app.send_task("partners.dispatch", kwargs={{"note": "{marker}"}}, ignore_result=True)
session = SessionStore()
session["note"] = "{marker}"
session.create()
Partner.objects.filter(tenant_id="{tenant}").update(name="{marker}")
"""


def test_ctrl_c_ends_everything_and_leaves_no_secret_behind(live, story, desk):
    """Looked for twice: while it runs (with the database's write-ahead log), and after the end."""
    challenges = {challenge for visitor in EVERYBODY for challenge in visitor.challenges}
    secrets = secrets_of(live)
    sinks = sinks_of(live)
    assert sinks["process environments"].count(str(live.var).encode()) >= 4, "those of web, worker, beat and stand-in"
    leaks = find_leaks(sinks, secrets, challenges)
    assert leaks == [], [lines_with(leak.what, sinks[leak.sink]) for leak in leaks[:3]]
    deaths = live.later_lines()
    live.end_scripts()  # which is ours, not theirs

    begun = time.monotonic()
    assert live.stop() == 0, live.logs()
    assert time.monotonic() - begun < 20
    assert live.left_behind() == []
    assert live.ports_are_free()
    assert deaths == []

    live.python(WORK_WAITING)  # nobody takes it any more: a message as it lies in the queue
    sinks = sinks_of(live)
    assert any(name.startswith("messages/queues/interactive/") for name in sinks)
    assert find_leaks(sinks, secrets, challenges) == []
    mistakes = {line: text for text in live.logs().values() for line in broken(text)}
    mistakes.pop("django.core.exceptions.PermissionDenied", None)  # the desk refuses to add
    assert set(mistakes) == set(), [around(line, mistakes[line]) for line in mistakes]


def lines_with(what: str, content: bytes) -> list[str]:
    """Where it is, for the person who has to mend it."""
    return [line[:300] for line in content.decode(errors="replace").splitlines() if what in line][:2]


def broken(log: str) -> list[str]:
    """The last line of every traceback in a log."""
    return re.findall(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(.*)", log)


def around(line: str, log: str) -> str:
    """What led to the last line of a traceback, and what came after."""
    place = log.index(line)
    return log[max(0, place - 6000) : place + 2000]


def find_leaks(sinks: dict[str, bytes], secrets: set[str], challenges: set[str]) -> list[Leak]:
    found = []
    for name, packed in sinks.items():
        content = unpacked(packed)
        found += [Leak(name, secret[:12], shape) for secret in secrets for shape in in_any_shape(secret, content)]
        found += [Leak(name, token[:12].decode(), "looks like a token") for token in jwts(content)]
        found += [Leak(name, verifier[:12], "proof key") for verifier in verifiers(content, challenges)]
    return found


def test_the_search_finds_what_is_planted_in_every_kind_of_sink(live):
    if live.is_running:  # nobody must take the message away
        assert live.stop() == 0
    marker = "1.Aplanted-marker_of-the-search-0123456789"
    live.python(PLANT.format(marker=marker, tenant=NORTHWIND))
    with open(live.var / "log" / "worker.log", "a") as log:
        log.write(f"GET /connect/callback?code={marker}\n")

    leaks = find_leaks(sinks_of(live), {marker}, set())

    sinks = {leak.sink for leak in leaks}
    assert {"log/worker.log", "sessions"} <= sinks
    assert sinks & {"db.sqlite3", "db.sqlite3-wal"}
    assert "base64" in {leak.shape for leak in leaks if leak.sink.startswith("messages/queues/")}


def test_a_second_start_finds_everything_as_it_was_and_once_ends_by_itself(live, story):
    if live.is_running:
        assert live.stop() == 0

    ended = live.command("runlocal", "--once")

    assert ended.returncode == 0, ended.stderr
    assert "1. Contoso is connected" in ended.stdout
    assert live.left_behind() == []
    states = {row["tenant_id"]: row["state"] for row in live.asks("partners")}
    assert (states[CONTOSO], states[FABRIKAM], states[NORTHWIND]) == ("active", "active", "mfa_missing")
