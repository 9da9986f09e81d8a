"""What goes over the message broker: one id, for a row that is due."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
import time_machine
from django.utils import timezone

from cpvpanel.celery import app
from partners import messages, tasks
from partners.models import Job, Run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def queue(member):
    """The embedded message broker's queue of work, emptied."""
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.amqp.queues["work"])
        queue.clear()
        yield queue
        queue.clear()
        queue.close()


def read(queue):
    message = queue.get(timeout=2)
    message.ack()
    return message.headers["task"], message.payload[1]


def test_the_tick_hints_that_something_waits_as_long_as_it_does(queue):
    Job.objects.update(next_run_at=timezone.now(), claimed_until=None)

    tasks.dispatch()
    tasks.dispatch()

    assert [read(queue)[0] for _ in range(2)] == ["partners.work_off"] * 2
    Job.objects.update(next_run_at=None, claimed_until=None)
    tasks.dispatch()
    assert queue.qsize() == 0


def test_a_hint_runs_what_is_due_and_a_second_one_finds_it_done(member):
    Job.objects.update(next_run_at=timezone.now(), claimed_until=None)

    tasks.work_off.apply(kwargs={"from_a_newer_release": True})
    tasks.work_off.apply()

    assert [run.outcome for run in Run.objects.all()] == ["done"]


def as_a_worker_would(queue):
    """Read what waits, in its order, and do it; the names of what was done."""
    done = []
    while queue.qsize():
        task, ids = read(queue)
        app.tasks[task].apply(kwargs=ids)
        done.append(task)
    return done


def test_a_flood_of_old_hints_is_passed_over_and_grows_no_new_ones(queue, connected_partner):
    for number in range(3):
        connected_partner(tenant_id=str(uuid.UUID(int=9 + number)), name=f"Partner {number}")
    for _ in range(200):
        messages.work_waits()

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=messages.HINT_LIFE + 1)):
        Job.objects.update(next_run_at=timezone.now(), claimed_until=None)
        assert as_a_worker_would(queue) == ["partners.work_off"] * 200
        assert not Run.objects.exists()
        tasks.dispatch()
        as_a_worker_would(queue)

    assert [run.outcome for run in Run.objects.all()] == ["done"] * 4, "a new one has it done"


def test_an_old_hint_that_its_dead_reader_gave_back_is_followed(queue):
    messages.work_waits()
    Job.objects.update(next_run_at=timezone.now(), claimed_until=None)

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=messages.HINT_LIFE + 1)):
        tasks.work_off.push_request(id="m1", delivery_info={"redelivered": True})
        tasks.work_off.run(**queue.get(timeout=2).payload[1])
        tasks.work_off.pop_request()

    assert [run.outcome for run in Run.objects.all()] == ["done"]


def test_a_message_runs_its_job_and_a_second_one_finds_it_done(member):
    job = Job.objects.get()

    tasks.run_job.apply(kwargs={"job_id": job.pk, "from_a_newer_release": True})
    tasks.run_job.apply(kwargs={"job_id": job.pk})

    assert [run.outcome for run in Run.objects.all()] == ["done"]


def test_a_message_for_a_job_that_is_gone_does_nothing(member):
    tasks.run_job.apply(kwargs={"job_id": 0})

    assert not Run.objects.exists()


def test_the_clock_knows_only_tasks_that_exist():
    app.loader.import_default_modules()

    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)


def test_a_sign_in_that_is_to_be_stored_anew_waits_behind_no_flood_of_work(queue):
    assert app.amqp.router.route({}, "tokens.rotate")["queue"].name == "control"
