"""
The vendor's staff: who is one, in which role, and the one account for emergencies.

Of whoever comes from Microsoft Entra nothing is decided here but whether they may come (`consent.staff_sign_in`).
Nobody hands out a password. Whoever is appointed, or lost a factor, gets a link that works once, within a day: behind
it they choose a password of their own and enrol a second factor.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth.tokens import default_token_generator
from django.db import transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.encoding import force_str
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode

from partners import borrowed, second_factor, two_people
from partners.desk_roles import acts_of
from partners.models import User
from tokens import alarms, audit
from tokens.actors import Actor

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # a member's has colons in it
EMERGENCY = "breakglass"
EMERGENCY_LASTS = dt.timedelta(minutes=60)
EMERGENCY_CODES = 8  # one to come in, and one for each ten minutes in which something grave is done
FROM_ENTRA = (
    "{person} comes from Microsoft Entra, and their role and second factor are kept there: an administrator of that "
    "tenant changes them. Here they can only be deactivated, and let in again."
)


class Refused(ValueError):
    """It is not done; the text says why, and what to do instead."""


# --- Appointing -----------------------------------------------------------------------------------------------------
@transaction.atomic
def appoint(*, username: str, role: str, by: Actor, reason: str) -> User:
    """
    Make somebody one of the staff, or give one of them another role.

    Whoever has no second factor comes in by `welcome`.

    :raises Refused: the name is none, or taken
    """
    from_entra = User.objects.filter(Q(username=username) | Q(upn__iexact=username), is_staff=True, tid__isnull=False)
    for person in from_entra:
        raise Refused(FROM_ENTRA.format(person=person))
    if not NAME.fullmatch(username) or username == EMERGENCY:
        raise Refused("A name has small letters, digits, dots, hyphens and underscores, 64 at most.")
    user, is_new = User.objects.select_for_update().get_or_create(
        username=username, defaults={"is_staff": True, "password": "!"}
    )
    if not user.is_staff:
        raise Refused(f"{username} is no name for staff: somebody of a partner has it.")
    if not (user.is_active and second_factor.is_enrolled(user)):
        _void(user)
    earlier = user.staff_role
    if earlier != role:
        borrowed.end_those_with(person=user, by=by, became="got another role")
    user.staff_role, user.is_superuser, user.is_active = role, False, True
    user.save(update_fields=["staff_role", "is_superuser", "is_active"])
    two_people.note(user, by=by)
    action = "staff.appointed" if is_new else "staff.role_changed"
    audit.record(action, actor=by, object=username, role=role, reason=reason[:200], earlier=earlier)
    return user


@transaction.atomic
def deactivate(*, user: User, by: Actor, reason: str) -> bool:
    """End somebody's access at once, in every session; False when it was over already."""
    if not User.objects.filter(pk=user.pk, is_active=True).update(is_active=False):
        return False
    borrowed.end_those_with(person=user, by=by, became="is no longer of the staff")
    audit.record("staff.deactivated", actor=by, object=user.username, reason=reason[:200])
    return True


@transaction.atomic
def let_back(*, user: User, by: Actor, reason: str) -> bool:
    """
    Somebody from Entra may come again, in the role they have there by then; False when they may already.

    :raises Refused: a local account, which is appointed anew
    """
    if not user.is_from_entra:
        raise Refused(f"{user} has a local account: appoint them anew.")
    if not User.objects.filter(pk=user.pk, is_active=False).update(is_active=True):
        return False
    user.end_sessions()  # those from before stay over
    two_people.note(user, by=by)
    audit.record("staff.let_back", actor=by, object=user.username, reason=reason[:200])
    return True


@transaction.atomic
def start_over(*, user: User, by: Actor, reason: str) -> None:
    """
    Void password and second factors of somebody who lost one of them; the link of `welcome` is their way in.

    :raises Refused: they come from Entra
    """
    if user.is_from_entra:
        raise Refused(FROM_ENTRA.format(person=user))
    _void(user)
    two_people.note(user, by=by)
    audit.record("staff.started_over", actor=by, object=user.username, reason=reason[:200])


def _void(user: User) -> None:
    second_factor.forget_all(user)
    user.set_unusable_password()  # every session and every link from before ends with it
    user.save(update_fields=["password"])


# --- The way in -----------------------------------------------------------------------------------------------------
def welcome(user: User) -> str:
    """The address behind which this person chooses a password; it works until they did, for a day."""
    uid = urlsafe_base64_encode(str(user.pk).encode())
    token = default_token_generator.make_token(user)
    return f"{settings.CPV_BASE_URL}{reverse('admin:welcome', args=[uid, token])}"


def invited(uid: str, token: str) -> User | None:
    """Whom a link lets choose a password; None when it is used up, too old or not ours."""
    try:
        user = User.objects.get(pk=int(force_str(urlsafe_base64_decode(uid))))
    except (ValueError, OverflowError, User.DoesNotExist):
        return None
    return user if acts_of(user) and default_token_generator.check_token(user, token) else None


@transaction.atomic
def note_sign_in(*, user: User, device: Any = None, **more: Any) -> None:
    """Somebody came in, without a device of ours by Entra; with the account for emergencies that is an alarm."""
    audit.record("staff.signed_in", actor=user.as_actor(), object=user.username, factor=kind_of(device), **more)
    if user.is_for_emergencies:
        audit.record("breakglass.used", actor=user.as_actor(), object=user.username)
        alarms.note_break_glass(f"{user.username} signed in")


def note_confirmed(*, user: User, device: Any) -> None:
    """Somebody who was in showed a factor once more."""
    audit.record("staff.confirmed", actor=user.as_actor(), object=user.username, factor=kind_of(device))


def kind_of(device: Any) -> str:
    """A factor in one word: totp, static (recovery codes), webauthncredential; entra where no device of ours was."""
    return "entra" if device is None else str(device.model_label().partition(".")[2].removesuffix("device"))


# --- Emergencies ----------------------------------------------------------------------------------------------------
@transaction.atomic
def break_glass(*, by: Actor, reason: str) -> tuple[User, str, list[str]]:
    """
    Open the account for emergencies for an hour: with its password and its codes, which exist as text only here.

    It may do everything but lift a stop of everything. What was handed out before is void.

    :raises Refused: somebody else has the name
    """
    user, _ = User.objects.select_for_update().get_or_create(
        username=EMERGENCY, defaults={"is_staff": True, "is_superuser": True, "name": "Emergency"}
    )
    if not (user.is_staff and user.is_superuser):
        raise Refused(f"The name {EMERGENCY} is somebody else's.")
    second_factor.forget_all(user)
    password = secrets.token_urlsafe(18)
    user.set_password(password)
    user.is_active, user.valid_until = True, timezone.now() + EMERGENCY_LASTS
    user.save(update_fields=["password", "is_active", "valid_until"])
    codes = second_factor.new_recovery_codes(user, number=EMERGENCY_CODES)
    audit.record("breakglass.opened", actor=by, object=EMERGENCY, reason=reason[:200])
    return user, password, codes


@transaction.atomic
def mend_glass(*, by: Actor, reason: str) -> bool:
    """The emergency is over: the account ends at once, and its alarm; False when neither was there."""
    user = User.objects.select_for_update().filter(username=EMERGENCY, is_superuser=True).first()
    if user is None:
        return False
    was_open = user.is_open
    _void(user)
    User.objects.filter(pk=user.pk).update(is_active=False, valid_until=timezone.now())
    alarms_closed = alarms.close_break_glass()
    if was_open or alarms_closed:
        audit.record("breakglass.ended", actor=by, object=EMERGENCY, reason=reason[:200])
    return was_open or alarms_closed
