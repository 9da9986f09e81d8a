"""What each role may open and do: every closed address, each of the four roles, one table."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from consent import team
from partners import borrowed, jobs
from partners.models import Change, Customer, Job, Member, Partner, Subscription, User
from partners.powers import POWERS
from tests.conftest import CONTOSO, FABRIKAM, SERVICE
from tests.house.test_walls import CSRF, OPEN, portal_patterns
from tests.pretend import text_of

pytestmark = pytest.mark.django_db(transaction=True)

CSRF_VALUE = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
ROLES = ("owner", "operator", "reader", "auditor")
NOBODY = (404, 404, 404, 404)
EVERYBODY = (200, 200, 200, 200)
WHO_MAY = {
    # name of the address, method:           owner, operator, reader, auditor
    ("home", "get"): EVERYBODY,
    ("progress", "get"): EVERYBODY,
    ("connected", "get"): EVERYBODY,
    ("switch", "get"): NOBODY,  # it is there for members of several partners only
    ("switch", "post"): NOBODY,
    ("customers", "get"): (200, 200, 200, 404),
    ("customer", "get"): (200, 200, 200, 404),
    ("customer_users", "get"): (200, 200, 404, 404),
    ("relationships", "get"): (200, 200, 200, 404),
    ("ask_for_users", "post"): (302, 302, 404, 404),
    ("subscriptions", "get"): (200, 200, 200, 404),
    ("begin_change", "post"): (302, 302, 404, 404),
    ("change", "get"): (200, 200, 404, 404),
    ("choose_change", "post"): (302, 302, 404, 404),
    ("confirm_change", "post"): (302, 302, 404, 404),
    ("take_back_change", "post"): (302, 302, 404, 404),
    ("sync_now", "post"): (302, 302, 404, 404),
    ("jobs", "get"): (200, 200, 200, 404),
    ("job_act", "post"): (302, 302, 404, 404),
    ("accept_removals", "post"): (302, 302, 404, 404),
    ("removed", "get"): (200, 200, 404, 404),
    ("bring_back", "post"): (302, 302, 404, 404),
    ("choose_kind", "post"): (302, 404, 404, 404),
    ("connection", "get"): (200, 200, 404, 200),
    ("permissions", "get"): (200, 200, 404, 200),
    ("activity", "get"): (200, 404, 404, 200),
    ("export_activity", "post"): (200, 404, 404, 200),
    ("evidence", "get"): (200, 404, 404, 200),
    ("export_evidence", "post"): (200, 404, 404, 200),
    ("choose_period", "post"): (302, 404, 404, 404),
    ("revoke", "post"): (302, 404, 404, 404),
    ("renew", "post"): (302, 404, 404, 404),
    ("renewal", "get"): (200, 404, 404, 404),
    ("renewal", "post"): (302, 404, 404, 404),
    ("access", "get"): (200, 404, 404, 404),
    ("allow_access", "post"): (302, 404, 404, 404),
    ("refuse_access", "post"): (302, 404, 404, 404),
    ("end_access", "post"): (302, 404, 404, 404),
    ("signin_again", "get"): EVERYBODY,
    ("signin_again", "post"): (302, 302, 302, 302),
    ("team", "get"): (200, 404, 404, 404),
    ("team_invite", "post"): (302, 404, 404, 404),
    ("team_take_back", "post"): (302, 404, 404, 404),
    ("team_role", "post"): (302, 404, 404, 404),
    ("team_remove", "post"): (302, 404, 404, 404),
    ("team_limit", "post"): (302, 404, 404, 404),
    ("team_customers", "get"): (200, 404, 404, 404),
    ("team_choose", "post"): (302, 404, 404, 404),
}
FORMS = {
    "choose_period": {"days": "180"},
    "job_act": {"act": "run"},
    "choose_kind": {"wanted": "yes"},
    "export_activity": {"format": "csv"},
    "begin_change": {"subscription": "subscription"},
    "team_invite": {"email": "new@contoso.test", "role": "reader"},
    "team_role": {"role": "operator"},
    "team_limit": {"limited": "yes"},
}


@pytest.fixture
def ids(member) -> dict[str, dict[str, object]]:
    """What stands in the addresses: a customer, a colleague, one who is removed, and an open invitation."""
    jobs.run_job(Job.objects.get().pk)
    partner, owner = Partner.objects.get(), Member.objects.get()
    colleague, removed = (
        Member.objects.create(user=User.objects.create_user(name), partner=partner, role="reader")
        for name in ("colleague", "removed")
    )
    invitation, _ = team.invite(email="open@contoso.test", role="reader", by=owner)
    asks = User.objects.create_user("asks", is_staff=True, staff_role="support")
    grant = borrowed.ask(partner=partner, by=asks, reason="names are missing")
    for name in ("allow_access", "refuse_access", "end_access"):
        FORMS[name] = {"grant": str(grant.pk)}
    known = {"tenant_id": Customer.objects.order_by("pk")[0].tenant_id, "member_id": colleague.pk, "kind": "customers"}
    customer = Customer.objects.order_by("pk")[0]
    of_it = {"partner": partner, "customer": customer}
    Subscription.objects.create(**of_it, key="subscription", subscription_id="SUBSCRIPTION", content_hash=b"0" * 16)
    change = Change.objects.create(**of_it, member=owner, subscription_id="OTHER", subscription_key="other")
    known |= {"change_id": change.pk}
    return {
        "": known | {"invitation_id": invitation.pk},
        "team_remove": {"member_id": removed.pk},
        "choose_kind": {"kind": "users"},
    }


def closed(ids: dict[str, dict[str, object]]) -> dict[str, str]:
    """Every address for members by its name."""

    def address(route: str, name: str) -> str:
        return "/" + re.sub(r"<\w+:(\w+)>", lambda match: str((ids.get(name) or ids[""])[match[1]]), route)

    return {
        pattern.name: address(route, pattern.name) for route, pattern in portal_patterns() if pattern.name not in OPEN
    }


def test_every_role_that_there_is_stands_in_the_table():
    assert set(ROLES) == set(Member.Role.values) == set(POWERS) - {"borrowed"}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_the_table_says_and_nothing_else(member, ids, role):
    Member.objects.exclude(user__username__in=("colleague", "removed")).update(role=role)
    missing = CSRF.sub(b"", member.portal.get("/no/such/address/").content)

    for name, address in closed(ids).items():
        for method in ("get", "post"):
            answer = getattr(member.portal, method)(address, FORMS.get(name, {}) if method == "post" else {})
            expected = WHO_MAY[name, method][ROLES.index(role)] if (name, method) in WHO_MAY else 405
            assert answer.status_code == expected, (name, method, role)
            if expected == 404:
                assert CSRF.sub(b"", answer.content) == missing, (name, method, role)


def test_the_table_names_no_address_that_is_gone(ids):
    assert {name for name, _ in WHO_MAY} == set(closed(ids))


@pytest.mark.parametrize("role", ROLES)
def test_a_page_leads_only_to_what_the_role_may_open_and_do(member, ids, role):
    Member.objects.exclude(user__username__in=("colleague", "removed")).update(role=role)
    addresses = closed(ids)
    may_open = [name for (name, method), who in WHO_MAY.items() if method == "get" and who[ROLES.index(role)] == 200]

    for name in may_open:
        page = member.portal.get(addresses[name]).content.decode()
        links = set(re.findall(r'<a[^>]+href="(/[^"#?]*)', page)) - {"/signout"}
        for link in links:
            assert member.portal.get(link).status_code == 200, (role, name, link)
        for action in set(re.findall(r'<form method="post" action="([^"]+)"', page)) - {"/signout"}:
            known = next((known for known in addresses if addresses[known] == action), None)
            if known:  # forms about other customers and members go to the same kind of address
                assert WHO_MAY[known, "post"][ROLES.index(role)] != 404, (role, name, action)


def test_an_auditor_meets_no_customer_anywhere(member, ids):
    Member.objects.exclude(user__username__in=("colleague", "removed")).update(role="auditor")
    names = list(Customer.objects.values_list("name", flat=True))

    for name, address in closed(ids).items():
        words = text_of(member.portal.get(address))
        assert not [customer for customer in names if customer in words], name
        assert "3 customers" not in words, name
    assert "Customers read" not in text_of(member.portal.get("/"))
    assert not Member.objects.get(role="auditor").customers.exists()


def test_a_form_from_before_a_switch_of_organisations_does_nothing(member, ids, connected_partner):
    """It stands in another tab whose header names the one, while the session speaks for the other."""
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam", customers=2)
    owner = Member.objects.exclude(partner=other).get(user__upn=SERVICE)
    there = Member.objects.create(user=owner.user, partner=other, role="owner")
    browser = Client(enforce_csrf_checks=True)
    browser.cookies = member.portal.cookies
    token = {"csrfmiddlewaretoken": CSRF_VALUE.search(browser.get("/").content.decode())[1]}
    assert browser.post("/switch/", {"member": there.pk} | token).status_code == 302

    for name, address in closed(ids).items():
        if (name, "post") in WHO_MAY:
            answer = browser.post(address, FORMS.get(name, {}) | token)
            assert (answer.status_code, "has expired" in text_of(answer)) == (403, True), name


def test_a_page_from_before_a_switch_that_asks_by_itself_is_loaded_anew(member, ids):
    def asks(address, partner):
        return member.portal.get(address, headers={"HX-Request": "true", "X-CPV-Partner": partner})

    for address in ("/jobs/", "/progress"):
        of_another = asks(address, FABRIKAM)
        assert (of_another["HX-Refresh"], of_another.content) == ("true", b""), address
    own = asks("/jobs/", CONTOSO)
    assert "HX-Refresh" not in own
    assert f'{{"X-CPV-Partner":"{CONTOSO}"}}' in own.content.decode()


def test_a_stranger_meets_404_at_every_one_of_them(ids):
    stranger = Client()
    stranger.force_login(User.objects.create_user("stranger"))

    for name, address in closed(ids).items():
        method = next(method for known, method in WHO_MAY if known == name)
        assert getattr(stranger, method)(address, FORMS.get(name, {})).status_code == 404, name
