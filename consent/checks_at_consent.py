"""What is checked between a proven sign-in and the vault: MFA, role and scopes, on a grant that is in memory only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.utils import timezone

from consent.refusals import Refused
from partners.graph import Graph
from partners.models import Partner
from partners.partnercenter import AccessRefused, MfaMissing, PartnerCenter
from tokens import broker, outside, permissions
from tokens.actors import Actor, ActorKind
from tokens.clouds import Audience
from tokens.entra import Grant, Identity
from tokens.errors import Transient
from tokens.secret import Secret

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
    scopes: frozenset[str]
    mfa: dict[str, Any] = field(default_factory=dict)


def everything(*, partner: Partner, grant: Grant, identity: Identity) -> Evidence:
    """
    Run all checks, cheapest first.

    :raises Refused: with the first that failed
    :raises Transient: Microsoft could not be asked; nothing is decided
    """
    actor = Actor(ActorKind.VISITOR, id=str(identity.object_id), label=identity.username)
    asked = outside.asked_permissions()
    _refuse_missing(permissions.missing(asked, Audience.PARTNER_CENTER, grant.scopes))
    if grant.refresh_token is None:
        raise Refused("missing_scope", missing=("offline_access",))
    partner_center = broker.probe(grant, Audience.PARTNER_CENTER, partner=partner, actor=actor)
    mfa = _mfa(partner_center)
    graph = broker.probe(grant, Audience.GRAPH, partner=partner, actor=actor)
    _refuse_missing(permissions.missing(asked, Audience.GRAPH, graph.scopes))
    role = _role(graph)
    limits = "" if role == "admin_agent" else f"{ROLE_WORDS[role]} only"
    granted = permissions.names((*grant.scopes, *graph.scopes))
    return Evidence(grant.refresh_token, role, limits, granted, mfa)


def _refuse_missing(missing: list[str]) -> None:
    if missing:
        raise Refused("missing_scope", missing=tuple(missing))


def _mfa(partner_center: broker.Probe) -> dict[str, Any]:
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


def _role(graph: broker.Probe) -> str:
    """The best role this account has, out of those the vendor accepts."""
    groups = Graph(graph).agent_groups()
    for role in ("admin_agent", "sales_agent"):
        if role in settings.CPV_CONSENT_ROLES and GROUP_OF_ROLE[role] in groups.names:
            return role
    raise Refused("no_role")
