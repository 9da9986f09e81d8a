"""
How fast calls leave, and whether they may: what Microsoft asked for counts in every worker.

Three things hold a call back, each in a row that all processes share: Microsoft asked this partner to wait (`Pace`),
our own limits per partner and per application, and a service that is down (`Service`), which one call at a time tries
until it answers again. Permits are taken many at once, so that most calls cost no query; what a process knows of the
rows is a second old at most. A call waits here for ten seconds at most; else it is `Paced`, which is nobody's failure.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from partners.circuits import KEEN, Circuit, Permits, circuit_of
from partners.circuits import forget as forget_circuits
from partners.models import Pace, Partner
from tokens import broker, outside
from tokens.actors import Actor
from tokens.clouds import Audience
from tokens.errors import Transient
from tokens.http import retry_after
from tokens.models import RefreshToken
from tokens.sessions import ApiSession
from tokens.tenancy import system_scope

PATIENCE = 10.0  # seconds that a call waits here
UNNAMED_WAIT = 30.0  # seconds, where Microsoft asks for patience without saying how long
LONGEST_WAIT = 24 * 3600.0  # seconds; what Microsoft asks beyond that is asked again
PERMITS_FOR = 0.5  # seconds of full speed that one statement takes permits for
AHEAD = 1.0  # seconds of full speed that may leave at once
SLOWED_TO, SLOWEST = 16.0, 1.0  # calls a second: from where a partner is slowed down, and to where at most
DOUBLES_IN = 600.0  # seconds after which a slowed partner may go twice as fast
SLOWED_ONCE_IN = 5.0  # seconds; calls that were under way together are slowed down together

ENTRA = "entra"
_CUSTOMER = re.compile(r"/customers/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:/|$)", re.I)


class Paced(Transient):
    """The call did not leave: Microsoft asked for patience, or it would have been too fast. Nothing went wrong."""


class CustomerPaced(Paced):
    """The same where Microsoft asked for patience with one customer only: calls about others may leave."""


@dataclass(frozen=True)
class HeldUp:
    """Why a job cannot begin now, for machines and for people, and in how many seconds it is to come back."""

    code: str
    words: str
    back_in: float

    def raised(self) -> Paced:
        return Paced(self.words, code=self.code, retry_after=self.back_in)


def asked_to_wait(seconds: float) -> HeldUp:
    return HeldUp("asked_to_wait", "Microsoft asked us to wait with calls for this partner.", seconds)


def service_down(seconds: float) -> HeldUp:
    return HeldUp("service_down", "Microsoft's service does not answer just now; one call at a time tries.", seconds)


def too_fast(seconds: float) -> HeldUp:
    return HeldUp("too_fast", "More calls are due than may leave in a second.", seconds)


def session(
    token: RefreshToken,
    audience: Audience,
    *,
    purpose: str,
    actor: Actor,
    patience: float = PATIENCE,
    insists: bool = False,
    also: Callable[[], None] | None = None,
) -> ApiSession:
    """
    What `tokens.broker.session` gives, for calls that keep to what Microsoft and our own limits allow.

    `also` is asked before each send, as `tokens.broker.session` says.
    Who `insists` asks even where Microsoft asked for patience before: a person at a console, who sees the answer.
    """
    traffic = PartnersTraffic(token.partner.cloud, token.partner_id, audience, patience, insists)
    return broker.session(token, audience, purpose=purpose, actor=actor, traffic=traffic, is_stale=_is_stale, also=also)


def _is_stale(refused: requests.Response) -> bool:
    """Whether another token may help; not where Partner Center says what is wrong with the sign-in (900420, 900421)."""
    return b"90042" not in refused.content


def hold_up(partner: Partner, audience: Audience) -> HeldUp | None:
    """Why no call of this partner to this service would leave now; None when one would. One query at most."""
    for circuit in [circuit_of(partner.cloud, service) for service in (audience, ENTRA)]:
        if circuit.closed_for(partner.pk):
            return service_down(circuit.ticket(partner.pk))
    wait = _lane(partner.pk, audience).known_wait()
    return asked_to_wait(wait) if wait > PATIENCE else None


def forget() -> None:
    """Let this process look at the rows anew."""
    with _lock:
        _lanes.clear()
    forget_circuits()


@system_scope("tidying paces")
def forget_old() -> int:
    """Let go of what Microsoft asked about single customers more than a day ago."""
    over = Pace.objects.filter(not_before__lt=timezone.now() - dt.timedelta(days=1))
    return over.exclude(customer="").delete()[0]


@dataclass
class PartnersTraffic:
    """One partner's calls to one service; see tokens.sessions.Traffic."""

    cloud: str
    partner_id: int
    service: str
    patience: float = PATIENCE
    insists: bool = False

    def before_token(self) -> None:
        circuit = circuit_of(self.cloud, ENTRA)
        self._refuse_while_down(circuit)
        self._wait(too_fast(circuit.permit(settings.CPV_TOKENS_PER_SECOND, self.patience, ahead=0.0)))

    def after_token(self, failure: Transient | None) -> None:
        circuit = circuit_of(self.cloud, ENTRA)
        if failure is None:
            circuit.went_well(self.partner_id)
        else:
            circuit.went_wrong(self.partner_id, failure.code)

    def before(self, address: str) -> None:
        circuit, lane = circuit_of(self.cloud, self.service), _lane(self.partner_id, self.service)
        self._refuse_while_down(circuit)
        ours = max(
            circuit.permit(settings.CPV_CALLS_PER_SECOND, self.patience, ahead=AHEAD), lane.permit(self.patience)
        )
        theirs = one = 0.0
        if not self.insists:
            theirs, one = lane.known_wait(), lane.wait_for_customer(_customer_in(address))
        if one > self.patience >= theirs:
            words = "Microsoft asked us to wait with calls about one customer."
            raise CustomerPaced(words, code="asked_to_wait", retry_after=one)
        theirs = max(theirs, one)
        self._wait(asked_to_wait(theirs) if theirs > ours else too_fast(ours))

    def after(self, address: str, response: requests.Response | None) -> None:
        circuit, lane = circuit_of(self.cloud, self.service), _lane(self.partner_id, self.service)
        asked = None if response is None else retry_after(response)
        seconds = UNNAMED_WAIT if asked is None else min(asked, LONGEST_WAIT)
        if response is None or response.status_code >= 500:
            code = "unreachable" if response is None else f"http_{response.status_code}"
            circuit.went_wrong(self.partner_id, code)
            if asked is not None:
                lane.hold(seconds, _customer_in(address))
            return
        circuit.went_well(self.partner_id)
        if response.status_code == 429:
            lane.slow_down(seconds, _customer_in(address))

    def _refuse_while_down(self, circuit: Circuit) -> None:
        if refused := circuit.refuses(self.partner_id):
            raise service_down(refused).raised()

    def _wait(self, held_up: HeldUp) -> None:
        if held_up.back_in > self.patience:
            raise held_up.raised()
        if held_up.back_in > 0:
            outside.give_back_connections()
            time.sleep(held_up.back_in)


def _customer_in(address: str) -> str:
    """The customer whom an address is about; "" for lists and for the partner's own."""
    found = _CUSTOMER.search(urlsplit(address).path)
    return found[1].lower() if found else ""


# --- One partner's calls to one service ---------------------------------------------------------------------------
# Leaves one row unchanged when the permits would have to be waited for too long; then nothing comes back.
TAKE_PERMITS = """
INSERT INTO partners_pace (partner_id, service, customer, taken_until)
VALUES (%(partner)s, %(service)s, '', %(second)s + %(takes)s)
ON CONFLICT (partner_id, service, customer) DO UPDATE SET taken_until = %(takes)s
    + CASE WHEN partners_pace.taken_until > %(second)s THEN partners_pace.taken_until ELSE %(second)s END
WHERE partners_pace.taken_until <= %(second)s + %(longest)s
RETURNING taken_until, not_before, customers_until, rate, slowed_at
"""
SLOW_DOWN = """
INSERT INTO partners_pace (partner_id, service, customer, taken_until, rate, slowed_at)
VALUES (%(partner)s, %(service)s, '', 0, %(rate)s, %(now)s)
ON CONFLICT (partner_id, service, customer) DO UPDATE SET
    rate = CASE WHEN partners_pace.slowed_at > %(lately)s THEN partners_pace.rate ELSE %(rate)s END,
    slowed_at = %(now)s
"""
HOLD = """
INSERT INTO partners_pace (partner_id, service, customer, taken_until, not_before)
VALUES (%(partner)s, %(service)s, %(customer)s, 0, %(not_before)s)
ON CONFLICT (partner_id, service, customer) DO UPDATE SET not_before = %(not_before)s
WHERE partners_pace.not_before IS NULL OR partners_pace.not_before < %(not_before)s
"""
HOLD_ONE = """
INSERT INTO partners_pace (partner_id, service, customer, taken_until, customers_until)
VALUES (%(partner)s, %(service)s, '', 0, %(not_before)s)
ON CONFLICT (partner_id, service, customer) DO UPDATE SET customers_until = %(not_before)s
WHERE partners_pace.customers_until IS NULL OR partners_pace.customers_until < %(not_before)s
"""


@dataclass
class _Lane:
    """What this process knows of one partner's calls to one service."""

    partner_id: int
    service: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    permits: Permits = field(default_factory=Permits)
    fresh_until: float = 0.0  # monotonic; until then the permits and the wait may be used
    not_before: float = 0.0  # second of the epoch
    customers_until: float = 0.0
    rate: float | None = None
    slowed_at: float = 0.0
    customers: dict[str, float] = field(default_factory=dict)
    customers_fresh_until: float = 0.0

    def permit(self, patience: float) -> float:
        """
        Take the right to one call; says in how many seconds it may leave: more than `patience` is a refusal.

        While one thread asks for more, the others use what it had, for a second more.
        """
        if self.permits.take(later=KEEN if self.lock.locked() else 0.0):
            return 0.0
        with outside.without_a_connection(self.lock):
            return 0.0 if self.permits.take() else self._take(patience)

    def known_wait(self) -> float:
        """
        Seconds that Microsoft asked this partner to wait; looked up when that is not known.

        It never waits for another thread: that one may wait for rows which the caller's transaction holds. So while
        somebody looks there just now, what was known before counts.
        """
        if time.monotonic() >= self.fresh_until and self.lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self.lock.release()
        return self.not_before - _now()

    def wait_for_customer(self, customer: str) -> float:
        """The same for one customer, whose row is looked at only while there is one that is let alone."""
        if not customer or self.customers_until <= _now():
            return 0.0
        if time.monotonic() >= self.customers_fresh_until:
            found = self._asked_to_wait().exclude(customer="").values_list("customer", "not_before")
            self.customers = {name: until.timestamp() for name, until in found if until}
            self.customers_fresh_until = time.monotonic() + KEEN
        return self.customers.get(customer, 0.0) - _now()

    def slow_down(self, seconds: float, customer: str) -> None:
        """
        Microsoft said 429: no call for so long, and half as many for this partner afterwards.

        Where it was about one customer, only that one is let alone; a second one meanwhile means all of them.
        """
        now = timezone.now()
        given: dict[str, Any] = {
            "partner": self.partner_id,
            "service": self.service,
            "rate": max(SLOWEST, min(self.speed(), SLOWED_TO * 2) / 2),
            **_moments(now=now, lately=now - dt.timedelta(seconds=SLOWED_ONCE_IN)),
        }
        with connection.cursor() as cursor:
            cursor.execute(SLOW_DOWN, given)
        self.hold(seconds, customer)
        if customer and self._asked_to_wait().exclude(customer__in=["", customer]).exists():
            self.hold(seconds, "")

    def hold(self, seconds: float, customer: str) -> None:
        """No call for so long: for this partner, or about one customer of it."""
        given: dict[str, Any] = {
            "partner": self.partner_id,
            "service": self.service,
            "customer": customer,
            **_moments(not_before=timezone.now() + dt.timedelta(seconds=seconds)),
        }
        with connection.cursor() as cursor:
            cursor.execute(HOLD, given)
            if customer:
                cursor.execute(HOLD_ONE, given)
        with self.lock:
            self.fresh_until = self.customers_fresh_until = 0.0
            self.permits = Permits()

    def _asked_to_wait(self) -> QuerySet[Pace]:
        return Pace.objects.in_force(timezone.now()).filter(partner=self.partner_id, service=self.service)

    def speed(self) -> float:
        """Calls a second that this partner may send now."""
        limit: float = settings.CPV_CALLS_PER_PARTNER
        if self.rate is None:
            return limit
        return min(limit, self.rate * 2 ** min(20.0, max(0.0, _now() - self.slowed_at) / DOUBLES_IN))

    def _take(self, patience: float) -> float:
        speed = self.speed()
        number = max(1, int(speed * PERMITS_FOR))
        second = _now()
        given: dict[str, Any] = {
            "partner": self.partner_id,
            "service": self.service,
            "second": second,
            "takes": number / speed,
            "longest": AHEAD + patience,
        }
        with connection.cursor() as cursor:
            cursor.execute(TAKE_PERMITS, given)
            found = cursor.fetchone()
        if found is None:
            return patience + PERMITS_FOR
        taken_until, *known = found
        self._know(*known)
        self.permits = Permits(number - 1, self.fresh_until)
        return max(0.0, float(taken_until) - number / speed - second - AHEAD)

    def _look(self) -> None:
        row = Pace.objects.filter(partner=self.partner_id, service=self.service, customer="").values_list(
            "not_before", "customers_until", "rate", "slowed_at"
        )
        self._know(*(row.first() or (None, None, None, None)))
        self.permits = Permits()

    def _know(self, not_before: Any, customers_until: Any, rate: float | None, slowed_at: Any) -> None:
        self.not_before, self.customers_until = _second(not_before), _second(customers_until)
        self.rate, self.slowed_at = rate, _second(slowed_at)
        self.fresh_until = time.monotonic() + KEEN


_lock = threading.Lock()
_lanes: dict[tuple[int, str], _Lane] = {}
MOST_LANES = 10_000


def _lane(partner_id: int, service: str) -> _Lane:
    key = (partner_id, str(service))
    found = _lanes.get(key)  # nearly always, and nobody waits
    if found is None:
        with _lock:
            if len(_lanes) > MOST_LANES:
                _lanes.clear()  # they are looked up again
            found = _lanes.setdefault(key, _Lane(*key))
    return found


def _now() -> float:
    return timezone.now().timestamp()


def _moments(**moments: dt.datetime) -> dict[str, Any]:
    return {name: connection.ops.adapt_datetimefield_value(moment) for name, moment in moments.items()}


def _second(moment: Any) -> float:
    """A moment as a raw query brings it, as seconds of the epoch; 0 for none."""
    if moment is None:
        return 0.0
    if isinstance(moment, str):  # SQLite's own way
        moment = dt.datetime.fromisoformat(moment)
    aware = moment if timezone.is_aware(moment) else moment.replace(tzinfo=dt.UTC)
    return float(aware.timestamp())
