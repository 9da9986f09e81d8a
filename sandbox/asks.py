"""One request on its way through the stand-in, and the answers every service gives alike."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import Any

from werkzeug import Request, Response

from sandbox import jose
from sandbox.calls import Call
from sandbox.clouds import Place
from sandbox.faults import Fault
from sandbox.world import World

KNOWN_TOKENS = 4096  # tokens that are remembered as looked at


class Answer(Exception):
    """Ends a request with this response, from however deep inside."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


@dataclass
class Ask:
    """A request, where it was sent, the note taken of it, and what shall go wrong with it."""

    world: World
    request: Request
    place: Place
    call: Call
    fault: Fault | None = None
    claims: jose.Claims = field(default_factory=dict)

    @property
    def bearer(self) -> str | None:
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def has_fault(self, kind: str) -> bool:
        return self.fault is not None and self.fault.kind == kind


def reply(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(json.dumps(body), status, headers, content_type="application/json; charset=utf-8")


def verified(ask: Ask, token: str) -> jose.Claims:
    """
    The claims of an access token of ours, from whichever cloud, not yet or no longer valid ones refused.

    :raises jose.Invalid: not signed by us, or not its time
    """
    claims = ask.world.verified.get(token) or _proven(ask.world, token)
    if not claims.get("nbf", 0) - 300 <= ask.world.now() < claims.get("exp", 0):
        raise jose.Invalid("expired")
    return claims


def _proven(world: World, token: str) -> jose.Claims:
    """The signature of a token is looked at once; it does not get worse."""
    header, _ = jose.peek(token)
    for cloud in {tenant.cloud.name for tenant in world.tenants.values()}:
        key = world.key(cloud)
        if jose.key_id(key) == header.get("kid"):
            claims = jose.verify(token, key.public_key())
            if len(world.verified) >= KNOWN_TOKENS:
                world.verified.clear()
            world.verified[token] = claims
            return claims
    raise jose.Invalid("unknown key")


@functools.lru_cache(KNOWN_TOKENS)
def peeked(token: str | None) -> dict[str, Any]:
    """What a token says about itself, for the notes only."""
    try:
        return jose.peek(token)[1] if token else {}
    except jose.Invalid:
        return {}
