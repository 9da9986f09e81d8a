"""What each role of a member may do: the one place that says so."""

from __future__ import annotations

from enum import StrEnum


class Power(StrEnum):
    """Something a page shows or a form does; home, and choosing among organisations, need none."""

    CUSTOMERS = "customers"  # see them: list, search, details, how many
    USERS = "users"  # ask Microsoft about a customer's users, in the partner's name
    CHANGES = "changes"  # change a customer's subscriptions, which may cost money
    JOBS = "jobs"  # start work
    CONNECTION = "connection"  # read who agreed to what, and until when
    CONSENT = "consent"  # renew it, choose its period, end it
    ACTIVITY = "activity"  # read and take along what was decided
    EVIDENCE = "evidence"  # read and take along what an auditor asks about the connection
    LOOKS = "looks"  # answer the vendor's staff who ask to look
    TEAM = "team"  # invite, change and remove members


POWERS: dict[str, frozenset[Power]] = {
    "owner": frozenset(Power),
    "operator": frozenset({Power.CUSTOMERS, Power.USERS, Power.CHANGES, Power.JOBS, Power.CONNECTION}),
    "reader": frozenset({Power.CUSTOMERS}),
    "auditor": frozenset({Power.CONNECTION, Power.ACTIVITY, Power.EVIDENCE}),
    "borrowed": frozenset({Power.CUSTOMERS, Power.CONNECTION}),  # staff whom somebody lent a look; no member has it
}
LIMITABLE = ("operator", "reader")  # owners decide who sees what, and auditors see no customer at all
WORDS = {
    "owner": "Everything: the connection, the team, customers and activity",
    "operator": "Customers, their users and syncs; changes subscriptions; reads the connection",
    "reader": "Customers, to read only",
    "auditor": "Activity, permissions, connection and evidence, to read only; no customer data",
}
