"""What shows that somebody signed in with MFA: an authentication context, or else `amr`, wherever Microsoft puts it."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from consent.refusals import Refused
from tokens.entra import Identity, authentication_methods
from tokens.secret import Secret

# What stays as it is when we asked in silence how somebody had signed in; any other no leaves that unknown.
FINAL = {
    "another_person", "microsoft_down", "mfa_unknown", "no_mfa_at_sign_in", "not_a_member", "our_fault", "stopped",
    "unverified",
}  # fmt: skip


def claims(context: str) -> str:
    """
    The `claims` of the authorization request; empty where no authentication context is configured.

    https://learn.microsoft.com/entra/identity-platform/developer-guide-conditional-access-authentication-context
    """
    return json.dumps({"id_token": {"acrs": {"essential": True, "value": context}}}) if context else ""


def in_id_token(identity: Identity, context: str) -> dict[str, Any] | None:
    """
    What the id_token shows; None when it says nothing of it, and something else has to.

    :raises Refused: it shows that there was none, or lacks the context that is configured
    """
    if context and context not in identity.contexts:
        raise Refused("no_context")
    if context:
        return {"source": f"authentication context {context}"}
    return None if identity.methods is None else _of(identity.methods, "amr of the id_token")


def in_access_token(access_token: Secret, *, of: Identity) -> dict[str, Any]:
    """
    What a Partner Center token of the same person shows.

    :raises Refused: no MFA, or the token does not say
    """
    methods = authentication_methods(access_token, of=of)
    if methods is None:
        raise Refused("mfa_unknown")
    return _of(methods, "amr of a Partner Center token")


def _of(methods: Collection[str], source: str) -> dict[str, Any]:
    if "mfa" not in methods:
        raise Refused("no_mfa_at_sign_in", "no mfa in amr")
    return {"source": source, "amr": sorted(methods)}
