"""
Where a partner stands: one state in words, since when, why, who acts and what they do next.

Derived from times on the partner's row and on its current refresh token; nothing is stored.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from django.conf import settings
from django.db.models import Prefetch, QuerySet
from django.utils import timezone

from partners.models import Partner
from tokens.aadsts import BY_LOCATION, MEANINGS, Kind, Meaning
from tokens.models import BY_A_STOP, REFUSALS, RefreshToken


@dataclass(frozen=True)
class Wording:
    title: str
    reason: str
    owner: str  # partner, support, security or nobody
    action: str
    tone: str  # ok, attention, stopped: only ever shown beside the words


WORDINGS = {
    "invited": Wording(
        "Invited", "Nobody has connected this tenant yet.", "partner", "Open the invitation and connect.", "attention"
    ),
    "active": Wording("Connected", "Microsoft accepts the connection.", "nobody", "Nothing to do.", "ok"),
    "limited": Wording(
        "Connected with limits", "The account that agreed has a lesser role.", "partner",
        "Reconnect with an account that is an admin agent.", "attention",
    ),
    "needs_consent": Wording(
        "Sign-in needed", "Microsoft no longer accepts the earlier sign-in. Nothing is lost; work is parked.",
        "partner",        "Reconnect: sign in once more with the service account.", "stopped",
    ),
    "mfa_missing": Wording(
        "MFA missing", "Microsoft asks for multi-factor authentication, and the earlier sign-in did not carry it.",
        "partner", "Reconnect and complete MFA while signing in.", "stopped",
    ),
    "blocked": Wording(
        "Blocked by your policy", "A sign-in policy of your tenant blocks this connection.", "partner",
        "Ask your administrator to exempt the service account, then reconnect.", "stopped",
    ),
    "suspended": Wording(
        "Suspended", "The vendor has paused all work for this partner.", "support", "Support lifts the suspension.",
        "stopped",
    ),
    "killed": Wording(
        "Stopped for security", "All calls are stopped and the stored secret is being disabled.", "security",
        "Security decides when work may resume.", "stopped",
    ),
    "withdrawn": Wording(
        "Access withdrawn", "The partner ended the vendor's access.", "partner", "Reconnect to give access again.",
        "stopped",
    ),
    "lapsed": Wording(
        "Access period over", "The period of access you granted has ended.", "partner",
        "Reconnect to grant a new period.", "stopped",
    ),
    "offboarded": Wording("Left", "This partner has left.", "nobody", "Nothing to do.", "stopped"),
}  # fmt: skip
RECONNECTABLE = frozenset({"invited", "needs_consent", "mfa_missing", "blocked", "withdrawn", "lapsed", "limited"})


@dataclass(frozen=True)
class Standing:
    """A state with everything a page or a command says about it."""

    state: str
    since: dt.datetime
    code: str = ""
    limits: str = ""  # a lesser role, in words; only ever in the state "limited"
    missing_scopes: tuple[str, ...] = ()  # names of permissions that were not granted, or were taken back

    @property
    def wording(self) -> Wording:
        if self.state == "limited":
            return _limited(self.limits, self.missing_scopes, self.code)
        return _refused(self.state, self.code) if self.state in REFUSALS else WORDINGS[self.state]

    @property
    def title(self) -> str:
        return self.wording.title

    @property
    def reason(self) -> str:
        return self.wording.reason

    @property
    def owner(self) -> str:
        return self.wording.owner

    @property
    def action(self) -> str:
        return self.wording.action

    @property
    def tone(self) -> str:
        return self.wording.tone

    @property
    def is_live(self) -> bool:
        return self.state in {"active", "limited"}

    @property
    def can_reconnect(self) -> bool:
        return self.state in RECONNECTABLE and self.owner == "partner"


def _limited(limits: str, missing_scopes: Sequence[str], code: str = "") -> Wording:
    """What is less than it could be, and what would help; a role the vendor asked for and no more needs no help."""
    words, reasons, helps = WORDINGS["limited"], [], []
    if limits:
        reasons.append(f"The account that agreed has a lesser role: {limits}.")
        if "admin_agent" in settings.CPV_CONSENT_ROLES:
            helps.append("Reconnect with an account that is an admin agent.")
    if missing_scopes:
        reasons.append(f"Microsoft granted less than was asked for. Missing: {', '.join(missing_scopes)}.")
        why = MEANINGS.get(_number(code))
        if why and why.kind is not Kind.CONSENT:
            reasons.append(why.summary)
            helps.append(_help(why))
        helps.append("Agree again, and accept all the permissions shown.")
    if not helps:
        action = "Nothing to do: the vendor asks for this role."
        return replace(words, reason=" ".join(reasons), owner="nobody", action=action)
    return replace(words, reason=" ".join(reasons), action=" ".join(helps))


def _refused(state: str, code: str) -> Wording:
    """What Microsoft's number adds to the state: why, and for a policy what exactly helps."""
    words = WORDINGS[state]
    if code == BY_A_STOP:
        return replace(
            words,
            reason="Work was stopped, and the stored sign-in was disabled for good. Nothing is lost; work is parked.",
        )
    meaning = MEANINGS.get(_number(code))
    if meaning is None:
        return words
    if meaning.kind is Kind.TENANT:
        return replace(
            words, title="Tenant not found", reason=f"{meaning.summary} Work is parked.", owner="support",
            action=meaning.advice,
        )  # fmt: skip
    words = replace(words, reason=f"{words.reason} {meaning.summary}")
    return replace(words, action=f"{_help(meaning)} Then reconnect.") if state == "blocked" else words


def _number(code: str) -> int:
    return int(code.removeprefix("AADSTS")) if code.startswith("AADSTS") else 0


def _help(meaning: Meaning) -> str:
    """What exactly helps against a refusal."""
    if meaning.code in BY_LOCATION and settings.CPV_EGRESS_ADDRESSES:
        ours = ", ".join(settings.CPV_EGRESS_ADDRESSES)
        return f"Ask your administrator to allow sign-ins from our addresses ({ours})."
    return meaning.advice


def standing(partner: Partner, token: RefreshToken | None) -> Standing:
    """The state of a partner, given its current refresh token's row; the hardest stop wins. No query."""
    stops = (
        ("offboarded", partner.offboarded_at),
        ("killed", partner.killed_at),
        ("suspended", partner.suspended_at),
        ("withdrawn", partner.withdrawn_at),
    )
    for state, at in stops:
        if at:
            return Standing(state, at)
    if token is None or token.stored_at is None:
        return Standing("invited", partner.created_at)
    if token.refused_at:
        missing = tuple(token.missing_scopes)
        return Standing(token.refusal, token.refused_at, token.refusal_code, missing_scopes=missing)
    if partner.lapses_at and partner.lapses_at <= timezone.now():
        return Standing("lapsed", partner.lapses_at)
    if token.limits or token.missing_scopes:
        missing = tuple(token.missing_scopes)
        return Standing("limited", token.reserved_at, token.refusal_code, limits=token.limits, missing_scopes=missing)
    return Standing("active", token.reserved_at)


def with_tokens(partners: QuerySet[Partner]) -> QuerySet[Partner]:
    """The partners with their current refresh token (and its consent) fetched along, in one more query for all."""
    current = RefreshToken.objects.current().select_related("consent")
    return partners.prefetch_related(Prefetch("refresh_tokens", queryset=current, to_attr="current_tokens"))


def current_token(partner: Partner) -> RefreshToken | None:
    """The partner's refresh token in force; free for partners that came through `with_tokens`."""
    fetched: Iterable[RefreshToken] | None = getattr(partner, "current_tokens", None)
    if fetched is not None:
        return next(iter(fetched), None)
    return RefreshToken.objects.current().select_related("consent", "partner").filter(partner=partner).first()
