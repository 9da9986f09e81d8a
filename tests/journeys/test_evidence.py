"""The page "Evidence": what an auditor of the partner asks about the connection, and no customer and no secret."""

from __future__ import annotations

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import evidence, jobs, lifecycle
from partners.models import Customer, Job, Member, Partner
from tests.conftest import SERVICE
from tests.desk import later
from tests.journeys.colleagues import add, portal_of
from tests.pretend import text_of
from tests.statements import asked
from tokens import audit_chain
from tokens.actors import SYSTEM
from tokens.models import BY_A_STOP, AuditEvent, AuditLink, RefreshToken, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
PAGE, EXPORT = "/evidence/", "/evidence/export"


@pytest.fixture
def auditor(member):
    return portal_of(add("aud", "auditor"))


def taken(client) -> dict:
    answer = client.post(EXPORT)
    assert answer.status_code == 200
    return json.loads(answer.content)


def test_an_auditor_reads_who_agreed_to_what_and_what_became_of_it(member, auditor):
    jobs.run_job(Job.objects.get().pk)
    audit_chain.seal()
    token = RefreshToken.objects.get()

    words = text_of(auditor.get(PAGE))

    for part in (
        "Connected since", "180 days from each consent", "Generation 1 in force", f"Agreed by {SERVICE}",
        "terms 2026-11", "Role Admin agent", "MFA seen: Partner Center confirms it", token.consent.scopes[0],
        "1 time in all, 1 of them",
        "sync of customers", "Partner Center", "Granted", "None yet.", AuditLink.objects.order_by("-number")[0].hash,
    ):  # fmt: skip
        assert part in words, part


def test_the_file_says_the_same_and_that_it_was_taken_along_is_a_line(member, auditor):
    audit_chain.seal()

    document = taken(auditor)

    [one] = document["sign_ins"]
    token = RefreshToken.objects.get()
    assert (one["generation"], one["state"], one["by"]) == (1, "in force", SERVICE)
    assert (one["account"], one["role"], one["mfa"]["compliant"]) == (str(token.oid), "admin_agent", True)
    assert document["connection"]["state"] == "active"
    assert document["activity"]["lines"] == AuditLink.objects.filter(partner__isnull=False).count()
    line = AuditEvent.objects.get(action="evidence.exported")
    assert (line.actor_label, line.partner) == ("aud@contoso.test", Partner.objects.get())
    assert "Evidence exported" in text_of(auditor.get("/activity/"))


def test_each_generation_stays_on_the_page_with_its_end(member, auditor):
    RefreshToken.objects.get().mark_refused("needs_consent", code="AADSTS50173")
    assert "Generation 1 refused" in text_of(auditor.get(PAGE))
    member.come_back(member.at_microsoft(member.leave("/connection/renew"), SERVICE))
    member.come_back(member.at_microsoft(member.leave("/connection/renew"), SERVICE))

    states = [one["state"] for one in taken(auditor)["sign_ins"]]

    assert states == ["waits for an owner's yes", "in force", "replaced"]
    with later(minutes=31):
        assert "Generation 3 not confirmed in time" in text_of(portal_of(Member.objects.get(role="auditor")).get(PAGE))


def test_neither_customers_nor_where_a_secret_lies_are_in_it(member, auditor):
    jobs.run_job(Job.objects.get().pk)
    customer = Customer.objects.order_by("pk")[0]
    member.portal.post(f"/customers/{customer.tenant_id}/users")
    token = RefreshToken.objects.get()

    for text in (auditor.get(PAGE).content.decode(), json.dumps(taken(auditor))):
        for hidden in (str(customer.tenant_id), customer.name, token.secret_name, token.pinned_version):
            assert hidden not in text, hidden


def test_stops_of_the_partner_say_why_and_stops_of_everybody_only_that_they_were(member, auditor):
    partner = Partner.objects.get()
    lifecycle.kill(partner=partner, by=SYSTEM, reason="a thief of ours")
    lifecycle.kill_all(by=SYSTEM, reason="a thief at Fabrikam")
    other = Partner.objects.create(cloud="global", tenant_id="fab51ca0-0000-4000-8000-0000000000f0", name="Fabrikam")
    lifecycle.kill(partner=other, by=SYSTEM, reason="another's thief")

    words = text_of(auditor.get(PAGE))

    assert "Of your organisation in force" in words
    assert "a thief of ours" in words
    assert "Of everybody in force" in words
    assert "Fabrikam" not in words
    assert "another's thief" not in words


def test_before_anybody_agreed_the_page_says_so(member, auditor):
    partner = Partner.objects.create(cloud="global", tenant_id="fab51ca0-0000-4000-8000-0000000000f0", name="Fabrikam")
    new = Member.objects.get(role="auditor")
    Member.objects.filter(pk=new.pk).update(partner=partner)

    words = text_of(portal_of(Member.objects.get(pk=new.pk)).get(PAGE))

    assert "Nobody has agreed yet." in words
    assert "No line is sealed yet" in words
    assert SERVICE not in words


def test_taking_it_along_takes_a_proof_of_the_last_ten_minutes(member, auditor):
    with later(minutes=11):
        answer = auditor.post(EXPORT)

    assert answer.status_code == 302
    assert answer["Location"].startswith("/signin/again")
    assert not AuditEvent.objects.filter(action="evidence.exported").exists()


@pytest.mark.parametrize(
    ("column", "title", "tag"),
    [
        ("withdrawn_at", "Access withdrawn", "ended by your organisation"),
        ("lapses_at", "Access period over", "access period over"),
        ("killed_at", "Stopped for security", "stopped for security"),
        ("suspended_at", "Suspended", "paused by the vendor"),
    ],
)
def test_a_sign_in_that_may_not_be_used_is_not_said_to_be_in_force(member, column, title, tag):
    Partner.objects.update(**{column: timezone.now()})

    words = text_of(member.portal.get(PAGE))

    assert f"{title} since" in words
    assert f"Generation 1 {tag}" in words
    assert "in force" not in words
    assert ("Ended by your organisation" in words) == (column == "withdrawn_at")


def test_what_we_disabled_after_a_stop_was_refused_by_nobody(member, auditor):
    RefreshToken.objects.get().mark_refused("needs_consent", code=BY_A_STOP)

    [one] = taken(auditor)["sign_ins"]

    assert (one["state"], one["refused_at"], one["refusal"]) == ("disabled after a stop", None, "")
    assert "Refused" not in text_of(auditor.get(PAGE))


def test_the_sign_in_in_force_is_there_however_many_renewals_nobody_confirmed(member, auditor):
    token = RefreshToken.objects.select_related("consent").get()
    consent = token.consent
    for generation in range(2, evidence.NEWEST + 3):
        token.pk, token.generation, token.secret_name = None, generation, f"name-{generation}"
        consent.pk, token.pending_until = None, timezone.now()
        token.save()
        consent.token = token
        consent.save()

    document = taken(auditor)

    assert document["connection"]["state"] == "active"
    assert [one["generation"] for one in document["sign_ins"]] == [*range(22, 2, -1), 1]
    assert document["sign_ins"][-1]["state"] == "in force"


def test_sign_ins_of_members_are_no_uses_of_the_consent(member, auditor):
    before = [(use["at"], use["for"]) for use in taken(auditor)["uses"]]
    use = TokenUse.objects.filter(partner__isnull=False).latest("at")
    for _ in range(evidence.NEWEST):
        use.pk, use.purpose, use.generation, use.at = None, "signin.mfa", None, timezone.now()
        use.save(force_insert=True)

    assert before
    assert [(use["at"], use["for"]) for use in taken(auditor)["uses"]] == before


def test_a_consent_that_was_never_stored_is_not_on_the_page(member, auditor):
    first = RefreshToken.objects.get()
    RefreshToken.objects.create(partner=first.partner, generation=2, secret_name="reserved-in-vain", oid=first.oid)

    assert [one["generation"] for one in taken(auditor)["sign_ins"]] == [1]
    assert "Generation 2" not in text_of(auditor.get(PAGE))


def test_the_page_costs_at_most_six_queries(member, auditor):
    jobs.run_job(Job.objects.get().pk)
    audit_chain.seal()

    with CaptureQueriesContext(connection) as queries:
        assert auditor.get(PAGE).status_code == 200

    assert len(asked(queries)) <= 6, asked(queries)
