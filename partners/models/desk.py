"""The table that says which of the vendor's staff may do what at the desk, for code and for queries."""

from __future__ import annotations

from enum import StrEnum

from partners.models.people import User

Role = User.StaffRole


class Act(StrEnum):
    """Something that is done at the desk."""

    LOOK = "look"
    TRY_AGAIN = "try_again"
    ACCEPT = "accept"  # that what is missing is gone, or that a list of strangers is the partner's
    SEND_LINK = "send_link"
    STOP = "stop"  # and lift the stop of one partner
    LIFT_ALL = "lift_all"  # ask for it, or agree to another's asking
    ROTATE = "rotate"  # try what our application proves itself with, and read what comes next
    EVIDENCE = "evidence"
    ASK_FOR_A_LOOK = "ask_for_a_look"  # at a partner's pages, which somebody else has to allow
    ALLOW_A_LOOK = "allow_a_look"
    STAFF = "staff"  # appoint, change, deactivate, let enrol anew


MAY: dict[str, frozenset[Act]] = {
    Role.SUPPORT: frozenset({Act.LOOK, Act.TRY_AGAIN, Act.ACCEPT, Act.SEND_LINK, Act.ASK_FOR_A_LOOK}),
    Role.SECURITY: frozenset(
        {Act.LOOK, Act.STOP, Act.LIFT_ALL, Act.ROTATE, Act.EVIDENCE, Act.ASK_FOR_A_LOOK, Act.ALLOW_A_LOOK}
    ),
    Role.AUDITOR: frozenset({Act.LOOK, Act.EVIDENCE}),
    Role.ADMIN: frozenset(
        {Act.LOOK, Act.STAFF, Act.ALLOW_A_LOOK}
    ),  # and no stop: whoever appoints security need not be it
}


def roles_that_may(act: Act) -> list[str]:
    """The roles whose holders may do this, as rows name them."""
    return [role for role, acts in MAY.items() if act in acts]
