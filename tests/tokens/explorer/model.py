"""
The custody of one partner's refresh token as a pure model: one row per generation, a vault, an identity service, and
those who act on them in steps that nothing can part. It knows no Django and no product code.

A name in the vault has no list and no delete: one can put, get a version, get the newest, and disable a version.
Time is what may happen: a lease can be over at any step but between the check before a request and that request,
because the check renews it for longer than any request may take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

FREE, HELD, OVER = "free", "held", "over"
MODES = ("entra", "grace", "strict")


class Version(NamedTuple):
    """A version in the vault; `known` says whether some row of ours names it."""

    name: int  # the generation the name belongs to
    token: int
    fence: int
    enabled: bool = True
    known: bool = False


class Token(NamedTuple):
    """A refresh token as the identity service sees it; `session` is the consent it comes from."""

    session: int
    spent: bool = False


class Actor(NamedTuple):
    """Who acts, where it stands, and what it holds in memory."""

    kind: str
    at: str
    fence: int = 0
    pin: int = 0
    pin_fence: int = 0
    token: int = -1  # in memory
    found: int = -1  # the version it has seen
    tries: int = 0


class Broken(NamedTuple):
    """What a deliberately broken variant leaves out."""

    fence: bool = False
    generation: bool = False
    loser_disables: bool = False
    sweep: bool = False
    second_look: bool = False
    pin_first: bool = False
    adopt: bool = False
    gate: bool = False


class State(NamedTuple):
    mode: str
    actors: tuple[Actor, ...]
    versions: tuple[Version, ...]
    tokens: tuple[Token, ...]
    revoked: frozenset[int] = frozenset()
    # the row in force when it all begins: generation 1
    fence: int = 0
    lease: str = FREE
    guarded: bool = False  # a request is on its way under a lease that was just renewed
    pin: int = 0
    pin_fence: int = 0
    refused: bool = False
    closed: bool = False
    superseded: bool = False
    # the renewal's row: generation 2
    second: str = ""  # "", reserved, pending, in force
    second_pin: int = -1
    killed: bool = False
    crashes: int = 1
    faults: int = 1
    disturbed: bool = False  # a crash or a fault has happened
    wrong: str = ""  # what must never happen, and did

    @property
    def live(self) -> bool:
        return not (self.killed or self.refused or self.superseded)


Step = tuple[str, State]


def begin(mode: str, *kinds: str, crashes: int = 1, faults: int = 1) -> State:
    """A partner that connected: one version, pinned."""
    first = {"rotate": "lease", "mint": "read", "kill": "stop", "renew": "reserve", "sweep": "look"}
    # Where a refresh token works once, whoever mints also rotates.
    kinds = tuple("rotate" if kind == "mint" and mode != "entra" else kind for kind in kinds)
    actors = tuple(Actor(kind, first[kind]) for kind in kinds)
    return State(mode, actors, (Version(1, 0, 0, known=True),), (Token(1),), crashes=crashes, faults=faults)


class Machine:
    """What can happen next, in the protocol or in a broken variant of it."""

    def __init__(self, broken: Broken | None = None) -> None:
        self.broken = broken or Broken()

    def steps(self, state: State) -> list[Step]:
        """Every (name, state) that may follow; none when all is over."""
        found = self.lease_steps(state)
        for number in self.movers(state):
            found += self.steps_of(state, number) + self.crashes_of(state, number)
        return found

    def movers(self, state: State) -> list[int]:
        """Who is not at an end."""
        return [number for number, actor in enumerate(state.actors) if actor.at not in ("end", "dead")]

    def steps_of(self, state: State, number: int) -> list[Step]:
        """What this actor may do next; more than one where the answer of the vault is a matter of luck."""
        actor = state.actors[number]
        act: Callable[[State, int, Actor], list[Step]] = getattr(self, f"{actor.kind}_{actor.at}")
        return [(f"{number}:{actor.at}{how}", after) for how, after in act(state, number, actor)]

    def crashes_of(self, state: State, number: int) -> list[Step]:
        if not state.crashes or state.actors[number].kind == "kill":
            return []
        broken = state._replace(crashes=state.crashes - 1, disturbed=True)
        return [(f"{number}:crash", self._move(broken, number, "dead"))]

    def lease_steps(self, state: State) -> list[Step]:
        if state.lease != HELD:
            return []
        if all(state.actors[number].fence != state.fence for number in self.movers(state)):
            return [("lease over", state._replace(lease=OVER, guarded=False))]
        if state.guarded or not state.faults:
            return []
        return [("lease over early", state._replace(lease=OVER, faults=state.faults - 1, disturbed=True))]

    # --- helpers ----------------------------------------------------------------------------------------------------
    def _move(self, state: State, number: int, at: str, **memory: Any) -> State:
        actors = list(state.actors)
        actors[number] = actors[number]._replace(at=at, **memory)
        if at in ("end", "dead"):  # nothing of its memory matters any more, but that it held a lease
            actors[number] = Actor(actors[number].kind, at, fence=actors[number].fence if at == "dead" else -1)
        return state._replace(actors=tuple(actors))

    def _mine(self, state: State, actor: Actor) -> bool:
        """The condition of every write of a holder: fence, generation, live."""
        if self.broken.fence:
            return state.live
        return state.live and state.fence == actor.fence

    def _release(self, state: State, actor: Actor, left: str = FREE) -> State:
        if state.fence == actor.fence and state.lease != FREE:
            return state._replace(lease=left, guarded=False)
        return state

    def _give_up(self, state: State, number: int, actor: Actor, left: str = FREE) -> State:
        return self._move(self._release(state, actor, left), number, "end")

    def _change(self, state: State, index: int, **fields: Any) -> State:
        versions = list(state.versions)
        versions[index] = versions[index]._replace(**fields)
        return state._replace(versions=tuple(versions))

    def _newest(self, state: State, name: int) -> int:
        return max((i for i, version in enumerate(state.versions) if version.name == name), default=-1)

    def _readable(self, state: State, version: int) -> bool:
        return version < len(state.versions) and state.versions[version].enabled

    def _put(self, state: State, name: int, token: int, fence: int) -> State:
        return state._replace(versions=(*state.versions, Version(name, token, fence)))

    def _redeem(self, state: State, token: int) -> tuple[State, int]:
        """The successor, or -1 when the identity service refuses."""
        given = state.tokens[token]
        if given.session in state.revoked:
            return state, -1
        if given.spent and state.mode == "strict":
            return state._replace(revoked=state.revoked | {given.session}), -1
        tokens = list(state.tokens)
        tokens[token] = given._replace(spent=True)
        return state._replace(tokens=(*tokens, Token(given.session))), len(tokens)

    # --- a worker that rotates: lease, read, gate, redeem, put, pin -------------------------------------------------
    def rotate_lease(self, state: State, number: int, actor: Actor) -> list[Step]:
        free = state.lease in (FREE, OVER)
        if not state.live or not free:
            return [(" in vain", self._move(state, number, "end"))]
        fence = state.fence if self.broken.fence else state.fence + 1
        leased = state._replace(fence=fence, lease=HELD, guarded=False)
        return [("", self._move(leased, number, "get", fence=fence, pin=state.pin, pin_fence=state.pin_fence))]

    def rotate_get(self, state: State, number: int, actor: Actor) -> list[Step]:
        newest = self._newest(state, 1)
        if newest == actor.pin or not state.versions[newest].enabled or self.broken.adopt:
            return self._read(state, number, actor, actor.pin)
        return [("", self._move(state, number, "adopt", found=newest))]

    def rotate_adopt(self, state: State, number: int, actor: Actor) -> list[Step]:
        state = self._change(state, actor.found, known=True)
        if state.versions[actor.found].fence <= actor.pin_fence:
            return self._read(state, number, actor, actor.pin)
        if not self._mine(state, actor) or state.pin != actor.pin:
            return [(" in vain", self._give_up(state, number, actor))]
        fence = state.versions[actor.found].fence
        state = state._replace(pin=actor.found, pin_fence=fence)
        token = state.versions[actor.found].token
        return [("", self._move(state, number, "gate", pin=actor.found, pin_fence=fence, token=token))]

    def _read(self, state: State, number: int, actor: Actor, version: int) -> list[Step]:
        if not self._readable(state, version):
            return [(" nothing", self._give_up(state, number, actor))]
        return [("", self._move(state, number, "gate", token=state.versions[version].token))]

    def rotate_gate(self, state: State, number: int, actor: Actor) -> list[Step]:
        """The gate and the renewal of the lease: one condition in one statement."""
        if not self._mine(state, actor) and not self.broken.gate:
            return [(" shut", self._give_up(state, number, actor))]
        if state.killed:
            state = state._replace(wrong="a call left after the stop")
        return [("", self._move(state._replace(lease=HELD, guarded=True), number, "redeem"))]

    def rotate_redeem(self, state: State, number: int, actor: Actor) -> list[Step]:
        after, new = self._redeem(state, actor.token)
        after = after._replace(guarded=False)
        if new < 0:
            return [(" refused", self._move(after, number, "mark"))]
        return [("", self._move(after, number, "pin" if self.broken.pin_first else "keep", token=new))]

    def rotate_mark(self, state: State, number: int, actor: Actor) -> list[Step]:
        marked = state if state.superseded else state._replace(refused=True)
        return [("", self._give_up(marked, number, actor))]

    def rotate_keep(self, state: State, number: int, actor: Actor) -> list[Step]:
        if not self._mine(state, actor) and not self.broken.gate:
            return [(" lost", self._give_up(state, number, actor))]
        return [("", self._move(state._replace(lease=HELD, guarded=True), number, "put"))]

    def rotate_put(self, state: State, number: int, actor: Actor) -> list[Step]:
        stored = self._put(state, 1, actor.token, actor.fence)._replace(guarded=False)
        index = len(stored.versions) - 1
        if self.broken.pin_first:
            return [("", self._give_up(stored, number, actor))]
        found: list[Step] = [("", self._move(stored, number, "pin", found=index))]
        if state.faults:
            fewer = {"faults": state.faults - 1, "disturbed": True}
            found += [(" timeout after", self._unanswered(stored._replace(**fewer), number, actor))]
            found += [(" timeout before", self._unanswered(state._replace(**fewer, guarded=False), number, actor))]
        return found

    def _unanswered(self, state: State, number: int, actor: Actor) -> State:
        if state.mode == "entra":
            return self._give_up(state, number, actor, left=OVER)
        return self._move(state, number, "search")

    def rotate_search(self, state: State, number: int, actor: Actor) -> list[Step]:
        newest = self._newest(state, 1)
        if state.versions[newest].token == actor.token:
            return [("", self._move(state, number, "pin", found=newest))]
        return [(" not there", self._move(state, number, "keep"))]

    def rotate_pin(self, state: State, number: int, actor: Actor) -> list[Step]:
        if self.broken.pin_first:
            pinned = state._replace(pin=len(state.versions), pin_fence=actor.fence)
            return [("", self._move(pinned._replace(guarded=True), number, "put"))]
        state = self._change(state, actor.found, known=True)
        if not self._mine(state, actor):
            if self.broken.loser_disables:
                state = self._change(state, actor.found, enabled=False)
            return [(" lost", self._give_up(state, number, actor))]
        if actor.fence < state.pin_fence:
            state = state._replace(wrong="a pin went back")
        pinned = state._replace(pin=actor.found, pin_fence=actor.fence, lease=FREE, guarded=False)
        return [("", self._move(pinned, number, "end"))]

    # --- a worker that only mints -----------------------------------------------------------------------------------
    def mint_read(self, state: State, number: int, actor: Actor) -> list[Step]:
        if not state.live or not self._readable(state, state.pin):
            return [(" in vain", self._move(state, number, "end"))]
        return [("", self._move(state, number, "gate", token=state.versions[state.pin].token))]

    def mint_gate(self, state: State, number: int, actor: Actor) -> list[Step]:
        if not state.live:
            return [(" shut", self._move(state, number, "end"))]
        return [("", self._move(state, number, "redeem"))]

    def mint_redeem(self, state: State, number: int, actor: Actor) -> list[Step]:
        after, new = self._redeem(state, actor.token)
        return [("", self._move(after, number, "end" if new >= 0 else "mark"))]

    mint_mark = rotate_mark

    # --- somebody stops the partner: the row, then the vault --------------------------------------------------------
    def kill_stop(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", self._move(state._replace(killed=True), number, "look"))]

    def kill_look(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", self._move(self._note_newest(state), number, "disable"))]

    def kill_disable(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", self._move(self._disable_known(state, 1)._replace(closed=True), number, "end"))]

    def _note_newest(self, state: State, name: int = 1) -> State:
        newest = self._newest(state, name)
        if newest < 0 or not state.versions[newest].enabled:
            return state
        return self._change(state, newest, known=True)

    def _disable_known(self, state: State, name: int) -> State:
        versions = (v._replace(enabled=False) if v.name == name and v.known else v for v in state.versions)
        return state._replace(versions=tuple(versions))

    # --- an owner renews: reserve, put, note, offer, confirm --------------------------------------------------------
    def renew_reserve(self, state: State, number: int, actor: Actor) -> list[Step]:
        state = state._replace(second="reserved", tokens=(*state.tokens, Token(2)))
        return [("", self._move(state, number, "put", token=len(state.tokens) - 1))]

    def renew_put(self, state: State, number: int, actor: Actor) -> list[Step]:
        name = 1 if self.broken.generation else 2
        stored = self._put(state, name, actor.token, 0)
        return [("", self._move(stored, number, "note", found=len(stored.versions) - 1))]

    def renew_note(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", self._move(self._change(state, actor.found, known=True), number, "offer"))]

    def renew_offer(self, state: State, number: int, actor: Actor) -> list[Step]:
        if state.killed:
            return [(" stopped", self._move(state, number, "end"))]
        return [("", self._move(state._replace(second="pending", second_pin=actor.found), number, "confirm"))]

    def renew_confirm(self, state: State, number: int, actor: Actor) -> list[Step]:
        if state.killed:
            return [(" stopped", self._move(state, number, "end"))]
        if self.broken.generation:  # the same name and row: the new consent is just another version
            return [("", self._move(state._replace(second="in force", pin=state.second_pin), number, "end"))]
        return [("", self._move(state._replace(second="in force", superseded=True), number, "end"))]

    # --- one sweep while the others act -----------------------------------------------------------------------------
    def sweep_look(self, state: State, number: int, actor: Actor) -> list[Step]:
        if state.superseded and state.lease == FREE and not state.closed:
            return [(" old", self._move(self._note_newest(state), number, "close"))]
        if not state.live or state.lease != OVER:
            return [(" nothing", self._move(state, number, "end"))]
        memory = {"fence": state.fence, "pin": state.pin, "pin_fence": state.pin_fence}
        newest = self._newest(state, 1)
        if newest == state.pin or not state.versions[newest].enabled:
            return [("", self._move(state, number, "settle", found=-1, **memory))]
        return [("", self._move(self._change(state, newest, known=True), number, "decide", found=newest, **memory))]

    def sweep_decide(self, state: State, number: int, actor: Actor) -> list[Step]:
        found = state.versions[actor.found]
        if found.fence > actor.pin_fence:
            if not self._mine(state, actor) or state.pin != actor.pin:
                return [(" moved on", self._move(state, number, "end"))]
            state = state._replace(pin=actor.found, pin_fence=found.fence)
        elif found.fence != actor.pin_fence:
            state = self._change(state, actor.found, enabled=False)
        return [("", self._move(state, number, "settle"))]

    def sweep_settle(self, state: State, number: int, actor: Actor) -> list[Step]:
        if state.fence == actor.fence and state.lease == OVER:
            state = state._replace(lease=FREE)
        return [("", self._move(state, number, "end"))]

    def sweep_close(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", self._move(self._disable_known(state, 1)._replace(closed=True), number, "end"))]

    # --- afterwards -------------------------------------------------------------------------------------------------
    def afterwards(self, state: State) -> State:
        """Time passes, the sweep comes twice, and nobody breaks anything any more."""
        state = state._replace(lease=OVER if state.lease == HELD else state.lease, guarded=False)
        for _ in range(0 if self.broken.sweep else 2):
            state = self._swept(state)
        return state

    def _swept(self, state: State) -> State:
        if state.live and state.lease == OVER:
            sweeper = len(state.actors)
            state = state._replace(actors=(*state.actors, Actor("sweep", "look")))
            while state.actors[sweeper].at != "end":
                [(_, state)] = getattr(self, f"sweep_{state.actors[sweeper].at}")(state, sweeper, state.actors[sweeper])
            state = state._replace(actors=state.actors[:-1])
        for name in self._over(state):
            if not (self.broken.second_look and state.closed and name == 1):
                state = self._note_newest(state, name)
            state = self._disable_known(state, name)
        return state

    def _over(self, state: State) -> set[int]:
        """The names under which nothing may stay enabled."""
        over = {1} if state.superseded or state.killed else set()
        return over | ({2} if state.second != "in force" or state.killed else set())

    def verdict(self, state: State) -> str:
        """What is wrong in the end, in a few words; "reported" is a loss that the next attempt made known."""
        after = self.afterwards(state)
        if after.wrong:
            return after.wrong
        if after.live and after.lease != FREE and not self.broken.sweep:
            return "stuck: a lease was left"
        if any(version.enabled and version.name in self._over(after) for version in after.versions):
            return "resurrected: a version that must be disabled is enabled"
        return "" if after.killed else self._next_attempt(after)

    def _next_attempt(self, after: State) -> str:
        in_force = 2 if after.second == "in force" else 1
        pin = after.second_pin if in_force == 2 and not self.broken.generation else after.pin
        if not self._readable(after, pin):
            return "lost: the pin names what nobody can read"
        token = after.versions[pin].token
        if after.tokens[token].session != in_force:
            return "stale: an older consent is in force"
        refused = self._redeem(after, token)[1] < 0 or (in_force == 1 and after.refused)
        if not refused:
            return ""
        if after.mode != "strict" or not after.disturbed:
            return "lost: the sign-in in force is refused"
        readable = [after.tokens[v.token] for v in after.versions if v.enabled and v.name == in_force]
        if any(not token.spent and token.session not in after.revoked for token in readable):
            return "lost: a good one lay in the vault"
        return "reported"
