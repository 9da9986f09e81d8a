"""Split custody: rows alone, vault alone, application alone are each refused; and where one is not, that is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone

from partners import jobs
from partners.models import Job, Partner
from sandbox import demo
from sandbox.directory import read_certificates
from tests.canary import in_any_shape, jwts
from tests.conftest import CONTOSO, FABRIKAM
from tests.partners.test_commands import STRANGER, Ran
from tests.pem import pair
from tokens import broker, gate, outside, split
from tokens.actors import SYSTEM
from tokens.models import Alarm, AuditEvent, Halt, RefreshToken, SecretVersion, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
VAULT = "cpv-demo.vault.azure.net"
STRANGERS_READ, OTHER_KEY, CONTENT_REDEEMED, INVENTED, AS_THE_APP = range(5)


@pytest.fixture
def ours(world):
    """The vendor's application in the pretended world."""
    return world.apps[demo.APP_ID]


def prove(*words: str) -> Ran:
    return Ran("provesplit", *words, "--json")


def rows() -> list[Any]:
    """All that may not change for the partner."""
    facts = (Partner, RefreshToken, SecretVersion, Job, Alarm, Halt)
    return [list(model._default_manager.order_by("pk").values()) for model in facts]


def not_refused(ran: Ran) -> dict[int, Any]:
    assert ran.code == 1
    assert ran.document["held"] is False
    return {number: one for number, one in enumerate(ran.document["attempts"]) if not one["refused"]}


def stored(world):
    (versions,) = world.vault(VAULT).secrets.values()
    return versions[-1]


# --- Each part alone is refused -------------------------------------------------------------------------------------
def test_each_part_alone_is_refused_and_each_was_really_tried(member, world):
    world.calls.clear()

    ran = prove()

    assert ran.code == 0
    assert (ran.document["tenant_id"], ran.document["name"], ran.document["held"]) == (CONTOSO, "Contoso", True)
    assert [(one["holds"], one["answered"], one["refused"]) for one in ran.document["attempts"]] == [
        ("database dump", "the vault: 401", True),
        ("vault's content", "the envelope: envelope-tag", True),
        ("vault's content", "Entra: AADSTS9002313", True),
        ("application's credential", "Entra: AADSTS70000", True),
        ("application's credential", "Entra: AADSTS500011", True),
    ]
    secret = f"/secrets/{RefreshToken.objects.get().secret_name}/"
    assert next(call.status for call in world.calls_to("vault", secret) if not call.has_bearer) == 401
    asked = [call.detail["grant_type"] for call in world.calls_to("entra", "/token") if call.client == demo.APP_ID]
    assert asked == ["refresh_token", "refresh_token", "client_credentials"]


def test_where_entra_gives_the_application_a_token_the_vault_refuses_it(member, ours):
    ours.vault_rights = {"set"}  # at Microsoft any application of the tenant gets one; the vault decides

    ran = prove()

    assert ran.code == 0
    assert ran.document["attempts"][AS_THE_APP]["answered"] == "the vault: vault-403"
    line = TokenUse.objects.get(audience="vault")
    assert (line.outcome, line.partner, line.purpose) == ("granted", None, "custody.prove")


def test_it_changes_nothing_for_the_partner(member, world):
    before, secrets = rows(), {name: len(kept) for name, kept in world.vault(VAULT).secrets.items()}

    assert prove(CONTOSO).code == 0

    assert rows() == before
    assert {name: len(kept) for name, kept in world.vault(VAULT).secrets.items()} == secrets
    assert jobs.run_job(Job.objects.get().pk).outcome == "done"


def test_each_token_request_has_its_line_in_the_ledger(member, world):
    world.calls.clear()
    TokenUse.objects.all().delete()

    prove()

    asked = [call for call in world.calls_to("entra", "/token") if call.client == demo.APP_ID]
    lines = TokenUse.objects.order_by("pk").values_list("audience", "outcome", "code", "purpose", "actor_label")
    assert len(asked) == len(lines) == 3
    assert list(lines) == [
        ("graph", "refused", "AADSTS9002313", "custody.prove", "manage.py provesplit"),
        ("graph", "refused", "AADSTS70000", "custody.prove", "manage.py provesplit"),
        ("vault", "refused", "AADSTS500011", "custody.prove", "manage.py provesplit"),
    ]
    assert AuditEvent.objects.get(action="custody.tried").detail == {"refused": 5, "tried": 5}


def test_no_secret_is_printed_or_logged(member, world, caplog):
    caplog.set_level("DEBUG")
    told = [prove(), Ran("provesplit", CONTOSO)]

    content = "\n".join([*(ran.text + ran.said for ran in told), caplog.text]).encode()
    assert len(world.issued) > 8
    assert [kind for kind, value in world.issued if len(value) >= 12 and in_any_shape(value, content)] == []
    assert not jwts(content)


def test_people_read_a_line_for_each_try(member):
    ran = Ran("provesplit", CONTOSO)

    assert ran.code == 0
    assert len(ran.text.splitlines()) == 5
    assert all(line.startswith("refused") for line in ran.text.splitlines())
    assert "database dump alone: read the secret that the row names, without an identity; the vault: 401" in ran.text


def test_with_a_certificate_it_proves_the_same(member, ours, settings):
    made = pair("panel")
    ours.certificates[:] = read_certificates([made.certificate])
    app = settings.CPV_APPS["global"] | {"certificate": made.key + made.certificate, "secret": ""}
    settings.CPV_APPS = settings.CPV_APPS | {"global": app}
    outside.forget()

    assert prove().code == 0


# --- What is not refused is told ------------------------------------------------------------------------------------
def test_a_vault_that_answers_strangers_is_not_refused(member, world):
    world.vaults_answer_anybody = True

    found = not_refused(prove())

    assert set(found) == {STRANGERS_READ}
    assert found[STRANGERS_READ]["answered"] == "the vault: the secret"
    assert found[STRANGERS_READ]["owner"] == "security"
    assert "Close it to the public" in found[STRANGERS_READ]["action"]


def test_a_token_that_lies_unsealed_in_the_vault_is_not_refused(member, world):
    (_, token) = [one for one in world.issued if one.kind == "refresh_token"][-1]
    stored(world).value = token

    found = not_refused(prove())

    assert set(found) == {OTHER_KEY, CONTENT_REDEEMED}
    assert found[OTHER_KEY]["answered"] == "the envelope: envelope-format"
    assert found[CONTENT_REDEEMED]["answered"] == "Entra: a token"
    assert RefreshToken.objects.get().refused_at is None


def test_an_envelope_that_lost_its_key_id_counts_as_unsealed(member, world):
    sealed = json.loads(stored(world).value)
    stored(world).value = json.dumps(sealed | {"kid": "x" * 99})

    assert not_refused(prove())[OTHER_KEY]["answered"] == "the envelope: envelope-format"


def test_an_entra_that_takes_an_invented_token_is_not_refused(member, world):
    world.any_refresh_token_works = True

    found = not_refused(prove())

    assert set(found) == {CONTENT_REDEEMED, INVENTED}
    assert {one["answered"] for one in found.values()} == {"Entra: a token"}
    assert "change the application's credential" in found[INVENTED]["action"]


def test_an_application_that_may_read_the_vault_is_not_refused(member, ours):
    ours.vault_rights = {"get"}

    found = not_refused(prove())

    assert set(found) == {AS_THE_APP}
    assert found[AS_THE_APP]["answered"] == "the vault: the secret"
    assert "Take that right away" in found[AS_THE_APP]["action"]
    assert Ran("provesplit").text.count("NOT REFUSED") == 1


def test_an_application_that_is_told_what_is_missing_was_let_in_too(member, ours, world):
    ours.vault_rights = {"get"}
    stored(world).enabled = False

    found = not_refused(prove())

    assert found[AS_THE_APP]["answered"] == "the vault: vault-disabled"
    assert found[AS_THE_APP]["owner"] == "security"


# --- Where nothing is proved ----------------------------------------------------------------------------------------
def test_while_the_vault_does_not_answer_the_application_is_neither_let_in_nor_refused(member, world, ours):
    ours.vault_rights = {"get"}
    world.fail("vault", "503")

    found = not_refused(prove())

    assert found[AS_THE_APP]["answered"] == "no clear answer: vault-503"
    assert TokenUse.objects.get(audience="vault").outcome == "unavailable"


@pytest.mark.parametrize(
    ("service", "kind", "unproved"),
    [
        ("vault", "503", {STRANGERS_READ, OTHER_KEY, CONTENT_REDEEMED}),
        ("vault", "timeout-before", {STRANGERS_READ, OTHER_KEY, CONTENT_REDEEMED}),
        ("entra", "AADSTS7000215", {CONTENT_REDEEMED, INVENTED, AS_THE_APP}),
        ("entra", "AADSTS90033", {CONTENT_REDEEMED, INVENTED, AS_THE_APP}),
    ],
)
def test_no_clear_answer_proves_nothing_and_says_so(member, world, known_identity, service, kind, unproved):
    world.fail(service, kind)

    found = not_refused(prove())

    assert set(found) == unproved
    assert {one["owner"] for one in found.values()} == {"support"}
    assert all("Nothing is proved" in one["action"] for one in found.values())
    assert all(one["answered"].startswith("no clear answer: ") for one in found.values())
    assert not TokenUse.objects.filter(outcome="sent").exists()
    assert RefreshToken.objects.get().refused_at is None


@pytest.fixture
def known_identity(member):
    """The worker has its token for the vault already."""
    token = RefreshToken.objects.select_related("partner").get()
    outside.vault("global").get(token.secret_name, token.pinned_version)


# --- For whom -------------------------------------------------------------------------------------------------------
def test_the_first_partner_that_is_connected_is_taken_when_none_is_named(member, connected_partner):
    connected_partner(tenant_id=FABRIKAM, name="Fabrikam")

    assert prove().document["name"] == "Contoso"
    Partner.objects.filter(tenant_id=CONTOSO).update(killed_at=timezone.now())
    assert prove().document["name"] == "Fabrikam"


def test_nothing_is_tried_for_a_partner_that_was_stopped(member, world):
    Partner.objects.update(killed_at=timezone.now())
    broker.forget()
    before = len(world.calls)

    named, unnamed = prove(CONTOSO), prove()

    assert (named.code, unnamed.code) == (1, 1)
    assert "is not connected now" in named.document["error"]
    assert "nothing to try" in unnamed.document["error"]
    assert len(world.calls) == before
    with pytest.raises(gate.Stopped):
        split.prove(RefreshToken.objects.get(), actor=SYSTEM)


def test_before_anybody_connected_there_is_nothing_to_try(invited):
    assert "nothing to try" in prove(CONTOSO).document["error"]


@pytest.mark.parametrize("words", [[STRANGER], ["no tenant"]])
def test_an_unknown_partner_is_wrong_use(member, words):
    assert prove(*words).code == 2


def test_a_process_that_may_not_read_the_vault_does_not_try(member, settings, world):
    settings.CPV_ROLE = "web"
    before = len(world.calls)

    assert prove().code == 2
    assert len(world.calls) == before
