"""Every way through the model, or many at random; a random one comes again from its seed."""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass, field

from tests.tokens.explorer.model import MODES, Machine, State, begin

EVENTS = ("", "kill", "renew")
A_CRASH, A_LEASE = 0.05, 0.1  # chances, at each step
PAIRS = (("rotate", "rotate"), ("rotate", "mint"), ("mint", "mint"))


@dataclass
class Found:
    """How many schedules there are, how they end, and one schedule for each way that is wrong."""

    schedules: int = 0
    states: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def wrong(self) -> dict[str, list[str]]:
        return {verdict: way for verdict, way in self.examples.items() if verdict not in ("", "reported")}

    def add(self, other: Found) -> None:
        self.schedules += other.schedules
        self.states += other.states
        self.ends += other.ends
        self.examples = other.examples | self.examples


def every(start: State, machine: Machine) -> Found:
    """
    Go through every interleaving. Those that lead to the same state go on as one and are counted as many.

    Each state is visited once; the number of schedules from it is the sum over what can follow.
    """
    sys.setrecursionlimit(10_000)
    known: dict[State, Counter[str]] = {}
    found = Found()

    def ends(state: State, way: list[str]) -> Counter[str]:
        counted = known.get(state)
        if counted is not None:
            return counted
        steps = machine.steps(state)
        counted = Counter()
        if not steps:
            verdict = machine.verdict(state)
            counted[verdict] = 1
            found.examples.setdefault(verdict, list(way))
        for name, after in steps:
            way.append(name)
            counted += ends(after, way)
            way.pop()
        known[state] = counted
        return counted

    found.ends = ends(start, [])
    found.schedules, found.states = sum(found.ends.values()), len(known)
    return found


def at_random(seed: str, machine: Machine, *, actors: int = 4) -> tuple[str, list[str]]:
    """One schedule of up to so many workers, a sweep, and perhaps a kill or a renewal; all of it from the seed."""
    chance = random.Random(seed)  # noqa: S311 - it has to come again
    kinds = [chance.choice(("rotate", "mint")) for _ in range(chance.randint(2, actors))]
    event = chance.choice(EVENTS)
    kinds += [event] * bool(event) + ["sweep"] * chance.randint(0, 2)
    state = begin(seed.partition(":")[0], *kinds, crashes=chance.randint(0, 2), faults=chance.randint(0, 2))
    way = [f"{state.mode}: {', '.join(kinds)}"]
    while movers := machine.movers(state):
        number = chance.choice(movers)
        unlucky = chance.random()
        steps = machine.crashes_of(state, number) if unlucky < A_CRASH else []
        steps = machine.lease_steps(state) if unlucky > 1 - A_LEASE else steps
        name, state = chance.choice(steps or machine.steps_of(state, number))
        way.append(name)
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
