"""
How somebody becomes a member, and ends being one: a link by mail, a sign-in at Microsoft, and an owner's no.

Who may join is decided by the id_token alone: (cloud, tid, oid). A mail address proves nobody, so owners are shown who
came of an invitation, beside where it was sent.
"""

from __future__ import annotations

import datetime as dt
import secrets
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from consent.models import INVITATION_LIFE, Consent, MemberInvitation, MemberInvitationQuerySet, digest
from consent.refusals import Refused
from partners import team
from partners.models import Member, User
from tokens import audit
from tokens.entra import Identity
from tokens.tenancy import system_scope

MOST_OPEN = 50  # invitations of one partner at a time: nobody sends mail by the thousand through us
MOST_A_DAY = 200  # taken back and answered ones count, too
KEEP = dt.timedelta(days=90)


class TooManyOpen(Exception):
    """So many invitations of this partner wait that another has to wait too."""


# --- Owners -----------------------------------------------------------------------------------------------------------
@transaction.atomic
def invite(
    *, email: str, role: str, by: Member, tenant_id: UUID | None = None, limited: bool = False
) -> tuple[MemberInvitation, str]:
    """
    A new invitation and its address, which exists only now: we keep a hash of it. An earlier one to this address ends.

    Without a `tenant_id` it is for people of the partner's own organisation.

    :raises TooManyOpen: 50 are open, or 200 were made within a day
    :raises NotYours: `by` is no owner any more
    """
    team.lock_owners(by)
    partner = by.partner
    waiting = partner.member_invitations.open()
    _end(waiting.filter(email__iexact=email), by=by)
    lately = partner.member_invitations.filter(created_at__gt=timezone.now() - dt.timedelta(days=1))
    if waiting.count() >= MOST_OPEN or lately.count() >= MOST_A_DAY:
        raise TooManyOpen
    link = secrets.token_urlsafe(32)
    invitation = MemberInvitation.objects.create(
        partner=partner,
        link_hash=digest(link),
        email=email,
        role=role,
        limited=limited,
        tenant_id=tenant_id or partner.tenant_id,
        invited_by=by,
        invited_by_name=str(by.user),
        expires_at=timezone.now() + INVITATION_LIFE,
    )
    audit.record(
        "member.invited", actor=by.user.as_actor(), partner=partner, object=email, role=role, limited=limited,
        tenant=str(tenant_id) if tenant_id else "",
    )  # fmt: skip
    return invitation, f"{settings.CPV_BASE_URL}/join/{link}"


@transaction.atomic
def take_back(*, invitation: MemberInvitation, by: Member) -> bool:
    """End an open invitation; False when it is used or over already. `NotYours` where `by` is no owner any more."""
    team.lock_owners(by)
    return _end(by.partner.member_invitations.filter(pk=invitation.pk), by=by) == 1


@transaction.atomic
def remove(*, member: Member, by: Member) -> int:
    """
    Take a member out, and end the invitations that lead them back: to their addresses, and those they made.

    Returns how many ended. Raises what `partners.team.remove` raises.
    """
    team.lock_owners(by)  # first of all: nobody invites anybody meanwhile
    sent_to = {
        member.user.upn,
        *member.partner.member_invitations.filter(member=member).values_list("email", flat=True),
    }
    ended = _end_made_by(member, by=by)
    for address in filter(None, sent_to):
        ended += _end(member.partner.member_invitations.filter(email__iexact=address), by=by)
    team.remove(member=member, by=by)
    return ended


@transaction.atomic
def change_role(*, member: Member, role: str, by: Member) -> bool:
    """As `partners.team.change_role`; what somebody invited who is no owner any more ends."""
    changed = team.change_role(member=member, role=role, by=by)
    if changed and role != Member.Role.OWNER:
        _end_made_by(member, by=by)
    return changed


def _end_made_by(member: Member, *, by: Member) -> int:
    return _end(MemberInvitation.objects.filter(partner_id=by.partner_id, invited_by=member), by=by)


def _end(invitations: MemberInvitationQuerySet, *, by: Member) -> int:
    ended = [invitation for invitation in invitations.open() if invitation.mark_revoked()]
    for invitation in ended:
        audit.record(
            "member.invitation_ended", actor=by.user.as_actor(), partner=by.partner, object=invitation.email,
            role=invitation.role,
        )  # fmt: skip
    return len(ended)


# --- Whoever comes ----------------------------------------------------------------------------------------------------
def usable(link: str) -> MemberInvitation:
    """
    The invitation behind a link, unspent, in time and not taken back.

    :raises Refused: any of these
    """
    known = MemberInvitation.objects.select_related("partner").filter(link_hash=digest(link))
    invitation = known.filter(partner__offboarded_at=None).first()
    if invitation is None:
        raise Refused("unknown_team_invitation")
    if invitation.used_at or invitation.revoked_at or invitation.is_expired:
        raise Refused("ended_team_invitation")
    return invitation


@transaction.atomic
def join(*, invitation: MemberInvitation, identity: Identity) -> Member:
    """
    Make whoever Microsoft vouched for a member, and spend the invitation with that; a refusal leaves it unspent.

    :raises Refused: of another organisation, a member already, or the invitation ended meanwhile
    """
    partner = invitation.partner
    if identity.tenant_id != invitation.tenant_id:
        raise Refused("not_of_the_team")
    if partner.offboarded_at or not invitation.mark_used():
        raise Refused("ended_team_invitation")
    user = User.objects.member(
        cloud=partner.cloud,
        tenant_id=identity.tenant_id,
        object_id=identity.object_id,
        upn=identity.username,
        name=identity.name,
    )
    if not user.is_active:
        raise Refused("not_a_member")
    limited_at = timezone.now() if invitation.limited else None
    member, is_new = Member.objects.get_or_create(
        user=user, partner=partner, defaults={"role": invitation.role, "limited_at": limited_at}
    )
    if not is_new:
        raise Refused("already_a_member", retry_path="/signin")
    invitation.point_at(member)
    audit.record(
        "member.joined", actor=user.as_actor(), partner=partner, object=str(user), role=member.role,
        invited=invitation.email, invited_by=invitation.invited_by_name,
    )  # fmt: skip
    return member


def known(consent: Consent) -> QuerySet[Member]:
    """Whoever gave this consent, among the partner's members."""
    partner = consent.partner
    by = {"user__cloud": partner.cloud, "user__tid": partner.tenant_id, "user__oid": consent.oid}
    return partner.members.filter(**by)


def admit(consent: Consent, *, as_owner: bool = False) -> User | None:
    """
    Whoever gave this consent, as a member: an owner where no owner of the partner can sign in, else what they are.

    None for whoever is no member: where there are owners, they alone say who joins, and a consent brings back nobody
    whom they removed. Only a link made for that (`renew --owner`) makes an owner beside those there are.
    """
    partner = consent.partner
    member = known(consent).select_related("user").first()
    owners = partner.members.filter(role=Member.Role.OWNER, user__is_active=True)
    if not as_owner and owners.exists():
        return member.user if member else None
    with system_scope("a person becomes a user"):
        user = User.objects.member(
            cloud=partner.cloud,
            tenant_id=partner.tenant_id,
            object_id=consent.oid,
            upn=consent.upn,
            name=consent.name,
        )
    if not user.is_active:
        return None
    if member is None:
        Member.objects.create(user=user, partner=partner, role=Member.Role.OWNER)
        audit.record("member.joined", actor=user.as_actor(), partner=partner, object=str(user), role="owner")
    elif member.role != Member.Role.OWNER:
        team.make_owner(member, by=user.as_actor())
    return user


def forget_old() -> None:
    """Let go of invitations 90 days after their end; one that brought a member stays as long as they do."""
    MemberInvitation.objects.filter(expires_at__lt=timezone.now() - KEEP, member=None).delete()
