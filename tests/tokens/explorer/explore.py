"""Every way through the model, or many at random; a random one comes again from its seed."""

from __future__ import annotations

import gc
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.tokens.explorer.model import MODES, REPORTED, Machine, State, begin

EVENTS = ("", "kill", "renew")
WORKERS = ("keep", "mint")
AFTER_ACTORS = State._fields.index("actors") + 1
A_CRASH, A_LEASE = 0.05, 0.1  # chances, at each step


@dataclass
class Found:
    """How many schedules there are, how they end, and one schedule for each way that is wrong."""

    schedules: int = 0
    states: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def wrong(self) -> dict[str, list[str]]:
        return {verdict: way for verdict, way in self.examples.items() if verdict and not verdict.startswith(REPORTED)}

    @property
    def reported(self) -> int:
        return sum(number for verdict, number in self.ends.items() if verdict.startswith(REPORTED))

    def add(self, other: Found) -> None:
        self.schedules += other.schedules
        self.states += other.states
        self.ends += other.ends
        self.examples = other.examples | self.examples


def every(start: State, machine: Machine) -> Found:
    """
    Go through every interleaving. Those that lead to the same state go on as one and are counted as many.

    Each state is visited once; the number of schedules from it is the sum over what can follow. Who of several is
    where makes no difference, but in the names of the steps.
    """
    sys.setrecursionlimit(10_000)
    known: dict[tuple[object, ...], dict[str, int]] = {}
    found = Found()
    way: list[str] = []

    def ends(state: State) -> dict[str, int]:
        key = (tuple(sorted(state.actors)), state[AFTER_ACTORS:])
        if key in known:
            return known[key]
        counted: dict[str, int] = {}
        steps = machine.steps(state)
        for name, after in steps:
            way.append(name)
            for verdict, number in ends(after).items():
                counted[verdict] = counted.get(verdict, 0) + number
            way.pop()
        if not steps:
            verdict = machine.verdict(state)
            counted[verdict] = 1
            found.examples.setdefault(verdict, list(way))
        known[key] = counted
        return counted

    with _nothing_to_collect():
        found.ends = Counter(ends(start))
    found.schedules, found.states = found.ends.total(), len(known)
    return found


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """No state refers back to another; to look through all of them again and again takes a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def at_random(seed: str, machine: Machine, *, actors: int = 4) -> tuple[str, list[str]]:
    """One schedule of up to so many workers, a sweep, and perhaps a kill or a renewal; all of it from the seed."""
    chance = random.Random(seed)  # noqa: S311 - it has to come again
    kinds = [chance.choice(WORKERS) for _ in range(chance.randint(2, actors))]
    event = chance.choice(EVENTS)
    kinds += [event] * bool(event) + ["sweep"] * chance.randint(0, 2)
    state = begin(seed.partition(":")[0], *kinds, crashes=chance.randint(0, 2), faults=chance.randint(0, 2))
    way = [f"{state.mode}: {', '.join(kinds)}"]
    movers = machine.movers(state)
    while movers:
        number = chance.choice(movers)
        unlucky = chance.random()
        steps = machine.crashes_of(state, number) if unlucky < A_CRASH else []
        steps = machine.time_steps(state) if unlucky > 1 - A_LEASE else steps
        name, state = chance.choice(steps or machine.steps_of(state, number))
        way.append(name)
        if state.actors[number].at == "end":
            movers.remove(number)
    return machine.verdict(state), way


def many_at_random(number: int, machine: Machine, *, salt: str = "") -> Found:
    """So many schedules in each mode's turn; the name of a wrong one is the seed it comes again from."""
    found = Found(schedules=number)
    for index in range(number):
        seed = f"{MODES[index % 3]}:{salt}{index}"
        verdict, _ = at_random(seed, machine)
        found.ends[verdict] += 1
        found.examples.setdefault(verdict, [seed])
    return found
