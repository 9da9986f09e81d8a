"""What the bench prints: medians in rows, and the gates at the end."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.ground import Ground

ROW = "{:<30}{:>15}{:>15}{:>12}{:>12}"
WIDE = "{:<38}{:>9}{:>9}{:>10}{:>9}{:>12}{:>11}{:>10}"
GATE = "{:<78}{:>12}{:>12}{:>9}"

Figures = dict[str, float]


def say(text: str) -> None:
    sys.stdout.write(text.rstrip(" ") + "\n")
    sys.stdout.flush()


def title(name: str, where: Ground) -> None:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    say(f"\n# {name}, {where.database}, {os.cpu_count()} cores, load {load}")


# --- Turns ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Strategy:
    """A function of the bench in a fresh process, its options, and what is made ready before it."""

    function: str
    given: dict[str, Any]
    prepare: Callable[[], object] = lambda: None
    each: int = 1  # it takes part in every round of so many
    also: Mapping[str, Callable[[], float]] = field(default_factory=dict)  # counters read before and after


def in_turns(where: Ground, rounds: int, strategies: dict[str, Strategy]) -> dict[str, Figures]:
    """Medians by strategy: every round runs each of them once, in a fresh process."""
    found: dict[str, list[Figures]] = defaultdict(list)
    for turn in range(rounds):
        for name, strategy in strategies.items():
            if turn % strategy.each == 0:
                found[name].append(_measured(where, strategy))
    return {name: medians(figures) for name, figures in found.items()}


def _measured(where: Ground, strategy: Strategy) -> Figures:
    strategy.prepare()
    before = {name: count() for name, count in strategy.also.items()}
    figures: Figures = where.measure(strategy.function, **strategy.given)
    return figures | {name: count() - before[name] for name, count in strategy.also.items()}


def medians(figures: list[Figures]) -> Figures:
    return {name: median(one[name] for one in figures) for name in figures[0]}


def print_table(
    found: dict[str, Figures], *, unit: str, scale: float, limits: Iterable[str], by: str = "seconds"
) -> None:
    """One row a strategy; the last column is its wall time, or `by` its "cpu", over that of each limit."""
    limits = list(limits)
    say(ROW.format("", f"wall {unit}", f"CPU {unit}", "memory MB", "/ limits"))
    for name, one in found.items():
        ratios = " / ".join(f"{one[by] / found[limit][by]:.1f}" for limit in limits)
        seconds, cpu = one["seconds"] * scale, one["cpu"] * scale
        say(ROW.format(name, f"{seconds:.2f}", f"{cpu:.2f}", f"{one['memory']:.0f}", ratios))


def print_wide(found: dict[str, Figures], *, size: int, limit: str) -> None:
    """One row a strategy: time, CPU of both sides, memory, what it wrote, and its time over that of a limit."""
    say(WIDE.format("", "wall s", "CPU s", "server s", "RSS MB", "WAL B/row", "rows", "/ limit"))
    for name, one in found.items():
        known = "wal" in one
        say(
            WIDE.format(
                name,
                f"{one['seconds']:.2f}",
                f"{one['cpu']:.2f}",
                f"{one['server_cpu']:.2f}" if known else "-",
                f"{one['memory']:.0f}",
                f"{one['wal'] / size:.1f}" if known else "-",
                f"{one['rows']:,.0f}" if "rows" in one else "-",
                f"{one['seconds'] / found[limit]['seconds']:.2f}",
            )
        )


# --- Gates ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Gate:
    """One line of what must hold; `figure` is None where this run could not measure it."""

    what: str
    figure: float | None
    gate: float
    aim: float | None = None
    at_most: bool = False
    unit: str = " x"

    @property
    def mark(self) -> str:
        """ "!" where it is missed, "?" where nothing was measured."""
        if self.figure is None:
            return "?"
        good = self.figure <= self.gate if self.at_most else self.figure >= self.gate
        return "" if good else "!"

    def line(self) -> str:
        sign = "<=" if self.at_most else ">="
        figure = "-" if self.figure is None else _short(self.figure) + self.unit
        aim = "" if self.aim is None else _short(self.aim)
        return GATE.format(self.what, figure, f"{sign} {_short(self.gate)}", aim) + f"  {self.mark}".rstrip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def print_gates(gates: list[Gate]) -> None:
    say("\n# What must hold\n")
    say(GATE.format("", "figure", "gate", "aim"))
    for gate in gates:
        say(gate.line())
    missed, unmeasured = (sum(gate.mark == mark for gate in gates) for mark in "!?")
    say(f"\n{len(gates)} gates: {missed} missed (!), {unmeasured} not measured (?).")


def ratio(over: Figures | None, under: Figures | None, by: str = "seconds") -> float | None:
    """How many times the one takes what the other does; None where one of them was not measured."""
    return over[by] / under[by] if over and under else None
