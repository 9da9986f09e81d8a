"""
What the vendor's staff prove themselves with beside the password: authenticator apps, passkeys, recovery codes.

Whoever comes from Microsoft Entra has none of these; there a session remembers that MFA was seen at Microsoft.

A seed is in the database, as the one who checks has to know it; of a recovery code there is only a hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import b32encode
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.http import HttpRequest
from django_otp import devices_for_user
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from partners.models import User
from tokens import audit
from tokens.actors import Actor

SEED_BYTES = 20
CODE_BYTES = 10  # of a recovery code: 80 bits, written as 16 letters
CODES_AT_ONCE = 10
MOST_DEVICES = 5
AT_MICROSOFT = "shown_at_microsoft"
SIX_DIGITS = re.compile(r"[0-9]{6}")
KEPT_AT_MICROSOFT = "You come in with Microsoft, and your second factor is kept there: there is nothing to enrol here."


class Refused(ValueError):
    """It is not enrolled or taken away; the text says why, for the person to read."""


# --- What somebody has ----------------------------------------------------------------------------------------------
def devices_of(user: User) -> list[Any]:
    """What this person can sign in with again and again; recovery codes do not count."""
    return [device for device in devices_for_user(user) if not isinstance(device, StaticDevice)]


def is_enrolled(user: User) -> bool:
    return bool(devices_of(user))


def has_passkey(user: User) -> bool:
    return any(not isinstance(device, TOTPDevice) for device in devices_of(user))


def codes_left(user: User) -> int:
    return int(StaticToken.objects.filter(device__user=user).count())


# --- In this session ------------------------------------------------------------------------------------------------
def was_shown(request: HttpRequest) -> bool:
    """
    Whether whoever asks has shown a second factor in this very session: a device that is there still, or at Microsoft.

    Everything that opens to the vendor's staff alone asks this, beside their role.
    """
    user: Any = request.user
    if getattr(user, "otp_device", None) is not None:
        return True
    is_from_entra = bool(settings.CPV_STAFF_ENTRA and getattr(user, "is_from_entra", False))
    return is_from_entra and request.session.get(AT_MICROSOFT) == user.pk


def note_shown_at_microsoft(session: SessionBase, user: User) -> None:
    """This person signed in with MFA that we saw; it counts for them alone, and ends with the session."""
    session[AT_MICROSOFT] = user.pk


# --- Proving --------------------------------------------------------------------------------------------------------
def prove(user: User, code: str) -> Any | None:
    """
    The device that made this code: six digits of an app, or a recovery code. None when there is none.

    A code counts once. After a wrong one each device waits 1, 2, 4, … seconds, and takes nothing meanwhile.
    """
    code = re.sub(r"[\s-]", "", code).lower()
    is_of_app = bool(SIX_DIGITS.fullmatch(code))
    model, shown = (TOTPDevice, code) if is_of_app else (StaticDevice, _hash(code))
    with transaction.atomic():
        tried: list[Any] = []
        for device in model.objects.devices_for_user(user, confirmed=True).select_for_update().order_by("pk"):
            if device.verify_token(shown):
                for other in tried:  # it was no guess: the app in somebody's other pocket need not wait for it
                    other.throttle_reset()
                return device
            tried.append(device)
    return None


def _hash(code: str) -> str:
    """As much of a hash as the column takes; a recovery code is long enough to need no salt."""
    return b32encode(hashlib.sha256(code.encode()).digest())[:16].decode().lower()


# --- Enrolling ------------------------------------------------------------------------------------------------------
def new_seed() -> str:
    """For an app that is not enrolled yet; it stays in the session, so that nobody else can have seen it before."""
    return secrets.token_hex(SEED_BYTES)


def address_for_app(user: User, seed: str) -> str:
    """What the QR code holds."""
    return str(TOTPDevice(user=user, key=seed).config_url)


def as_letters(seed: str) -> str:
    """The seed as an app takes it when there is no camera: groups of four letters."""
    letters = b32encode(bytes.fromhex(seed)).decode()
    return " ".join(letters[start : start + 4] for start in range(0, len(letters), 4))


@transaction.atomic
def enrol_app(*, user: User, seed: str, code: str, name: str, is_first: bool) -> TOTPDevice | None:
    """
    A new app, once it has shown that it makes the right codes; None when it did not.

    :raises Refused: `is_first`, and there is one by now; or there are enough
    """
    make_room(user, is_first=is_first)
    device = TOTPDevice.objects.create(user=user, key=seed, name=name[:64] or "Authenticator app")
    if not device.verify_token(re.sub(r"\s", "", code)):
        device.delete()
        return None
    audit.record("staff.factor_added", actor=user.as_actor(), object=user, kind="app", name=device.name)
    return device


def make_room(user: User, *, is_first: bool) -> None:
    """
    Call it in the transaction that adds a device.

    :raises Refused: there are enough, or one that has to be shown before there is another
    """
    if user.is_from_entra:
        raise Refused(KEPT_AT_MICROSOFT)
    User.objects.select_for_update().get(pk=user.pk)  # of two first ones at once, the second finds the first
    number = len(devices_of(user))
    if is_first and number:
        raise Refused("There is a second factor for this account already: sign in with it.")
    if number >= MOST_DEVICES:
        raise Refused(f"There are {MOST_DEVICES} of them already: remove one first.")


def name_passkey(device: Any, name: str) -> None:
    """A passkey that was made a moment ago gets its name, and its line in the audit."""
    device.name = name.strip()[:64] or "Passkey"
    device.save(update_fields=["name"])
    audit.record(
        "staff.factor_added", actor=device.user.as_actor(), object=device.user, kind="passkey", name=device.name
    )


@transaction.atomic
def new_recovery_codes(user: User, *, number: int = CODES_AT_ONCE) -> list[str]:
    """Fresh codes, each good once; those from before are void. They exist as text only here."""
    StaticDevice.objects.filter(user=user).delete()
    device = StaticDevice.objects.create(user=user, name="Recovery codes")
    codes = [b32encode(secrets.token_bytes(CODE_BYTES)).decode().lower() for _ in range(number)]
    StaticToken.objects.bulk_create(StaticToken(device=device, token=_hash(code)) for code in codes)
    audit.record("staff.codes_made", actor=user.as_actor(), object=user, number=number)
    return ["-".join(code[start : start + 4] for start in range(0, len(code), 4)) for code in codes]


# --- Taking away ----------------------------------------------------------------------------------------------------
@transaction.atomic
def remove(*, user: User, device_id: str, by: Actor) -> str:
    """
    Take one device away; its name.

    :raises Refused: it is the last, or not there
    """
    User.objects.select_for_update().get(pk=user.pk)
    devices = devices_of(user)
    found = next((device for device in devices if device.persistent_id == device_id), None)
    if found is None:
        raise Refused("It is gone already.")
    if len(devices) == 1:
        raise Refused("It is your last second factor: add another one first.")
    found.delete()
    audit.record("staff.factor_removed", actor=by, object=user, name=str(found.name))
    return str(found.name)


def forget_all(user: User) -> None:
    """Take away everything, recovery codes too; sessions that stand on them are over."""
    for device in devices_for_user(user, confirmed=None):
        device.delete()
