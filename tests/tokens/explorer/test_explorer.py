"""Nothing is lost, stale or resurrected in any order of steps, crashes, kills and renewals; in the model."""

from __future__ import annotations

import pytest

from tests.tokens.explorer.explore import EVENTS, PAIRS, Found, at_random, every, many_at_random
from tests.tokens.explorer.model import MODES, Broken, Machine, begin

RANDOM = 100_000
# Where a refresh token works once, whoever mints also rotates; so there is one pair.
CASES = [(mode, pair, event) for mode in MODES for pair in PAIRS[: 3 if mode == "entra" else 1] for event in EVENTS]


def through_all(
    machine: Machine, *, cases: list[tuple[str, tuple[str, str], str]], extra: tuple[str, ...] = ()
) -> Found:
    found = Found()
    for mode, pair, event in cases:
        found.add(every(begin(mode, *pair, *([event] if event else []), *extra), machine))
    return found


@pytest.mark.parametrize("sweeping", [(), ("sweep",)], ids=["alone", "with a sweep between them"])
def test_two_workers_in_every_order_with_a_crash_a_fault_and_a_kill_or_renewal(sweeping, record_property):
    found = through_all(Machine(), cases=CASES, extra=sweeping)

    assert not found.wrong
    record_property(
        "figure",
        f"explorer, two workers{' and a sweep' if sweeping else ''}: {found.schedules:,} schedules ({found.states:,} "
        f"states): 0 lost, 0 stale, 0 resurrected; strict: {found.ends['reported']:,} losses, all reported",
    )


def test_many_workers_at_random_with_two_crashes_and_two_faults(record_property):
    found = many_at_random(RANDOM, Machine())

    assert not found.wrong
    record_property(
        "figure",
        f"explorer at random: {RANDOM:,} schedules: 0 lost, 0 stale, 0 resurrected; {found.ends['reported']} reported",
    )


def test_in_entra_and_grace_nothing_is_lost_at_all():
    cases = [(mode, pair, event) for mode, pair, event in CASES if mode != "strict"]

    assert set(through_all(Machine(), cases=cases).ends) == {""}


@pytest.mark.soak
def test_two_crashes_and_two_faults_in_every_order(record_property):
    found = Found()
    for mode, pair, event in CASES:
        found.add(every(begin(mode, *pair, *([event] if event else []), "sweep", crashes=2, faults=2), Machine()))

    assert not found.wrong
    record_property("figure", f"explorer, two crashes and two faults: {found.schedules:,} schedules")


@pytest.mark.soak
def test_a_million_at_random(record_property):
    found = many_at_random(1_000_000, Machine(), salt="soak ")

    assert not found.wrong
    record_property("figure", f"explorer at random: 1,000,000 schedules, {found.ends['reported']:,} reported")


# --- The explorer itself --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("left_out", "caught"),
    [
        ("fence", "resurrected"),
        ("generation", "stale"),
        ("loser_disables", "lost: the pin names what nobody can read"),
        ("sweep", "resurrected"),
        ("second_look", "resurrected"),
        ("pin_first", "lost"),
        ("adopt", "resurrected"),
        ("gate", "a call left after the stop"),
    ],
)
def test_a_protocol_that_leaves_out_a_part_is_caught(left_out, caught):
    machine = Machine(Broken(**{left_out: True}))

    cases = ((mode, PAIRS[0], event) for event in EVENTS for mode in ("entra", "strict"))
    found = (through_all(machine, cases=[case]).wrong for case in cases)

    assert any(verdict.startswith(caught) for wrong in found for verdict in wrong)


def test_a_wrong_schedule_comes_again_from_its_seed_step_by_step():
    machine = Machine(Broken(sweep=True))
    [(verdict, [seed]), *_] = many_at_random(2_000, machine).wrong.items()

    again, way = at_random(seed, machine)

    assert again == verdict
    assert at_random(seed, machine) == (verdict, way)
    assert at_random(seed, Machine())[0] in ("", "reported"), "the whole protocol stands the same luck"


def test_every_way_out_of_the_model_ends_and_is_counted_once():
    """Two who mint and nothing else: three steps each, so 20 orders."""
    found = every(begin("entra", "mint", "mint", crashes=0, faults=0), Machine())

    assert found.schedules == 20
