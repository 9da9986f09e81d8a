"""Nothing is lost, stale or resurrected in any order of steps, crashes, kills and renewals; in the model."""

from __future__ import annotations

import pytest

from tests.tokens.explorer.explore import EVENTS, Found, at_random, every, many_at_random
from tests.tokens.explorer.model import LAPSED, MODES, REPORTED, Machine, Variant, begin

RANDOM = 100_000
KEEP, MIXED, MINT = ("keep", "keep"), ("keep", "mint"), ("mint", "mint")
CUSTOMER = ("keep", "customer")
# Where refresh tokens work once, whoever mints does what whoever keeps one does.
PAIRS = {"entra": (KEEP, MIXED, MINT), "grace": (KEEP, MINT), "strict": (KEEP, CUSTOMER)}
# With a sweep it takes long: whoever mints may do all that whoever keeps does, and grace differs from Entra in the end.
PAIRS_SWEPT = {"entra": (MINT,), "grace": (KEEP,), "strict": (KEEP,)}


def of_pair(machine: Machine, mode: str, *pair: str, crashes: int = 1, faults: int = 1) -> Found:
    """Both alone, then with a kill, then with a renewal."""
    found = Found()
    for event in EVENTS:
        found.add(every(begin(mode, *pair, *([event] if event else []), crashes=crashes, faults=faults), machine))
    return found


def in_mode(mode: str, *, sweep: bool, crashes: int = 1, faults: int = 1) -> Found:
    found = Found()
    for pair in (PAIRS_SWEPT if sweep else PAIRS)[mode]:
        found.add(of_pair(Machine(), mode, *pair, *["sweep"] * sweep, crashes=crashes, faults=faults))
    return found


def in_every_mode(*, sweep: bool, crashes: int = 1, faults: int = 1) -> Found:
    """All modes together: in entra and grace nothing is lost, in strict only what the next attempt makes known."""
    together = Found()
    for mode in MODES:
        found = in_mode(mode, sweep=sweep, crashes=crashes, faults=faults)
        assert set(found.ends) <= ({"", REPORTED} if mode == "strict" else {""}), found.wrong
        together.add(found)
    return together


def losses(found: Found) -> str:
    return f"{found.reported:,} losses, all reported"


@pytest.mark.parametrize("sweep", [False, True], ids=["alone", "with a sweep between them"])
def test_two_workers_in_every_order_with_a_crash_a_fault_and_a_kill_or_renewal(sweep, record_property):
    found = in_every_mode(sweep=sweep)

    assert not found.wrong
    record_property(
        "figure",
        f"explorer, two workers{' and a sweep' if sweep else ''}: {found.schedules:,} schedules ({found.states:,} "
        f"states): 0 lost, 0 stale, 0 resurrected; strict: {losses(found)}",
    )


def test_many_workers_at_random_with_two_crashes_and_two_faults(record_property):
    found = many_at_random(RANDOM, Machine())

    assert not found.wrong
    record_property(
        "figure",
        f"explorer at random: {RANDOM:,} schedules: 0 lost, 0 stale, 0 resurrected; strict: {losses(found)}",
    )


@pytest.mark.parametrize("workers", [KEEP, CUSTOMER, ("mint", "customer"), ("keep", "mint", "customer")])
@pytest.mark.parametrize("sweep", [(), ("sweep",)], ids=["alone", "with a sweep between them"])
def test_where_tokens_work_once_nothing_is_lost_while_nothing_breaks(workers, sweep):
    """No crash, no lost answer, no lease that is over early; a kill or a renewal may come."""
    found = of_pair(Machine(), "strict", *workers, *sweep, crashes=0, faults=0)

    assert set(found.ends) == {""}


@pytest.mark.soak
def test_two_crashes_and_two_faults_in_every_order(record_property):
    found = in_every_mode(sweep=True, crashes=2, faults=2)

    assert not found.wrong
    record_property("figure", f"explorer, two crashes and two faults: {found.schedules:,} schedules; {losses(found)}")


@pytest.mark.soak
def test_a_million_at_random(record_property):
    found = many_at_random(1_000_000, Machine(), salt="soak ")

    assert not found.wrong
    record_property("figure", f"explorer at random: 1,000,000 schedules; strict: {losses(found)}")


# --- A vault that is slow, a machine that was frozen -----------------------------------------------------------------
def test_a_put_that_arrives_when_nobody_waits_for_it_any_more_does_no_harm_while_its_lease_runs_out():
    """Were the lease given back once an answer is lost, a late version could hide behind the next holder's."""
    late, hasty = Machine(Variant(slow=True)), Machine(Variant(slow=True, gives_back=True))

    assert set(of_pair(hasty, "entra", *KEEP, crashes=0).wrong) == {
        "resurrected: a version that nobody would find",
        "resurrected: a version that must be disabled is enabled",
    }
    assert "lost: the sign-in in force is refused" in every(begin("strict", *KEEP), hasty).wrong
    for mode in MODES:
        assert not of_pair(late, mode, *KEEP).wrong


def test_a_lease_over_before_the_redeem_costs_no_sign_in():
    """The gate alone would not do: whoever lost the lease would spend once more what the next holder has spent."""
    assert of_pair(Machine(Variant(renews_once=True)), "strict", *KEEP).ends[LAPSED]
    assert not of_pair(Machine(), "strict", *KEEP).ends[LAPSED]


# --- The explorer itself --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("left_out", "caught"),
    [
        ("fence", "resurrected: a version that nobody would find"),
        ("refresh", "lost: a good one lay in the vault"),
        ("at_once", "resurrected: a version that nobody would find"),
        ("newest", "resurrected: a version that nobody would find"),
        ("adopt", "lost: a good one lay in the vault"),
        ("gate", "a call left after the stop"),
        ("renew_lease", "resurrected: a version that nobody would find"),
        ("note", "resurrected: a version that nobody would find"),
        ("generation", "stale: an older consent is in force"),
        ("loser_disables", "lost: the pin names what nobody can read"),
        ("pin_first", "lost: the pin names what nobody can read"),
        ("sweep", "resurrected: a version that must be disabled is enabled"),
        ("second_look", "resurrected: a version that must be disabled is enabled"),
    ],
)
def test_a_protocol_that_leaves_out_a_part_is_caught(left_out, caught):
    machine = Machine(Variant(**{left_out: True}))

    found = (
        every(begin(mode, *KEEP, *filter(None, [event])), machine) for event in EVENTS for mode in ("entra", "strict")
    )

    assert any(caught in schedules.wrong for schedules in found)


@pytest.mark.parametrize(("left_out", "workers"), [("single_use", MIXED), ("customer", CUSTOMER), ("refresh", KEEP)])
def test_where_tokens_work_once_whoever_redeems_out_of_turn_loses_the_sign_in_though_nothing_breaks(left_out, workers):
    found = every(begin("strict", *workers, crashes=0, faults=0), Machine(Variant(**{left_out: True})))

    assert any(verdict.startswith("lost") for verdict in found.wrong)


def test_with_a_grace_whoever_redeems_and_stores_no_successor_loses_the_sign_in_when_it_ends():
    """Whoever asks at a customer's tenant does not ask for the lease here, and nobody else comes."""
    found = every(begin("grace", "customer", crashes=0, faults=0), Machine())

    assert set(found.wrong) == {"lost: the grace ends before anybody stores a successor"}


def test_a_wrong_schedule_comes_again_from_its_seed_step_by_step():
    machine = Machine(Variant(sweep=True))
    [(verdict, [seed]), *_] = many_at_random(2_000, machine).wrong.items()

    again, way = at_random(seed, machine)

    assert again == verdict
    assert at_random(seed, machine) == (verdict, way)
    assert at_random(seed, Machine())[0] in ("", REPORTED), "the whole protocol stands the same luck"


def test_every_way_out_of_the_model_ends_and_is_counted_once():
    """Two who only read and redeem, and nothing else: four steps each, so 70 orders."""
    found = every(begin("entra", "customer", "customer", crashes=0, faults=0), Machine())

    assert found.schedules == 70
