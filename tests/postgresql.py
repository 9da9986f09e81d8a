"""Runs tests on PostgreSQL, in a process and a database of their own; in a run of the whole suite, only there."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench import templates

SERVER = os.environ.get("CPV_TEST_POSTGRES_URL", "")
THERE = pytest.mark.skipif(not SERVER, reason="set CPV_TEST_POSTGRES_URL to a server where databases may be made")
ROUND = "CPV_TEST_ROUND"
"""In the environment of such a process: the name of its round."""
# What starts processes brings its own database, and the same pages need no second look.
KINDS = "not soak and not browser and not processes"
TESTS = Path(__file__).parent
OURS: pytest.StashKey[bool] = pytest.StashKey()


@dataclass(frozen=True)
class Round:
    """
    Folders and files of which all tests with rows run on PostgreSQL, `but` some.

    With `whole`, of a folder's other files only what PostgreSQL alone can show. What is in `both` runs on SQLite, too.
    """

    paths: tuple[str, ...]
    but: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    both: tuple[str, ...] = ()

    def takes_away(self, item: pytest.Item) -> bool:
        return item.path.relative_to(TESTS).as_posix() not in self.both and self.takes(item)

    def takes(self, item: pytest.Item) -> bool:
        path = item.path.relative_to(TESTS).as_posix()
        if not any(path == one or path.startswith(f"{one}/") for one in self.paths):
            return False
        if any(path == one or path.startswith(f"{one}/") for one in self.but):
            return False
        if any(item.get_closest_marker(kind) for kind in ("soak", "browser", "processes")):
            return False
        if item.get_closest_marker("postgresql"):
            return True
        names = set(getattr(item, "fixturenames", ()))
        has_rows = item.get_closest_marker("django_db") or names & {"db", "transactional_db"}
        return bool(has_rows) and (not self.whole or item.path.stem.removeprefix("test_") in self.whole)


ROUNDS = {
    # Each page and each step with rows of its own. How Microsoft's answers are read is the same for every database.
    "journeys": Round(
        ("journeys",),
        whole=(
            "activity", "admin_consent", "borrowed_access", "changes",
            "changes_that_die", "commands", "connect", "connection", "entra_at_the_desk",
            "exposure", "holdings_pages", "joining", "ledger", "limited", "notices", "notices_of_looks",
            "relationships_pages", "removals_page", "staff_by_entra", "staff_sign_in", "switch", "team", "tidy",
            "users", "work_and_see",
        ),
    ),
    # The explorer plays on a model, schedules are all on one connection, and thousands of lists at fault are about what
    # follows from them, which files beside that one ask of this database: no matter of rows.
    "rooms": Round(
        ("tokens", "partners", "cpvpanel"),
        but=("tokens/explorer", "tokens/schedules", "partners/test_moving_lists.py"),
    ),
    "walls": Round(
        ("house/test_sweep.py", "house/test_walls.py", "house/test_desk.py", "house/test_long_lists.py",
         "house/test_who_may.py"),
        both=("house/test_sweep.py",),
    ),
}  # fmt: skip


def name_the_template(config: pytest.Config) -> None:
    """All databases of this run begin as copies of one, which is migrated when somebody needs the first."""
    if SERVER and templates.NAME not in os.environ and not hasattr(config, "workerinput"):
        os.environ[templates.NAME] = f"cpv_template_{secrets.token_hex(6)}"
        config.stash[OURS] = True


def drop_the_template(config: pytest.Config) -> None:
    if config.stash.get(OURS, False):
        templates.drop(SERVER)
        del os.environ[templates.NAME]


def run_there(name: str) -> str:
    """Play a round; what pytest counted, and what was measured "on postgresql". What fails there fails here."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", KINDS]
    command += [f"tests/{path}" for path in ROUNDS[name].paths]
    # Where coverage is measured, what only PostgreSQL comes to is counted as well.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    templates.needed(SERVER)
    env |= {ROUND: name, "DATABASE_URL": urlsplit(SERVER)._replace(path=f"/cpv_{name}").geturl()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counted = re.findall(r"^(\d+ passed.*) in [\d.]+s", done.stdout, re.MULTILINE)
    assert counted, done.stdout[-2000:]
    figures = re.findall(r"^.* on postgresql: .*", done.stdout, re.MULTILINE)
    return "\n".join([f"on PostgreSQL, {name}: {counted[-1]}", *figures])
