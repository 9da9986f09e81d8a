"""
What owners decide about the members of their partner: role, limits, removal.

Every function locks the partner's owners first. So each decision is made by somebody who is an owner at that moment,
and of two owners who remove each other at once one comes second and is told no: a partner always keeps an owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from partners import borrowed
from partners.models import ChosenCustomer, Member
from partners.powers import LIMITABLE
from tokens import audit
from tokens.actors import Actor

MOST_CHOSEN = 500  # customers for one limited member


class NotYours(Exception):
    """Whoever decides is no owner any more, or the member is gone meanwhile."""


class LastOwner(Exception):
    """Without this member nobody of the partner could decide anything."""


class TooMany(Exception):
    """More customers than can be chosen for one member."""


class CannotBeLimited(Exception):
    """Owners see everything, and auditors no customer at all."""


def lock_owners(by: Member) -> set[int]:
    """
    The ids of the partner's owners who can sign in; none of them changes before this transaction ends.

    :raises NotYours: `by` is none of them any more
    """
    owners = Member.objects.select_for_update(of=("self",)).filter(
        partner_id=by.partner_id, role=Member.Role.OWNER, user__is_active=True
    )
    found = {owner.pk for owner in owners.order_by("pk")}
    if by.pk not in found:
        raise NotYours
    return found


def _locked(member: Member, *, by: Member) -> tuple[Member, set[int]]:
    """The member as it is now, locked, with the owners."""
    owners = lock_owners(by)
    # Asked for by id among the partner's own: whoever passes a member of another partner finds nobody.
    found = Member.objects.select_for_update(of=("self",)).select_related("user", "partner")
    now = found.filter(pk=member.pk, partner_id=by.partner_id).first()
    if now is None:
        raise NotYours
    return now, owners


@transaction.atomic
def change_role(*, member: Member, role: str, by: Member) -> bool:
    """
    Give a member another role; False when it is theirs already. What they asked Microsoft lately is gone with it.

    :raises LastOwner: nobody else is an owner
    :raises NotYours: no owner decides this, or the member is gone
    """
    now, owners = _locked(member, by=by)
    if now.role == role:
        return False
    if not owners - {now.pk}:
        raise LastOwner
    before, limited_at = now.role, now.limited_at if role in LIMITABLE else None
    Member.objects.filter(pk=now.pk).update(role=role, limited_at=limited_at)
    if limited_at is None:
        now.chosen_customers.all().delete()
    now.lookups.all().delete()
    if before == Member.Role.OWNER:
        _end_looks(now, by, "is no owner any more")
    audit.record("member.role_changed", **_of(now, by), before=before, after=role)
    return True


def make_owner(member: Member, *, by: Actor) -> None:
    """Where no owner is left to decide it: whoever agreed for the partner becomes one, without limits."""
    before = member.role
    Member.objects.filter(pk=member.pk).update(role=Member.Role.OWNER, limited_at=None)
    member.chosen_customers.all().delete()
    member.lookups.all().delete()
    audit.record(
        "member.role_changed", actor=by, partner=member.partner, object=str(member.user), before=before, after="owner"
    )


@transaction.atomic
def remove(*, member: Member, by: Member) -> None:
    """
    Take a member out: their sessions end, and what they asked Microsoft lately is gone.

    :raises LastOwner: nobody else is an owner
    :raises NotYours: no owner decides this, or the member is gone
    """
    now, owners = _locked(member, by=by)
    if not owners - {now.pk}:
        raise LastOwner
    _end_looks(now, by, "was removed from the team")
    audit.record("member.removed", **_of(now, by), role=now.role)
    now.delete()  # lookups and chosen customers go along
    now.user.end_sessions()


@transaction.atomic
def limit(*, member: Member, limited: bool, by: Member) -> bool:
    """
    Let a member see only the customers chosen for them, none at first, or all again; False when that is so already.

    :raises CannotBeLimited: an owner or an auditor
    :raises NotYours: no owner decides this, or the member is gone
    """
    now, _ = _locked(member, by=by)
    if now.role not in LIMITABLE:
        raise CannotBeLimited
    if (now.limited_at is not None) == limited:
        return False
    Member.objects.filter(pk=now.pk).update(limited_at=timezone.now() if limited else None)
    now.chosen_customers.all().delete()
    now.lookups.all().delete()
    if limited:
        audit.record("member.limited", **_of(now, by))
    else:
        audit.record("member.unlimited", **_of(now, by))
    return True


@transaction.atomic
def choose_customers(*, member: Member, add: Iterable[UUID], drop: Iterable[UUID], by: Member) -> tuple[int, int]:
    """
    Change which customers a limited member sees, by tenant id; what the partner does not have is passed over.

    Returns how many came and how many went.

    :raises CannotBeLimited: the member is not limited
    :raises TooMany: nothing was changed
    :raises NotYours: no owner decides this, or the member is gone
    """
    now, _ = _locked(member, by=by)
    if now.limited_at is None:
        raise CannotBeLimited
    chosen = now.chosen_customers
    gone = dict(chosen.filter(customer__tenant_id__in=list(drop)).values_list("pk", "customer__tenant_id"))
    new = dict(
        by.partner.customers.present()
        .filter(tenant_id__in=list(add))
        .exclude(pk__in=chosen.values("customer"))
        .values_list("pk", "tenant_id")
    )
    if chosen.count() - len(gone) + len(new) > MOST_CHOSEN:
        raise TooMany
    chosen.filter(pk__in=list(gone)).delete()
    ChosenCustomer.objects.bulk_create(
        ChosenCustomer(partner_id=now.partner_id, member=now, customer_id=customer_id) for customer_id in new
    )
    if gone:
        now.lookups.all().delete()
    if gone or new:
        ids: dict[str, Any] = {"added": sorted(map(str, new.values())), "dropped": sorted(map(str, gone.values()))}
        audit.record("member.customers_chosen", **_of(now, by), **ids)
    return len(new), len(gone)


def _end_looks(member: Member, by: Member, became: str) -> None:
    """What the vendor's staff see by this member's leave ends with it."""
    borrowed.end_those_with(person=member.user, by=by.user.as_actor(), became=became, partner=by.partner)


def _of(member: Member, by: Member) -> dict[str, Any]:
    """Who decided about whom, as the audit keeps it."""
    return {"actor": by.user.as_actor(), "partner": by.partner, "object": str(member.user)}
