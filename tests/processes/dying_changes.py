"""
A worker that dies by SIGKILL before or after each thing it writes for a change, and what its successor makes of it.

`python -m tests.processes.dying_changes` forks one process for each place on the database and the stand-in of its
environment. Then its hold on the change is over, and another one goes on. Prints one JSON line for each.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import traceback
from typing import Any

import django
import requests

django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection, connections  # noqa: E402

from partners import change_steps, changes, jobs  # noqa: E402
from partners.models import Change, Job, Member, Partner  # noqa: E402
from tokens import broker, outside  # noqa: E402
from tokens.tenancy import partner_scope  # noqa: E402

WRITES = re.compile(r'(UPDATE|INSERT INTO) "(partners_change|tokens_auditevent)"')


class Death:
    def __init__(self, place: int) -> None:
        self.place, self.passed = place, 0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not WRITES.match(sql):
            return execute(sql, params, many, context)
        self._pass()
        result = execute(sql, params, many, context)
        self._pass()
        return result

    def _pass(self) -> None:
        self.passed += 1
        if self.passed == self.place:
            os.kill(os.getpid(), signal.SIGKILL)


def dies(change: Change, place: int) -> bool:
    """Whether a process that takes the next step of this change was killed there."""
    outside.forget()
    broker.forget()
    connections.close_all()
    if connection.vendor == "postgresql":
        connection.close_pool()  # or the child would speak over its parent's sockets
    child = os.fork()
    if child == 0:
        try:
            with connection.execute_wrapper(Death(place)):
                change_steps.work(change.pk)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9


def confirmed(member: Member, subscription_id: str) -> Change:
    customer = member.customers.order_by("pk")[0]
    change = changes.ask(member=member, customer=customer, subscription_id=subscription_id)
    change_steps.work(change.pk)
    change.refresh_from_db()
    wanted = change.before["quantity"] + 1
    changes.choose(change=change, by=member, what="quantity", text=str(wanted))
    changes.confirm(change=change, by=member, what="quantity", wanted=wanted)
    return change


def effects(subscription_id: str) -> int:
    told = requests.get(f"{settings.CPV_SANDBOX_URL}/_sandbox/effects", timeout=10).json()
    return int(told["subscriptions"].get(subscription_id.lower(), 0))


def main() -> None:
    partner = Partner.objects.get()
    with partner_scope(partner):
        jobs.run_job(Job.objects.get(kind="customers").pk)
        member = partner.members.select_related("user", "partner").get()
        subscription_id = os.environ["SUBSCRIPTION"]
        for place in itertools.count(1):
            change, before = confirmed(member, subscription_id), effects(subscription_id)
            killed = dies(change, place)
            Change.objects.filter(pk=change.pk).update(taken_until=None, not_before=None)  # time passes
            while change_steps.work(change.pk):
                Change.objects.filter(pk=change.pk).update(not_before=None)
            change.refresh_from_db()
            told = {"place": place, "killed": killed, "outcome": change.outcome}
            print(json.dumps(told | {"effects": effects(subscription_id) - before}), flush=True)  # noqa: T201
            if not killed:
                return


if __name__ == "__main__":
    from tokens.tenancy import system_scope

    with system_scope("a rehearsal"):
        main()
