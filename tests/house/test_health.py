"""Addresses that belong to no room."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import Client

from tests.pretend import text_of


def test_health_needs_nothing_but_the_process():
    assert Client().get("/healthz").json() == {"status": "ok"}


@pytest.mark.django_db
def test_ready_means_a_database_with_every_migration():
    answer = Client().get("/readyz")

    assert (answer.status_code, answer.json()) == (200, {"database": "ok", "migrations": "ok"})


@pytest.mark.django_db(transaction=True)
def test_a_missing_migration_is_not_ready():
    call_command("migrate", "consent", "0001", verbosity=0)
    try:
        answer = Client().get("/readyz")
    finally:
        call_command("migrate", verbosity=0)

    assert (answer.status_code, answer.json()["migrations"]) == (503, "1 not applied")


@pytest.mark.django_db
def test_a_database_that_is_away_is_not_ready():
    def away(*_query):
        raise OperationalError("the server closed the connection")

    with connection.execute_wrapper(away):
        answer = Client().get("/readyz")

    assert (answer.status_code, answer.json()["database"]) == (503, "unreachable")


@pytest.mark.django_db
def test_a_form_without_its_mark_is_a_page_that_says_so():
    answer = Client(enforce_csrf_checks=True).post("/signin", {"cloud": "global"})

    assert answer.status_code == 403
    assert "expired" in text_of(answer)


@pytest.mark.django_db(transaction=True)
def test_migrations_go_back_to_nothing_and_forward_again():
    for room in ("consent", "tokens", "partners"):
        call_command("migrate", room, "zero", verbosity=0)
    call_command("migrate", verbosity=0)

    assert {"partners_partner", "tokens_refreshtoken", "consent_invitation"} <= set(
        connection.introspection.table_names()
    )
