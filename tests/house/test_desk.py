"""The desk: support finds the partner, the pointer, the runs and the decisions, and can change nothing."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consent.models import ConsentAttempt
from partners import jobs
from partners.models import Customer, Job, Partner, User
from tests.conftest import SERVICE
from tests.desk import PASSWORD, at_the_desk, password
from tests.pretend import text_of
from tokens.models import AuditEvent, Halt, RefreshToken

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def desk(member):
    """Somebody of support, who may look."""
    jobs.run_job(Job.objects.get().pk)
    Halt.objects.create(reason="last year's drill", started_by="security", ended_at=timezone.now())
    return at_the_desk("support")


def address(model: type, what: str, *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{what}", args=args)


def test_support_finds_the_partner_its_pointer_its_runs_and_the_decisions(desk):
    token = RefreshToken.objects.get()

    assert "Connected" in text_of(desk.get(address(Partner, "changelist"), {"q": "contoso"}))
    assert token.secret_name in text_of(desk.get(address(RefreshToken, "change", token.pk)))
    assert token.pinned_version in text_of(desk.get(address(RefreshToken, "change", token.pk)))
    assert "consent.given" in text_of(desk.get(address(AuditEvent, "changelist")))
    assert SERVICE in text_of(desk.get(address(Partner, "change", Partner.objects.get().pk)))


def test_every_page_of_the_desk_opens_and_none_shows_a_secret(desk, world):
    secrets = [value for kind, value in world.issued if kind in ("refresh_token", "access_token", "code", "id_token")]
    for model in admin.site._registry:
        pages = [address(model, "changelist")]
        pages += [address(model, "change", row.pk) for row in model._default_manager.all()[:3]]
        for page in pages:
            answer = desk.get(page)
            assert answer.status_code == 200, page
            content = answer.content.decode()
            assert not any(secret in content for secret in secrets), page
            assert not any(attempt.sealed_flow and attempt.sealed_flow in content for attempt in attempts()), page


def attempts() -> list[ConsentAttempt]:
    return list(ConsentAttempt.objects.all())


@pytest.mark.parametrize("role", User.StaffRole.values)
def test_nothing_can_be_added_changed_or_deleted_whatever_the_role(member, role):
    support = at_the_desk(role)
    for model in admin.site._registry:
        assert support.get(address(model, "add")).status_code == 403, model
        for row in model._default_manager.all()[:1]:
            before = model._default_manager.filter(pk=row.pk).values().get()
            assert support.post(address(model, "change", row.pk), {"name": "x"}).status_code == 403, model
            assert support.post(address(model, "delete", row.pk), {"post": "yes"}).status_code == 403, model
            assert model._default_manager.filter(pk=row.pk).values().get() == before


def test_no_address_of_the_desk_looks_up_whatever_row_it_names(desk):
    customer = ContentType.objects.get_for_model(Customer)

    assert desk.get(f"/admin/r/{customer.pk}/{Customer.objects.order_by('pk')[0].pk}/").status_code == 404


def test_the_list_of_partners_costs_the_same_for_one_and_for_many(desk):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert desk.get(address(Partner, "changelist")).status_code == 200
        return len(captured)

    one = queries()
    for number in range(30):
        tenant = f"eeee0000-0000-4000-8000-{number:012}"
        Partner.objects.create(cloud="global", tenant_id=tenant, name=f"Partner {number}")

    assert queries() == one


def test_the_desk_counts_customers_by_the_last_complete_sync_without_reading_them(desk):
    with CaptureQueriesContext(connection) as queries:
        words = text_of(desk.get(address(Partner, "changelist")))

    assert not any('"partners_customer"' in query["sql"] for query in queries)
    assert "Customers at the last sync" in words
    assert f"{SERVICE} {Customer.objects.count()} " in words


def test_strangers_and_members_meet_the_desks_own_sign_in(member):
    for client in (Client(), member.portal):
        answer = client.get("/admin/")
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/")


def test_a_member_has_no_password_to_sign_in_with(member):
    user = User.objects.get()

    assert not user.has_usable_password()
    for guess in ("!", "", PASSWORD):
        client = Client()
        assert password(client, user.username, guess).status_code == 200
        assert "desk_door" not in client.session


def test_the_desk_keeps_the_strict_policy(desk):
    policy = desk.get("/admin/")["Content-Security-Policy"]

    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


# --- Stops for security ---------------------------------------------------------------------------------------------
@pytest.fixture
def security(desk):
    """Somebody of security, who may stop partners."""
    return at_the_desk("security")


def test_security_stops_a_partner_with_a_reason_and_lifts_it_again(security):
    partner = Partner.objects.get()
    page = address(Partner, "change", partner.pk)
    stop, lift = (reverse(f"admin:{name}", args=[partner.pk]) for name in ("stop_partner", "lift_stop"))
    assert stop in security.get(page).content.decode()

    assert "No call leaves" in text_of(security.get(stop))
    assert "Please say why" in text_of(security.post(stop, {"reason": " "}))
    assert Partner.objects.get().killed_at is None
    stopped = security.post(stop, {"reason": "a drill"}, follow=True)

    assert "is stopped" in text_of(stopped)
    assert lift in stopped.content.decode()
    event = AuditEvent.objects.get(action="partner.killed")
    assert (event.actor_label, event.detail) == ("security", {"reason": "a drill"})
    assert "may connect again" in text_of(security.post(lift, {"reason": "over"}, follow=True))
    assert Partner.objects.get().killed_at is None


def test_security_stops_everything(security):
    everything = reverse("admin:stop_everything")
    assert everything in security.get(address(Partner, "changelist")).content.decode()

    assert "Everything is stopped" in text_of(security.post(everything, {"reason": "a thief"}, follow=True))

    assert Halt.objects.in_force().get().reason == "a thief"


def test_support_may_neither_stop_nor_lift(desk):
    partner = Partner.objects.get()
    for name, args in (("stop_partner", [partner.pk]), ("lift_stop", [partner.pk]), ("stop_everything", [])):
        there = reverse(f"admin:{name}", args=args)
        assert desk.get(there).status_code == 403
        assert desk.post(there, {"reason": "x"}).status_code == 403
        assert Client().post(there, {"reason": "x"}).status_code == 302
    assert "Stop" not in text_of(desk.get(address(Partner, "change", partner.pk)))
    assert not Halt.objects.in_force().exists()
    assert Partner.objects.get().killed_at is None
