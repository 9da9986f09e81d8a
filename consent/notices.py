"""
Telling a partner's owners that the connection broke, works again or is about to end, and who of the vendor's staff asks
to look: each person once per change.

Nobody calls this when a state changes: the clock finds the changes in the rows, so none is missed and none told twice.
First a row per person, then the mail: a mail server that is down costs time, never a mail.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db.models import Exists, OuterRef, Q
from django.urls import reverse
from django.utils import timezone

from consent import looks, mails
from consent.models import Invitation, Notice
from partners.models import Member, Partner
from partners.standing import Standing, current_token, standing
from tokens.models import REFUSALS, Halt, RefreshToken
from tokens.tenancy import partner_scope, system_scope

logger = logging.getLogger(__name__)

STILL_NEWS = dt.timedelta(days=7)  # a change that was seen by no clock for longer is told to nobody
KEEP = dt.timedelta(days=90)
BROKEN_STATES = {*REFUSALS, "lapsed"}  # whatever the partner mends by reconnecting; never what we stopped ourselves
STOPPED_ON_PURPOSE = {"suspended", "killed", "withdrawn", "offboarded"}
AHEAD = (30, 14, 7, 1)  # days before the end of an access period at which people are told
FIRST_WAIT, LONGEST_WAIT = 30.0, 3600.0  # seconds between two tries


# --- Finding --------------------------------------------------------------------------------------------------------
@system_scope("who is to be told what")
def find() -> None:
    """Write down who is to be told what; safe at any time, twice and by two at once. In an all-stop nobody is told."""
    if Halt.objects.in_force().exists():
        return
    now = timezone.now()
    for token in _newly_broken(now):
        if standing(token.partner, token).state in BROKEN_STATES:
            _write(token, Notice.Kind.BROKEN, recipients(token.partner))
    for token in _newly_mended(now):
        if standing(token.partner, token).is_live:
            told = Notice.objects.told_of_break_before(token).values_list("to", flat=True)
            _write(token, Notice.Kind.RECOVERED, set(told) & set(recipients(token.partner)))
    for token in _soon_over(now):
        _write(token, Notice.Kind.ENDING, recipients(token.partner), about=_coming_end(token.partner, now))
    for grant, kind in looks.untold(now, STILL_NEWS):
        if current := current_token(grant.partner):  # whoever never connected has no owner either
            _write(current, kind, owners(grant.partner), about=looks.about(grant))


def _newly_broken(now: dt.datetime) -> Iterable[RefreshToken]:
    """Generations in force that were refused, or whose access period ended, and that nobody was told about."""
    refused = Q(refused_at__gt=now - STILL_NEWS)
    lapsed = Q(partner__lapses_at__lte=now, partner__lapses_at__gt=now - STILL_NEWS)
    known = Notice.objects.filter(token=OuterRef("pk"), kind=Notice.Kind.BROKEN)
    return RefreshToken.objects.current().filter(refused | lapsed).exclude(Exists(known)).select_related("partner")


def _newly_mended(now: dt.datetime) -> Iterable[RefreshToken]:
    """Generations that replaced one whose break somebody was told about."""
    told = Notice.objects.filter(
        partner=OuterRef("partner"),
        token__generation__lt=OuterRef("generation"),
        kind=Notice.Kind.BROKEN,
        sent_at__isnull=False,
    )
    known = Notice.objects.filter(token=OuterRef("pk"), kind=Notice.Kind.RECOVERED)
    fresh = RefreshToken.objects.current().filter(reserved_at__gt=now - STILL_NEWS, refused_at=None)
    return fresh.filter(Exists(told)).exclude(Exists(known)).select_related("partner")


def _soon_over(now: dt.datetime) -> Iterable[RefreshToken]:
    """Generations in force whose access period ends soon, and whose owners were not told that it is this close."""
    soon = Q(partner__lapses_at__lte=now + dt.timedelta(days=AHEAD[0]))
    for token in RefreshToken.objects.live(now).filter(soon).select_related("partner"):
        told = Notice.objects.filter(token=token, kind=Notice.Kind.ENDING, about=_coming_end(token.partner, now))
        if not told.exists():
            yield token


def _coming_end(partner: Partner, now: dt.datetime) -> str:
    """Which warning is due, such as "14 days before 2027-05-25"; empty when the end is far, or no end is set."""
    if partner.lapses_at is None:
        return ""
    left = partner.lapses_at - now
    days = min((days for days in AHEAD if left <= dt.timedelta(days=days)), default=0)
    return f"{days} days before {partner.lapses_at:%Y-%m-%d}" if days else ""


def recipients(partner: Partner) -> list[str]:
    """The owners, and whoever the invitation that led to the connection was mailed to; nobody else, nobody twice."""
    invited = Invitation.objects.filter(partner=partner, used_at__isnull=False).exclude(email="").order_by("-used_at")
    return list(dict.fromkeys(owners(partner) + _addresses(invited.values_list("email", flat=True)[:1])))


def owners(partner: Partner) -> list[str]:
    """Who alone may answer a request to look; an invitation's address need not be an owner's."""
    members = partner.members.filter(role=Member.Role.OWNER, user__is_active=True).order_by("pk")
    return _addresses(members.values_list("user__upn", flat=True))


def _addresses(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text.lower() for text in texts if _is_address(text)))


def _is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return True


def _write(token: RefreshToken, kind: Notice.Kind, addresses: Iterable[str], *, about: str = "") -> None:
    rows = [Notice(partner=token.partner, token=token, kind=kind, about=about, to=to) for to in sorted(addresses)]
    if not rows:  # the row without an address remembers that there was nobody to tell
        logger.warning("nobody can be told about a connection", extra={"refresh_token": token.pk, "kind": kind})
        rows = [Notice(partner=token.partner, token=token, kind=kind, about=about, to="", dropped_at=timezone.now())]
    Notice.objects.bulk_create(rows, ignore_conflicts=True)


# --- Sending --------------------------------------------------------------------------------------------------------
@system_scope("notices that are due")
def due() -> list[int]:
    """Notices to send now."""
    return list(Notice.objects.due(timezone.now()).order_by("pk").values_list("pk", flat=True)[:100])


def send(notice_id: int) -> bool:
    """Send one notice if it is due and nobody else does; False when it was not sent."""
    with system_scope("whose notice it is"):
        notice = Notice.objects.select_related("partner", "token").filter(pk=notice_id).first()
    if notice is None:
        return False
    with partner_scope(notice.partner):
        return _send(notice)


def _send(notice: Notice) -> bool:
    if not notice.lease():
        return False
    token = current_token(notice.partner)
    stands = standing(notice.partner, token)
    if not _is_news(notice, token, stands):
        notice.mark_dropped()
        return False
    if stands.state in STOPPED_ON_PURPOSE and notice.kind not in looks.KINDS:
        notice.postpone(LONGEST_WAIT)
        return False
    try:
        _mail(notice, stands)
    except OSError as trouble:
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(notice.tries, 10))
        notice.postpone(wait)
        logger.warning("a mail did not leave", extra={"notice": notice.pk, "why": type(trouble).__name__, "wait": wait})
        return False
    notice.mark_sent()
    return True


def _is_news(notice: Notice, token: RefreshToken | None, stands: Standing) -> bool:
    """A mail that waited must not tell what is over, nor reach somebody who is no longer to be told."""
    if notice.kind in looks.KINDS:
        return notice.to in owners(notice.partner) and looks.grant_of(notice) is not None
    if token is None or token.pk != notice.token_id or notice.to not in recipients(notice.partner):
        return False
    if stands.state in STOPPED_ON_PURPOSE:  # it may be lifted
        return notice.created_at > timezone.now() - STILL_NEWS
    if notice.kind == Notice.Kind.ENDING:
        return stands.is_live and notice.about == _coming_end(notice.partner, timezone.now())
    return (stands.state in BROKEN_STATES) == (notice.kind == Notice.Kind.BROKEN)


def _mail(notice: Notice, stands: Standing) -> None:
    is_look = notice.kind in looks.KINDS
    page = "access" if is_look else "connection" if notice.kind == Notice.Kind.ENDING else "home"
    grant = looks.grant_of(notice) if is_look else None
    mails.send(
        notice.kind,
        to=notice.to,
        partner=notice.partner.name,
        url=f"{settings.CPV_BASE_URL}{reverse(page)}",
        context={"standing": stands, "token": notice.token, "partner": notice.partner, "grant": grant},
        message_id=f"cpv-notice-{notice.pk}",
    )


# --- Tidying up -----------------------------------------------------------------------------------------------------
def forget_old() -> None:
    """Let go of what was told more than 90 days ago; by then no clock would tell it again."""
    over = Q(sent_at__isnull=False) | Q(dropped_at__isnull=False)
    Notice.objects.filter(over, created_at__lt=timezone.now() - KEEP).delete()
