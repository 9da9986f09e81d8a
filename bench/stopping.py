"""
How soon a kill stops everything: some processes send for a partner without a pause, another one stops that partner.

`python -m bench.stopping ROLE TENANT` is one of those processes; it does what each line of its stdin says and answers
with one line of JSON. The witness of what left is the stand-in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

import requests

from bench.ground import ROOT, Broken, Ground

WARM_WITHIN = 30.0  # seconds until everybody sends, on a machine that does other things too
SLACK = 0.002  # seconds: clocks of two processes on one machine are read one after the other


@dataclass
class Other:
    """Another process of the bench, asked line by line."""

    process: subprocess.Popen[str]

    def tell(self, line: str) -> None:
        cast(IO[str], self.process.stdin).write(line + "\n")
        cast(IO[str], self.process.stdin).flush()

    def hear(self) -> Any:
        line = cast(IO[str], self.process.stdout).readline()
        if not line:
            raise Broken("A process of the bench ended; what it said stands above.")
        return json.loads(line)

    def ask(self, line: str) -> Any:
        self.tell(line)
        return self.hear()


@contextmanager
def _other(where: Ground, role: str, tenant: str) -> Iterator[Other]:
    command = [sys.executable, "-m", "bench.stopping", role, tenant]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=where.env, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Other(process)
        finally:
            process.terminate()


def trials(where: Ground, tenant: str, *, number: int, senders: int) -> list[dict[str, float]]:
    """
    Stop a partner this often while so many processes send for it.

    Seconds from the stop: `last` until the last call came in at the stand-in, `seen` until every process had said that
    it acts upon it, `secrets` until they were disabled. `late` counts calls that came in after `seen`: none must.
    """
    found = []
    with ExitStack() as ends:
        killer = ends.enter_context(_other(where, "stopper", tenant))
        hammers = [ends.enter_context(_other(where, "sender", tenant)) for _ in range(senders)]
        for other in (killer, *hammers):
            other.hear()  # it is there
        for _ in range(number):
            killer.ask("connect")
            since = _last_number(where)
            for hammer in hammers:
                hammer.tell("send")
            _wait_for_calls(where, since, number=3 * senders)
            told = killer.ask("stop")
            for hammer in hammers:
                hammer.hear()  # it met the gate
            calls = _calls(where, since)
            found.append(
                {
                    "last": max(call["at"] for call in calls) - told["stopped"],
                    "seen": told["seen"] - told["stopped"],
                    "secrets": told["disabled"] - told["stopped"],
                    "late": sum(call["at"] > told["seen"] + SLACK for call in calls),
                }
            )
    return found


def _wait_for_calls(where: Ground, since: int, *, number: int) -> None:
    deadline = time.monotonic() + WARM_WITHIN
    while len(_calls(where, since)) < number:
        if time.monotonic() > deadline:
            raise Broken("the processes that should send do not")
        time.sleep(0.02)


def _calls(where: Ground, since: int) -> list[dict[str, Any]]:
    address = f"{where.env['CPV_SANDBOX_URL']}/_sandbox/calls?since={since}"
    calls: list[dict[str, Any]] = requests.get(address, timeout=10).json()["calls"]
    return [call for call in calls if call["service"] == "partnercenter"]


def _last_number(where: Ground) -> int:
    return int(requests.get(f"{where.env['CPV_SANDBOX_URL']}/_sandbox/calls", timeout=10).json()["last"])


# --- The other processes --------------------------------------------------------------------------------------------
def _answer(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def sender(tenant: str) -> None:
    """Send without a pause, from each "send" on, until the gate says no."""
    from partners.models import Partner
    from partners.standing import current_token
    from tokens import actors, broker, gate, watch
    from tokens.clouds import Audience

    watch.start()
    _answer("ready")
    for _line in sys.stdin:
        token = current_token(Partner.objects.get(tenant_id=tenant))
        assert token
        session = broker.session(
            token, Audience.PARTNER_CENTER, purpose="sync.customers", actor=actors.command("bench")
        )
        try:
            while True:
                session.get("/v1/profiles/organization")
        except gate.Stopped:
            _answer("stopped")


def stopper(tenant: str) -> None:
    """Connect the partner anew, or stop it: wait for every sender to see it, and disable its secrets."""
    from bench.inside import reconnect
    from partners import lifecycle
    from partners.models import Partner
    from tokens import actors, custody, watch

    who = actors.command("bench")
    _answer("ready")
    for line in sys.stdin:
        partner = Partner.objects.get(tenant_id=tenant)
        if line.strip() == "connect":
            lifecycle.unkill(partner=partner, by=who, reason="the next trial")
            reconnect(partner)
            _answer("connected")
            continue
        halt = lifecycle.kill(partner=partner, by=who, reason="a trial")
        stopped = time.time()
        while watch.silent(halt.pk):
            time.sleep(0.005)
        seen = time.time()
        custody.close_stopped()
        _answer({"stopped": stopped, "seen": seen, "disabled": time.time()})


if __name__ == "__main__":
    import django

    django.setup()
    {"sender": sender, "stopper": stopper}[sys.argv[1]](sys.argv[2])
