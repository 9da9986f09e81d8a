"""
After everything the product does with secrets, none lies in any place but the vault, and there it is sealed.

Each place is a `Sink`: how it is read, and how something gets there by the ordinary road, for the positive control.
"""

from __future__ import annotations

import io
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core import mail
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.log import AdminEmailHandler

from consent import invitations, notices
from consent.models import ConsentAttempt, PostedAnswer
from cpvpanel.celery import app
from cpvpanel.logs import line_format
from partners import jobs, lookups
from partners.models import Customer, Job, Lookup, Partner, User
from sandbox import demo, users
from tests.canary import SHAPES, in_any_shape, jwts, unpacked
from tests.conftest import CONTOSO, FABRIKAM, SERVICE
from tests.desk import at_the_desk
from tests.pretend import FORM, Person
from tests.sentryevents import SentryHandler
from tokens import broker
from tokens.actors import SYSTEM
from tokens.audit import record

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("response_mode")]

MARKER = "planted-marker_0123456789-abcdefghijklmnopqrstuvwxyz"
SHORTEST = 12  # characters; anything shorter would be found by chance
VAULT = "cpv-demo.vault.azure.net"
INBOX = "it@contoso.test"


class RecordingClient(Client):
    """Keeps every page it was shown, and where it was sent; a crash shows it the page that people see."""

    def __init__(self) -> None:
        super().__init__(raise_request_exception=False)
        self.pages = io.BytesIO()

    def request(self, **request: Any) -> Any:
        answer = super().request(**request)
        self.pages.write(answer.content)
        return answer


@dataclass
class Scene:
    """What is there to look at when everything has happened."""

    world: Any
    visitor: RecordingClient
    desk: RecordingClient
    records: io.StringIO
    lines: io.StringIO
    sentry: SentryHandler
    output: Any
    invitation: str
    personal: list[str]
    debug_pages: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Sink:
    read: Callable[[Scene], bytes]
    plant: Callable[[Scene, str], object]


# --- Reading ---------------------------------------------------------------------------------------------------------
def rows(_scene: Scene) -> bytes:
    found: list[str] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - names come from the schema itself
            for row in cursor.fetchall():
                found += [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row]
    return "\n".join(found).encode("latin-1", "replace")


def database_file(scene: Scene) -> bytes:
    """The file itself, with what was deleted and not yet overwritten; on PostgreSQL the rows are all we may read."""
    connection.ensure_connection()
    if connection.vendor != "sqlite":
        return rows(scene)
    content: bytes = connection.connection.serialize()
    return content


def sessions(_scene: Scene) -> bytes:
    return json.dumps([session.get_decoded() for session in Session.objects.all()]).encode()


def cached(_scene: Scene) -> bytes:
    content: dict[str, bytes] = caches["default"]._cache
    return b"\n".join(name.encode() + value for name, value in content.items())


def messages(_scene: Scene) -> bytes:
    folder = Path(settings.CELERY_BROKER_TRANSPORT_OPTIONS["data_folder"])
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def files(_scene: Scene) -> bytes:
    return b"\n".join(path.read_bytes() for path in Path(settings.VAR_DIR).rglob("*") if path.is_file())


def output(scene: Scene) -> bytes:
    out, err = scene.output.readouterr()
    return (out + err).encode()


def mails(*, reports: bool) -> bytes:
    found = [message for message in mail.outbox if message.subject.startswith("[Django]") == reports]
    parts = [str(message.message()) for message in found]
    for message in found:  # as it is read, not as it travels
        parts += [message.body, *(str(content) for content, _ in getattr(message, "alternatives", []))]
    return "\n".join(parts).encode()


def process(_scene: Scene) -> bytes:
    """What other processes of this user can read about ours."""
    commands = Path("/proc/self/cmdline")
    return json.dumps(dict(os.environ)).encode() + (commands.read_bytes() if commands.exists() else b"")


def vault(scene: Scene) -> bytes:
    stored = scene.world.vault(VAULT).secrets.values()
    return "\n".join(f"{version.value} {version.tags}" for versions in stored for version in versions).encode()


# --- Planting --------------------------------------------------------------------------------------------------------
def in_a_name(read_by: str, path: str) -> Callable[[Scene, str], None]:
    """A partner is called so, and somebody looks at a page that shows it."""

    def plant(scene: Scene, marker: str) -> None:
        Partner.objects.update(name=marker)
        getattr(scene, read_by).get(path)

    return plant


def in_a_session(_scene: Scene, marker: str) -> None:
    session = SessionStore()
    session["note"] = marker
    session.create()


def in_a_crash(scene: Scene, marker: str) -> None:
    with crash_at('INSERT INTO "consent_consentattempt"', marker):
        scene.visitor.post("/signin", {"cloud": "global"})


def in_a_debug_page(scene: Scene, marker: str) -> None:
    with debugging(), crash_at('INSERT INTO "consent_consentattempt"', marker):
        scene.debug_pages.append(scene.visitor.post("/signin", {"cloud": "global"}).content)


def in_a_file(_scene: Scene, marker: str) -> None:
    (Path(settings.VAR_DIR) / "planted").write_text(marker)


SINKS = {
    "database rows": Sink(rows, lambda s, m: record("planted", actor=SYSTEM, partner=Partner.objects.get(), note=m)),
    "database file": Sink(database_file, lambda s, m: User.objects.create(username=m).delete()),
    "sessions": Sink(sessions, in_a_session),
    "cache": Sink(cached, lambda s, m: caches["default"].set("note", m)),
    "message broker": Sink(messages, lambda s, m: app.send_task("planted", kwargs={"note": m}, ignore_result=True)),
    "files we keep": Sink(files, in_a_file),
    "log records": Sink(lambda s: s.records.getvalue().encode(), lambda s, m: logging.getLogger("tokens").warning(m)),
    "log as written": Sink(lambda s: s.lines.getvalue().encode(), lambda s, m: logging.getLogger("tokens").warning(m)),
    "standard output": Sink(output, lambda s, m: print(m)),  # noqa: T201 - the point of it
    "visitor's pages": Sink(lambda s: s.visitor.pages.getvalue(), in_a_name("visitor", "/")),
    "desk's pages": Sink(lambda s: s.desk.pages.getvalue(), in_a_name("desk", "/admin/partners/partner/")),
    "mail": Sink(lambda s: mails(reports=False), lambda s, m: mail.send_mail(m, m, None, [INBOX])),
    "error reports": Sink(lambda s: mails(reports=True), in_a_crash),
    "reports to Sentry": Sink(lambda s: s.sentry.sent.getvalue().encode(), in_a_crash),
    "debug pages": Sink(lambda s: b"\n".join(s.debug_pages), in_a_debug_page),
    "process environment": Sink(process, lambda s, m: os.environ.update(CPV_PLANTED=m)),
    "vault": Sink(vault, lambda s, m: s.world.vault(VAULT).put("planted", m, {}, None)),
}
ITS_PLACE = {
    "invitation": {"visitor's pages", "mail"},  # its own form, and the mail that brings it
    "users' names": {"visitor's pages"},
}


# --- Everything that happens -----------------------------------------------------------------------------------------
@contextmanager
def crash_at(statement: str, text: str = "broken on purpose") -> Iterator[None]:
    """Let the database break at this statement: the frames above hold whatever was under way."""

    def breaking(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(statement):
            raise RuntimeError(text)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(breaking):
        yield


@contextmanager
def debugging() -> Iterator[None]:
    settings.DEBUG = True
    try:
        yield
    finally:
        settings.DEBUG = False


@pytest.fixture
def logs() -> Iterator[tuple[io.StringIO, io.StringIO, SentryHandler]]:
    """Every record down to DEBUG as any library gave it, the lines as we write them, reports by mail and to Sentry."""
    records, lines = io.StringIO(), io.StringIO()
    root, handlers = logging.getLogger(), [logging.StreamHandler(records), AdminEmailHandler(include_html=True)]
    handlers[1].setLevel(logging.ERROR)
    sentry = SentryHandler()
    handlers.append(sentry)
    for debug in (True, False):
        config = line_format(debug=debug)
        handlers.append(logging.StreamHandler(lines))
        handlers[-1].setFormatter(config.pop("()")(**config))
        handlers[-1].setLevel(logging.INFO)
    level, root.handlers = root.level, root.handlers + handlers
    root.setLevel(logging.DEBUG)
    yield records, lines, sentry
    root.setLevel(level)
    root.handlers = [handler for handler in root.handlers if handler not in handlers]


@pytest.fixture
def scene(world, contoso, db, logs, capfd, settings, monkeypatch) -> Scene:
    """Refusals, consent, crashes, syncs, rotation, a look at users, revocation, mail, reconnect, sign-in, the desk."""
    settings.ADMINS = [("Somebody", "somebody@vendor.test")]
    monkeypatch.delenv("CPV_PLANTED", raising=False)
    partner = Partner.objects.create(cloud="global", tenant_id=CONTOSO, name="Contoso")
    _, url = invitations.invite(partner=partner, by=SYSTEM, email=INBOX)
    desk = RecordingClient()
    desk.cookies = at_the_desk("support").cookies
    scene = Scene(world, RecordingClient(), desk, *logs, capfd, url.rpartition("/")[2], [])
    person = Person(scene.visitor, world)
    consents_that_fail(scene, person, url)
    person.connect(url, SERVICE)
    person.leave("/signin", cloud="global")  # an attempt that never comes back
    work_that_goes_on(scene, person)
    everybody_looks(scene)
    return scene


def consents_that_fail(scene: Scene, person: Person, url: str) -> None:
    world, link = scene.world, scene.invitation
    boss = next(iter(world.tenants[CONTOSO].accounts.values()))
    person.connect(url, SERVICE, mfa=False)
    world.fail("vault", "503", times=1)
    person.connect(url, SERVICE)
    world.id_token_fault = "forged_key"
    person.connect(url, SERVICE)
    world.id_token_fault = None
    person.come_back(person.at_microsoft(person.leave("/connect/admin-consent", invitation=link), boss))
    if settings.CPV_RESPONSE_MODE == "form_post":  # an answer nobody comes for
        back = urlsplit(person.at_microsoft(person.leave(url), SERVICE))
        Client().post(back.path, back.query, FORM)
        assert PostedAnswer.objects.exists()
    for statement in ('INSERT INTO "tokens_secretversion"', 'INSERT INTO "tokens_refreshtoken"'):
        with crash_at(statement):
            assert person.connect(url, SERVICE).status_code == 500
        with debugging(), crash_at(statement):
            answer = person.connect(url, SERVICE)
            assert b"broken on purpose" in answer.content
            scene.debug_pages.append(answer.content)


def work_that_goes_on(scene: Scene, person: Person) -> None:
    job = Job.objects.get()
    interval, settings.CPV_REFRESH_STORE_INTERVAL = settings.CPV_REFRESH_STORE_INTERVAL, 0
    jobs.run_job(job.pk)
    settings.CPV_REFRESH_STORE_INTERVAL = interval
    with crash_at('INSERT INTO "partners_customer"'):
        Customer.objects.all().delete()
        Job.objects.update(next_run_at=timezone.now())
        jobs.run_job(job.pk)
    Job.objects.update(next_run_at=timezone.now())
    jobs.run_job(job.pk)
    a_look_at_users(scene)
    call_command("token", CONTOSO, audience="graph", reason="canary", json=True)
    scene.world.tenants[CONTOSO].revoke()
    broker.forget()
    Job.objects.update(next_run_at=timezone.now())
    jobs.run_job(job.pk)
    tell()
    person.connect("/connection/renew", SERVICE)
    tell()
    person.portal.post("/signout")
    person.sign_in(SERVICE)


def a_look_at_users(scene: Scene) -> None:
    """One answer is shown; another lies there, waiting for whoever asked."""
    for shown in (True, False):
        customer = Customer.objects.order_by("name_key")[0]
        address = scene.visitor.post(f"/customers/{customer.tenant_id}/users")["Location"].partition("#")[0]
        lookups.answer(Lookup.objects.get(sealed_answer="").pk)
        if shown:
            scene.visitor.get(address)
    pretended = scene.world.tenants[CONTOSO].customers.find(str(customer.tenant_id))
    scene.personal += [users.at(pretended, index)["userPrincipalName"] for index in range(3)]
    assert all(name.encode() in scene.visitor.pages.getvalue() for name in scene.personal)
    assert Lookup.objects.exclude(sealed_answer="").exists()


def tell() -> None:
    notices.find()
    for notice in notices.due():
        assert notices.send(notice)


def everybody_looks(scene: Scene) -> None:
    for page in ("/", "/customers/", "/connect/connected", "/permissions/"):
        assert scene.visitor.get(page).status_code == 200, page
    for model in admin.site._registry:
        named = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        scene.desk.get(reverse(f"{named}_changelist"))
        for row in model._default_manager.all()[:5]:
            scene.desk.get(reverse(f"{named}_change", args=[row.pk]))
    scene.visitor.get(f"/customers/{uuid.UUID(FABRIKAM)}/")


# --- The search ------------------------------------------------------------------------------------------------------
def secrets_of(scene: Scene) -> set[tuple[str, str]]:
    issued = {(kind, value) for kind, value in scene.world.issued if len(value) >= SHORTEST}
    kinds = {kind for kind, _ in issued}
    assert {"code", "code_verifier", "refresh_token", "access_token", "id_token"} <= kinds, kinds
    ours = {
        ("application's secret", demo.APP_SECRET),
        ("vault's secret", demo.VAULT_WORKER_CLIENT_SECRET),
        ("Django's key", settings.SECRET_KEY),
        ("envelope's key", settings.CPV_TOKEN_KEYS.partition("=")[2]),
        ("audit's key", settings.CPV_AUDIT_KEY),
        ("invitation", scene.invitation),
    }
    return issued | ours | {("users' names", name) for name in scene.personal}


def test_no_secret_is_left_anywhere(scene, record_property):
    secrets = secrets_of(scene)
    contents = {name: unpacked(sink.read(scene)) for name, sink in SINKS.items()}

    found = [
        f"a {kind} lies in: {name}"
        for name, content in contents.items()
        for kind, secret in secrets
        if name not in ITS_PLACE.get(kind, ()) and in_any_shape(secret, content)
    ]
    found += [f"something like a token lies in: {name}" for name, content in contents.items() if jwts(content)]

    assert found == []
    unscrubbed = scene.sentry.raw.getvalue().encode()
    leaks = {kind for kind, secret in secrets if secret.encode() in unscrubbed}
    assert {"code", "invitation"} <= leaks, "what the scrubber takes out of reports to Sentry"
    assert [name for name, content in contents.items() if not content] == ["cache"], "we keep nothing there yet"
    figure = f"canary: {len(secrets)} secrets in {len(SHAPES)} shapes looked for in {len(SINKS)} places, none found"
    record_property("figure", f"{figure} ({settings.CPV_RESPONSE_MODE})")


def test_whatever_lies_in_a_place_is_found_there(scene):
    for sink in SINKS.values():
        sink.read(scene)
        sink.plant(scene, MARKER)

    missed = [name for name, sink in SINKS.items() if not in_any_shape(MARKER, unpacked(sink.read(scene)))]

    os.environ.pop("CPV_PLANTED")
    (Path(settings.VAR_DIR) / "planted").unlink()
    assert missed == []


def test_an_attempt_that_waits_for_its_answer_keeps_its_verifier_sealed(scene):
    waiting = ConsentAttempt.objects.filter(claimed_at=None).latest("pk")

    assert "code_verifier" not in waiting.sealed_flow
    assert json.loads(waiting.sealed_flow)["alg"] == "A256GCM"
