"""
What Microsoft's refusals say about ourselves: an alarm where we are at fault, a line to look up where we do not know.

Neither touches a partner. Both are rows, so that all processes raise one alarm and not one each.
"""

from __future__ import annotations

import logging

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from tokens.aadsts import Kind
from tokens.entra import OurFault, Refused
from tokens.errors import Failure
from tokens.models import Alarm, UnknownAnswer

logger = logging.getLogger(__name__)


def note(failure: Failure, *, cloud: str) -> None:
    """Write down what a refusal says about us; most say nothing."""
    if not isinstance(failure, Refused):
        return
    if not failure.meaning.known and failure.meaning.code:
        _note_unknown(failure)
    if isinstance(failure, OurFault):
        _sound(failure, cloud)


def _sound(failure: OurFault, cloud: str) -> None:
    is_credential = failure.meaning.kind is Kind.APP_CREDENTIAL
    kind = Alarm.Kind.CREDENTIAL if is_credential else Alarm.Kind.REGISTRATION
    traces = {"trace_id": failure.trace_id, "correlation_id": failure.correlation_id}
    if _opened(kind, cloud, failure.code, **traces):
        logger.critical(
            "our own application is refused; no partner is to blame",
            extra={"kind": kind, "code": failure.code, "trace": failure.trace_id, "cloud": cloud},
        )


def _opened(kind: Alarm.Kind, cloud: str, code: str, **traces: str) -> bool:
    """Whether this opened an alarm; one that is open already is counted up."""
    again = Alarm.objects.filter(kind=kind, cloud=cloud, closed_at=None)
    if again.update(last_at=timezone.now(), times=F("times") + 1, code=code):
        return False
    try:
        with transaction.atomic():
            Alarm.objects.create(kind=kind, cloud=cloud, code=code, **traces)
    except IntegrityError:  # another process was as fast
        return False
    return True


def note_rolled_over(failure: Refused, *, cloud: str, used: str) -> None:
    """Say that one of two certificates is refused, and the other, called `used` ("certificate" or "next"), is not."""
    if not failure.meaning.known and failure.meaning.code:
        _note_unknown(failure)
    traces = {"trace_id": failure.trace_id, "correlation_id": failure.correlation_id}
    if _opened(Alarm.Kind.ROLLED_OVER, cloud, failure.code, **traces):
        logger.critical(
            "one of our application's certificates is refused; the other is in use",
            extra={"cloud": cloud, "code": failure.code, "used": used, "trace": failure.trace_id},
        )


def note_expiring(cloud: str, what: str) -> None:
    """Say which certificate of a cloud ends how soon, such as "CPV_APP_CERTIFICATE: 14 days"; with "" it is over."""
    running = Alarm.objects.filter(kind=Alarm.Kind.EXPIRING, cloud=cloud, closed_at=None)
    if not what:
        running.update(closed_at=timezone.now())
        return
    is_news = not running.filter(code=what).exists()
    _opened(Alarm.Kind.EXPIRING, cloud, what)
    if is_news:
        logger.critical("a certificate of ours ends soon", extra={"cloud": cloud, "certificate": what})


def note_idle(cloud: str, number: int) -> None:
    """Say how many stored sign-ins of a cloud nobody has used for long; with none the alarm is over."""
    if not number:
        Alarm.objects.filter(kind=Alarm.Kind.IDLE, cloud=cloud, closed_at=None).update(closed_at=timezone.now())
    elif _opened(Alarm.Kind.IDLE, cloud, f"{number} of them"):
        logger.critical("stored sign-ins have not been used for long", extra={"cloud": cloud, "number": number})


def note_long_lived(cloud: str, number: int) -> None:
    """Say for how many partners of a cloud access tokens outlive the limit; with none the alarm is over."""
    if not number:
        Alarm.objects.filter(kind=Alarm.Kind.LIFETIME, cloud=cloud, closed_at=None).update(closed_at=timezone.now())
    else:
        _opened(Alarm.Kind.LIFETIME, cloud, f"{number} partners")


def _note_unknown(failure: Refused) -> None:
    known = UnknownAnswer.objects.filter(code=failure.code, suberror=failure.suberror)
    traces = {"trace_id": failure.trace_id, "correlation_id": failure.correlation_id}
    if not known.update(last_at=timezone.now(), times=F("times") + 1, **traces):
        taken_for = {"taken_for": str(failure.meaning.kind), **traces}
        UnknownAnswer.objects.get_or_create(code=failure.code, suberror=failure.suberror, defaults=taken_for)
    logger.error(
        "an answer of Microsoft is not in our table",
        extra={"code": failure.code, "suberror": failure.suberror, "trace": failure.trace_id},
    )


def all_clear(cloud: str, *, by_first_proof: bool = True) -> None:
    """A token came: whatever was wrong with us in this cloud is over; but a roll-over only with the first again."""
    about_us = [Alarm.Kind.CREDENTIAL, Alarm.Kind.REGISTRATION]
    about_us += [Alarm.Kind.ROLLED_OVER] if by_first_proof else []
    if Alarm.objects.filter(kind__in=about_us, cloud=cloud, closed_at=None).update(closed_at=timezone.now()):
        logger.warning("our own application is accepted again", extra={"cloud": cloud})
