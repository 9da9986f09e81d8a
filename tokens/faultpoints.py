"""
Places at which a process may be told to die, so that a rehearsal sees what a crash there leaves behind.

`CPV_FAULTPOINT` names one; without it nothing ever happens, and outside `DEBUG` and a rehearsal it is refused.
"""

from __future__ import annotations

import os
import signal

from django.conf import settings

POINTS = (
    "before lease",
    "after lease",
    "after newest",
    "before redeem",
    "after redeem",
    "before put",
    "after put",
    "before pin",
    "after pin",
    "after reserve",
    "after first put",
    "before close",
    "after disable",
    "after close",
)


def reached(point: str) -> None:
    """Say that a place of POINTS is reached; whoever is to die there dies like by `kill -9`, and cleans up nothing."""
    if point == settings.CPV_FAULTPOINT:
        os.kill(os.getpid(), signal.SIGKILL)
