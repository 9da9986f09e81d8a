"""
Microsoft's services as all workers together see them: whether one is down, and how much the whole application may ask.

When calls for three partners in a row went wrong in one process, the service counts as down: nobody asks for half a
minute, and twice as long each time it is still down, up to ten minutes. Then one call at a time tries. Jobs that
waited come back one after another, ten a second, and not all at the moment at which it answers again.

For whom calls went wrong then is blamed: it may as well be they, and not the service. So whether it is still down for
others is for others to find out, whatever those who are blamed try beside them; and until a call of their own went
well, what goes wrong for them says nothing about the service any more.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from partners.models import Service
from tokens import outside
from tokens.tenancy import system_scope

KEEN = 1.0  # seconds that what a process knows of the shared rows may be used
PARTNERS = 3  # for whom calls went wrong, and none went well in between
FIRST, LONGEST = 30.0, 600.0  # seconds for which nobody asks
PROBE = dt.timedelta(seconds=30)  # for the one that tries
ASK_AGAIN = 5.0  # seconds, for those who come while one tries
COME_BACK = 0.1  # seconds between two jobs that waited
MOST_BLAMED = 200  # partners; those who were blamed last
PERMITS_FOR = 0.1  # seconds of full speed that one statement takes permits for

ASK = """
INSERT INTO partners_service (cloud, name, times, why, taken_until, tickets_until)
VALUES (%(cloud)s, %(name)s, 0, '', %(second)s + %(takes)s, 0)
ON CONFLICT (cloud, name) DO UPDATE SET taken_until = %(takes)s
    + CASE WHEN partners_service.taken_until > %(second)s THEN partners_service.taken_until ELSE %(second)s END
WHERE partners_service.taken_until <= %(second)s + %(longest)s
RETURNING taken_until
"""
TICKET = """
UPDATE partners_service SET tickets_until = %(step)s
    + CASE WHEN tickets_until > %(from)s THEN tickets_until ELSE %(from)s END
WHERE cloud = %(cloud)s AND name = %(name)s RETURNING tickets_until
"""


class Permits:
    """Rights to one call each, which any thread takes without waiting for another."""

    def __init__(self, number: int = 0, until: float = 0.0) -> None:
        """`until` is a monotonic second."""
        self._left, self._until = repeat(True, number), until

    def take(self, *, later: float = 0.0) -> bool:
        """Take one, if there is one left and they are still good, or were so many seconds ago."""
        return time.monotonic() < self._until + later and next(self._left, False)


@dataclass
class Circuit:
    """What this process knows of one service."""

    cloud: str
    name: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    failing: set[int] = field(default_factory=set)  # partners whose calls went wrong since one went well
    known_until: float = 0.0  # monotonic
    open_until: float = 0.0  # second of the epoch
    times: int = 0
    blamed: frozenset[int] = frozenset()
    blamed_until: float = 0.0  # second of the epoch
    permits: Permits = field(default_factory=Permits)

    # --- Asked before a call ----------------------------------------------------------------------------------------
    def closed_for(self, partner_id: int) -> float:
        """Seconds for which nobody asks, or this partner does not; 0 when it may."""
        if (now := time.monotonic()) >= self.known_until:
            if self.known_until:  # while one looks, the others go by what was known
                self.known_until = now + KEEN
            self._look()
        until = max(self.open_until, self.blamed_until) if partner_id in self.blamed else self.open_until
        return max(0.0, until - _now())

    def refuses(self, partner_id: int) -> float:
        """Seconds until another try, or 0 when this call may leave: all is well, or it is the one that tries."""
        closed = self.closed_for(partner_id)
        if closed or not self.times or self._is_the_one(partner_id):
            return closed
        return ASK_AGAIN

    def permit(self, per_second: float, patience: float, *, ahead: float) -> float:
        """
        Take the right to one call of the whole application; says in how many seconds it may leave.

        While one thread asks for more, the others use what it had, for a second more.
        """
        if self.permits.take(later=KEEN if self.lock.locked() else 0.0):
            return 0.0
        with outside.without_a_connection(self.lock):
            return 0.0 if self.permits.take() else self._take(per_second, patience, ahead)

    @system_scope("what all calls share")
    def _take(self, per_second: float, patience: float, ahead: float) -> float:
        number = max(1, int(per_second * PERMITS_FOR)) if ahead else 1
        takes, second = number / per_second, _now()
        found = self._execute(ASK, {"second": second, "takes": takes, "longest": ahead + patience})
        if found is None:
            return patience + PERMITS_FOR
        self.permits = Permits(number - 1, time.monotonic() + KEEN)
        return max(0.0, float(found[0]) - takes - second - ahead)

    def ticket(self, partner_id: int) -> float:
        """In how many seconds a job that waits for this service is to come back: one after another."""
        if partner_id in self.blamed and self.blamed_until > self.open_until:  # nobody else is to wait for their time
            return self.blamed_until - _now() + partner_id % 100 * COME_BACK
        return self._ticket()

    @system_scope("what all calls share")
    def _ticket(self) -> float:
        start = {"from": max(self.open_until, _now()), "step": COME_BACK}
        found = self._execute(TICKET, start)
        return max(self.open_until, float(found[0]) if found else 0.0) - _now()

    # --- Told after a call ------------------------------------------------------------------------------------------
    def went_well(self, partner_id: int) -> None:
        self.failing.clear()
        if partner_id in self.blamed:
            self._acquit(partner_id)
        if self.times:
            self._close()

    def went_wrong(self, partner_id: int, code: str) -> None:
        """Note a failure that is the service's; the third partner's in a row, or of a call that tried, opens."""
        if partner_id in self.blamed:
            if self.times:
                self._let_the_blamed_wait()
            return
        self.failing.add(partner_id)
        if self.times or len(self.failing) >= PARTNERS:
            self._open(code)
            self.failing.clear()

    @system_scope("what all calls share")
    @transaction.atomic
    def _open(self, code: str) -> None:
        now = timezone.now()
        Service.objects.get_or_create(cloud=self.cloud, name=self.name)
        row = self._row()
        row.blamed = [*(one for one in row.blamed or [] if one not in self.failing), *self.failing][-MOST_BLAMED:]
        if row.open_until is None or row.open_until <= now:
            row.open_until = now + self._pause(row)
            row.opened_at = row.opened_at or now
            row.probe_until = row.blamed_until = None
            row.times, row.why = row.times + 1, code[:40]
        row.save(update_fields=["blamed", "opened_at", "open_until", "probe_until", "blamed_until", "times", "why"])
        self.known_until = 0.0

    @system_scope("what all calls share")
    @transaction.atomic
    def _let_the_blamed_wait(self) -> None:
        """The one of them that tried failed; what was under way with it counts once."""
        now, row = timezone.now(), self._row()
        is_open = row.open_until is not None and row.open_until > now
        if row.times and not is_open and (row.blamed_until is None or row.blamed_until <= now + PROBE):
            row.blamed_until, row.times = now + self._pause(row), row.times + 1
            row.save(update_fields=["blamed_until", "times"])
        self.known_until = 0.0

    @system_scope("what all calls share")
    @transaction.atomic
    def _acquit(self, partner_id: int) -> None:
        row = self._row()
        row.blamed = [one for one in row.blamed or [] if one != partner_id]
        row.save(update_fields=["blamed"])
        self.blamed -= {partner_id}

    def _row(self) -> Service:
        return Service.objects.select_for_update().get(cloud=self.cloud, name=self.name)

    def _pause(self, row: Service) -> dt.timedelta:
        return dt.timedelta(seconds=min(LONGEST, FIRST * 2 ** min(row.times, 10)))

    @system_scope("what all calls share")
    def _close(self) -> None:
        Service.objects.filter(cloud=self.cloud, name=self.name).update(
            opened_at=None, open_until=None, probe_until=None, blamed_until=None, times=0, why=""
        )
        self.known_until = 0.0

    @system_scope("what all calls share")
    def _is_the_one(self, partner_id: int) -> bool:
        """Claim the right to try; False when another does. Those who are blamed have one of their own."""
        now, own = timezone.now(), "blamed_until" if partner_id in self.blamed else "probe_until"
        free = Service.objects.filter(
            Q(**{own: None}) | Q(**{f"{own}__lte": now}), cloud=self.cloud, name=self.name, times__gt=0
        )
        return free.update(**{own: now + PROBE}) == 1

    @system_scope("what all calls share")
    def _look(self) -> None:
        rows = {row.name: row for row in Service.objects.filter(cloud=self.cloud)}
        with _lock:
            others = [circuit for circuit in _circuits.values() if circuit.cloud == self.cloud]
        for circuit in [self, *others]:
            circuit._know(rows.get(circuit.name))

    def _know(self, row: Service | None) -> None:
        self.open_until = row.open_until.timestamp() if row and row.open_until else 0.0
        self.times = row.times if row else 0
        self.blamed = frozenset(row.blamed or ()) if row else frozenset()
        self.blamed_until = row.blamed_until.timestamp() if row and row.blamed_until else 0.0
        self.known_until = time.monotonic() + KEEN

    def _execute(self, statement: str, given: dict[str, Any]) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement, given | {"cloud": self.cloud, "name": self.name})
            return cursor.fetchone()


_lock = threading.Lock()
_circuits: dict[tuple[str, str], Circuit] = {}


def circuit_of(cloud: str, service: str) -> Circuit:
    key = (cloud, str(service))
    found = _circuits.get(key)  # nearly always, and nobody waits
    if found is None:
        with _lock:
            found = _circuits.setdefault(key, Circuit(*key))
    return found


def forget() -> None:
    """Let this process look at the rows anew."""
    with _lock:
        _circuits.clear()


def _now() -> float:
    return timezone.now().timestamp()
