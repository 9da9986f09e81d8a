"""What our application proves itself with is tried for real, without touching a partner; the machine's identity."""

from __future__ import annotations

import io
import json
import logging
import time
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from sandbox import demo, jose
from sandbox.directory import read_certificates
from sandbox.ledger import Refresh
from tests.conftest import SERVICE
from tests.pem import pair
from tests.tokens.machine import identity_endpoint
from tests.tokens.proofs import FIRST, NEXT, accept, ask, configure, lines, pem
from tokens import drill, expiry
from tokens.models import Alarm, AuditEvent, RefreshToken, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)


# --- The drill ----------------------------------------------------------------------------------------------------
def drilled(*words: str) -> tuple[Any, int]:
    out, code = io.StringIO(), 0
    try:
        call_command("rotatecredential", *words, "--json", stdout=out)
    except SystemExit as end:
        code = int(end.code or 0)
    return json.loads(out.getvalue()), code


@pytest.mark.parametrize(
    ("known", "results", "code", "step"),
    [
        ([FIRST, NEXT], ["accepted", "accepted"], 0, "Move CPV_APP_CERTIFICATE_NEXT into CPV_APP_CERTIFICATE"),
        ([NEXT], ["refused", "accepted"], 1, "CPV_APP_CERTIFICATE is refused"),
        ([FIRST], ["accepted", "refused"], 1, "CPV_APP_CERTIFICATE_NEXT is refused"),
        ([], ["refused", "refused"], 1, "Nothing is accepted"),
    ],
)
def test_the_drill_tries_each_certificate_and_says_what_next(two, world, known, results, code, step):
    accept(world, *known)

    ((document,), ended) = drilled()

    rows = document["credentials"]
    assert [row["result"] for row in rows] == results
    assert [row["setting"] for row in rows] == ["CPV_APP_CERTIFICATE", "CPV_APP_CERTIFICATE_NEXT"]
    assert [row["in_use"] for row in rows] == [True, False]
    assert rows[0]["thumbprint"] == expiry.configured()[0].certificate.thumbprint
    assert document["next"].startswith(step)
    assert ended == code


def test_the_drill_touches_no_partner_and_is_in_the_ledger(member, two, world):
    before, seen = RefreshToken.objects.values().get(), len(world.calls)
    accept(world, NEXT)

    drilled()

    calls = [call for call in world.calls[seen:] if call.path.endswith("/token")]
    mine = TokenUse.objects.filter(purpose=drill.PURPOSE)
    assert len(calls) == mine.count() == 3
    assert {call.detail["grant_type"] for call in calls} == {"refresh_token"}, "never an app-only token"
    assert all(f"/{demo.VENDOR_TENANT_ID}/" in call.path for call in calls)
    assert set(mine.values_list("partner", "outcome", "actor_kind")) == {(None, "refused", "command")}
    assert RefreshToken.objects.values().get() == before
    assert not Alarm.objects.exists()
    line = AuditEvent.objects.get(action="credential.tried")
    assert (line.actor_label, line.partner) == ("manage.py rotatecredential", None)
    assert line.detail == {"results": {"CPV_APP_CERTIFICATE": "refused", "CPV_APP_CERTIFICATE_NEXT": "accepted"}}


def test_the_drill_shows_that_the_next_is_in_use_after_a_roll_over(member, two, world):
    accept(world, NEXT)
    ask()

    ((document,), _) = drilled()

    assert [row["in_use"] for row in document["credentials"]] == [False, True]


def test_a_drill_for_people_names_thumbprint_and_end(two, world, capsys):
    call_command("rotatecredential", "--cloud", "global")

    printed = capsys.readouterr().out
    certificate = expiry.configured()[0].certificate
    assert f"CPV_APP_CERTIFICATE {certificate.thumbprint}: accepted" in printed
    assert f"until {certificate.not_after:%Y-%m-%d}" in printed
    assert "PRIVATE KEY" not in printed


def test_a_secret_is_tried_too(world):
    ((document,), code) = drilled()

    (row,) = document["credentials"]
    assert (row["setting"], row["result"], row["thumbprint"], code) == ("CPV_APP_SECRET", "accepted", None, 0)
    assert document["next"] == "Nothing to do."


def test_a_lone_certificate_near_its_end_needs_a_person(world, settings):
    configure(settings, certificate=pem(pair("short", days=3)))
    accept(world, FIRST)
    world.apps[demo.APP_ID].certificates += read_certificates([settings.CPV_APPS["global"]["certificate"]])

    ((document,), code) = drilled()

    assert code == 1
    assert document["credentials"][0]["warning"] == "CPV_APP_CERTIFICATE: 7 days"
    assert document["next"].startswith("Make a new certificate")


@pytest.mark.parametrize(
    ("fault", "result"), [("503", "unavailable"), ("AADSTS700016", "unclear"), ("AADSTS70000", "unclear")]
)
def test_an_answer_that_says_nothing_about_the_certificate_is_told_apart(two, world, fault, result):
    """The last is an Entra that would look at the refresh token first: then its answer proves nothing."""
    world.fail("entra", fault, path="/oauth2/v2.0/token")

    ((document,), code) = drilled()

    assert [row["result"] for row in document["credentials"]] == [result, result]
    assert code == 1
    assert "look the codes up" in document["next"]


def test_a_grant_for_what_never_was_proves_nothing(member, world):
    never_was, session = drill.NEVER_WAS.reveal(), next(iter(world.ledger.sessions.values()))
    world.ledger.refreshes[never_was] = Refresh(never_was, session.sid, world.now())
    world.allow_foreign_accounts = True

    ((document,), code) = drilled()

    assert (document["credentials"][0]["result"], code) == ("unclear", 1)


def test_a_cloud_that_is_not_set_up_is_wrong_use(world):
    with pytest.raises(CommandError, match="CPV_TENANT_ID_CHINA, CPV_APP_ID_CHINA, CPV_APP_CERTIFICATE_CHINA") as ended:
        call_command("rotatecredential", "--cloud", "china")

    assert ended.value.returncode == 2


def test_without_any_cloud_there_is_nothing_to_try(world, settings):
    settings.CPV_APPS = dict.fromkeys(settings.CPV_APPS, settings.CPV_APPS["china"])

    with pytest.raises(CommandError, match="CPV_APP_ID") as ended:
        call_command("rotatecredential")

    assert ended.value.returncode == 2


def test_a_certificate_that_cannot_work_is_wrong_use(world, settings):
    configure(settings, certificate=FIRST.key + NEXT.certificate)

    with pytest.raises(CommandError, match="does not belong") as ended:
        call_command("rotatecredential", skip_checks=True)

    assert ended.value.returncode == 2
    assert logging.getLogger("msal").level >= logging.WARNING


# --- The machine's identity -------------------------------------------------------------------------------------------
IDENTITY, OBJECT = "1de07177-0000-4000-8000-0000000000a1", "1de07177-0000-4000-8000-0000000000b1"


@pytest.fixture
def machine(world, settings, monkeypatch):
    """A machine with an identity that vouches for our application; what it says, and what it was asked for."""
    issuer = f"https://login.microsoftonline.com/{demo.VENDOR_TENANT_ID}/v2.0"
    said: dict[str, Any] = {
        "iss": issuer,
        "sub": OBJECT,
        "aud": "api://AzureADTokenExchange",
        "exp": time.time() + 3600,
    }
    app = world.apps[demo.APP_ID]
    app.secrets, app.federated = set(), {(issuer, OBJECT)}
    with identity_endpoint(monkeypatch, lambda: jose.sign(said, world.key("global"))) as asked_for:
        configure(settings, federated=True, federated_client_id=IDENTITY)
        yield said, asked_for


def test_a_partner_connects_and_works_where_the_machines_identity_vouches_for_us(
    machine, person, invited, contoso, world
):
    _, asked_for = machine

    assert person.connect(invited[1], SERVICE).status_code == 200
    ask()

    assert lines() == [("granted", "")]
    assert asked_for[0] == {
        "resource": ["api://AzureADTokenExchange"], "client_id": [IDENTITY], "api-version": asked_for[0]["api-version"],
    }  # fmt: skip
    assert {secret.kind for secret in world.issued} >= {"client_assertion"}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"sub": "another"}, "AADSTS700213"),
        ({"aud": "api://AzureADTokenExchangeChina"}, "AADSTS700212"),
        ({"exp": 1}, "AADSTS700024"),
    ],
)
def test_an_identity_that_does_not_vouch_for_us_needs_a_person(machine, world, wrong, code):
    said, _ = machine
    said.update(wrong)

    ((document,), ended) = drilled()

    (row,) = document["credentials"]
    assert (row["setting"], row["result"], row["code"], ended) == ("CPV_APP_FEDERATED", "refused", code, 1)
    assert "federated credential" in document["next"]


def test_the_drill_says_that_the_machines_identity_is_accepted(machine):
    ((document,), ended) = drilled()

    assert (document["credentials"][0]["result"], document["next"], ended) == ("accepted", "Nothing to do.", 0)
