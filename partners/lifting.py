"""
Lifting a stop of everything takes two different people of security, each with their own second factor.

Whoever comes from Entra has no code of ours: `at_microsoft` says that they proved themselves there within ten minutes.
"""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from partners import second_factor, two_people
from partners.desk_roles import Act, may
from partners.lifecycle import one_stop_at_a_time
from partners.models import LIFT_WITHIN, LiftRequest, User
from tokens import audit
from tokens.models import Halt, RefreshToken


class Refused(ValueError):
    """Nothing is lifted; the text says why and who does what."""


def request(*, by: User, reason: str, code: str = "", at_microsoft: bool = False) -> LiftRequest:
    """
    Ask for it; another person has an hour to agree.

    :raises Refused: nothing is stopped, the person may not or not yet, or the code is not theirs
    """
    _prove(by, code, at_microsoft=at_microsoft)
    with transaction.atomic():
        one_stop_at_a_time()  # whoever stops anew meanwhile voids this, or is what is asked about
        halt = Halt.objects.in_force().order_by("-pk").first()
        if halt is None:
            raise Refused("Nothing is stopped for everybody.")
        asked = LiftRequest.objects.create(halt=halt, asked_by=by, reason=reason[:500])
        audit.record("everything.lift_asked", actor=by.as_actor(), object=f"stop {halt.pk}", reason=reason[:200])
    return asked


def approve(*, by: User, code: str = "", at_microsoft: bool = False, read: int | None = None) -> LiftRequest:
    """
    Agree to what another one asked: calls may leave again, for whoever consents anew. What was disabled stays so.

    `read` is the key of the request that the person had before their eyes, where they had one.

    :raises Refused: nobody else has asked within the hour, it is not what they read, the person may not or not yet, the
        two come from one hand, or the code is not theirs
    """
    _prove(by, code, at_microsoft=at_microsoft)
    with transaction.atomic():
        one_stop_at_a_time()  # of two at once, and of a stop that comes now, each finds what the other did
        asked = waiting_for(by)
        if asked is None:
            raise Refused(_why_nothing_waits(by))
        if read not in (None, asked.pk):
            raise Refused("Meanwhile somebody asked anew: read it on this page before you agree.")
        why_not = two_people.why_not_yet(asked.asked_by) or two_people.why_not_both(asked.asked_by, by)
        if why_not:
            raise Refused(why_not)
        if not asked.mark_approved(by):
            raise Refused("Somebody was faster: look whether it is lifted.")
        for halt in Halt.objects.in_force():
            halt.end(by=f"{asked.asked_by} and {by}")
        RefreshToken.objects.all().end_all()
        audit.record(
            "everything.unkilled", actor=by.as_actor(), object=f"stop {asked.halt_id}", asked_by=str(asked.asked_by),
            reason=asked.reason[:200],
        )  # fmt: skip
    return asked


def waiting_for(by: User) -> LiftRequest | None:
    """What this person could agree to now."""
    waiting = LiftRequest.objects.waiting(timezone.now()).exclude(asked_by=by)
    return waiting.select_related("halt", "asked_by").order_by("-pk").first()


def _prove(by: User, code: str, *, at_microsoft: bool) -> None:
    if not may(by, Act.LIFT_ALL):
        raise Refused(f"{by} may not: it takes two people with the role security.")
    if by.is_from_entra and not at_microsoft:
        raise Refused(f"{by} comes in with Microsoft and has no code here: it is done at the desk.")
    if why_not := two_people.why_not_yet(by):
        raise Refused(why_not)
    if not by.is_from_entra and second_factor.prove(by, code) is None:
        raise Refused(f"That is no code of {by} that counts now: wait for the next one.")


def _why_nothing_waits(by: User) -> str:
    if not Halt.objects.in_force().exists():
        return "Nothing is stopped for everybody."
    if LiftRequest.objects.waiting(timezone.now()).exists():
        return f"{by} asked for it, so somebody else must agree."
    if LiftRequest.objects.filter(voided_at__gt=timezone.now() - LIFT_WITHIN).exists():
        return "Everything was stopped anew since somebody asked to lift it: read why, and ask anew."
    return "Nobody has asked for it within the last hour: `unkill --all request`, or at the desk."
