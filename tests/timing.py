"""What the summary says of its own: seconds by part of the suite, and loudly what was left out."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

import pytest

from tests.postgresql import ROUND, ROUNDS, SERVER, TESTS

OPTIONAL = "not part of this repository"  # in the reason of a skip: other people's material, looked at where it lies
TWICE = "CPV_TEST_TWICE"  # when set, what runs on PostgreSQL runs on SQLite as well: coverage counts both
# What takes longest begins first, or a worker would be left with it alone. Who needs the running stack comes together.
FIRST = (
    "house/test_walls_on_postgresql.py", "house/test_rooms_on_postgresql.py", "journeys/test_journeys_on_postgresql.py",
    "processes/test_rehearsal.py", "browser/", "processes/test_story.py", "house/test_callback_fuzz.py",
    "tokens/explorer/", "tokens/schedules/", "bench/", "house/test_row_level_security.py", "house/test_sweep.py",
    "processes/",
)  # fmt: skip
_seconds: dict[str, float] = defaultdict(float)
_tests: dict[str, int] = defaultdict(int)
_figures: list[str] = []  # what a test measured and said with `record_property("figure", …)`


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What only PostgreSQL can show is looked at there; and nothing twice, where both are in one run."""
    asked = {item.path.stem for item in items} if SERVER and not {ROUND, TWICE} & set(os.environ) else set()
    there = [round_ for name, round_ in ROUNDS.items() if f"test_{name}_on_postgresql" in asked]
    elsewhere = {item for item in items if not _belongs_here(item) or any(one.takes_away(item) for one in there)}
    config.hook.pytest_deselected(items=list(elsewhere))
    items[:] = sorted((item for item in items if item not in elsewhere), key=_turn)


def _turn(item: pytest.Item) -> int:
    path = item.path.relative_to(TESTS).as_posix()
    return next((turn for turn, first in enumerate(FIRST) if path.startswith(first)), len(FIRST))


def _belongs_here(item: pytest.Item) -> bool:
    from django.db import connection

    if connection.vendor != "postgresql":
        return item.get_closest_marker("postgresql") is None
    name = os.environ.get(ROUND)
    return name is None or ROUNDS[name].takes(item)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and not os.environ.get("PYTEST_XDIST_WORKER"):
        sys.stderr.write(f"\nFAILED so far: {report.nodeid} ({report.when})\n")  # a run that is cut off names it, too
    part = "/".join(PurePosixPath(report.nodeid.split("::")[0]).parts[:2])
    _seconds[part] += report.duration
    if report.when == "call":
        _tests[part] += 1
        _figures.extend(f"{value}" for name, value in report.user_properties if name == "figure")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed and not os.environ.get("PYTEST_XDIST_WORKER"):
        sys.stderr.write(f"\nFAILED so far: {report.nodeid} (could not be read)\n{report.longreprtext}\n")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("seconds by part")
    for part in sorted(_seconds, key=lambda part: -_seconds[part]):
        terminalreporter.write_line(f"{part:<24}{_tests[part]:>6} tests{_seconds[part]:>8.1f} s")
    terminalreporter.write_line(f"{'together':<24}{sum(_tests.values()):>6} tests{sum(_seconds.values()):>8.1f} s")
    for figure in _figures:
        terminalreporter.write_line(figure)
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("LEFT OUT ON THIS MACHINE", red=True, bold=True)
        for report in skipped:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.write_line(f"{report.nodeid}: {why}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where nothing may be skipped (CI), a skipped test is a failed run."""
    if not os.environ.get("CPV_NOTHING_SKIPPED"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [
        report
        for report in (reporter.stats if reporter else {}).get("skipped", [])
        if OPTIONAL not in str(report.longrepr)
    ]
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
