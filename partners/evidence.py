"""
What an auditor of the partner asks about its connection: the page "Evidence" and its file show the same document.

Nothing in it tells of a customer, of a secret or where it lies. Of a stop of everything only that it was, and when: its
reason may be about somebody else.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from partners.models import Partner
from partners.standing import Standing, standing
from tokens.models import BY_A_STOP, AuditLink, Halt, RefreshToken, TokenUse
from tokens.permissions import APIS, BY_A_PERSON, JOBS

NEWEST = 20  # of each list
# What the sign-in in force is while nothing may be done with it, by where the partner stands.
ENDED = {
    "offboarded": "ended", "killed": "stopped for security", "suspended": "paused by the vendor",
    "withdrawn": "ended by your organisation", "lapsed": "access period over",
}  # fmt: skip
PURPOSES = JOBS | {
    BY_A_PERSON: "a test of the connection by a person, who says why",
    "custody.prove": "a proof that no part of the custody is of use alone",
}


def document(partner: Partner) -> dict[str, Any]:
    """Everything, the newest first; the times are UTC."""
    stored = partner.refresh_tokens.filter(stored_at__isnull=False).select_related("consent")
    versions = {"kept": Count("versions"), "enabled": Count("versions", filter=Q(versions__disabled_at=None))}
    every = _with_chain(stored.annotate(**versions).order_by("-generation"))
    found = list(every[:NEWEST])
    [of_chain] = found[:1] or _with_chain(Partner.objects.filter(pk=partner.pk), whose="pk")
    current = next((token for token in found if _is_current(token)), None)
    if current is None and len(found) == NEWEST:  # that many renewals were begun since, and none was confirmed
        current = every.filter(pk__in=partner.refresh_tokens.current()).first()
        found += [current] if current else []
    stands = standing(partner, current)
    return {
        "as_of": timezone.now(),
        "partner": {"name": partner.name, "tenant_id": partner.tenant_id, "cloud": partner.cloud},
        "connection": {
            "state": stands.state, "title": stands.title, "reason": stands.reason, "since": stands.since,
            "access_days": partner.access_days, "access_until": partner.lapses_at, "withdrawn_at": partner.withdrawn_at,
        },
        "sign_ins": [_sign_in(token, stands) for token in found],
        "uses": [_use(use) for use in _uses(partner)] if found else [],
        "stops": [_stop(halt) for halt in _stops(partner)],
        "activity": {
            "lines": of_chain.chain_number or 0, "newest": of_chain.chain_at, "hash": of_chain.chain_hash or "",
        },
    }  # fmt: skip


def _with_chain(rows: QuerySet[Any], *, whose: str = "partner") -> QuerySet[Any]:
    """How far the partner's activity is sealed, along with the rows: the last link of its chain."""
    links = AuditLink.objects.filter(partner=OuterRef(whose)).order_by("-number")
    with_chain: QuerySet[Any] = rows.annotate(
        chain_number=Subquery(links.values("number")[:1]),
        chain_hash=Subquery(links.values("hash")[:1]),
        chain_at=Subquery(links.values("event__at")[:1]),
    )
    return with_chain


def _is_current(token: RefreshToken) -> bool:
    return not (token.superseded_at or token.pending_until)


def _sign_in(token: Any, stands: Standing) -> dict[str, Any]:
    """One generation: who agreed to what, with which proof, and what became of it."""
    consent = token.consent
    is_ours = token.refusal_code == BY_A_STOP  # it is we who ended it: Microsoft refused nothing
    return {
        "generation": token.generation,
        "state": _state(token, stands),
        "agreed_at": consent.at,
        "by": consent.upn or consent.name,
        "account": consent.oid,
        "role": consent.role,
        "mfa": consent.mfa_evidence,
        "scopes": consent.scopes,
        "missing": token.missing_scopes,
        "terms": consent.terms_version,
        "stored_at": token.stored_at,
        "last_used_at": token.last_success_at,
        "stores": token.kept,
        "enabled": token.enabled,
        "replaced_at": token.superseded_at,
        "refused_at": None if is_ours else token.refused_at,
        "refusal": "" if is_ours else token.refusal_code,
        "disabled_at": token.closed_at,
    }


def _state(token: RefreshToken, stands: Standing) -> str:
    if token.superseded_at:
        return "replaced"
    if token.pending_until:
        return "waits for an owner's yes" if token.pending_until > timezone.now() else "not confirmed in time"
    if stands.state in ENDED:
        return ENDED[stands.state]
    if token.refused_at:
        return "disabled after a stop" if token.refusal_code == BY_A_STOP else "refused"
    return "in force"


def _uses(partner: Partner) -> QuerySet[TokenUse]:
    """What a stored sign-in was used for, and the checks before one was stored; members' own sign-ins are neither."""
    of_consent = Q(generation__isnull=False) | Q(purpose__in=JOBS)
    return partner.token_uses.filter(of_consent).order_by("-at")[:NEWEST]


def _use(use: TokenUse) -> dict[str, Any]:
    """A request for an access token; for which customer is not told here."""
    return {
        "at": use.at, "for": PURPOSES.get(use.purpose, use.purpose), "audience": APIS.get(use.audience, use.audience),
        "by": use.actor_kind, "generation": use.generation, "outcome": use.get_outcome_display(), "code": use.code,
    }  # fmt: skip


def _stops(partner: Partner) -> list[Halt]:
    since = Q(partner=None, started_at__gte=partner.created_at) | Q(partner=partner)
    return list(Halt.objects.filter(since).order_by("-pk")[:NEWEST])


def _stop(halt: Halt) -> dict[str, Any]:
    is_own = halt.partner_id is not None
    return {
        "of": "your organisation" if is_own else "everybody", "since": halt.started_at, "until": halt.ended_at,
        "by": halt.started_by if is_own else "", "reason": halt.reason if is_own else "",
    }  # fmt: skip
