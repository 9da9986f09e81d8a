"""Key Vault's secrets, as far as the product may use them; Microsoft's REST reference "Key Vault secrets"."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from werkzeug import Response

from sandbox import jose
from sandbox.asks import Answer, Ask, reply, verified
from sandbox.vaultstore import Vault, Version

MAX_VALUE = 25_600  # bytes; Microsoft's page "About Azure Key Vault secrets": 25 KB
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
RIGHTS = {"PUT": "set", "GET": "get", "PATCH": "update"}


def serve(ask: Ask) -> Response:
    """Answer a request to a vault's host."""
    if not ask.request.args.get("api-version"):
        return _error(400, "BadParameter", "The api-version query parameter is required.")
    vault = ask.world.vault(ask.place.host)
    _authorize(ask, vault)
    parts = ask.request.path.strip("/").split("/")
    if parts[0] != "secrets" or len(parts) > 3:
        return _forbidden(ask, "resource")
    if len(parts) == 1 or parts[2:] == ["versions"] or ask.request.method not in RIGHTS:
        return _forbidden(ask, "list or delete")  # nobody has these rights here, whatever the identity
    name, version = parts[1], parts[2] if len(parts) == 3 else ""
    _check(ask, name)
    return {"PUT": _put, "GET": _get, "PATCH": _patch}[ask.request.method](ask, vault, name, version)


def _error(status: int, code: str, message: str, inner: str | None = None) -> Response:
    body: dict[str, Any] = {"code": code, "message": message}
    if inner:
        body["innererror"] = {"code": inner}
    return reply({"error": body}, status)


def _forbidden(ask: Ask, action: str) -> Response:
    message = f"Caller is not authorized to perform action on resource: {action}. Caller: appid={ask.call.client}"
    return _error(403, "Forbidden", message, "ForbiddenByRbac")


def _authorize(ask: Ask, vault: Vault) -> None:
    """
    Refuse with a challenge whoever has no token for this vault.

    :raises Answer: 401 in the form that the Azure SDK understands
    """
    if ask.world.vaults_answer_anybody:
        return
    cloud = ask.place.cloud
    try:
        claims = verified(ask, ask.bearer or "")
        if claims.get("aud") != cloud.resource("vault") or claims.get("tid") != vault.tenant_id:
            raise jose.Invalid("audience or tenant")
        ask.claims = claims
    except jose.Invalid as error:
        authority = f"https://{cloud.login}/{vault.tenant_id}"
        challenge = f'Bearer authorization="{authority}", resource="{cloud.resource("vault")}"'
        missing = _error(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
        bad = _error(401, "Unauthorized", "AKV10022: Invalid token.")
        response = bad if ask.bearer else missing
        response.headers["WWW-Authenticate"] = challenge
        raise Answer(response) from error


def _check(ask: Ask, name: str) -> None:
    """:raises Answer: 403 without the right for this method, 400 for an impossible name"""
    app = ask.world.apps.get(str(ask.claims.get("appid")))
    right = RIGHTS[ask.request.method]
    if not ask.world.vaults_answer_anybody and (app is None or right not in app.vault_rights):
        raise Answer(_forbidden(ask, f"Microsoft.KeyVault/vaults/secrets/{right}"))
    if not _NAME.fullmatch(name):
        raise Answer(_error(400, "BadParameter", "The request URI contains an invalid name."))


def _body(ask: Ask) -> dict[str, Any]:
    body = ask.request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise Answer(_error(400, "BadParameter", "The request body is not a JSON object."))
    return body


def _bundle(vault: Vault, name: str, version: Version, *, with_value: bool = True) -> Response:
    body: dict[str, Any] = {"value": version.value} if with_value else {}
    body |= {"id": f"https://{vault.host}/secrets/{name}/{version.version}", "attributes": version.attributes}
    if version.content_type:
        body["contentType"] = version.content_type
    if version.tags:
        body["tags"] = version.tags
    return reply(body)


def _put(ask: Ask, vault: Vault, name: str, version: str) -> Response:
    body = _body(ask)
    value = body.get("value")
    if version or not isinstance(value, str):
        return _error(400, "BadParameter", "Property value is required.")
    if len(value.encode()) > MAX_VALUE:
        return _error(400, "BadParameter", f"Secret value is longer than {MAX_VALUE} bytes.")
    if len(body.get("tags") or {}) > 15:
        return _error(400, "BadParameter", "A secret has at most 15 tags.")
    made = vault.put(name, value, body.get("tags") or {}, body.get("contentType"))
    if body.get("attributes"):
        vault.change(name, made, body["attributes"], {})
    return _bundle(vault, name, made)


def _found(vault: Vault, name: str, version: str) -> Version:
    found = vault.find(name, version)
    if found is None:
        message = f"A secret with (name/id) {name}{'/' + version if version else ''} was not found in this key vault."
        raise Answer(_error(404, "SecretNotFound", message))
    return found


def _disabled() -> Response:
    return _error(403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled")


def _get(ask: Ask, vault: Vault, name: str, version: str) -> Response:
    """The newest version when none is named, never an older one in its stead."""
    found = _found(vault, name, version)
    if not found.enabled:
        return _disabled()
    return _bundle(vault, name, found)


def _patch(ask: Ask, vault: Vault, name: str, version: str) -> Response:
    body = _body(ask)
    found = _found(vault, name, version)
    vault.change(name, found, body.get("attributes") or {}, body)
    return _bundle(vault, name, found, with_value=False)


# faults in the vault's own shape


def _throttled(ask: Ask, retry_after: int) -> Response:
    """Microsoft's page "Azure Key Vault throttling guidance"; the body's words are from public reports."""
    why = "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"
    response = _error(429, "Throttled", why)
    response.headers["Retry-After"] = str(retry_after)
    return response


FAULTS: dict[str, Callable[[Ask, int], Response]] = {
    "throttled": _throttled,
    "forbidden": lambda ask, retry_after: _forbidden(ask, "by whoever pretends"),
    "disabled": lambda ask, retry_after: _disabled(),
}
