"""What is checked between a proven sign-in and the vault: MFA, role and scopes, on a grant that is in memory only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.utils import timezone

from consent.refusals import Refused
from partners.graph import Graph
from partners.models import Partner
from partners.partnercenter import AccessRefused, MfaMissing, PartnerCenter
from tokens import broker, outside, permissions
from tokens.aadsts import Kind
from tokens.actors import Actor, ActorKind
from tokens.broker import FreshGrant
from tokens.clouds import Audience
from tokens.entra import ConsentRequired, Grant, Identity
from tokens.errors import Transient
from tokens.permissions import Permission
from tokens.secret import Secret
from tokens.sessions import ApiSession, Probe

# The groups of a partner's tenant that Partner Center's agent roles stand for; names as Microsoft creates them.
# https://learn.microsoft.com/graph/auth-cloudsolutionprovider
GROUP_OF_ROLE = {"admin_agent": "AdminAgents", "sales_agent": "SalesAgents"}
ROLE_WORDS = {"admin_agent": "Admin agent", "sales_agent": "Sales agent"}


@dataclass(frozen=True)
class Evidence:
    """What the checks found, for the Consent row, and what there is to store; in memory only until then."""

    refresh_token: Secret
    role: str
    limits: str
    missing: tuple[str, ...]
    scopes: frozenset[str]
    mfa: dict[str, Any] = field(default_factory=dict)


def everything(*, partner: Partner, grant: Grant, identity: Identity) -> Evidence:
    """
    Run all checks, cheapest first.

    :raises Refused: with the first that failed
    :raises Transient: Microsoft could not be asked; nothing is decided
    """
    actor = Actor(ActorKind.VISITOR, id=str(identity.object_id), label=identity.username)
    asked, fresh = outside.asked_permissions(), broker.FreshGrant(grant)
    _refuse_missing(asked, permissions.missing(asked, Audience.PARTNER_CENTER, grant.scopes))
    if fresh.refresh_token is None:
        raise Refused("missing_scope", missing=("offline_access",))
    partner_center = broker.probe(fresh, Audience.PARTNER_CENTER, partner=partner, actor=actor)
    mfa = _mfa(partner_center)
    graph, missing = _mint(fresh, Audience.GRAPH, asked, partner, actor)
    _refuse_missing(asked, missing)
    role = _role(graph)
    given = permissions.names(grant.scopes, Audience.PARTNER_CENTER) | permissions.names(graph.scopes, Audience.GRAPH)
    for audience in sorted({p.audience for p in asked} - {Audience.PARTNER_CENTER, Audience.GRAPH}):
        try:
            minted, lacking = _mint(fresh, audience, asked, partner, actor)
        except Refused as refused:
            missing += refused.missing
        else:
            missing += lacking
            given |= permissions.names(minted.scopes, audience)
    limits = "" if role == "admin_agent" else f"{ROLE_WORDS[role]} only"
    return Evidence(fresh.refresh_token, role, limits, tuple(missing), given, mfa)


def _refuse_missing(asked: Sequence[Permission], missing: list[str]) -> None:
    """Refuse when one that nothing works without is among them; all of them are named."""
    if any(permission.required and permission.name in missing for permission in asked):
        raise Refused("missing_scope", missing=tuple(missing))


def _mint(
    fresh: FreshGrant, audience: Audience, asked: Sequence[Permission], partner: Partner, actor: Actor
) -> tuple[Probe, list[str]]:
    """
    A token for one audience with whatever was granted, and the names of what was not.

    :raises Refused: nothing was; it names them all
    """
    of_audience = [permission.name for permission in asked if permission.audience == audience]

    def mint(without: Collection[str]) -> Probe:
        return broker.probe(fresh, audience, partner=partner, actor=actor, without=without)

    try:
        minted = mint(())
    except ConsentRequired as refused:
        if refused.meaning.kind is not Kind.CONSENT:
            raise
        # Entra refuses the whole request for one scope that nobody agreed to, and does not say which.
        missing = [name for name in of_audience if len(of_audience) == 1 or not _is_granted(mint, name, of_audience)]
        if missing == of_audience:
            raise Refused("missing_scope", refused.code, missing=tuple(missing)) from refused
        minted = mint(missing)
    return minted, permissions.missing(asked, audience, minted.scopes)


def _is_granted(mint: Callable[[Collection[str]], Probe], name: str, of_audience: list[str]) -> bool:
    try:
        mint([other for other in of_audience if other != name])
    except ConsentRequired:
        return False
    return True


def _mfa(partner_center: Probe) -> dict[str, Any]:
    """Partner Center's own word decides; the token's `amr` is evidence, and decides only when it gives none."""
    methods = partner_center.authentication_methods
    try:
        compliant = PartnerCenter(partner_center).organization().is_compliant
        source = "Partner Center"
    except MfaMissing as missing:
        raise Refused("no_mfa", missing.code) from missing
    except AccessRefused:
        compliant = None
    except Transient:
        if methods is None:
            raise
        compliant = None
    if compliant is None:
        compliant, source = "mfa" in (methods or ()), "amr of the access token"
    if not compliant:
        raise Refused("no_mfa", "isMfaCompliant: false" if source == "Partner Center" else "no mfa in amr")
    return {"compliant": True, "source": source, "amr": sorted(methods or ()), "at": timezone.now().isoformat()}


def _role(graph: ApiSession) -> str:
    """The best role this account has, out of those the vendor accepts."""
    groups = Graph(graph).agent_groups()
    for role in ("admin_agent", "sales_agent"):
        if role in settings.CPV_CONSENT_ROLES and GROUP_OF_ROLE[role] in groups.names:
            return role
    raise Refused("no_role")
