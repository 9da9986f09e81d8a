"""
Passkeys as second factor of the vendor's staff: the same door, the same rules as for codes, spoken in JSON.

A passkey never replaces the password (`OTP_WEBAUTHN_ALLOW_PASSWORDLESS_LOGIN` is off). Pages work without: the script
that speaks here shows its buttons by itself.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import JsonResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django_otp_webauthn import exceptions, views
from django_otp_webauthn.utils import rewrite_exceptions

from cpvpanel import desk_door
from partners import presence, second_factor
from partners.models import User

open_to_strangers = method_decorator(login_not_required, name="dispatch")


class NotFresh(exceptions.OTPWebAuthnApiError):  # type: ignore[misc] # the library has no types
    status_code = 403
    default_code = "not_fresh"
    default_detail = "Show a factor you have first: open Your second factor, and add the passkey from there."


class TooMany(exceptions.OTPWebAuthnApiError):  # type: ignore[misc] # the library has no types
    status_code = 409
    default_code = "refused"


class _ShowsOne:
    """Somebody whose password was right a moment ago; or who is in, and shows it once more."""

    request: Any

    def get_user(self) -> User | None:
        return desk_door.at_the_desk(self.request) or desk_door.half_way(self.request)


@open_to_strangers
class Ask(_ShowsOne, views.BeginCredentialAuthenticationView):  # type: ignore[misc]
    """What the browser needs to have a passkey sign."""


@open_to_strangers
class Prove(_ShowsOne, views.CompleteCredentialAuthenticationView):  # type: ignore[misc]
    """A passkey has signed: its owner is in, or has shown it once more."""

    def complete_auth(self, device: Any) -> None:
        if desk_door.at_the_desk(self.request):
            self.then = desk_door.shown_anew(self.request, device)
        else:
            self.then = desk_door.let_in(self.request, device.user, device)

    def get_success_data(self, device: Any) -> dict[str, Any]:
        return {"then": self.then}


class _GetsOne:
    """Somebody at the desk, or on the way in without any second factor yet; nobody who has nothing to enrol here."""

    request: Any

    def get_user(self) -> User | None:
        user = desk_door.at_the_desk(self.request)
        if user is not None and not presence.is_fresh(self.request.session):
            raise NotFresh()
        if user is None:
            user = desk_door.half_way(self.request)
            if user is not None:
                user.is_verified = lambda: False  # type: ignore[attr-defined] # the library asks; nothing was shown
        return None if user is None or user.is_for_emergencies or user.is_from_entra else user


@open_to_strangers
class Offer(_GetsOne, views.BeginCredentialRegistrationView):  # type: ignore[misc]
    """What the browser needs to make a passkey."""


@open_to_strangers
class Enrol(_GetsOne, views.CompleteCredentialRegistrationView):  # type: ignore[misc]
    """A passkey was made. Whoever had no second factor before is in, and still has to make recovery codes."""

    def post(self, *args: Any, **kwargs: Any) -> JsonResponse:
        user, state, sent = self.get_user(), self.get_state(), self.request.data
        if user is None or not isinstance(sent, dict) or not isinstance(sent.get("credential"), dict):
            raise exceptions.MalformedRequest()
        is_first = desk_door.at_the_desk(self.request) is None
        with rewrite_exceptions(views._get_pywebauthn_logger()), transaction.atomic():
            try:
                second_factor.make_room(user, is_first=is_first)
            except second_factor.Refused as why:
                raise TooMany(str(why)) from why
            device = self.get_helper().register_complete(user=user, state=state, data=sent["credential"])
            second_factor.name_passkey(device, str(sent.get("name", "")))
        if is_first:
            desk_door.let_in(self.request, user, device)
        return JsonResponse({"then": reverse("admin:factors")})
