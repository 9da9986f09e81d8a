"""
The custody of one partner's refresh token as a pure model: one row per generation, a vault, an identity service, and
those who act on them in steps that nothing can part. It knows no Django and no product code.

A step is one statement, one transaction or one request, and is called like the function in `tokens/` it stands for:

    load                              the row as whoever wants an access token has read it; is a successor due?
    lease                             RefreshToken.lease for minting._take_turn: the UPDATE, and the row read after it,
                                      which must name that very lease still
    newest, adopt                     custody.read_for_rotation: two GETs; a transaction with RefreshToken.adopt
    read                              custody.read, for whoever has no lease
    check, redeem                     minting._check_turn right before the request of minting._redeem, which renews the
                                      lease of whoever has one; the request, and _check_holder
    renew_lease, put, point_at        custody.rotate
    release, mark_refused             what comes last in minting._request and minting.grant, whatever happened
    crashed, newest, lease, note,
      point_at, release               custody._end_rotation, in a sweep
    over, close, disable              custody._close, in a sweep or after a stop: note the newest, disable what is known
    put, pin, confirm                 custody.store, of a renewal that was checked, and custody.confirm

Whoever has no answer to a PUT lets its lease run out, because the PUT may still arrive. The gate's first look is no
step: the lease and the second look ask the same. Its yes may be 250 ms old; that is a request which was on its way when
the stop came. Nor is a step what nobody here reads, such as the ledger.

A name in the vault has no list and no delete: one can put, get a version, get the newest, and disable a version.
Time is what may happen: a lease can be over at any step but right after it was had, before the row is read, and right
after it was renewed, before the PUT is answered: it lasts longer than any statement or request may take. What takes
longer than a schedule is left out: that versions are disabled after a day, and a reserved name after ten minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

MODES = ("entra", "grace", "strict")
FREE, HELD, RENEWED, OVER = "free", "held", "renewed", "over"  # renewed: its holder's PUT is on its way
NOTHING = -1
REPORTED, LAPSED = "reported", "reported: a lease was over before its holder had redeemed"


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
    """Who acts, which step is next, and what it holds in memory."""

    kind: str
    at: str
    fence: int = NOTHING  # of its lease
    pin: int = NOTHING
    token: int = NOTHING
    found: int = NOTHING  # the version it has seen, or put
    crashed: int = NOTHING  # the fence of the lease that a sweep found left behind
    refused: bool = False


class Variant(NamedTuple):
    """How a machine differs from the protocol."""

    # what it leaves out
    single_use: bool = False  # whoever has no lease redeems too where refresh tokens work once
    customer: bool = False  # the same, in a customer's tenant only
    fence: bool = False
    refresh: bool = False  # the holder works with the row as it was read before the lease
    at_once: bool = False  # a lease may be over before its holder has read the row, and with it the fence
    newest: bool = False
    adopt: bool = False
    gate: bool = False
    renew_lease: bool = False
    note: bool = False
    generation: bool = False
    loser_disables: bool = False
    pin_first: bool = False
    sweep: bool = False
    second_look: bool = False
    gives_back: bool = False  # whoever has no answer to its PUT gives its lease back at once
    renews_once: bool = False  # right before the PUT only, and not before the redeem
    # what it adds
    slow: bool = False  # a PUT may arrive when nobody waits for its answer any more


class State(NamedTuple):
    mode: str
    actors: tuple[Actor, ...]
    versions: tuple[Version, ...]
    tokens: tuple[Token, ...]
    revoked: frozenset[int] = frozenset()
    # the row in force when it all begins: generation 1
    fence: int = 0
    lease: str = FREE
    pin: int = 0
    refused: bool = False
    closed: bool = False
    superseded: bool = False
    # the renewal's row: generation 2
    second: str = ""  # "", pending, in force
    second_pin: int = NOTHING
    killed: bool = False
    crashes: int = 1
    faults: int = 1
    late: tuple[Version, ...] = ()  # what will arrive though nobody waits for the answer any more
    quiet: bool = True  # no crash, no lost answer, no lease that was over early
    lapsed: bool = False  # a lease was over early, before its holder had redeemed
    unavoidable: bool = False  # a successor was lost: with whoever had it in memory, with an answer, or with the lease
    wrong: str = ""  # what must never happen, and did

    @property
    def live(self) -> bool:
        return not (self.killed or self.refused or self.superseded)

    def but(self, **facts: Any) -> State:
        """The same, but for these facts; in half the time that `_replace` takes."""
        values = list(self)
        for name, fact in facts.items():
            values[PLACES[name]] = fact
        return tuple.__new__(State, values)


Step = tuple[str, State]
PLACES = {name: place for place, name in enumerate(State._fields)}
FIRST = {"keep": "lease", "kill": "kill", "renew": "put", "sweep": "crashed"}
ROOMS = {"keep": "worker", "mint": "worker", "customer": "worker"}  # whose steps they share


def begin(mode: str, *kinds: str, crashes: int = 1, faults: int = 1) -> State:
    """A partner that connected: one version, pinned."""
    wanting = "lease" if mode == "strict" else "load"
    actors = tuple(Actor(kind, FIRST.get(kind, wanting), pin=0) for kind in kinds)
    return State(mode, actors, (Version(1, 0, 0, known=True),), (Token(1),), crashes=crashes, faults=faults)


class Machine:
    """What can happen next, in the protocol or in a variant of it."""

    def __init__(self, variant: Variant | None = None) -> None:
        self.variant = variant or Variant()
        self._verdicts: dict[State, str] = {}

    def steps(self, state: State) -> list[Step]:
        """Every (name, state) that may follow; none when all is over."""
        found = self.time_steps(state)
        for number in self.movers(state):
            found += self.steps_of(state, number)
            found += self.crashes_of(state, number)
        return found

    def movers(self, state: State) -> list[int]:
        """Who is not at an end."""
        return [number for number, actor in enumerate(state.actors) if actor.at != "end"]

    def steps_of(self, state: State, number: int) -> list[Step]:
        """What this actor may do next; more than one where it is a matter of luck."""
        actor = state.actors[number]
        room = ROOMS.get(actor.kind, actor.kind)
        act: Callable[[State, int, Actor], list[Step]] = getattr(self, f"{room}_{actor.at}")
        return [(f"{number}:{actor.at}{how}", after) for how, after in act(state, number, actor)]

    def crashes_of(self, state: State, number: int) -> list[Step]:
        actor = state.actors[number]
        if not state.crashes or actor.kind == "kill":
            return []
        lost = state.unavoidable or _only_in_memory(actor)
        crashed = _end(state, number, crashes=state.crashes - 1, quiet=False, unavoidable=lost)
        return [(f"{number}:crash", crashed)]

    def time_steps(self, state: State) -> list[Step]:
        """A lease is over, or a PUT arrives that nobody waits for any more."""
        found = [("late put", _stored(_answered(state), put).but(late=())) for put in state.late]
        if state.lease in (FREE, OVER) or (state.lease == RENEWED and state.late):
            return found
        holder = next((actor for actor in state.actors if actor.fence == state.fence), None)
        if holder is None:
            return [*found, ("lease over", state.but(lease=OVER))]
        if state.lease == RENEWED or not state.faults:
            return found
        lost = _only_in_memory(holder)
        over = _fault(state, unavoidable=lost).but(lease=OVER, lapsed=state.lapsed or not lost)
        return [*found, ("lease over early", over)]

    # --- conditions -------------------------------------------------------------------------------------------------
    def _is_free(self, state: State) -> bool:
        return state.live and state.lease in (FREE, OVER)

    def _next_fence(self, state: State) -> int:
        return state.fence if self.variant.fence else state.fence + 1

    def _is_ours(self, state: State, actor: Actor) -> bool:
        """The condition of every write of a holder: live, and the fence."""
        return state.live and (self.variant.fence or state.fence == actor.fence)

    def _needs_lease(self, state: State, actor: Actor) -> bool:
        return actor.kind == "keep" or (state.mode == "strict" and not self.variant.single_use)

    # --- a worker that wants an access token, or the successor for its own sake ("keep") ----------------------------
    def worker_load(self, state: State, number: int, actor: Actor) -> list[Step]:
        not_due = (" not due", _with(state, number, actor._replace(at="read", pin=state.pin)))
        if actor.kind == "customer":
            return [not_due]
        due = (" due", _with(state, number, actor._replace(at="lease", pin=state.pin)))
        return [due, not_due] if state.mode == "entra" else [due]

    def worker_lease(self, state: State, number: int, actor: Actor) -> list[Step]:
        if self.variant.customer and actor.kind == "customer":
            return [(" not asked for", _with(state, number, actor._replace(at="read")))]
        if self._is_free(state):
            fence, pin = self._next_fence(state), actor.pin if self.variant.refresh else state.pin
            at = "refresh" if self.variant.at_once else "newest"
            holder = actor._replace(at=at, fence=fence, pin=pin)
            return [("", _with(state, number, holder, fence=fence, lease=HELD))]
        if self._needs_lease(state, actor):
            return [(" in other hands", _end(state, number))]
        return [(" in other hands", _with(state, number, actor._replace(at="read")))]

    def worker_refresh(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", _with(state, number, actor._replace(at="newest", fence=state.fence, pin=state.pin)))]

    def worker_newest(self, state: State, number: int, actor: Actor) -> list[Step]:
        newest = _newest(state, 1)
        if not _readable(state, actor.pin):
            return [(" nothing", _give_back(state, number, actor))]
        if newest == actor.pin or not _readable(state, newest) or self.variant.newest:
            found = [("", _open(state, number, actor, actor.pin))]
        else:
            found = [("", _with(state, number, actor._replace(at="adopt", found=newest)))]
        if state.faults:
            found.append((" unanswered", _give_back(_fault(state), number, actor)))
        return found

    def worker_adopt(self, state: State, number: int, actor: Actor) -> list[Step]:
        state = _change(state, actor.found, known=True)
        later = state.versions[actor.found].fence > state.versions[actor.pin].fence and not self.variant.adopt
        if later and self._is_ours(state, actor) and state.pin == actor.pin:
            return [("", _open(state.but(pin=actor.found), number, actor, actor.found))]
        return [(" not", _open(state, number, actor, actor.pin))]

    def worker_read(self, state: State, number: int, actor: Actor) -> list[Step]:
        if not _readable(state, actor.pin):
            return [(" nothing", _end(state, number))]
        return [("", _open(state, number, actor, actor.pin))]

    def worker_check(self, state: State, number: int, actor: Actor) -> list[Step]:
        if not state.live and not self.variant.gate:
            return [(" shut", _give_back(state, number, actor))]
        if state.killed:
            state = state.but(wrong="a call left after the stop")
        if actor.fence != NOTHING and not self.variant.renews_once:
            if not self._is_ours(state, actor):
                return [(" lost", _give_back(state, number, actor))]
            state = state.but(lease=RENEWED)
        return [("", _with(state, number, actor._replace(at="redeem")))]

    def worker_redeem(self, state: State, number: int, actor: Actor) -> list[Step]:
        if actor.fence != NOTHING and not self.variant.renews_once:
            state = _answered(state)
        after = _spent(state, actor.token)
        if after is None:
            told = actor.kind != "customer"  # what a customer's tenant refuses says nothing about the partner
            return [(" refused", _give_back(_reused(state, actor.token), number, actor, refused=told))]
        if actor.fence == NOTHING:  # the successor is not stored
            return [("", _end(after, number))]
        given = (*after.tokens, Token(after.tokens[actor.token].session))
        at = "point_at" if self.variant.pin_first else "renew_lease"
        found = [("", _with(after, number, actor._replace(at=at, token=len(after.tokens)), tokens=given))]
        if state.faults:
            found.append((" unanswered", _give_back(_fault(after, unavoidable=True), number, actor)))
            if after != state:
                found.append((" did not arrive", _give_back(_fault(state), number, actor)))
        return found

    def worker_renew_lease(self, state: State, number: int, actor: Actor) -> list[Step]:
        storing = actor._replace(at="put")
        if self.variant.renew_lease:
            return [("", _with(state, number, storing))]
        if not self._is_ours(state, actor):
            return [(" lost", _give_back(state, number, actor))]
        return [("", _with(state, number, storing, lease=RENEWED))]

    def worker_put(self, state: State, number: int, actor: Actor) -> list[Step]:
        put, answered = Version(1, actor.token, actor.fence), _answered(state)
        stored = _stored(answered, put)
        if self.variant.pin_first:
            return [("", _give_back(stored, number, actor))]
        found = [("", _with(stored, number, actor._replace(at="point_at", token=NOTHING, found=len(state.versions))))]
        if not state.faults:
            return found
        ends = [(" unanswered", _fault(stored)), (" did not arrive", _fault(answered, unavoidable=True))]
        if self.variant.slow:
            ends.append((" arrives late", _fault(state).but(late=(put,))))
        if self.variant.gives_back:
            return found + [(how, _give_back(after, number, actor)) for how, after in ends]
        return found + [(how, _end(after, number)) for how, after in ends]

    def worker_point_at(self, state: State, number: int, actor: Actor) -> list[Step]:
        if self.variant.pin_first:
            return [("", _with(state, number, actor._replace(at="put"), pin=len(state.versions), lease=RENEWED))]
        if not self.variant.note:
            state = _change(state, actor.found, known=True)
        if self._is_ours(state, actor):
            return [("", _end(_pinned(state, actor.found), number))]
        if self.variant.loser_disables:
            state = _change(state, actor.found, enabled=False)
        return [(" lost", _give_back(state, number, actor))]

    def worker_release(self, state: State, number: int, actor: Actor) -> list[Step]:
        state = _released(state, actor)
        if actor.refused:
            return [("", _with(state, number, Actor(actor.kind, "mark_refused")))]
        return [("", _end(state, number))]

    def worker_mark_refused(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", _end(state, number, refused=state.refused or not state.superseded))]

    # --- somebody stops the partner, and a worker disables its secrets ----------------------------------------------
    def kill_kill(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", _with(state, number, actor._replace(at="close"), killed=True))]

    def kill_close(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", _with(_noted(state, 1), number, actor._replace(at="disable")))]

    def kill_disable(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", _end(_disabled(state, 1), number, closed=True))]

    # --- an owner renews --------------------------------------------------------------------------------------------
    def renew_put(self, state: State, number: int, actor: Actor) -> list[Step]:
        """With the row before it, that reserves a name which nobody else looks at."""
        put = Version(1 if self.variant.generation else 2, len(state.tokens), 0)
        stored = _stored(state, put).but(tokens=(*state.tokens, Token(2)))
        found = [("", _with(stored, number, actor._replace(at="pin", found=len(state.versions))))]
        if state.faults:
            found.append((" unanswered", _end(_fault(stored), number)))
        return found

    def renew_pin(self, state: State, number: int, actor: Actor) -> list[Step]:
        if state.killed:
            return [(" stopped", _end(state, number))]
        waiting = actor._replace(at="confirm", found=NOTHING)
        state = _change(state, actor.found, known=True)
        return [("", _with(state, number, waiting, second="pending", second_pin=actor.found))]

    def renew_confirm(self, state: State, number: int, actor: Actor) -> list[Step]:
        if state.killed:
            return [(" stopped", _end(state, number))]
        if self.variant.generation:  # the same name and row: the new consent is just another version
            return [("", _end(state, number, second="in force", pin=state.second_pin))]
        return [("", _end(state, number, second="in force", superseded=True))]

    # --- a sweep ----------------------------------------------------------------------------------------------------
    def sweep_crashed(self, state: State, number: int, actor: Actor) -> list[Step]:
        if state.live and state.lease == OVER:
            return [("", _with(state, number, actor._replace(at="newest", crashed=state.fence)))]
        return [(" none", _with(state, number, SWEEPING_ON))]

    def sweep_newest(self, state: State, number: int, actor: Actor) -> list[Step]:
        newest = _newest(state, 1)
        found = newest if _readable(state, newest) else NOTHING
        return [("", _with(state, number, actor._replace(at="lease", found=found)))]

    def sweep_lease(self, state: State, number: int, actor: Actor) -> list[Step]:
        if not self._is_free(state):
            return [(" in other hands", _with(state, number, SWEEPING_ON))]
        fence = self._next_fence(state)
        as_it_was = actor.found != NOTHING and fence == actor.crashed + 1
        holder = actor._replace(at="note" if as_it_was else "release", fence=fence, pin=state.pin)
        return [("", _with(state, number, holder, fence=fence, lease=HELD))]

    def sweep_note(self, state: State, number: int, actor: Actor) -> list[Step]:
        state = _change(state, actor.found, known=True)
        left = actor.found != actor.pin and state.versions[actor.found].fence == actor.crashed
        at = "point_at" if left and not self.variant.adopt else "release"
        return [("", _with(state, number, actor._replace(at=at)))]

    def sweep_point_at(self, state: State, number: int, actor: Actor) -> list[Step]:
        if self._is_ours(state, actor):
            state = _pinned(state, actor.found)
        return [("", _with(state, number, actor._replace(at="release")))]

    def sweep_release(self, state: State, number: int, actor: Actor) -> list[Step]:
        return [("", _with(_released(state, actor), number, SWEEPING_ON))]

    def sweep_over(self, state: State, number: int, actor: Actor) -> list[Step]:
        if state.superseded and state.lease == FREE and _is_open(state, 1):
            return [("", _with(state, number, actor._replace(at="close")))]
        return [(" none", _end(state, number))]

    sweep_close = kill_close
    sweep_disable = kill_disable

    # --- afterwards -------------------------------------------------------------------------------------------------
    def afterwards(self, state: State) -> State:
        """Time passes, the sweep comes twice, and nobody breaks anything any more."""
        state = state.but(lease=FREE if state.lease == FREE else OVER)
        for _ in range(0 if self.variant.sweep else 2):
            state = self._alone(state, "sweep")
            for name in self._ended(state):
                again = state.killed and not self.variant.second_look
                if again or _is_open(state, name):
                    state = _disabled(_noted(state, name), name).but(closed=state.closed or name == 1)
        return state

    def _alone(self, state: State, kind: str) -> State:
        """What this one does while nobody else acts."""
        state = state.but(actors=begin(state.mode, kind).actors)
        while self.movers(state):
            [(_, state)] = self.steps_of(state, 0)
        return state

    def _ended(self, state: State) -> set[int]:
        """The names under which nothing may stay enabled."""
        ended = {1} if state.superseded or state.killed else set()
        return ended | ({2} if state.second != "in force" or state.killed else set())

    def verdict(self, state: State) -> str:
        """What is wrong in the end, in a few words; a loss that the next attempt made known is "reported"."""
        end = state.but(actors=(), crashes=0, faults=0)
        if end not in self._verdicts:
            self._verdicts[end] = self._verdict(end)
        return self._verdicts[end]

    def _verdict(self, end: State) -> str:
        after = self.afterwards(end)
        if after.wrong:
            return after.wrong
        if after.live and after.lease != FREE and not self.variant.sweep:
            return "stuck: a lease was left"
        if any(version.enabled and version.name in self._ended(after) for version in after.versions):
            return "resurrected: a version that must be disabled is enabled"
        if any(one.enabled and not one.known and i != _newest(after, one.name) for i, one in enumerate(after.versions)):
            return "resurrected: a version that nobody would find"
        return "" if after.killed else self._next_attempt(after)

    def _next_attempt(self, after: State) -> str:
        in_force = 2 if after.second == "in force" else 1
        pin = after.second_pin if in_force == 2 and not self.variant.generation else after.pin
        if not _readable(after, pin):
            return "lost: the pin names what nobody can read"
        token = after.tokens[after.versions[pin].token]
        if token.session != in_force:
            return "stale: an older consent is in force"
        if in_force == 2:
            return "lost: the sign-in in force is refused" if token.spent or 2 in after.revoked else ""
        if after.mode == "grace" and after.quiet and token.spent:
            return "lost: the grace ends before anybody stores a successor"
        tried = after if after.refused else self._alone(after, "keep")
        if not tried.refused:
            return "" if tried.pin != after.pin else "lost: and nobody was told"
        kept = (after.tokens[one.token] for one in after.versions if one.enabled and one.name == in_force)
        if any(not one.spent and one.session not in after.revoked for one in kept):
            return "lost: a good one lay in the vault"
        if after.mode != "strict" or not (after.unavoidable or after.lapsed):
            return "lost: the sign-in in force is refused"
        return REPORTED if after.unavoidable else LAPSED


# --- what a step does -----------------------------------------------------------------------------------------------
SWEEPING_ON = Actor("sweep", "over")
ENDED = Actor("", "end")  # or dead: that is the same to all others


def _with(state: State, number: int, actor: Actor, **facts: Any) -> State:
    actors = list(state.actors)
    actors[number] = actor
    return state.but(actors=tuple(actors), **facts)


def _end(state: State, number: int, **facts: Any) -> State:
    return _with(state, number, ENDED, **facts)


def _give_back(state: State, number: int, actor: Actor, *, refused: bool = False) -> State:
    """Go to what comes last, whatever happened; who has no lease has none to give back."""
    if actor.fence != NOTHING:
        return _with(state, number, Actor(actor.kind, "release", fence=actor.fence, refused=refused))
    return _with(state, number, Actor(actor.kind, "mark_refused")) if refused else _end(state, number)


def _open(state: State, number: int, actor: Actor, version: int) -> State:
    token = state.versions[version].token
    return _with(state, number, Actor(actor.kind, "check", fence=actor.fence, token=token))


def _only_in_memory(actor: Actor) -> bool:
    """Whether it has a successor that lies nowhere else."""
    return actor.at in ("renew_lease", "put") and actor.kind != "renew"


def _fault(state: State, *, unavoidable: bool = False) -> State:
    return state.but(faults=state.faults - 1, quiet=False, unavoidable=state.unavoidable or unavoidable)


def _answered(state: State) -> State:
    """The request under a lease that was just renewed is over."""
    return state.but(lease=HELD) if state.lease == RENEWED else state


def _released(state: State, actor: Actor) -> State:
    return state.but(lease=FREE) if state.fence == actor.fence else state


def _stored(state: State, put: Version) -> State:
    return state.but(versions=(*state.versions, put))


def _pinned(state: State, version: int) -> State:
    before = state.versions[state.pin : state.pin + 1]  # a pin set first may name what is not there yet
    went_back = any(state.versions[version].fence < pinned.fence for pinned in before)
    return state.but(pin=version, lease=FREE, wrong="a pin went back" if went_back else state.wrong)


def _change(state: State, index: int, **fields: Any) -> State:
    changed = state.versions[index]._replace(**fields)
    return state.but(versions=(*state.versions[:index], changed, *state.versions[index + 1 :]))


def _newest(state: State, name: int) -> int:
    return max((i for i, version in enumerate(state.versions) if version.name == name), default=NOTHING)


def _readable(state: State, version: int) -> bool:
    return NOTHING < version < len(state.versions) and state.versions[version].enabled


def _noted(state: State, name: int) -> State:
    """The newest version under a name is known, where it can be read."""
    newest = _newest(state, name)
    return _change(state, newest, known=True) if _readable(state, newest) else state


def _disabled(state: State, name: int) -> State:
    """All that is known under a name is disabled."""
    versions = (v._replace(enabled=False) if v.name == name and v.known else v for v in state.versions)
    return state.but(versions=tuple(versions))


def _is_open(state: State, name: int) -> bool:
    """Whether a name was not closed yet, or something known under it is enabled."""
    known = any(version.enabled and version.known for version in state.versions if version.name == name)
    return known or not (name == 1 and state.closed)


def _spent(state: State, token: int) -> State | None:
    """The identity service takes a refresh token, or refuses."""
    given = state.tokens[token]
    if given.session in state.revoked or (given.spent and state.mode == "strict"):
        return None
    if state.mode == "entra" or given.spent:
        return state
    tokens = (*state.tokens[:token], given._replace(spent=True), *state.tokens[token + 1 :])
    return state.but(tokens=tokens)


def _reused(state: State, token: int) -> State:
    """A spent one that comes again ends the whole sign-in."""
    return state.but(revoked=state.revoked | {state.tokens[token].session})
