"""The locked requirements install on a machine of today, whatever was released since they were written."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?==", re.MULTILINE)


def locked(path: str) -> dict[str, set[str]]:
    """The extras with which each package is pinned."""
    found = PINNED.findall(Path(path).read_text())
    return {canonicalize_name(name): {extra.strip() for extra in extras.split(",") if extra} for name, extras in found}


def wanted_of(name: str, extras: set[str]) -> list[Requirement]:
    """What an installed package asks for, here and with these extras."""
    asked = [Requirement(text) for text in importlib.metadata.requires(name) or []]
    cases = [{"extra": extra} for extra in (extras or {""})]
    return [one for one in asked if one.marker is None or any(one.marker.evaluate(case) for case in cases)]


LOCKS = ["requirements.txt", "requirements-dev.txt", "requirements-bench.txt"]


@pytest.mark.parametrize("path", LOCKS)
def test_a_package_that_another_wants_with_extras_is_pinned_with_them(path):
    """Or pip 23 takes the newest release for it, finds no hash and ends: a clone would stop installing one day."""
    pins = locked(path)
    installed = {canonicalize_name(dist.name) for dist in importlib.metadata.distributions()}
    assert len(pins) > 30

    missing = [
        f"{name} wants {wanted}"
        for name, extras in pins.items()
        if name in installed  # others are for other systems
        for wanted in wanted_of(name, extras)
        if wanted.extras - pins.get(canonicalize_name(wanted.name), set())
    ]

    assert missing == []


@pytest.mark.parametrize("path", LOCKS)
def test_a_lock_holds_hashes_for_every_package_and_names_no_registry(path):
    text = Path(path).read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]

    unhashed = [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block]

    assert unhashed == []
    assert len(blocks) == len(PINNED.findall(text))
    assert "://" not in text
    assert "--index" not in text


def test_peers_of_the_bench_are_installed_by_the_bench_alone_and_apart_from_everything_else():
    """Their pins need not agree with ours, and no check downloads them."""
    peers = locked("requirements-bench.txt")
    lines = [line for line in Path("Makefile").read_text().splitlines(keepends=True) if not line.startswith("#")]
    rules = re.split(r"^(?=\S.*:)", "".join(lines), flags=re.MULTILINE)

    naming = [rule.split(":")[0] for rule in rules if "requirements-bench" in rule]
    needing = [rule.split(":")[0] for rule in rules if ".venv-bench/.stamp" in rule.splitlines()[0].partition(":")[2]]

    assert "dlt" in peers
    assert [path for path in LOCKS[:2] if "dlt" in locked(path)] == []
    assert naming == ["lock", ".venv-bench/.stamp"]
    assert needing == ["bench"]
    assert "bench" not in Path(".ci/run").read_text()
