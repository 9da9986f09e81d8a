"""Addresses that belong to no room."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from partners import tasks
from partners.models import Pulse
from tests.pretend import text_of
from tokens import outside
from tokens.vault import SecretMissing, VaultUnavailable


def test_health_needs_nothing_but_the_process():
    assert Client().get("/healthz").json() == {"status": "ok"}


@pytest.mark.django_db
def test_ready_means_a_database_with_every_migration():
    answer = Client().get("/readyz")

    assert answer.status_code == 200
    assert {"database": "ok", "migrations": "ok"}.items() <= answer.json().items()


@pytest.mark.django_db
def test_the_message_broker_is_judged_by_the_ticks_that_reach_a_worker():
    never = Client().get("/readyz").json()["broker"]
    tasks.pulse.apply()
    now = Client().get("/readyz").json()["broker"]
    Pulse.objects.update(at=timezone.now() - dt.timedelta(seconds=90))
    silent = Client().get("/readyz")

    assert (never, now, silent.json()["broker"]) == ("no tick yet", "ok", "no tick for 90 s")
    assert silent.status_code == 200, "restarting the portal would not mend the message broker"


@pytest.mark.django_db
def test_the_vault_is_judged_by_the_last_call_of_this_process(world):
    unused = Client().get("/readyz").json()["vault"]
    outside.vault("global").put("a-name", "sealed", tags={})
    works = Client().get("/readyz").json()["vault"]
    world.fail("vault", "503", times=1)
    with pytest.raises(VaultUnavailable):
        outside.vault("global").put("a-name", "sealed", tags={})
    away = Client().get("/readyz")
    with pytest.raises(SecretMissing):
        outside.vault("global").get("another-name", "1")
    answers = Client().get("/readyz").json()["vault"]

    assert (unused, works, away.json()["vault"], answers) == ("not used yet", "ok", "unreachable", "ok")
    assert away.status_code == 200


@pytest.mark.django_db
def test_a_worker_that_is_gone_is_forgotten_after_a_day():
    Pulse.beat("celery@gone")
    Pulse.objects.update(at=timezone.now() - dt.timedelta(days=2))
    Pulse.beat("celery@here")

    tasks.tidy.apply()

    assert list(Pulse.objects.values_list("worker", flat=True)) == ["celery@here"]
    assert Pulse.silent_for("celery@gone") is None


@pytest.mark.django_db(transaction=True)
def test_a_missing_migration_is_not_ready():
    call_command("migrate", "consent", "zero", verbosity=0)
    try:
        answer = Client().get("/readyz")
    finally:
        call_command("migrate", verbosity=0)

    own = len(list(Path("consent/migrations").glob("0*.py")))
    assert (answer.status_code, answer.json()["migrations"]) == (503, f"{own} not applied")


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
