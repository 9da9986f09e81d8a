"""
Schedules of the real code: everybody who acts on one partner's sign-in, in one thread, each a greenlet.

Whoever is about to send a request, has its answer, or is about to send a statement or to begin a transaction stands
still; who goes on is drawn from the seed. A crash is an exception that no handler of ours can outlive: from then on
the dead send nothing more, neither requests nor statements. So a seed tells the whole story, and plays it again.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import greenlet
import requests
from django.db import connection
from django.utils import timezone

from partners import lifecycle
from partners.models import Partner
from sandbox import demo
from sandbox.directory import Account
from sandbox.world import World
from tests import pretend
from tests.conftest import CONTOSO
from tests.standin import InProcessAdapter
from tokens import broker, custody, gate, outside, rotation, sweeping
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.errors import Failure
from tokens.models import RefreshToken, SecretVersion
from tokens.secret import Secret

MODES = ("entra", "grace", "strict")
HOST = "cpv-demo.vault.azure.net"
GRACE = 7200  # seconds; longer than it takes until a crash is mended
LOST_ANSWERS = ("timeout-before", "timeout-after", "lost", "down", "503", "504-after", "throttled")
BEFORE_LEASE_ENDS = dt.timedelta(seconds=1)

_playing: list[Play] = []


class Crash(BaseException):
    """The process has died."""


@dataclass
class Actor:
    """Somebody who acts. `guarded`: a request is on its way under a lease that was had or renewed just before it."""

    name: str
    act: Callable[[], Any]
    thread: Any = None
    dead: bool = False
    guarded: bool = False
    ended: str = ""


@dataclass
class Play:
    """One schedule of one partner; `told` is what happened, for whoever has to find out why."""

    world: World
    seed: str
    mode: str
    token: RefreshToken
    rng: random.Random
    actors: list[Actor] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    pins: list[tuple[str, str]] = field(default_factory=list)  # name and version, as they were pinned
    confirmed: bool = False
    killed: bool = False
    crashes: int = 0  # to come still, like lapses
    lapses: int = 0
    faults: int = 0  # that were drawn; whether one comes depends on who sends what
    harmed: bool = False  # somebody died, was frozen for longer than a lease lasts, or got no answer

    # --- Turns ------------------------------------------------------------------------------------------------------
    def add(self, name: str, act: Callable[[], Any]) -> None:
        actor = Actor(name, act)
        actor.thread = greenlet.greenlet(lambda: self._live(actor))
        actor.thread.gr_context = copy_context()  # rows are open to it as they are to the test
        self.actors.append(actor)

    def _live(self, actor: Actor) -> None:
        try:
            actor.ended = f"ended with {actor.act()!r}"
        except Crash:
            actor.ended = "crashed"
        except Failure as failure:
            actor.ended = f"failed: {type(failure).__name__} {failure.code}"
        except Exception as error:
            actor.ended = f"broke: {error!r}"
        self.told.append(f"{actor.name} {actor.ended}")

    def run(self) -> None:
        """Let somebody drawn by lot go on until nobody is left."""
        rng = self.rng
        while moving := [actor for actor in self.actors if not actor.ended]:
            if self.lapses and rng.random() < 0.08:
                self._lapse()
            actor = rng.choice(moving)
            if self.crashes and actor.name != "kill" and rng.random() < 0.06:
                self.crashes -= 1
                actor.dead = self.harmed = True
            actor.thread.switch()

    def me(self) -> Actor | None:
        current = greenlet.getcurrent()
        return next((actor for actor in self.actors if actor.thread is current), None)

    def pause(self, where: str) -> None:
        """Stand still until it is this one's turn again; the dead do not come back."""
        actor = self.me()
        if actor is None:
            return
        if not actor.dead:
            self.told.append(f"{actor.name}: {where}")
            actor.thread.parent.switch()
        if actor.dead:
            raise Crash

    def _lapse(self) -> None:
        """A lease is over while its holder lives still: a frozen machine. Requests end long before a lease does."""
        if any(actor.guarded and not actor.dead and not actor.ended for actor in self.actors):
            return
        now = timezone.now()
        held = RefreshToken.objects.filter(leased_until__gt=now)
        if held.update(leased_until=now - BEFORE_LEASE_ENDS):
            self.lapses -= 1
            self.harmed = True
            self.told.append("the lease is over early")

    # --- What the actors do -----------------------------------------------------------------------------------------
    def statement(self, execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Stands around every statement of the database."""
        actor = self.me()
        if actor is None or not connection.in_atomic_block:
            self.pause(sql[:40])
        elif actor.dead:
            raise Crash
        done = execute(sql, params, many, context)
        if sql.startswith('UPDATE "tokens_refreshtoken"') and context["cursor"].rowcount == 1:
            if 'SET "leased_until" = %s' in sql and actor is not None:
                actor.guarded = True
            if 'SET "pinned_version" = %s' in sql:
                self._note_pin(sql, params)
        return done

    def _note_pin(self, sql: str, params: Any) -> None:
        version = str(params[0])
        names = self.world.vault(HOST).secrets.items()
        name = next((name for name, versions in names if any(v.version == version for v in versions)), "nowhere")
        self.pins.append((name, version))
        self.told.append(f"pinned {version[:6]}")

    def sent(self, request: requests.PreparedRequest, send: Callable[[], requests.Response]) -> requests.Response:
        """Stands around every request."""
        where = f"{request.method} {(request.url or '').partition('?')[0][8:70]}"
        self.pause(where)
        try:
            return send()
        finally:
            actor = self.me()
            if actor is not None:
                actor.guarded = False
                if not actor.dead:
                    self.pause(f"answer to {where}")


class SwitchingAdapter(InProcessAdapter):
    """Lets others act before a request arrives and before its answer is read."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        if not _playing:
            return super().send(request, *args, **options)
        return _playing[-1].sent(request, lambda: super(SwitchingAdapter, self).send(request, *args, **options))


def adapter(_url: str) -> SwitchingAdapter:
    return SwitchingAdapter(lambda environ, start_response: pretend._current["app"](environ, start_response))


@contextmanager
def playing(play: Play) -> Iterator[None]:
    _playing.append(play)
    try:
        with connection.execute_wrapper(play.statement):
            yield
    finally:
        _playing.pop()


# --- Who acts -------------------------------------------------------------------------------------------------------
def cast(play: Play) -> None:
    """Draw who acts, what goes wrong and how often."""
    rng, pk = play.rng, play.token.pk

    def token() -> RefreshToken:
        return RefreshToken.objects.select_related("partner").get(pk=pk)

    workers: list[tuple[str, Callable[[], Any]]] = [
        ("rotate 1", lambda: rotation.rotate(pk)),
        ("rotate 2", lambda: rotation.rotate(pk)),
        ("mint", lambda: mint(token())),
        ("explain", lambda: explain(token())),
    ]
    for name, act in rng.sample(workers, rng.choice((1, 1, 2, 2))):
        play.add(name, act)
    if rng.random() < 0.25:
        play.add("sweep", sweeping.sweep)
    event = rng.choice(("", "", "kill", "renew", "renew"))
    if event == "kill":
        play.add("kill", lambda: kill(play))
        if rng.random() < 0.6:
            play.add("close", sweeping.close_stopped)
    if event == "renew":
        play.add("renew", lambda: renew(play))
    play.crashes, play.lapses, play.faults = rng.choice((0, 1, 1, 2)), rng.choice((0, 0, 1)), rng.choice((0, 0, 1, 2))
    for _ in range(play.faults):
        kind, operation = rng.choice(LOST_ANSWERS), rng.choice(("set", "set", "get", "update", "redeem"))
        if operation == "redeem":
            play.world.token_fault(kind, times=1)
        else:
            play.world.vault_fault(operation, kind, times=1)
        play.told.append(f"to come: {kind} at {operation}")


def mint(token: RefreshToken) -> int:
    session = broker.session(token, Audience.GRAPH, purpose="token.explain", actor=SYSTEM)
    return session.get("/v1.0/me").status_code


def explain(token: RefreshToken) -> bool:
    return bool(broker.explain(token, Audience.PARTNER_CENTER, reason="a schedule", actor=SYSTEM).scopes)


def kill(play: Play) -> None:
    lifecycle.kill(partner=play.token.partner, by=SYSTEM, reason="a schedule")
    play.killed = True
    if play.rng.random() < 0.5:  # or this process hears of it a little later
        gate.forget()


def renew(play: Play) -> bool:
    """A second consent of the same account, first beside what is in force, then in its place."""
    renewal = consent(play.world, play.token.partner, replaces=play.token)

    def on_confirm(_token: RefreshToken) -> None:
        play.confirmed = True

    custody.confirm(renewal, on_confirm=on_confirm)
    return True


def connected(world: World) -> RefreshToken:
    """A partner that connected a while ago: rows, and a version in the vault, without the way there."""
    partner = Partner.objects.create(cloud="global", tenant_id=UUID(CONTOSO), name="Contoso")
    token = custody._reserve(partner, oid=UUID(_account(world).oid), upn="", limits="")
    sealed = outside.keyring().seal(_signed_in(world), aad=custody.additional_data(token))
    version = world.vault(HOST).put(token.secret_name, sealed, custody._tags(token), None).version
    now = timezone.now()
    token.pinned_version, token.stored_at, token.last_success_at = version, now, now
    token.next_refresh_at = now + dt.timedelta(days=1)
    token.save()
    SecretVersion.objects.create(partner=partner, token=token, version=version)
    return token


def _account(world: World) -> Account:
    return pretend.admin_agent(world.tenants[CONTOSO])


def _signed_in(world: World) -> Secret:
    """The refresh token of a new sign-in at Microsoft."""
    session = world.ledger.sign_in(_account(world), demo.APP_ID, mfa=True)
    session.offline = True
    return Secret(world.ledger.new_refresh(session).value)


def consent(world: World, partner: Partner, *, replaces: RefreshToken) -> RefreshToken:
    """What is left of a renewal once it was checked: a sign-in at Microsoft, and its refresh token to put away."""
    return custody.store(
        partner=partner,
        refresh_token=_signed_in(world),
        oid=UUID(_account(world).oid),
        upn="",
        limits="",
        replaces=replaces,
        on_pin=lambda _token: None,
        pending=True,
    )
