"""Claims challenges; Microsoft's page "Claims challenges, claims requests and client capabilities"."""

from __future__ import annotations

import base64
import json

from werkzeug import Response

from sandbox.asks import Ask, peeked, reply

FAULTS = frozenset({"claims", "claims-again"})
CONTEXT = "c1"
CLAIMS = json.dumps({"access_token": {"acrs": {"essential": True, "value": CONTEXT}}})


def challenged(ask: Ask, *, again: bool) -> Response | None:
    """The 401 of an API that wants an authentication context; none where the token has it, unless `again`."""
    if not again and CONTEXT in peeked(ask.bearer).get("acrs", []):
        return None
    claims = base64.b64encode(CLAIMS.encode()).decode()
    authority = f"https://{ask.place.cloud.login}/common/oauth2/authorize"
    challenge = (
        f'Bearer realm="", authorization_uri="{authority}", error="insufficient_claims", claims="{claims}", '
        'error_description="The presented access tokens are insufficient"'
    )
    error = {"code": "InvalidAuthenticationToken", "message": "Continuous access evaluation resulted in challenge."}
    return reply({"error": error}, 401, {"WWW-Authenticate": challenge})


def contexts_asked(ask: Ask, kind: str = "access_token") -> tuple[str, ...]:
    """The authentication contexts that a request asks for in `claims`, for one kind of token."""
    text = ask.request.values.get("claims", "")
    if not text:
        return ()
    ask.call.detail["claims"] = text
    asked = json.loads(text).get(kind, {}).get("acrs", {})
    return tuple(asked.get("values", [asked["value"]] if "value" in asked else []))
