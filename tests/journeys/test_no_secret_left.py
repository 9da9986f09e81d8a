"""After the journeys no token, code, verifier or assertion lies in any place but the vault, and there it is sealed."""

from __future__ import annotations

import base64
import io
import json
import logging
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from consent.models import ConsentAttempt, PostedAnswer
from cpvpanel.logs import line_format
from partners import jobs
from partners.models import Job, Partner
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import FORM, Person
from tokens import broker
from tokens.actors import SYSTEM
from tokens.audit import record

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("response_mode")]

PLANTED = "planted-marker-0123456789-abcdefghijklmnopqrstuvwxyz"
SHORTEST = 12  # characters; anything shorter would be found by chance


class RecordingClient(Client):
    """Keeps every page it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = io.BytesIO()

    def request(self, **request):
        answer = super().request(**request)
        self.pages.write(answer.content)
        return answer


def encodings(secret: str) -> Iterator[bytes]:
    raw = secret.encode()
    yield raw
    yield urllib.parse.quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    yield raw.hex().encode()
    yield secret.encode("utf-16-le")
    yield raw[::-1]
    for skipped in range(3):  # wherever in a longer text base64 began
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * skipped + raw)
            yield encoded[4 if skipped else 0 : -4]


def database() -> bytes:
    rows: list[str] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - names come from the schema itself
            for row in cursor.fetchall():
                rows += [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row]
    return "\n".join(rows).encode("latin-1", "replace")


def messages() -> bytes:
    folder = Path(settings.CELERY_BROKER_TRANSPORT_OPTIONS["data_folder"])
    found = b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    bodies = [json.loads(path.read_text())["body"] for path in folder.rglob("*.msg")]
    return found + b"".join(base64.b64decode(body) for body in bodies)


def vault(world) -> bytes:
    stored = world.vault("cpv-demo.vault.azure.net").secrets.values()
    return "\n".join(f"{version.value} {version.tags}" for versions in stored for version in versions).encode()


@pytest.fixture
def real_log():
    """The lines as our processes write them, for people and for machines, extras included."""
    handlers, lines = [], io.StringIO()
    for debug in (True, False):
        config = line_format(debug=debug)
        handler = logging.StreamHandler(lines)
        handler.setFormatter(config.pop("()")(**config))
        logging.getLogger().addHandler(handler)
        handlers.append(handler)
    yield lines
    for handler in handlers:
        logging.getLogger().removeHandler(handler)


@pytest.fixture
def journeys(world, contoso, invited, caplog, capfd, real_log):
    """Everything the product does with secrets: refusals, consent, syncs, rotation, revocation, reconnect, sign-in."""
    caplog.set_level(logging.DEBUG)
    browser = RecordingClient()
    person = Person(browser, world)
    person.connect(invited[1], SERVICE, mfa=False)
    world.fail("vault", "503", times=1)
    person.connect(invited[1], SERVICE)
    world.id_token_fault = "forged_key"
    person.connect(invited[1], SERVICE)
    world.id_token_fault = None
    if settings.CPV_RESPONSE_MODE == "form_post":  # an answer nobody comes for
        back = urlsplit(person.at_microsoft(person.leave(invited[1]), SERVICE))
        Client().post(back.path, back.query, FORM)
        assert PostedAnswer.objects.exists()
    person.connect(invited[1], SERVICE)
    person.leave("/signin", cloud="global")  # an attempt that never comes back
    settings_interval = settings.CPV_REFRESH_STORE_INTERVAL
    settings.CPV_REFRESH_STORE_INTERVAL = 0
    jobs.run_job(Job.objects.get().pk)
    settings.CPV_REFRESH_STORE_INTERVAL = settings_interval
    call_command("token", CONTOSO, audience="graph", reason="canary", json=True)
    contoso.revoke()
    broker.forget()
    Job.objects.update(next_run_at=timezone.now())
    jobs.run_job(Job.objects.get().pk)
    person.connect("/connection/renew", SERVICE)
    person.portal.post("/signout")
    person.sign_in(SERVICE)
    for page in ("/", "/customers/", "/connect/connected"):
        browser.get(page)
    return person


def sinks(journeys, world, caplog, capfd, real_log) -> dict[str, bytes]:
    out, err = capfd.readouterr()
    return {
        "database and sessions": database(),
        "message files": messages(),
        "log records": caplog.text.encode(),
        "log as it is written": real_log.getvalue().encode(),
        "standard output": out.encode() + err.encode(),
        "pages": journeys.portal.pages.getvalue(),
        "mail": "\n".join(str(message.message()) for message in mail.outbox).encode(),
        "vault": vault(world),
    }


def test_no_secret_is_left_anywhere(journeys, world, caplog, capfd, real_log):
    secrets = {(kind, value) for kind, value in world.issued if len(value) >= SHORTEST}
    kinds = {kind for kind, _ in secrets}
    assert {"code", "code_verifier", "refresh_token", "access_token", "id_token"} <= kinds, kinds

    places = sinks(journeys, world, caplog, capfd, real_log)
    for place, content in places.items():
        for kind, secret in secrets:
            assert not any(shape in content for shape in encodings(secret)), f"a {kind} lies in: {place}"


def test_the_search_would_find_what_is_there(journeys, world, caplog, capfd, real_log):
    partner = Partner.objects.get()
    record("planted", actor=SYSTEM, partner=partner, note=PLANTED)
    logging.getLogger("tokens").warning(PLANTED)
    print(PLANTED)  # noqa: T201 - the point of it
    journeys.portal.pages.write(PLANTED.encode())
    mail.send_mail(PLANTED, PLANTED, None, ["somebody@contoso.test"])
    world.vault("cpv-demo.vault.azure.net").put("planted", PLANTED, {}, None)
    from cpvpanel.celery import app

    app.send_task("planted", kwargs={"note": PLANTED})

    places = sinks(journeys, world, caplog, capfd, real_log)
    for place, content in places.items():
        assert any(shape in content for shape in encodings(PLANTED)), place


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_the_search_knows_every_dress_a_secret_may_wear(before):
    text = f"{before}{PLANTED}+/% tail"
    worn = [
        base64.b64encode(text.encode()),
        base64.urlsafe_b64encode(text.encode()),
        text.encode().hex().encode(),
        urllib.parse.quote(text).encode(),
        json.dumps({"a": text}).encode(),
        text.encode("utf-16-le"),
        text.encode()[::-1],
    ]

    for dress in worn:
        assert any(shape in dress for shape in encodings(PLANTED)), dress


def test_an_attempt_that_waits_for_its_answer_keeps_its_verifier_sealed(journeys):
    waiting = ConsentAttempt.objects.filter(claimed_at=None).latest("pk")

    assert "code_verifier" not in waiting.sealed_flow
    assert json.loads(waiting.sealed_flow)["alg"] == "A256GCM"
