"""Entra's refusals as exceptions, each named for whoever acts."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from tokens import aadsts
from tokens.aadsts import Kind, Meaning
from tokens.clouds import CLOUDS
from tokens.errors import Failure, Permanent, Transient

LONGEST_CLAIMS = 4096  # characters


class EntraUnavailable(Transient):
    """Entra did not answer, answered with nothing usable, or asks to wait."""


class WrongHolder(Permanent):
    """Entra answered for another tenant or account than the row says; nothing of that answer is used."""


class AnswerMismatch(Permanent):
    """What the browser brought back does not belong to this attempt: start again."""


class Refused(Permanent):
    """
    Entra said no; `meaning` says in plain words what that is and who acts.

    `claims` goes unchanged into the next `Entra.begin`; trace and correlation id are for Microsoft's support.
    """

    def __init__(
        self,
        message: str,
        *,
        meaning: Meaning,
        code: str = "",
        claims: str = "",
        suberror: str = "",
        trace_id: str = "",
        correlation_id: str = "",
    ) -> None:
        super().__init__(message, code=code, correlation_id=correlation_id)
        self.meaning, self.claims, self.suberror, self.trace_id = meaning, claims, suberror, trace_id


class ConsentRequired(Refused):
    """The partner must sign in, pass a second factor, or agree again."""


class BlockedByPartner(Refused):
    """A policy or switch in the tenant refuses us; its administrator acts, signing in again does not help."""


class NoSuchTenant(Refused):
    """The tenant is not where we ask: deleted, mistyped, or of another cloud. It concerns no other tenant."""


class OurFault(Refused):
    """Our credential, registration or address is wrong: an alarm, and no partner is to blame."""


def is_about_credential(failure: Failure) -> bool:
    """Whether Entra refused what our application proved itself with; nothing was spent then."""
    return isinstance(failure, OurFault) and failure.meaning.kind is Kind.APP_CREDENTIAL


_LEAVES: dict[Kind, type[Refused]] = {
    Kind.REAUTH: ConsentRequired,
    Kind.MFA: ConsentRequired,
    Kind.CONSENT: ConsentRequired,
    Kind.PARTNER_ADMIN: BlockedByPartner,
    Kind.TENANT: NoSuchTenant,
    Kind.APP_CREDENTIAL: OurFault,
    Kind.CONFIG: OurFault,
}


@dataclass
class Seen:
    """What the last answer's envelope said: MSAL passes on the body only."""

    status: int = 0
    retry_after: float | None = None
    correlation_id: str = ""


def answered(response: requests.Response, seen: Seen) -> dict[str, Any]:
    """Return the JSON object of a yes or a no; everything else is a fault of the service, and passes."""
    try:
        body = response.json()
    except ValueError:
        body = None
    answer: dict[str, Any] = body if isinstance(body, dict) else {}
    if seen.status == 429 or seen.status >= 500:
        raise _unavailable(_code(_codes(answer), f"entra-{seen.status}"), seen)
    if not answer or 300 <= seen.status < 400:
        raise unusable(seen)
    return answer


def unusable(seen: Seen) -> EntraUnavailable:
    return EntraUnavailable(
        f"Entra's answer (HTTP {seen.status}) could not be used.",
        code="unusable-answer",
        correlation_id=seen.correlation_id,
        retry_after=seen.retry_after,
    )


def _unavailable(code: str, seen: Seen, wait: int = 0) -> EntraUnavailable:
    pause = max(filter(None, (seen.retry_after, wait)), default=None)
    return EntraUnavailable(
        f"Entra asks to wait: {code}.", code=code, correlation_id=seen.correlation_id, retry_after=pause
    )


def misdirected(what: str, *, own_host: str, host: str = "") -> Refused:
    """An address that is not where it must be; at the login host of another cloud, that is where the tenant lives."""
    if host in {cloud.login_host for cloud in CLOUDS.values()} - {own_host}:
        code = aadsts.ANOTHER_CLOUD
        return NoSuchTenant(f"The {what} is another cloud's.", meaning=aadsts.MEANINGS[code], code=f"AADSTS{code}")
    meaning = aadsts.unknown(Kind.CONFIG)
    return OurFault(f"The {what} is not on the cloud's login host.", meaning=meaning, code="endpoint-host")


def refusal(answer: Mapping[str, Any], seen: Seen) -> Failure:
    """Turn an error answer into the exception for whoever acts; of its text only checked parts are kept."""
    codes = _codes(answer)
    error, suberror = _word(answer.get("error")), _word(answer.get("suberror"))
    meaning = aadsts.classify(codes, error, suberror, seen.status)
    code = _code([meaning.code] if meaning.code else [], error or "refused")
    if meaning.kind is Kind.RETRY:
        return _unavailable(code, seen, meaning.wait)
    return _LEAVES[meaning.kind](
        f"Entra refused: {code}.",
        meaning=meaning,
        code=code,
        claims=_claims(answer.get("claims")),
        suberror=suberror,
        trace_id=guid(answer.get("trace_id")),
        correlation_id=guid(answer.get("correlation_id")) or seen.correlation_id,
    )


def _codes(answer: Mapping[str, Any]) -> list[int]:
    listed = answer.get("error_codes")
    codes = [code for code in listed if type(code) is int] if isinstance(listed, list) else []
    return codes or aadsts.codes_in(str(answer.get("error_description", "")))


def _code(codes: Sequence[int], otherwise: str) -> str:
    return f"AADSTS{codes[0]}" if codes else otherwise


def _claims(value: object) -> str:
    """A JSON object as text, as it goes into the next sign-in's address; nothing else, and nothing endless."""
    try:
        said = json.loads(value) if isinstance(value, str) and len(value) <= LONGEST_CLAIMS else None
    except (ValueError, RecursionError):
        said = None
    return str(value) if isinstance(said, dict) else ""


def _word(value: object) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[a-z_]{1,40}", value) else ""


def guid(value: object) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[0-9A-Fa-f-]{36}", value) else ""
