"""A process dies where it was told to, and nowhere else."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tokens import faultpoints

SOURCE = Path(faultpoints.__file__).parent


def test_a_process_kills_itself_where_it_was_told_to_and_nowhere_else(settings, monkeypatch):
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))

    faultpoints.reached("after put")
    settings.CPV_FAULTPOINT = "after put"
    faultpoints.reached("before put")
    assert sent == []
    faultpoints.reached("after put")

    assert sent == [(os.getpid(), signal.SIGKILL)]


def test_every_place_is_in_the_code_once():
    named = [name for file in SOURCE.glob("*.py") for name in re.findall(r'reached\("([^"]+)"\)', file.read_text())]

    assert sorted(named) == sorted(faultpoints.POINTS)
