"""Every way a consent or a sign-in can be refused, and how an answer or a failure leads there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from consent.refusal_words import REASONS, Reason
from tokens import aadsts
from tokens.challenges import ChallengedAgain
from tokens.entra import AnswerMismatch, BadIdToken
from tokens.entra import Refused as EntraRefused
from tokens.errors import Failure, Transient
from tokens.gate import Stopped

WAY_ON = {
    "consent": "",
    "signin": "/signin",
    "admin": "",
    "staff": "/admin/login/",
}  # by kind of attempt, where no invitation leads on


@dataclass
class Refused(Exception):
    """A consent or sign-in that ends here; nothing was stored. `missing` names scopes, `reference` a code to quote."""

    reason: str
    reference: str = ""
    missing: Sequence[str] = field(default_factory=tuple)
    retry_path: str = ""

    def __post_init__(self) -> None:
        super().__init__(self.reason)

    @property
    def words(self) -> Reason:
        return REASONS[self.reason]


BY_CODE = {
    65004: "declined",
    90094: "admin_approval",
    90095: "admin_approval",
    650052: "no_service_principal",
    500011: "no_service_principal",
    650054: "no_service_principal",
    65001: "missing_scope",
    **dict.fromkeys((aadsts.ANOTHER_CLOUD, 900382, 900432, 90043), "another_cloud"),
}
BY_KIND = {
    "partner_admin": "blocked",
    "app_credential": "our_fault",
    "config": "our_fault",
    "tenant": "unknown_tenant",
    "retry": "microsoft_down",
    "mfa": "no_mfa",
}


def of_answer(error: str, description: str) -> Refused:
    """What Microsoft's redirect with an error means; both texts are a stranger's and are only searched for numbers."""
    codes = aadsts.codes_in(description)
    reference = f"AADSTS{codes[0]}" if codes else ""
    known = [BY_CODE[code] for code in codes if code in BY_CODE]
    if known:
        return Refused(known[0], reference)
    if not codes:
        return Refused("declined" if error == "access_denied" else "microsoft_refused")
    return Refused(BY_KIND.get(aadsts.classify(codes, error, "", 400).kind, "microsoft_refused"), reference)


def of_failure(failure: Failure) -> Refused:
    """What a failed call to Microsoft or the vault means for the visitor."""
    if isinstance(failure, Transient):
        return Refused("vault_down" if failure.code.startswith("vault") else "microsoft_down", failure.code)
    if isinstance(failure, Stopped):
        return Refused("stopped")
    if isinstance(failure, BadIdToken):
        return Refused("personal" if failure.reason == "personal" else "unverified", f"id_token: {failure.reason}")
    if isinstance(failure, ChallengedAgain):
        return Refused("blocked", failure.code)
    if isinstance(failure, AnswerMismatch):
        return Refused("unverified", failure.code)
    if isinstance(failure, EntraRefused):
        kind = BY_KIND.get(failure.meaning.kind, "microsoft_refused")
        return Refused(BY_CODE.get(failure.meaning.code, kind), failure.code)
    return Refused("vault_down" if failure.code.startswith("vault") else "our_fault", failure.code)
