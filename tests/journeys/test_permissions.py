"""What we ask for: the pages, the address at Microsoft, the app registration and the ledger say the same."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import call_command

from consent import invitations
from consent.models import Consent
from partners import change_steps, changes, jobs, lookups
from partners.models import Customer, Job, Lookup, Member, Partner
from tests.conftest import CONTOSO
from tests.pretend import text_of
from tokens import actors, broker, outside, permissions, rotation
from tokens.models import RefreshToken, TokenUse
from tokens.permissions import SETS

pytestmark = pytest.mark.django_db(transaction=True)

OIDC = {"openid", "profile", "offline_access", "email"}
SUPPORT_ONLY = {"token.explain"}  # `manage.py token` tests whatever was asked for
# As Microsoft publishes them; typed a second time so that a slip of the pen is found.
IDS = {
    "user_impersonation": ("fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd", "1cebfa2a-fb4d-419e-b5f9-839b4383e05a"),
    "arm/user_impersonation": ("797f4846-ba00-4fd7-ba43-dac1f8f63013", "41094075-9dad-400e-a0bd-54e686782033"),
    "User.Read.All": ("00000003-0000-0000-c000-000000000000", "a154be20-db9c-4678-8ab7-66f6cc099a59"),
    "GroupMember.Read.All": ("00000003-0000-0000-c000-000000000000", "bc024368-1153-4739-b217-4326f2e966d0"),
    "DelegatedAdminRelationship.ReadWrite.All": (
        "00000003-0000-0000-c000-000000000000",
        "885f682f-a990-4bad-a642-36736a74b0c7",
    ),
    "DelegatedAdminRelationship.Read.All": (
        "00000003-0000-0000-c000-000000000000",
        "0c0064ea-477b-4130-82a5-4c2cc4ff68aa",
    ),
}


def shown(answer) -> set[str]:
    """The scopes that a page names, one reference each in the list of permissions."""
    listed = re.search(r'<ul class="cpv-list">.*?</ul>', answer.content.decode(), re.DOTALL)
    assert listed
    return set(re.findall(r"Reference: <code>([^<]+)</code>", listed[0]))


@pytest.fixture(params=sorted(SETS))
def asking(request, settings) -> str:
    settings.CPV_PERMISSIONS = request.param
    return request.param


def test_both_pages_the_address_at_microsoft_and_the_registration_name_the_same(asking, member, person, invited, world):
    before = shown(before_consent(person, world))
    after = shown(member.portal.get("/permissions/"))
    registered = {
        (resource["resourceAppId"], entry["id"], entry["type"])
        for resource in permissions.manifest(outside.asked_permissions())
        for entry in resource["resourceAccess"]
    }

    assert before == after == asked_at_microsoft(person, world)
    assert registered == {(*IDS[scope], "Scope") for scope in after}
    assert 0 < len(after) <= 5


def before_consent(person, world):
    return person.portal.get(urlsplit(invitation(world)).path)


def asked_at_microsoft(person, world) -> set[str]:
    query = parse_qs(urlsplit(person.leave(invitation(world))).query)
    asked = query["scope"][0].replace("https://management.azure.com/", "x/arm:").split()
    return {scope.rsplit("/", 1)[-1].replace("arm:", "arm/") for scope in asked} - OIDC


def invitation(world) -> str:
    partner, _ = Partner.objects.get_or_create(
        cloud="global", tenant_id="0a7b1d00-0000-4000-8000-0000000000b0", defaults={"name": "Northwind"}
    )
    return invitations.invite(partner=partner, by=actors.SYSTEM)[1]


def test_the_application_alone_may_do_nothing(asking, member):
    assert permissions.for_the_application_alone(permissions.manifest(outside.asked_permissions())) == 0
    assert "For our application alone 0" in text_of(member.portal.get("/permissions/"))
    role = [{"resourceAppId": "x", "resourceAccess": [{"id": "y", "type": "Role"}]}]
    assert permissions.for_the_application_alone(role) == 1


def test_the_page_says_what_was_granted_by_whom(member):
    words = text_of(member.portal.get("/permissions/"))

    assert "Granted 4 of 4" in words
    assert "Agreed by svc-cpv@contoso.test" in words
    assert "Not granted" not in words


def test_what_was_not_granted_and_what_is_no_longer_asked_for_is_named(member, settings):
    settings.CPV_PERMISSIONS = "reports"

    words = text_of(member.portal.get("/permissions/"))

    assert "Granted 3 of 4" in words
    assert words.count("Not granted") == 1
    beyond = words.partition("no longer asked for")[2]
    assert "DelegatedAdminRelationship.ReadWrite.All" in beyond


def test_granted_scopes_may_be_written_in_any_case(member):
    Consent.objects.update(scopes=["USER_IMPERSONATION", "user.read.all"])

    assert "Granted 2 of 4" in text_of(member.portal.get("/permissions/"))


def test_what_is_not_used_yet_says_so(member):
    unused = [permission for permission in outside.asked_permissions() if not permission.purposes]

    words = text_of(member.portal.get("/permissions/"))

    assert words.count("Not used yet") == len(unused) > 0


def test_the_ledger_of_everything_we_do_matches_what_the_page_says(member):
    for kind in jobs.kinds():
        broker.forget()  # or one access token would serve them all
        assert jobs.run_job(jobs.ensure(Partner.objects.get(), kind, due_now=True).pk)
    member.portal.post(f"/customers/{Customer.objects.all()[0].tenant_id}/users")
    broker.forget()
    lookups.answer(Lookup.objects.get().pk)
    broker.forget()
    one = {"customer": Customer.objects.all()[0], "subscription_id": "no-such"}
    change_steps.work(changes.ask(member=Member.objects.get(), **one).pk)
    call_command("token", CONTOSO, audience="graph", reason="test", json=True)
    rotation.rotate(RefreshToken.objects.get().pk)

    seen = set(TokenUse.objects.filter(partner__isnull=False).values_list("audience", "purpose"))

    said = {(str(p.audience), purpose) for p in outside.asked_permissions() for purpose in p.purposes}
    assert {(audience, purpose) for audience, purpose in seen if purpose not in SUPPORT_ONLY} == said


def test_every_purpose_has_words():
    for permission in {permission for asked in SETS.values() for permission in asked}:
        assert len(permission.jobs) <= len(permission.purposes)
        assert bool(permission.jobs) == bool(permission.purposes)


def test_the_page_opens_while_the_connection_is_broken(member, contoso):
    contoso.revoke()
    jobs.run_job(Job.objects.get().pk)

    words = text_of(member.portal.get("/permissions/"))

    assert "The connection needs attention" in words
    assert "Granted 4 of 4" in words
