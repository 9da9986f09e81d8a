"""What each of the vendor's staff may do at the desk: this module alone says so, no group and no single right."""

from __future__ import annotations

from enum import StrEnum

from django.contrib.auth.models import AnonymousUser

from partners.models import User

Role = User.StaffRole


class Act(StrEnum):
    """Something that is done at the desk."""

    LOOK = "look"
    TRY_AGAIN = "try_again"
    SEND_LINK = "send_link"
    STOP = "stop"  # and lift the stop of one partner
    LIFT_ALL = "lift_all"  # ask for it, or agree to another's asking
    EVIDENCE = "evidence"
    STAFF = "staff"  # appoint, change, deactivate, let enrol anew


APP_ROLES: dict[str, str] = {
    "Desk.Support": Role.SUPPORT,
    "Desk.Security": Role.SECURITY,
    "Desk.Auditor": Role.AUDITOR,
    "Desk.Admin": Role.ADMIN,
}
"""The app roles of our application that the vendor's own Entra tenant may give its people, as the id_token has them."""
MAY: dict[str, frozenset[Act]] = {
    Role.SUPPORT: frozenset({Act.LOOK, Act.TRY_AGAIN, Act.SEND_LINK}),
    Role.SECURITY: frozenset({Act.LOOK, Act.STOP, Act.LIFT_ALL, Act.EVIDENCE}),
    Role.AUDITOR: frozenset({Act.LOOK, Act.EVIDENCE}),
    Role.ADMIN: frozenset({Act.LOOK, Act.STAFF}),  # and no stop: whoever appoints security need not be it
}
IN_AN_EMERGENCY = frozenset(Act) - {Act.LIFT_ALL}  # that takes two people, and this account is nobody


def acts_of(user: User | AnonymousUser) -> frozenset[Act]:
    """Everything this person may do at the desk; nothing for members, and for staff without a role."""
    if not isinstance(user, User) or not (user.is_staff and user.is_open):
        return frozenset()
    return IN_AN_EMERGENCY if user.is_for_emergencies else MAY.get(user.staff_role, frozenset())


def may(user: User | AnonymousUser, act: Act) -> bool:
    return act in acts_of(user)
