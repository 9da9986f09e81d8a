"""What owners are told about the vendor's staff: that one asks to look, and that another of them allowed it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from django.utils import timezone

from consent.models import Notice
from partners.models import AccessGrant

KINDS = (Notice.Kind.ASKED, Notice.Kind.LENT)


def untold(now: dt.datetime, still_news: dt.timedelta) -> Iterator[tuple[AccessGrant, Notice.Kind]]:
    """Requests that wait for an answer, and looks that no owner allowed, as far as nobody was told."""
    lent = AccessGrant.objects.filter(approved_by__is_staff=True, approved_at__gt=now - still_news)
    for kind, found in zip(KINDS, (AccessGrant.objects.waiting(now), lent), strict=True):
        grants = list(found.select_related("partner"))
        known = Notice.objects.filter(kind=kind, about__in=[about(grant) for grant in grants])
        told = set(known.values_list("about", flat=True))
        yield from ((grant, kind) for grant in grants if about(grant) not in told)


def about(grant: AccessGrant) -> str:
    return f"access {grant.pk}"


def grant_of(notice: Notice) -> AccessGrant | None:
    """What a notice is about, while it is worth telling; None for a request that was answered or is over."""
    now, number = timezone.now(), int(notice.about.rpartition(" ")[2])
    found = AccessGrant.objects.waiting(now) if notice.kind == Notice.Kind.ASKED else AccessGrant.objects.all()
    return found.select_related("asked_by", "approved_by").filter(pk=number).first()
