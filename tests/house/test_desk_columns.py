"""What the desk does not show it does not tell either: no address asks about a column that no filter of it offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.core.exceptions import FieldError
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from consent.models import Invitation
from partners import jobs
from partners.models import Job, User
from tests.desk import at_the_desk, somebody

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
        assert at_hand <= shown(its), model


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
