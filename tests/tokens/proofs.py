"""Certificates of our application, and what Microsoft knows of them."""

from __future__ import annotations

from typing import Any

from sandbox import demo
from sandbox.directory import read_certificates
from tests.pem import Pair, pair
from tokens import broker, outside
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.models import RefreshToken, TokenUse

FIRST, NEXT = pair("first", days=300), pair("next", days=400)
WHERE = "/v1/profiles/organization"


def pem(one: Pair) -> str:
    return one.key + one.certificate


def configure(settings: Any, **changes: Any) -> None:
    """Our application proves itself with these; what this process remembers is forgotten, as with a restart."""
    ours = {"certificate": "", "next_certificate": "", "federated": False, "secret": ""} | changes
    settings.CPV_APPS = {**settings.CPV_APPS, "global": settings.CPV_APPS["global"] | ours}
    outside.forget()
    broker.forget()


def accept(world: Any, *pairs: Pair) -> None:
    """Microsoft knows these certificates of ours and no other, and no secret."""
    app = world.apps[demo.APP_ID]
    app.certificates, app.secrets = read_certificates(one.certificate for one in pairs), set()


def ask() -> None:
    broker.forget()
    token = RefreshToken.objects.select_related("partner").get()
    broker.session(token, Audience.PARTNER_CENTER, purpose="token.explain", actor=SYSTEM).get(WHERE)


def used() -> str:
    return outside.entra("global").credential.proof.kind


def lines() -> list[tuple[str, str]]:
    found = TokenUse.objects.filter(purpose="token.explain").order_by("pk")
    return list(found.values_list("outcome", "code"))


def requests_seen(world: Any) -> int:
    return sum(call.client == demo.APP_ID and call.path.endswith("/token") for call in world.calls)
