"""The workers' application and the whole clock: beat only ticks; each tick claims rows that are due."""

import os
from typing import Any

from celery import Celery, Task
from celery.signals import worker_init, worker_shutting_down

from cpvpanel.messagebroker import QUEUES

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cpvpanel.settings")
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")  # it would load every page for them, and ignore what they find


class BeginsClosed(Task):  # type: ignore[type-arg] # Celery's own class takes no parameters while running
    """A task begins with nobody's rows open; what it calls opens those of the row it claims."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from tokens import tenancy

        with tenancy.no_scope():
            return super().__call__(*args, **kwargs)


app = Celery("cpvpanel", task_cls=BeginsClosed)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,  # a second way to command workers, and every setting would travel there
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    timezone="UTC",
    beat_schedule={
        "dispatch due jobs": {"task": "partners.dispatch", "schedule": 2.0, "options": {"expires": 10}},
        **{
            f"feel the pulse of {queue}": {
                "task": "partners.pulse",
                "schedule": 5.0,
                "options": {"expires": 20, "queue": queue},
            }
            for queue in QUEUES
        },
        "plan what is new": {"task": "partners.plan", "schedule": 300.0, "options": {"expires": 290}},
        "tell partners what changed": {"task": "consent.notify", "schedule": 10.0, "options": {"expires": 9}},
        "write down which looks of staff are over": {
            "task": "partners.end_access",
            "schedule": 30.0,
            "options": {"expires": 25},
        },
        "put customers into the index of parts": {
            "task": "partners.index_customers",
            "schedule": 30.0,
            "options": {"expires": 25},
        },
        "tell our own people of alarms": {
            "task": "partners.tell_alarms",
            "schedule": 15.0,
            "options": {"expires": 14},
        },
        "store sign-ins anew": {"task": "tokens.keep", "schedule": 2.0, "options": {"expires": 10}},
        "disable secrets of who was stopped": {
            "task": "tokens.close_stopped",
            "schedule": 2.0,
            "options": {"expires": 10},
        },
        "sweep secrets nobody points at": {"task": "tokens.sweep", "schedule": 300.0, "options": {"expires": 290}},
        "seal the audit": {"task": "tokens.seal_audit", "schedule": 60.0, "options": {"expires": 50}},
        **{
            f"tidy {room}": {"task": f"{room}.tidy", "schedule": 3600.0, "options": {"expires": 3500}}
            for room in ("consent", "partners", "tokens")
        },
    },
)
app.autodiscover_tasks()


@worker_init.connect
def refuse_wrong_settings(**_signal: Any) -> None:
    """End before the first task where settings are wrong or unsafe, as the portal does; pages are not looked at."""
    from django.core.checks.registry import registry

    from cpvpanel.checks import PORTAL, serious

    ours = (check for check in registry.get_checks() if check.__module__ in ("cpvpanel.checks", "tokens.checks"))
    asked = (check for check in ours if PORTAL not in check.tags)
    if wrong := serious(found for check in asked for found in check(app_configs=None, databases=None)):
        raise SystemExit(wrong)


@worker_init.connect
def watch_for_stops(**_signal: Any) -> None:
    """Let this process see a kill within half a second, and say that it did."""
    from tokens import watch

    watch.start()


@worker_shutting_down.connect
def end_turns(**_signal: Any) -> None:
    """Let running jobs end after the page they read, so that a release does not wait for the longest of them."""
    from partners import jobs

    jobs.end_turns()
