"""
What Microsoft's refusals say about ourselves: an alarm where we are at fault, a line to look up where we do not know.

None touches a partner's connection. They are rows, so that all processes raise one alarm and not one each.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils import timezone

from tokens.aadsts import Kind
from tokens.entra import OurFault, Refused
from tokens.errors import Failure
from tokens.models import Alarm, RefreshToken, UnknownAnswer
from tokens.tenancy import system_scope
from tokens.vault import VaultRefused

if TYPE_CHECKING:
    from partners.models import Partner

logger = logging.getLogger(__name__)
_for_us = system_scope("what is ours to repair")


@_for_us
def note(failure: Failure, *, cloud: str, audience: str = "") -> None:
    """Write down what a refusal says about us; most say nothing. `audience` is what a token was asked for."""
    if isinstance(failure, VaultRefused):
        note_vault(failure, cloud=cloud)
    if not isinstance(failure, Refused):
        return
    if not failure.meaning.known and failure.meaning.code:
        _note_unknown(failure)
    if isinstance(failure, OurFault):
        _sound(failure, cloud, audience)


def _sound(failure: OurFault, cloud: str, audience: str) -> None:
    is_credential = failure.meaning.kind is Kind.APP_CREDENTIAL
    audience = "" if is_credential else audience
    kind = Alarm.Kind.CREDENTIAL if is_credential else Alarm.Kind.REGISTRATION
    if _opened(kind, cloud, failure.code, audience=audience, said=failure):
        logger.critical(
            "our own application is refused; no partner is to blame",
            extra={"kind": kind, "code": failure.code, "trace": failure.trace_id, "cloud": cloud},
        )


def _opened(
    kind: Alarm.Kind,
    cloud: str,
    code: str,
    *,
    partner: Partner | None = None,
    audience: str = "",
    said: Refused | None = None,
) -> bool:
    """Whether this opened an alarm; one that is open already is counted up. `said` has the ids Microsoft asks for."""
    again = Alarm.objects.filter(kind=kind, cloud=cloud, partner=partner, closed_at=None)
    if again.update(last_at=timezone.now(), times=F("times") + 1, code=code, audience=audience):
        return False
    try:
        with transaction.atomic():
            Alarm.objects.create(
                kind=kind,
                cloud=cloud,
                partner=partner,
                audience=audience,
                code=code,
                trace_id=said.trace_id if said else "",
                correlation_id=said.correlation_id if said else "",
            )
    except IntegrityError:  # another process was as fast
        return False
    return True


@_for_us
def note_rolled_over(failure: Refused, *, cloud: str, used: str) -> None:
    """Say that one of two certificates is refused, and the other, called `used` ("certificate" or "next"), is not."""
    if not failure.meaning.known and failure.meaning.code:
        _note_unknown(failure)
    if _opened(Alarm.Kind.ROLLED_OVER, cloud, failure.code, said=failure):
        logger.critical(
            "one of our application's certificates is refused; the other is in use",
            extra={"cloud": cloud, "code": failure.code, "used": used, "trace": failure.trace_id},
        )


@_for_us
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


@_for_us
def note_idle(cloud: str, number: int) -> None:
    """Say how many stored sign-ins of a cloud nobody has used for long; with none the alarm is over."""
    if not number:
        Alarm.objects.filter(kind=Alarm.Kind.IDLE, cloud=cloud, closed_at=None).update(closed_at=timezone.now())
    elif _opened(Alarm.Kind.IDLE, cloud, f"{number} of them"):
        logger.critical("stored sign-ins have not been used for long", extra={"cloud": cloud, "number": number})


@_for_us
def note_long_lived(cloud: str, number: int) -> None:
    """Say for how many partners of a cloud access tokens outlive the limit; with none the alarm is over."""
    if not number:
        Alarm.objects.filter(kind=Alarm.Kind.LIFETIME, cloud=cloud, closed_at=None).update(closed_at=timezone.now())
    else:
        _opened(Alarm.Kind.LIFETIME, cloud, f"{number} partners")


@_for_us
def note_vault(failure: Failure, *, cloud: str) -> None:
    """Say that the vault refuses our identity, or it has no identity that fits; the next store ends it."""
    if _opened(Alarm.Kind.VAULT, cloud, failure.code):
        logger.critical("the vault refuses us; no partner is to blame", extra={"code": failure.code, "cloud": cloud})


@_for_us
def note_disabling(cloud: str, code: str) -> None:
    """Say that secrets cannot be disabled, and why; with "" they can again."""
    if not code:
        Alarm.objects.filter(kind=Alarm.Kind.NOT_DISABLED, cloud=cloud, closed_at=None).update(closed_at=timezone.now())
    elif _opened(Alarm.Kind.NOT_DISABLED, cloud, code):
        logger.critical("secrets that must not stay enabled do", extra={"code": code, "cloud": cloud})


@_for_us
def vault_stores(cloud: str) -> None:
    """A secret was stored: whatever the vault refused is over."""
    Alarm.objects.filter(kind=Alarm.Kind.VAULT, cloud=cloud, closed_at=None).update(closed_at=timezone.now())


@_for_us
def note_bad_proof(failure: Failure, *, cloud: str) -> None:
    """Say that an id_token that came with a stored sign-in's token proves nothing; the next good one ends it."""
    if _opened(Alarm.Kind.PROOF, cloud, failure.code):
        logger.critical("a refresh brought a proof that is none", extra={"code": failure.code, "cloud": cloud})


@_for_us
def note_unreadable(token: RefreshToken, failure: Failure) -> None:
    """
    Say that the version a row points at is gone, disabled, or not ours.

    The row stays as it is: a wrong address of the vault or a wrong key would otherwise end every connection at once.
    """
    if _opened(Alarm.Kind.UNREADABLE, token.partner.cloud, failure.code, partner=token.partner):
        logger.critical("a stored sign-in cannot be read", extra={"refresh_token": token.pk, "code": failure.code})


@_for_us
def note_wrong_holder(token: RefreshToken) -> None:
    """Say that Entra answered for somebody else than the row names; it stays open until there is a new consent."""
    _opened(Alarm.Kind.WRONG_HOLDER, token.partner.cloud, "wrong-holder", partner=token.partner)
    logger.critical("a refresh answered for another holder", extra={"refresh_token": token.pk})


@_for_us
def note_break_glass(reason: str) -> None:
    """Say that somebody came in with the account for emergencies; each time anew. `reason` is what it was made for."""
    _opened(Alarm.Kind.BREAK_GLASS, "", reason[:200])
    Alarm.objects.filter(kind=Alarm.Kind.BREAK_GLASS, closed_at=None).update(mailed_at=None)
    logger.critical("the account for emergencies was used", extra={"reason": reason[:200]})


@_for_us
def close_break_glass() -> bool:
    """The emergency is over; False when nobody had used the account."""
    running = Alarm.objects.filter(kind=Alarm.Kind.BREAK_GLASS, closed_at=None)
    return running.update(closed_at=timezone.now()) > 0


@_for_us
def note_audit(what: str) -> None:
    """Say that the audit is not as it was sealed; each time anew, until somebody has looked into it."""
    _opened(Alarm.Kind.AUDIT, "", what[:200])
    Alarm.objects.filter(kind=Alarm.Kind.AUDIT, closed_at=None).update(mailed_at=None)
    logger.critical("the audit is not as it was sealed", extra={"what": what})


@_for_us
def close_audit() -> bool:
    """Somebody looked into it; False when there was no such alarm."""
    running = Alarm.objects.filter(kind=Alarm.Kind.AUDIT, closed_at=None)
    return running.update(closed_at=timezone.now()) > 0


@_for_us
def close_those_of(partner: Partner) -> None:
    """A new sign-in is in force: what was wrong with the one before it is over."""
    Alarm.objects.filter(partner=partner, closed_at=None).update(closed_at=timezone.now())


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


@_for_us
def all_clear(cloud: str, *, audience: str, partner_id: int | None = None, by_first_proof: bool = True) -> None:
    """
    A token came: whatever was wrong with us in this cloud is over; but a roll-over only with the first again.

    A fault of how we ask is over for this audience only. With `partner_id` the token came of that partner's stored
    sign-in, which can be read, then, and with a proof that is good.
    """
    about_us = [Alarm.Kind.CREDENTIAL, *([Alarm.Kind.ROLLED_OVER] if by_first_proof else [])]
    over = Q(kind__in=about_us, cloud=cloud) | Q(kind=Alarm.Kind.REGISTRATION, cloud=cloud, audience=audience)
    if partner_id is not None:
        over |= Q(kind=Alarm.Kind.UNREADABLE, partner=partner_id) | Q(kind=Alarm.Kind.PROOF, cloud=cloud)
    if Alarm.objects.filter(over, closed_at=None).update(closed_at=timezone.now()):
        logger.warning("our own application is accepted again", extra={"cloud": cloud})
