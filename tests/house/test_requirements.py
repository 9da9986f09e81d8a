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


@pytest.mark.parametrize("path", ["requirements.txt", "requirements-dev.txt"])
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
