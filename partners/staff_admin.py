"""People at the desk: members to look at; staff to appoint, change, deactivate and let enrol anew, by an admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse

from partners import second_factor, staff
from partners.desk_acts import NotDone, Page, Reason, Shown, confirmed
from partners.desk_roles import Act, may
from partners.models import User
from tokens.long_lists import ReadOnlyAdmin

LINK = "This link lets {name} choose a password and enrol a second factor: once, within a day. Hand it over in person."
NOT_YOURSELF = "Somebody else must do that: nobody changes their own place at the desk."


class UserAdmin(ReadOnlyAdmin):
    change_form_template = "admin/partners/user.html"
    change_list_template = "admin/partners/users.html"
    list_display = ("username", "name", "is_staff", "staff_role", "is_active", "last_login")
    list_filter = ("is_staff", "staff_role", "is_active")
    finds_parts = ("username", "upn", "name")
    ordering = ("-id",)
    fields = (
        "username", "upn", "name", "cloud", "tid", "oid", "is_staff", "staff_role", "is_active", "valid_until",
        "second_factors", "last_login", "created_at",
    )  # fmt: skip
    readonly_fields = fields

    def second_factors(self, user: User) -> str:
        """Which there are; never what is inside."""
        if user.is_from_entra:
            return "kept at Microsoft"
        return ", ".join(str(device.name) for device in second_factor.devices_of(user)) or "none"

    def get_urls(self) -> list[URLPattern]:
        own = [
            path("appoint/", self.admin_site.admin_view(appoint), name="appoint"),
            path("<int:pk>/role/", self.admin_site.admin_view(change_role), name="change_role"),
            path("<int:pk>/start-over/", self.admin_site.admin_view(start_over), name="start_over"),
            path("<int:pk>/deactivate/", self.admin_site.admin_view(deactivate), name="deactivate"),
            path("<int:pk>/let-back/", self.admin_site.admin_view(let_back), name="let_back"),
        ]
        return own + super().get_urls()


class RoleForm(Reason):
    role = forms.ChoiceField(choices=User.StaffRole.choices)
    field_order = ("username", "role", "reason")


class AppointForm(RoleForm):
    username = forms.CharField(max_length=64, label="Name", help_text="Small letters, digits, dots, hyphens.")


def appoint(request: HttpRequest) -> HttpResponse:
    """Somebody new, or back again."""

    def do(user: User, said: dict[str, Any]) -> str | Shown:
        if User.objects.filter(username=said["username"], is_active=True).exists():
            raise NotDone("There is somebody of this name already: change the role there.")
        return _appointed(user, said["username"], said)

    what = ["Somebody gets a place at the desk.", "You get a link to hand over; you never see a password."]
    return confirmed(request, Page(Act.STAFF, "Appoint somebody", what, _people(), AppointForm), do)


def change_role(request: HttpRequest, pk: int) -> HttpResponse:
    """Another role, from the next click on."""
    other = _of_staff(request, pk)

    def do(user: User, said: dict[str, Any]) -> str | Shown:
        _not_yourself(user, other)
        if other.is_from_entra:
            raise NotDone(staff.FROM_ENTRA.format(person=other))
        if not other.is_active:
            raise NotDone(f"{other.username} is no longer of the staff. Appoint them anew, if that is meant.")
        return _appointed(user, other.username, said)

    what = [f"{other} is {other.staff_role or 'without a role'} now. The new role counts from the next click."]
    return confirmed(request, Page(Act.STAFF, "Change the role", what, _person(other), RoleForm), do)


def _appointed(by: User, username: str, said: dict[str, Any]) -> str | Shown:
    try:
        user = staff.appoint(username=username, role=said["role"], by=by.as_actor(), reason=said["reason"])
    except staff.Refused as why:
        raise NotDone(str(why)) from why
    if second_factor.is_enrolled(user):
        return f"{username} is {user.staff_role}."
    return Shown(LINK.format(name=username), staff.welcome(user))


def start_over(request: HttpRequest, pk: int) -> HttpResponse:
    """For whoever lost a second factor, or forgot the password."""
    other = _of_staff(request, pk)

    def do(user: User, said: dict[str, Any]) -> str | Shown:
        _not_yourself(user, other)
        try:
            staff.start_over(user=other, by=user.as_actor(), reason=said["reason"])
        except staff.Refused as why:
            raise NotDone(str(why)) from why
        return Shown(LINK.format(name=other.username), staff.welcome(other))

    what = [
        f"Password, apps, passkeys and recovery codes of {other} are void, and every session ends.",
        "You get a link to hand over. Be sure whom you give it to: it is all that is needed.",
    ]
    return confirmed(request, Page(Act.STAFF, "Let enrol anew", what, _person(other)), do)


def deactivate(request: HttpRequest, pk: int) -> HttpResponse:
    """Somebody leaves."""
    other = _of_staff(request, pk)

    def do(user: User, said: dict[str, Any]) -> str:
        _not_yourself(user, other)
        ended = staff.deactivate(user=other, by=user.as_actor(), reason=said["reason"])
        return f"{other} has no place here any more." if ended else f"{other} had none any more."

    back = "an admin here who lets them in again, whatever Entra says." if other.is_from_entra else "a new appointment."
    what = [f"Every session of {other} ends at once. To come back takes {back}"]
    return confirmed(request, Page(Act.STAFF, "Deactivate", what, _person(other)), do)


def let_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Somebody from Entra was deactivated, and shall come again."""
    other = _of_staff(request, pk)

    def do(user: User, said: dict[str, Any]) -> str:
        _not_yourself(user, other)
        try:
            is_back = staff.let_back(user=other, by=user.as_actor(), reason=said["reason"])
        except staff.Refused as why:
            raise NotDone(str(why)) from why
        return f"{other} may sign in with Microsoft again." if is_back else f"{other} may come in already."

    what = [f"{other} may sign in with Microsoft again, in the role that Entra has for them by then."]
    return confirmed(request, Page(Act.STAFF, "Let in again", what, _person(other)), do)


def _of_staff(request: HttpRequest, pk: int) -> User:
    """The person an act is about; a role that may not is refused before anything is looked up."""
    if not may(request.user, Act.STAFF):
        raise PermissionDenied
    user = User.objects.filter(pk=pk, is_staff=True).exclude(username=staff.EMERGENCY).first()
    if user is None:
        raise Http404
    return user


def _not_yourself(user: User, other: User) -> None:
    if user.pk == other.pk:
        raise NotDone(NOT_YOURSELF)


def _people() -> str:
    return reverse("admin:partners_user_changelist")


def _person(user: User) -> str:
    return reverse("admin:partners_user_change", args=[user.pk])
