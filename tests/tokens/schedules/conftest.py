"""A strong-room in which schedules are played, one after another, at one moment of a clock that stands still."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import time_machine
from django.core.management import call_command
from django.utils import timezone

from tests.tokens.schedules.verdict import through
from tokens import outside, rotation
from tokens.models import RefreshToken

Player = Callable[..., str]


@pytest.fixture
def play(settings, world, connected_partner) -> Iterator[Player]:
    """`play(seed, mode)`: what a schedule came to. The first connection of the process is behind it."""
    settings.CPV_SANDBOX_ADAPTER = "tests.tokens.schedules.play.adapter"
    outside.forget()
    world.remember_secrets = False
    logging.disable(logging.CRITICAL)
    gc.freeze()  # what is there already need not be looked through again and again
    with time_machine.travel(timezone.now(), tick=False) as clock:
        connected_partner()
        assert rotation.rotate(RefreshToken.objects.get().pk)
        call_command("flush", verbosity=0, interactive=False)

        def one(seed: str, mode: str, **changes) -> str:
            interval = 86_400 if mode == "entra" else 0
            if interval != settings.CPV_REFRESH_STORE_INTERVAL:  # each change is one more layer to look through
                settings.CPV_REFRESH_STORE_INTERVAL = interval
            return through(world, clock, seed, mode, **changes)

        yield one
    gc.unfreeze()
    logging.disable(logging.NOTSET)


@pytest.fixture
def play_many(play) -> Callable[[str, range], Counter[str]]:
    """`play_many(mode, seeds)`: how often each end came about."""

    def many(mode: str, seeds: range) -> Counter[str]:
        return Counter(play(f"{mode} {number}", mode) for number in seeds)

    return many
