"""What the desk does not show it does not tell either: no address asks about a column that no filter of it offers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.core.exceptions import FieldError
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from consent.models import ConsentAttempt, Invitation
from partners import jobs
from partners.models import Job, Partner, User
from tests.desk import at_the_desk, somebody
from tests.pretend import text_of
from tokens import audit
from tokens.actors import SYSTEM
from tokens.models import AuditEvent, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
CONDITIONS = ("", "__exact", "__startswith", "__regex", "__gt", "__in", "__isnull", "__year", "__0")


@pytest.fixture
def desk(member) -> Client:
    """Somebody of support, who may look."""
    jobs.run_job(Job.objects.get().pk)
    return at_the_desk("support")


def address(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def columns(model: type[Model], *, hops: int = 2, before: str = "") -> Iterator[str]:
    """Every name that a condition could have, here and over there, in whichever direction rows point."""
    for field in model._meta.get_fields(include_hidden=True):
        name = before + (field.name if field.concrete else field.name.rstrip("+"))
        yield name
        if field.is_relation and hops and isinstance(field.related_model, type):
            yield from columns(field.related_model, hops=hops - 1, before=f"{name}__")


def offered(its: Any) -> set[str]:
    """The columns that the filters beside the list are about."""
    return {name for name in its.list_filter if isinstance(name, str)}


def shown(its: Any) -> set[str]:
    of_a_row = its.fields or [field.name for field in its.model._meta.concrete_fields]
    return {*its.list_display, *of_a_row} - set(its.exclude or ())


def test_no_condition_is_put_on_a_column_but_what_a_filter_beside_the_list_offers(desk):
    tried = 0
    for model, its in admin.site._registry.items():
        for name in set(columns(model)) - offered(its):
            for condition in CONDITIONS:
                if (name, condition) != ("kind", ""):  # of jobs and runs: a filter of ours has this name
                    assert not its.lookup_allowed(f"{name}{condition}", "x", None), (model, name, condition)
                    tried += 1
        for name in offered(its):
            assert its.lookup_allowed(name, "x", None)
            assert not its.lookup_allowed(f"{name}__regex", "x", None), (model, name)
    assert tried > 5_000


def test_an_address_that_tries_is_answered_alike_whatever_stands_there(desk):
    tried = 0
    for model, its in admin.site._registry.items():
        for column in {field.name for field in model._meta.concrete_fields} - shown(its) | {"id"}:
            assert desk.get(address(model), {f"{column}__gte": "0"}).status_code == 400, (model, column)
            tried += 1
    assert tried > 25


def test_filters_searches_and_orders_are_about_what_is_shown(desk):
    for model, its in admin.site._registry.items():
        at_hand = {*its.finds, *its.finds_parts, *its.finds_of, *its.finds_newest, *offered(its)}
        at_hand |= {name.lstrip("-") for name in its.ordering} - {"id"}
        if model is AuditEvent:
            at_hand -= {"object"}  # shown in words, where it says nothing of a customer
        assert at_hand <= shown(its), model


# --- Customers --------------------------------------------------------------------------------------------------------
def test_lines_about_customers_say_nothing_of_them_at_the_desk_and_no_search_finds_them_by_it(desk):
    partner, customer, subscription = Partner.objects.get(), uuid.uuid4(), uuid.uuid4()
    said = {"actor": SYSTEM, "partner": partner}
    change = {"customer": str(customer), "what": "quantity", "from": 4711, "to": 4712}
    lines = [
        audit.record("change.confirmed", object=subscription, **said, **change),
        audit.record("users.asked", object=customer, **said),
        audit.record("member.customers_chosen", object="chosen canary", added=[str(customer)], **said),
        audit.record("access.used", object=f"customer {customer}", opened=f"customer {customer}", **said),
    ]
    other = audit.record("partner.killed", object="stop 4711", reason="4711", **said)

    pages = [text_of(desk.get(address(AuditEvent)))]
    pages += [text_of(desk.get(reverse("admin:tokens_auditevent_change", args=[line.pk]))) for line in lines]
    for page in pages:
        assert not any(told in page for told in (str(customer), str(subscription), "4712", "chosen canary"))
    assert all("not shown: it is about a customer" in page for page in pages[1:4])
    assert "customer (not shown)" in pages[4]
    assert '"reason": "4711"' in text_of(desk.get(reverse("admin:tokens_auditevent_change", args=[other.pk])))
    for text, found in ((customer, 0), (subscription, 0), ("4711", 1), ("chosen canary", 0), ("users.asked", 1)):
        assert len(desk.get(address(AuditEvent), {"q": str(text)}).context["cl"].result_list) == found, text


def test_neither_the_ledger_nor_a_job_nor_an_attempt_to_sign_in_names_a_customer_at_the_desk(desk):
    customer = str(uuid.uuid4())
    use = TokenUse.objects.create(
        partner=Partner.objects.get(), purpose="users.read", audience="graph", customer_tenant=customer
    )
    job = Job.objects.get()
    Job.objects.update(cursor={"within": customer})
    attempt = ConsentAttempt.objects.latest("pk")
    ConsentAttempt.objects.update(next_path=f"/customers/?q={customer}")

    for row in (use, job, attempt):
        of = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
        page = desk.get(reverse(of, args=[row.pk]))
        assert page.status_code == 200
        assert customer not in page.content.decode(), row


# --- Passwords --------------------------------------------------------------------------------------------------------
def test_nobody_at_the_desk_spells_out_the_hash_of_a_password_or_of_a_link(desk):
    security = somebody("security")
    link = Invitation.objects.get()

    for condition, value in (
        ("password__startswith", security.password[:9]),
        ("password__regex", "^md5"),
        ("password", security.password),
        ("password__isnull", "0"),
    ):
        answer = desk.get(address(User), {"username": "security", condition: value})
        assert answer.status_code == 400, condition
    for condition in ("link_hash", "link_hash__gt", "created_at__gte"):
        assert desk.get(address(Invitation), {condition: link.link_hash.hex()}).status_code == 400


@pytest.mark.parametrize("condition", ["", "__exact", "__startswith", "__contains", "__regex", "__gt", "__in"])
def test_no_question_about_people_has_a_condition_on_the_hash_wherever_its_name_came_from(desk, condition):
    with pytest.raises(FieldError):
        User.objects.filter(**{f"password{condition}": "x"}).exists()
    with pytest.raises(FieldError):
        Job.objects.filter(**{f"partner__members__user__password{condition}": "x"}).exists()
