"""How Django knows people: whose session counts, whose password opens the desk, how often one may be guessed."""

from __future__ import annotations

from typing import Any

from axes.backends import AxesStandaloneBackend
from axes.exceptions import AxesBackendPermissionDenied
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from partners.desk_roles import Act, may
from partners.models import User

PEOPLE = "partners.sign_in_backends.People"


class Throttle(AxesStandaloneBackend):  # type: ignore[misc] # axes has no types
    """Too many wrong passwords for one name from one place: none is looked at there for a while."""

    def authenticate(
        self, request: HttpRequest, username: str | None = None, password: str | None = None, **rest: Any
    ) -> None:
        try:
            super().authenticate(request, username=username, password=password, **rest)
        except AxesBackendPermissionDenied:
            User().set_password(password)  # it takes as long as looking: the time tells nobody that this is a lock
            raise


class People(ModelBackend):
    """Members have no password; what staff may see comes from their role alone."""

    def user_can_authenticate(self, user: Any) -> bool:
        return bool(user.is_open)

    def _get_permissions(self, user_obj: Any, obj: Any, from_name: str) -> set[str]:
        return set()

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Django's admin asks for each model; what is on the desk may be looked at, and nothing is changed that way."""
        return perm.partition(".")[2].startswith("view_") and may(user_obj, Act.LOOK)

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        return may(user_obj, Act.LOOK)
