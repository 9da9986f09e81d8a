"""Invitations: a link that leads one partner to its consent. Used up by success only; we keep its hash."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from consent.models import INVITATION_LIFE, Invitation, digest
from consent.refusals import Refused
from partners.models import Partner
from partners.standing import current_token, standing
from tokens import audit
from tokens.actors import Actor

KEEP = dt.timedelta(days=90)


@transaction.atomic
def invite(
    *,
    partner: Partner,
    by: Actor,
    email: str = "",
    renews: bool = False,
    makes_owner: bool = False,
    reason: str = "",
) -> tuple[Invitation, str]:
    """
    A new invitation and its address, which exists only now: we keep a hash of it.

    One that `renews` leads to a consent also where a connection works; that consent waits for an owner's yes. One that
    `makes_owner` makes whoever agrees an owner, also where there are some.
    """
    link = Invitation.new_link()
    invitation = Invitation.objects.create(
        partner=partner,
        link_hash=digest(link),
        email=email,
        renews=renews,
        makes_owner=makes_owner,
        created_by=str(by),
        expires_at=timezone.now() + INVITATION_LIFE,
    )
    why: dict[str, Any] = {"reason": reason[:200]} if reason else {}
    why |= {"makes_owner": True} if makes_owner else {}
    audit.record("invitation.made", actor=by, partner=partner, object=f"invitation {invitation.pk}", **why)
    return invitation, f"{settings.CPV_BASE_URL}/connect/{link}"


class NoLinkNow(ValueError):
    """We stopped this partner ourselves; the text says what lifts that."""


def invite_again(
    *, partner: Partner, by: Actor, email: str = "", reason: str = "", makes_owner: bool = False
) -> tuple[Invitation, str]:
    """
    A fresh link for a partner; where a connection works, what comes of it waits for an owner's yes.

    `makes_owner` is for a partner whose owners cannot sign in any more.

    :raises NoLinkNow: the partner is stopped by us
    """
    stands = standing(partner, current_token(partner))
    if not (stands.can_reconnect or stands.is_live):
        raise NoLinkNow(f"{partner.name}: {stands.title}. {stands.action}")
    return invite(partner=partner, by=by, email=email, renews=stands.is_live, makes_owner=makes_owner, reason=reason)


def usable(link: str) -> Invitation:
    """
    The invitation behind a link, unspent and in time.

    :raises Refused: unknown, expired or used
    """
    invitation = Invitation.objects.select_related("partner").filter(link_hash=digest(link)).first()
    if invitation is None or invitation.partner.offboarded_at:
        raise Refused("unknown_invitation")
    if invitation.used_at:
        raise Refused("used_invitation")
    if invitation.is_expired:
        raise Refused("expired_invitation")
    return invitation


def forget_old() -> None:
    """
    Let go of invitations 90 days after their end.

    One that was mailed and led to a connection stays: its address is told when the connection breaks.
    """
    mailed_and_used = Q(used_at__isnull=False, partner__offboarded_at=None) & ~Q(email="")
    Invitation.objects.filter(expires_at__lt=timezone.now() - KEEP).exclude(mailed_and_used).delete()
