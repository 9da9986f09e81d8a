"""The vendor's staff in tests: people with a role and a second factor, and how they come in."""

from __future__ import annotations

import datetime as dt
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import time_machine
from django.contrib.auth.hashers import MD5PasswordHasher
from django.test import Client
from django.utils import timezone
from django_otp.oath import TOTP
from django_otp.plugins.otp_totp.models import TOTPDevice

from partners import presence
from partners.models import Appointment, User
from partners.sign_in_backends import PEOPLE

PASSWORD = "a long enough password"


def somebody(role: str, name: str = "") -> User:
    """One of the staff, with password and authenticator app, for so long that they count as one of two."""
    user = User.objects.create_user(name or role, PASSWORD, is_staff=True, staff_role=role)
    TOTPDevice.objects.create(user=user, name="app")
    settle(user)
    return user


def settle(user: User) -> None:
    """Let two days pass for somebody of the staff."""
    then = timezone.now() - dt.timedelta(days=2)
    User.objects.filter(pk=user.pk).update(created_at=then)
    TOTPDevice.objects.filter(user=user).update(created_at=then)
    Appointment.objects.filter(user=user).update(at=then)
    user.refresh_from_db()


def at_the_desk(role: str, name: str = "") -> Client:
    """The browser of one of the staff who has come in, with both factors."""
    return signed_in(User.objects.filter(username=name or role).first() or somebody(role, name))


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend=PEOPLE)
    session = client.session
    session["otp_device_id"] = TOTPDevice.objects.get(user=user).persistent_id
    session[presence.PROVED] = int(time.time())
    session.save()
    return client


def code_of(user: User | str) -> str:
    """What the person's app shows next: each code counts once, so after a use it is the one after."""
    name = user if isinstance(user, str) else user.username
    device = TOTPDevice.objects.get(user__username=name)
    now = TOTP(device.bin_key)
    now.time = time.time()
    now.drift = max(0, device.last_t + 1 - now.t())
    return f"{now.token():06}"


@contextmanager
def typed(text: str) -> Iterator[None]:
    """What a command reads on standard input."""
    before, sys.stdin = sys.stdin, io.StringIO(f"{text}\n" if text else "")
    try:
        yield
    finally:
        sys.stdin = before


def later(**by: float) -> Any:
    return time_machine.travel(timezone.now() + dt.timedelta(**by))


def password(client: Client, name: str, password: str = PASSWORD, **more: Any) -> Any:
    """Send the form of the first step."""
    return client.post("/admin/login/", {"username": name, "password": password, "next": ""} | more)


class CountingHasher(MD5PasswordHasher):
    """Counts how often a password was looked at, or seemed to be."""

    algorithm = "counting"
    done = 0

    def encode(self, password: str, salt: str) -> str:
        type(self).done += 1
        return super().encode(password, salt)
