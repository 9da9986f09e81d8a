"""Whether somebody may do something at the desk: by the table of roles alone, no group and no single right."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser

from partners.models import MAY, Act, User

Role = User.StaffRole
__all__ = ["APP_ROLES", "Act", "acts_of", "may"]


APP_ROLES: dict[str, str] = {
    "Desk.Support": Role.SUPPORT,
    "Desk.Security": Role.SECURITY,
    "Desk.Auditor": Role.AUDITOR,
    "Desk.Admin": Role.ADMIN,
}
"""The app roles of our application that the vendor's own Entra tenant may give its people, as the id_token has them."""
# What takes two people, this account does not: it is nobody.
IN_AN_EMERGENCY = frozenset(Act) - {Act.LIFT_ALL, Act.ASK_FOR_A_LOOK, Act.ALLOW_A_LOOK}


def acts_of(user: User | AnonymousUser) -> frozenset[Act]:
    """Everything this person may do at the desk; nothing for members, and for staff without a role."""
    if not isinstance(user, User) or not (user.is_staff and user.is_open):
        return frozenset()
    return IN_AN_EMERGENCY if user.is_for_emergencies else MAY.get(user.staff_role, frozenset())


def may(user: User | AnonymousUser, act: Act) -> bool:
    return act in acts_of(user)
