"""
Claims challenges: an API that wants more in the access token than it carries says so in its 401.

https://learn.microsoft.com/entra/identity-platform/claims-challenge
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping

import requests

from tokens.errors import Permanent

LONGEST = 8192  # characters of a header; a longer one is no challenge of Microsoft's
_PARAMETER = re.compile(r'(?:\b([A-Za-z]+) +)?\b([a-z_]+) *= *"([^"]*)"')


class ChallengedAgain(Permanent):
    """The API asks for further proof right after it got what it had asked for; the partner's administrator acts."""


def claims_in(headers: Mapping[str, str]) -> str:
    """
    The claims that a 401's `WWW-Authenticate` asks for, as the JSON text a token request takes; "" when there are none.

    Of several challenges the Bearer one counts. What is no JSON object is no challenge.
    """
    asked: dict[str, str] = {}
    is_bearer = False
    for scheme, name, value in _PARAMETER.findall(headers.get("WWW-Authenticate", "")[:LONGEST]):
        is_bearer = scheme.casefold() == "bearer" if scheme else is_bearer
        if is_bearer:
            asked.setdefault(name, value)
    return _decoded(asked.get("claims", "")) if asked.get("error") == "insufficient_claims" else ""


def _decoded(text: str) -> str:
    """Base64 of either alphabet, padded or not; Microsoft sends both."""
    try:
        raw = base64.b64decode(text.rstrip("=").translate(_TO_STANDARD) + "==", validate=False).decode()
        return raw if isinstance(json.loads(raw), dict) else ""
    except (binascii.Error, ValueError, RecursionError):
        return ""


_TO_STANDARD = str.maketrans("-_", "+/")


def answer_once(response: requests.Response, *, send_again: Callable[[str], requests.Response]) -> requests.Response:
    """
    The answer as it is, or where it is a challenge the answer to the same request with the claims in its token.

    `send_again` gets the claims, has a token made with them and sends.

    :raises ChallengedAgain: the second answer is a challenge too; nothing is sent a third time
    """
    claims = claims_in(response.headers) if response.status_code == 401 else ""
    if not claims:
        return response
    second = send_again(claims)
    if second.status_code == 401 and claims_in(second.headers):
        raise ChallengedAgain(
            "Microsoft asks for further proof from this sign-in, and asks again when it is given. The partner's"
            " administrator must exempt this application or its service user from the policy that asks.",
            code="claims-challenge",
        )
    return second
