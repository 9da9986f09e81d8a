"""
How soon a kill stops everything: some processes call APIs for a partner without a pause, others ask for tokens for it,
and another one stops that partner.

`python -m bench.stopping ROLE TENANT` is one of those processes; it does what each line of its stdin says and answers
with one line of JSON. The witness of what left is the stand-in.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

import requests

from bench.ground import ROOT, Broken, Ground

if TYPE_CHECKING:
    from tokens.models import RefreshToken

WARM_WITHIN = 30.0  # seconds until everybody sends, on a machine that does other things too
IN_NAME = {"refresh_token", "authorization_code"}  # what a token request in somebody's name spends
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
    Stop a partner this often while so many processes send for it, by turns one that calls and one that asks for tokens.

    Seconds from the stop: `last` until the last of all that came in at the stand-in, `seen` until every process had
    said that it acts upon it, `secrets` until they were disabled. Of `calls` and `tokens`, those that came in, `late`
    came after `seen`: none must.
    """
    found = []
    with ExitStack() as ends:
        killer = ends.enter_context(_other(where, "stopper", tenant))
        roles = itertools.islice(itertools.cycle(["caller", "minter"]), senders)
        hammers = [ends.enter_context(_other(where, role, tenant)) for role in roles]
        for other in (killer, *hammers):
            other.hear()  # it is there
        for _ in range(number):
            killer.ask("connect")
            since = _last_number(where)
            for hammer in hammers:
                hammer.tell("send")
            _wait_for_sends(where, since, number=3 * senders)
            told = killer.ask("stop")
            for hammer in hammers:
                hammer.hear()  # it met the gate
            sent = sends(_came_in(where, since))
            calls, tokens = _by_kind(sent)
            found.append(
                {
                    "last": max(one["at"] for one in sent) - told["stopped"],
                    "seen": told["seen"] - told["stopped"],
                    "secrets": told["disabled"] - told["stopped"],
                    "late": sum(one["at"] > told["seen"] + SLACK for one in sent),
                    "calls": calls,
                    "tokens": tokens,
                }
            )
    return found


def _wait_for_sends(where: Ground, since: int, *, number: int) -> None:
    """Until so many calls came in, and as many token requests."""
    deadline = time.monotonic() + WARM_WITHIN
    while min(_by_kind(sends(_came_in(where, since)))) < number:
        if time.monotonic() > deadline:
            raise Broken("the processes that should send do not")
        time.sleep(0.02)


def sends(came_in: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What left in a partner's name: calls of an API, and token requests that are not for our own vault."""
    return [one for one in came_in if one["service"] == "partnercenter" or one["detail"].get("grant_type") in IN_NAME]


def _by_kind(sent: list[dict[str, Any]]) -> tuple[int, int]:
    """How many calls, and how many token requests."""
    tokens = sum(one["service"] == "entra" for one in sent)
    return len(sent) - tokens, tokens


def _came_in(where: Ground, since: int) -> list[dict[str, Any]]:
    address = f"{where.env['CPV_SANDBOX_URL']}/_sandbox/calls?since={since}"
    calls: list[dict[str, Any]] = requests.get(address, timeout=10).json()["calls"]
    return calls


def _last_number(where: Ground) -> int:
    return int(requests.get(f"{where.env['CPV_SANDBOX_URL']}/_sandbox/calls", timeout=10).json()["last"])


# --- The other processes --------------------------------------------------------------------------------------------
def _answer(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def caller(tenant: str) -> None:
    """Call Partner Center without a pause, from each "send" on, until the gate says no."""
    from tokens import actors, broker
    from tokens.clouds import Audience

    who = actors.command("bench")

    def call_with(token: RefreshToken) -> Callable[[], object]:
        session = broker.session(token, Audience.PARTNER_CENTER, purpose="sync.customers", actor=who)
        return lambda: session.get("/v1/profiles/organization")

    _send(tenant, call_with)


def minter(tenant: str) -> None:
    """Ask Entra for a token without a pause, in the same way."""
    from tokens import actors, minting
    from tokens.clouds import Audience
    from tokens.vault import VersionDisabled

    who = actors.command("bench")

    def mint_with(token: RefreshToken) -> Callable[[], object]:
        wish = minting.Wish(token, Audience.PARTNER_CENTER, "sync.customers", who)

        def mint() -> None:
            with suppress(VersionDisabled):  # who disables secrets may be faster than this process learns of the stop
                minting.grant(wish)

        return mint

    _send(tenant, mint_with)


def _send(tenant: str, prepare: Callable[[RefreshToken], Callable[[], object]]) -> None:
    """From each line of stdin on, send again and again until the gate says no."""
    from partners.models import Partner
    from partners.standing import current_token
    from tokens import gate, watch

    watch.start()
    _answer("ready")
    for _line in sys.stdin:
        token = current_token(Partner.objects.get(tenant_id=tenant))
        assert token
        send = prepare(token)
        try:
            while True:
                send()
        except gate.Stopped:
            _answer("stopped")


def stopper(tenant: str) -> None:
    """Connect the partner anew, or stop it: wait for every sender to see it, and disable its secrets."""
    from bench.inside import reconnect
    from partners import lifecycle
    from partners.models import Partner
    from tokens import actors, sweeping, watch

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
        sweeping.close_stopped()
        _answer({"stopped": stopped, "seen": seen, "disabled": time.time()})


if __name__ == "__main__":
    import django

    django.setup()
    from tokens.tenancy import system_scope

    with system_scope("a bench"):
        {"caller": caller, "minter": minter, "stopper": stopper}[sys.argv[1]](sys.argv[2])
