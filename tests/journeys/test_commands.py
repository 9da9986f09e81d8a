"""The commands that make and test a connection, as a script meets them."""

from __future__ import annotations

import json

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.utils import timezone

from consent.models import Invitation
from partners import jobs
from partners.models import Customer, Job, Partner
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import text_of
from tokens import broker
from tokens.models import AuditEvent, RefreshToken

pytestmark = pytest.mark.django_db(transaction=True)
SMTP = "django.core.mail.backends.smtp.EmailBackend"
NEW = "bbbb0000-0000-4000-8000-000000000002"


def answer(capsys, *args: str) -> dict:
    call_command(*args, json=True)
    out = capsys.readouterr().out
    return json.loads(out)


def invite(*more: str, name: str = "Woodgrove", tenant: str = NEW, cloud: str = "global") -> tuple[str, ...]:
    return ("invite", "--name", name, "--tenant", tenant, "--cloud", cloud, *more)


def test_an_invitation_is_one_document_and_its_link_works(capsys, person, world):
    world.add_tenant(NEW, "Woodgrove", customers=1).add_account(SERVICE, groups={"AdminAgents"})

    document = answer(capsys, *invite())

    assert set(document) == {"partner", "url", "expires_at"}
    assert document["partner"] == NEW
    assert person.connect(document["url"], SERVICE).status_code == 200


def test_the_link_itself_is_kept_nowhere(capsys, world):
    url = answer(capsys, *invite())["url"]

    link = url.rsplit("/", 1)[-1]
    kept = [str(value) for row in Invitation.objects.values() for value in row.values()]
    assert not any(link in value for value in kept)


def test_an_invitation_is_mailed_when_an_address_is_given(capsys, world):
    document = answer(capsys, *invite("--email", "admin@woodgrove.test"))

    [sent] = mail.outbox
    assert sent.to == ["admin@woodgrove.test"]
    assert document["url"] in sent.body


@pytest.mark.parametrize("address", ["not an address", "a@" + "b" * 60 + ("." + "c" * 60) * 4 + ".test"])
def test_an_address_that_is_none_makes_no_invitation(capsys, world, address):
    with pytest.raises(CommandError, match="no mail address") as refused:
        answer(capsys, *invite("--email", address))

    assert refused.value.returncode == 2
    assert not Invitation.objects.exists()


def test_a_mail_that_cannot_leave_loses_no_link(capsys, world, settings):
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = SMTP, "127.0.0.1", 1

    with pytest.raises(SystemExit) as ended:
        call_command(*invite("--email", "admin@woodgrove.test"), json=True)

    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert json.loads(printed.out)["url"]
    assert "did not leave" in printed.err


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cloud": "germany"}, "closed"),
        ({"cloud": "mars"}, "mars"),
        ({"cloud": "china"}, "CPV_APP_ID_CHINA"),
        ({"tenant": "contoso.onmicrosoft.com"}, "GUID"),
        ({"name": "  "}, "--name"),
        ({"name": "N" * 257}, "257 characters"),
    ],
)
def test_a_wrong_invitation_is_refused_with_the_way_out(capsys, world, wrong, says):
    with pytest.raises(CommandError, match=says) as refused:
        answer(capsys, *invite(**wrong))

    assert refused.value.returncode == 2
    assert not Partner.objects.exists()


def test_a_tenant_never_moves_to_another_cloud(capsys, world, settings):
    Partner.objects.create(cloud="usgov", tenant_id=NEW, name="Woodgrove")

    with pytest.raises(CommandError, match="never moves") as refused:
        answer(capsys, *invite())

    assert refused.value.returncode == 2


def test_a_partner_that_is_connected_is_not_invited_again(capsys, member):
    with pytest.raises(CommandError, match="already") as refused:
        answer(capsys, *invite(name="Contoso", tenant=CONTOSO))

    assert refused.value.returncode == 1


def test_a_partner_that_broke_may_be_invited_anew(capsys, member, contoso):
    partner = Partner.objects.get()
    partner.refresh_tokens.update(refused_at=timezone.now(), refusal="needs_consent", refusal_code="AADSTS50173")

    url = answer(capsys, *invite(name="Contoso", tenant=CONTOSO))["url"]

    assert "Connected as" in text_of(member.connect(url, SERVICE))


@pytest.mark.parametrize(("audience", "mfa"), [("partnercenter", True), ("graph", True)])
def test_a_token_is_explained_and_never_shown(capsys, member, world, audience, mfa):
    document = answer(capsys, "token", CONTOSO, "--audience", audience, "--reason", "ticket 7")

    assert (document["ok"], document["mfa"], document["error"]) == (True, mfa, None)
    assert document["scopes"]
    text = json.dumps(document)
    assert not any(value in text for kind, value in world.issued if kind == "access_token")
    assert AuditEvent.objects.get(action="token.explained").detail["reason"] == "ticket 7"


def test_a_token_that_cannot_be_had_says_why(capsys, member, contoso):
    contoso.revoke()

    with pytest.raises(SystemExit) as ended:
        call_command("token", CONTOSO, "--audience", "graph", "--reason", "test", json=True)

    document = json.loads(capsys.readouterr().out)
    assert (ended.value.code, document["ok"]) == (1, False)
    assert document["error"].startswith("AADSTS50173")


def test_an_audience_nobody_was_asked_for_is_refused_before_anything_leaves(capsys, member, world):
    before = len(world.calls)

    with pytest.raises(SystemExit):
        call_command("token", CONTOSO, "--audience", "arm", "--reason", "test", json=True)

    assert "audience-not-asked" in json.loads(capsys.readouterr().out)["error"]
    assert len(world.calls) == before


def test_a_customers_refusal_never_marks_the_partner(capsys, member, world):
    other = world.add_tenant(NEW, "A customer")

    with pytest.raises(SystemExit):
        call_command("token", CONTOSO, "--audience", "graph", "--reason", "test", "--customer", other.id, json=True)

    assert not json.loads(capsys.readouterr().out)["ok"]
    assert Partner.objects.get().refresh_tokens.get().refused_at is None


@pytest.mark.parametrize(
    "args",
    [
        ("token", "nonsense", "--audience", "graph", "--reason", "r"),
        ("token", NEW, "--audience", "graph", "--reason", "r"),
        ("token", CONTOSO, "--audience", "graph", "--reason", " "),
        ("token", CONTOSO, "--audience", "graph", "--reason", "r", "--customer", "nonsense"),
    ],
)
def test_a_wrong_call_ends_with_two(capsys, member, args):
    with pytest.raises(CommandError) as refused:
        answer(capsys, *args)

    assert refused.value.returncode == 2


def test_a_web_process_may_not_read_the_vault(capsys, member, settings):
    settings.CPV_ROLE = "web"

    with pytest.raises(CommandError, match="CPV_ROLE=worker") as refused:
        answer(capsys, "token", CONTOSO, "--audience", "graph", "--reason", "r")

    assert refused.value.returncode == 2


def test_a_token_before_any_consent_needs_a_person(capsys, invited):
    with pytest.raises(CommandError, match="not connected") as refused:
        answer(capsys, "token", CONTOSO, "--audience", "graph", "--reason", "r")

    assert refused.value.returncode == 1


# --- work -----------------------------------------------------------------------------------------------------------
def test_work_alone_answers_members_runs_jobs_and_tells_people(member, contoso, capsys):
    jobs.run_job(Job.objects.get().pk)
    customer = Customer.objects.order_by("name_key")[0]
    shown_at = member.portal.post(f"/customers/{customer.tenant_id}/users")["Location"].partition("#")[0]
    Job.objects.update(next_run_at=timezone.now())
    RefreshToken.objects.update(next_refresh_at=timezone.now())

    call_command("work", until_idle=True, json=True)
    ran = json.loads(capsys.readouterr().out)["ran"]
    assert [(row["kind"], row["outcome"]) for row in ran] == [
        ("users", "answered"),
        ("customers", "done"),
        ("sign-in", "kept"),
    ]
    assert "Nothing of it is stored" in text_of(member.portal.get(shown_at))

    contoso.revoke()
    broker.forget()
    Job.objects.update(next_run_at=timezone.now())
    with pytest.raises(SystemExit) as ended:
        call_command("work", until_idle=True, json=True)

    ran = json.loads(capsys.readouterr().out)["ran"]
    assert ended.value.code == 1
    assert [(row["kind"], row["outcome"]) for row in ran] == [("customers", "refused"), ("mail", "sent")]
    assert {row["tenant_id"] for row in ran} == {CONTOSO}
    assert [message.to for message in mail.outbox] == [[SERVICE]]
