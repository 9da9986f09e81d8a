"""
Whether two of the vendor's staff are two people, as far as we can know: what takes two asks it before it is done.

Whoever appoints staff could make a second one, or two, and agree with themselves. So who counts has had their place and
their factor for a day, in which the others can see it, and the two do not come from one hand.
"""

from __future__ import annotations

import datetime as dt

from django.utils import timezone

from partners import second_factor
from partners.models import Appointment, User
from tokens.actors import Actor, ActorKind

SETTLED_AFTER = dt.timedelta(hours=24)
REMEMBERED_FOR = dt.timedelta(days=30)  # who made whom, beyond the one who did it themselves


def note(user: User, *, by: Actor) -> None:
    """This person gets a place, a role or a new way in now, by somebody, by command, or by Entra's word."""
    who = User.objects.filter(pk=int(by.id), is_staff=True).first() if by.kind is ActorKind.STAFF else None
    by_entra = who == user  # whoever follows Entra's word acts for themselves
    values = {"at": timezone.now(), "by": None if by_entra else who}
    Appointment.objects.update_or_create(user=user, defaults=values)


def why_not_yet(user: User) -> str:
    """Why this person does not count as one of two yet, in words; empty when they do."""
    appointed = _appointment(user)
    if user.is_for_emergencies or (appointed and appointed.by and appointed.by.is_for_emergencies):
        return (
            f"{user} has this place from the account for emergencies, which is nobody and makes nobody who counts: "
            "an admin appoints them anew, and a day later they count."
        )
    since = max(filter(None, (appointed.at if appointed else user.created_at, _enrolled_at(user))))
    settled = since + SETTLED_AFTER
    if settled > timezone.now():
        return (
            f"{user} has this role, or this second factor, for less than a day and counts as one of two from "
            f"{settled:%Y-%m-%d %H:%M} UTC on: until then somebody else acts."
        )
    return ""


def why_not_both(first: User, second: User) -> str:
    """Why these two do not count as two, in words; empty when they do."""
    for one, other in ((first, second), (second, first)):
        appointed = _appointment(one)
        if appointed and appointed.by_id == other.pk:
            return f"{other} gave {one} this place, so somebody else must act: the two come from one hand."
    shared = _hands(first) & _hands(second)
    if shared:
        by = User.objects.get(pk=min(shared))
        return (
            f"{first} and {second} have their places from one hand, {by}, within the last {REMEMBERED_FOR.days} days: "
            "somebody else must act."
        )
    return ""


def _appointment(user: User) -> Appointment | None:
    return Appointment.objects.select_related("by").filter(user=user).first()


def _enrolled_at(user: User) -> dt.datetime | None:
    """Since when there is a factor of this person; None where it is kept at Microsoft, or older than we remember."""
    times = [device.created_at for device in second_factor.devices_of(user)]
    return min(times) if times and all(times) else None


def _hands(user: User) -> set[int]:
    """This person, who gave them their place lately, who gave it to those, and so on."""
    hands: set[int] = set()
    step: User | None = user
    while step is not None and step.pk not in hands:
        hands.add(step.pk)
        appointed = _appointment(step)
        is_recent = appointed is not None and appointed.at > timezone.now() - REMEMBERED_FOR
        step = appointed.by if appointed and is_recent else None
    return hands
