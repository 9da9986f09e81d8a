"""Scopes in the code: on every database, nobody's rows are open until somebody says whose."""

from __future__ import annotations

import contextvars
import threading

import pytest
from django.db import connection, models

from consent.models import Consent
from partners.models import Customer, Job, Member, Partner
from tests.conftest import FABRIKAM
from tokens import tenancy
from tokens.models import AuditEvent, Halt
from tokens.tenancy import NoScope, NotForSystem, OtherPartner, no_scope, partner_scope, system_scope

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def two(connected_partner):
    return connected_partner(), connected_partner(tenant_id=FABRIKAM, name="Fabrikam")


@pytest.mark.parametrize("model", [Partner, Member, Job, Customer, Consent, Halt, AuditEvent])
def test_outside_any_scope_every_way_to_ask_raises(model, db):
    with no_scope():
        with pytest.raises(NoScope, match=model._meta.db_table):
            list(model.objects.all())
        with pytest.raises(NoScope):
            model._base_manager.count()
        with pytest.raises(NoScope), connection.cursor() as cursor:
            cursor.execute(f"SELECT 1 FROM {model._meta.db_table}")  # noqa: S608 - a table of ours
        with pytest.raises(NoScope), connection.cursor() as cursor:
            cursor.execute(f"SAVEPOINT a; DELETE FROM {model._meta.db_table}")  # noqa: S608 - a table of ours


def test_a_query_that_was_written_inside_and_asked_outside_raises(two):
    with partner_scope(two[0]):
        rows = Job.objects.all()
    with no_scope(), pytest.raises(NoScope):
        list(rows)


def test_within_a_partners_scope_only_its_rows_are_there(two):
    one, other = two

    with partner_scope(one):
        assert {job.partner_id for job in Job.objects.all()} == {one.pk}
        assert not other.jobs.exists()
        assert not Member.objects.filter(partner=other).exists()
        assert Job.objects.filter(partner=other).update(failures=9) == 0
    assert set(Job.objects.values_list("failures", flat=True)) == {0}


def test_the_work_for_one_partner_may_not_turn_to_another_but_the_systems_may(two):
    one, other = two

    refused = pytest.raises(OtherPartner, match=f"partner {other.pk} .* for {one.pk}")
    with partner_scope(one), refused, partner_scope(other):
        pass
    with partner_scope(one), system_scope("a test"), partner_scope(other.pk):
        assert Job.objects.get().partner_id == other.pk
    with partner_scope(one), partner_scope(one.pk):
        assert Job.objects.get().partner_id == one.pk


def test_what_is_mirrored_of_customers_is_not_for_the_system(two):
    with system_scope("a test"):
        assert Job.objects.count() == 2
        with pytest.raises(NotForSystem, match="partners_customer"):
            Customer.objects.count()
        with pytest.raises(NotForSystem):
            list(Job.objects.annotate(number=models.Count("partner__customers")))


def test_a_scope_ends_with_its_block_and_leaves_the_one_around_it(two):
    one, _ = two
    with no_scope():
        with partner_scope(one):
            with system_scope("a test"):
                assert tenancy.current() == tenancy.Scope(tenancy.SYSTEM, reason="a test")
            with pytest.raises(LookupError), no_scope():
                raise LookupError
            assert tenancy.current() == tenancy.Scope(tenancy.TENANT, one.pk)
        assert tenancy.current() is None


def test_a_thread_begins_with_nobodys_rows_unless_it_gets_its_makers_context(two):
    found: list[object] = []

    def look() -> None:
        found.append(tenancy.current())

    with partner_scope(two[0]):
        for target, given in ((look, ()), (contextvars.copy_context().run, (look,))):
            thread = threading.Thread(target=target, args=given)
            thread.start()
            thread.join()

    assert found == [None, tenancy.Scope(tenancy.TENANT, two[0].pk)]


def test_what_belongs_to_nobody_needs_no_scope(db):
    with no_scope(), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_session")
        cursor.execute("PRAGMA user_version" if connection.vendor == "sqlite" else "SHOW search_path")


def test_each_model_of_partners_has_a_manager_that_narrows(two):
    """Those whose rows may belong to nobody are narrowed by the database alone."""
    of_nobody_too = {"tokens.Alarm", "tokens.AuditEvent", "tokens.AuditLink", "tokens.Halt", "tokens.TokenUse",
                     "consent.ConsentAttempt", "partners.Partner"}  # fmt: skip
    from django.apps import apps

    for model in apps.get_models():
        if tenancy.owner_of(model) and model._meta.label not in of_nobody_too:
            with no_scope(), pytest.raises(NoScope):
                model._default_manager.get_queryset()
