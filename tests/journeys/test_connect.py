"""J1: from an invitation to a stored token and a first sync."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from django.test import Client

from consent.models import Consent, ConsentAttempt, Invitation
from partners import jobs
from partners.models import Job, Member, Partner
from tests.conftest import CONTOSO, SERVICE
from tests.pretend import Person, text_of
from tokens.models import AuditEvent, RefreshToken, SecretVersion, TokenUse

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("response_mode")]


def test_an_invitation_explains_what_is_asked_before_anything_happens(person, invited):
    answer = person.portal.get(invited[1])

    words = text_of(answer)
    assert answer.status_code == 200
    for asked in (
        "user_impersonation",
        "User.Read.All",
        "GroupMember.Read.All",
        "DelegatedAdminRelationship.ReadWrite",
    ):
        assert asked in words
    assert not person.world.calls
    assert Invitation.objects.get().used_at is None


def test_completing_consent_stores_one_token_and_signs_the_visitor_in_as_owner(person, invited):
    answer = person.connect(invited[1], SERVICE)

    assert answer.request["PATH_INFO"] == "/connect/connected"
    words = text_of(answer)
    assert f"Connected as {SERVICE} · MFA seen · roles ok · stored at" in words
    assert "First sync queued" in words
    token = RefreshToken.objects.get()
    assert token.stored_at
    assert SecretVersion.objects.get().version == token.pinned_version
    secrets = person.world.vault("cpv-demo.vault.azure.net").secrets
    assert list(secrets) == [token.secret_name]
    assert Member.objects.get().role == "owner"
    consent = Consent.objects.get()
    assert (consent.role, consent.mfa_evidence["compliant"]) == ("admin_agent", True)
    assert AuditEvent.objects.filter(action="consent.given").count() == 1


def test_the_code_leaves_the_address_and_the_invitation_is_spent_by_success(person, invited):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)

    answer = person.bring(back)

    assert (answer.status_code, answer["Location"]) == (303, "/connect/connected")
    assert answer["Referrer-Policy"] == "no-referrer"
    assert Invitation.objects.get().used_at
    assert person.portal.get(invited[1]).status_code == 410


def test_the_first_sync_mirrors_the_customers_and_the_list_shows_them(member, invited):
    [job_id] = jobs.claim_due() or [Job.objects.get().pk]

    run = jobs.run_job(job_id)

    assert (run.outcome, run.created) == ("done", 3)
    words = text_of(member.portal.get("/customers/"))
    for customer in invited[0].customers.all():
        assert customer.name in words


def test_every_token_request_has_a_line_in_the_ledger(member):
    asked = [call for call in member.world.calls if call.service == "entra" and call.path.endswith("/token")]
    for_partners = [call for call in asked if "vault" not in str(call.client) and call.tenant == CONTOSO]

    assert TokenUse.objects.count() == len(for_partners) == 2
    assert set(TokenUse.objects.values_list("outcome", flat=True)) == {"granted"}


def test_a_partner_is_known_by_the_state_of_its_connection(member, invited):
    partner = Partner.objects.get()

    assert "Connected" in text_of(member.portal.get("/"))
    assert partner.lapses_at is not None


def test_tokens_in_the_older_endpoints_shape_connect_sign_in_and_sync(person, invited, world):
    world.token_shape = "v1"

    assert person.connect(invited[1], SERVICE).request["PATH_INFO"] == "/connect/connected"

    assert jobs.run_job(Job.objects.get().pk).outcome == "done"
    assert RefreshToken.objects.get().missing_scopes == []
    assert Person(Client(), world).sign_in(SERVICE).request["PATH_INFO"] == "/"


# --- Who sent the answer ----------------------------------------------------------------------------------------------
OWN = "https://login.microsoftonline.com/common/v2.0"


@pytest.mark.parametrize(
    "sender",
    [
        "https://evil.test/v2.0",
        "https://login.microsoftonline.com.evil.test/",
        "https://login.microsoftonline.us/",
        "x",
        "",
    ],
)
def test_an_answer_that_names_another_sender_is_not_believed_and_nothing_is_asked(person, invited, sender):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)
    asked = len(person.world.calls)

    answer = person.bring(f"{back}&{urlencode({'iss': sender})}")

    assert answer.status_code == 400
    assert "another iss" in text_of(answer)
    assert len(person.world.calls) == asked
    assert not RefreshToken.objects.exists()
    assert ConsentAttempt.objects.get().outcome == "unverified"
    assert AuditEvent.objects.get(action="consent.refused").detail["reason"] == "unverified"
    assert person.bring(f"{back}&{urlencode({'iss': OWN})}").status_code == 400, "it counts once"


def test_an_answer_that_names_microsoft_is_believed(person, invited):
    back = person.at_microsoft(person.leave(invited[1]), SERVICE)

    assert person.bring(f"{back}&{urlencode({'iss': OWN})}")["Location"] == "/connect/connected"
