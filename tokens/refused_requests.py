"""Token requests that never leave, whoever makes them: the door to the network asks here before every send."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qs

from tokens.clouds import RETIRED_APPLICATION, RETIRED_HOSTS, Cloud
from tokens.errors import Permanent

# What a person agreed to, spent with our own proof. A password, a device's code or somebody else's assertion never is.
GRANTS_OF_PEOPLE = frozenset({"authorization_code", "refresh_token"})
APP_ONLY = "client_credentials"
RETIRED = (
    "Azure AD Graph (graph.windows.net, application 00000002-0000-0000-c000-000000000000) is retired; ask for Microsoft"
    " Graph and its permissions instead."
)

# Whole names: in China the retired one is the end of Microsoft Graph's own, microsoftgraph.chinacloudapi.cn.
_RETIRED_HOST = re.compile(rf"(?<![a-z0-9-])({'|'.join(map(re.escape, RETIRED_HOSTS))})(?![a-z0-9-])")


class AppOnlyRefused(Permanent):
    """The application alone may open Key Vault and nothing else; nothing was sent."""


class GrantRefused(Permanent):
    """Tokens are had from a person's consent only, in a request we can read; nothing was sent."""


class RetiredRefused(Permanent):
    """
    Azure AD Graph is asked for; nothing was sent.

    https://learn.microsoft.com/graph/migrate-azure-ad-graph-overview
    """


def check_token_request(cloud: Cloud, body: str | bytes | None) -> None:
    """
    Look at what is posted to the cloud's login host; a body that names no grant is no token request, and passes.

    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow

    :raises RetiredRefused: for Azure AD Graph
    :raises AppOnlyRefused: without a person, for anything but the cloud's Key Vault
    :raises GrantRefused: of another kind than ours, or in a form that cannot be read
    """
    if not body:
        return
    if not isinstance(body, str | bytes):
        raise GrantRefused("A token request is sent as one text.", code="grant")
    text = body if isinstance(body, str) else body.decode("latin-1")
    form = parse_qs(text, keep_blank_values=True)
    asked = [word for name in ("scope", "resource") for value in form.get(name, ()) for word in value.split()]
    refuse_retired(asked)
    grants = {grant.casefold() for grant in form.get("grant_type", ())}
    if APP_ONLY in grants and (grants != {APP_ONLY} or set(asked) != {f"https://{cloud.vault_suffix}/.default"}):
        raise AppOnlyRefused(
            "The application alone asks for Key Vault only; for everything else a partner's consent is used.",
            code="app-only",
        )
    if not grants <= GRANTS_OF_PEOPLE | {APP_ONLY}:
        raise GrantRefused("Tokens are had from codes and refresh tokens only.", code="grant")


def refuse_retired(scopes: Iterable[str]) -> None:
    """:raises RetiredRefused: one of the scopes or resources is Azure AD Graph's, by address or by application id"""
    for scope in scopes:
        named = scope.casefold()
        if RETIRED_APPLICATION in named or _RETIRED_HOST.search(named):
            raise RetiredRefused(RETIRED, code="retired")
