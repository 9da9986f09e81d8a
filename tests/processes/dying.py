"""
A worker that dies by SIGKILL at one named place after another, and what its successors make of it.

`python -m tests.processes.dying ROUNDS` forks one process for each place and round; each does a worker's real work on
the database and the stand-in of its environment, and dies there. Then the lease is over, the sweeper comes twice, and
somebody mints. Prints one JSON line for each. With CPV_FAULTPOINT in the environment it dies itself.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from tokens import broker, custody, outside, rotation, sweeping  # noqa: E402
from tokens.actors import SYSTEM  # noqa: E402
from tokens.clouds import Audience  # noqa: E402
from tokens.faultpoints import POINTS  # noqa: E402
from tokens.models import RefreshToken  # noqa: E402
from tokens.secret import Secret  # noqa: E402
from tokens.tenancy import system_scope  # noqa: E402
from tokens.vault import SecretMissing, VersionDisabled  # noqa: E402

LONG_AGO = dt.timedelta(minutes=11)  # longer than a lease, and than a name may wait for its pin


def current() -> RefreshToken:
    return RefreshToken.objects.current().select_related("partner").get()


def rotate() -> None:
    rotation.rotate(current().pk)


def renew() -> None:
    token = current()
    custody.store(
        partner=token.partner, refresh_token=Secret("a renewal's"), oid=token.oid, upn="", limits="", replaces=token,
        on_pin=lambda _token: None, pending=True,
    )  # fmt: skip


def work_of(point: str) -> Callable[[], Any]:
    """The work in which this place is reached."""
    if point in ("after reserve", "after first put"):
        return renew
    return sweeping.sweep if point in ("before close", "after disable", "after close") else rotate


def dies(point: str) -> bool:
    """Whether a process that does the work of this place was killed there."""
    outside.forget()
    broker.forget()
    connections.close_all()
    if connection.vendor == "postgresql":
        connection.close_pool()  # or the child would speak over its parent's sockets
    child = os.fork()
    if child == 0:
        settings.CPV_FAULTPOINT = point
        try:
            work_of(point)()
            sys.stderr.write(f"a process outlived {point}\n")
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9


def time_passes() -> None:
    """Leases and offers are over."""
    then = timezone.now() - LONG_AGO
    RefreshToken.objects.filter(leased_until__isnull=False).update(leased_until=then)
    RefreshToken.objects.filter(stored_at=None).update(reserved_at=then)


def can_be_read(token: RefreshToken) -> bool:
    try:
        outside.vault(token.partner.cloud).newest(token.secret_name)
    except (SecretMissing, VersionDisabled):
        return False
    return True


def after(point: str) -> dict[str, Any]:
    """What is left of a death at this place after two sweeps."""
    if work_of(point) == sweeping.sweep:
        assert dies("after first put")  # so that there is something to close
        time_passes()
    killed = dies(point)
    time_passes()
    sweeping.sweep()
    sweeping.sweep()
    token = current()
    minted = broker.explain(token, Audience.PARTNER_CENTER, reason="a rehearsal", actor=SYSTEM)
    others = RefreshToken.objects.exclude(pk=token.pk).filter(stored_at=None).select_related("partner")
    return {
        "point": point,
        "killed": killed,
        "lost": not minted.scopes or token.refused_at is not None,
        "leases": RefreshToken.objects.exclude(leased_until=None).count(),
        "readable": sum(can_be_read(other) for other in others.order_by("-pk")[:2]),
        "unpinned": outside.vault(token.partner.cloud).newest(token.secret_name).version != token.pinned_version,
    }


def main(rounds: int) -> None:
    if settings.CPV_FAULTPOINT:
        work_of(settings.CPV_FAULTPOINT)()
    for _ in range(rounds):
        for point in POINTS:
            print(json.dumps(after(point)), flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    with system_scope("a rehearsal"):
        main(int(sys.argv[1]))
