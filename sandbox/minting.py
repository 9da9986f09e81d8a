"""Making tokens; claims from Microsoft's pages "ID token claims reference" and "Access token claims reference"."""

from __future__ import annotations

import secrets
import uuid

from sandbox import jose
from sandbox.clouds import MSA_TENANT, Cloud
from sandbox.directory import Account, App, guid
from sandbox.ledger import Code, Session
from sandbox.scopes import of_resource
from sandbox.world import World


def v2_issuer(cloud: Cloud, tenant_id: str) -> str:
    return f"https://{cloud.login}/{tenant_id}/v2.0"


def client_info(account: Account) -> str:
    """The `client_info` of a token answer, from which MSAL makes its account id."""
    return jose.b64(f'{{"uid":"{account.oid}","utid":"{account.tenant_id}"}}'.encode())


APP_TOKEN_SECONDS = 3599  # an application's own tokens live an hour, whatever those of people do


def _times(world: World, seconds: float) -> jose.Claims:
    now = int(world.now())
    return {"iat": now, "nbf": now, "exp": now + int(seconds)}


def methods(session: Session) -> list[str]:
    return ["pwd", "mfa"] if session.mfa else ["pwd"]


def about_sign_in(world: World, code: Code) -> jose.Claims:
    """What the id_token of a code says about how somebody signed in: in v2 only what was asked for."""
    said: jose.Claims = {"acrs": list(code.contexts)} if code.contexts else {}
    if code.tells_when:
        said["auth_time"] = int(code.session.authenticated_at)
    return said | ({"amr": methods(code.session)} if world.amr_in_id_tokens else {})


def _pairwise(app: App, account: Account) -> str:
    """`sub` is different for each application."""
    return jose.b64(uuid.UUID(guid(app.app_id, account.oid)).bytes * 2)


def access_token(
    world: World,
    cloud: Cloud,
    app: App,
    account: Account,
    session: Session,
    resource: str,
    scopes: set[str],
    tid: str,
    contexts: tuple[str, ...] = (),
) -> str:
    """
    A delegated access token in v1 format, which is what Partner Center and Graph take; `amr` tells of MFA.

    `contexts` are the authentication contexts it was asked for.
    """
    claims = {
        "aud": resource,
        "iss": f"https://{cloud.sts}/{tid}/",
        **_times(world, world.access_token_seconds),
        "acr": "1",
        **({"acrs": list(contexts)} if contexts else {}),
        **({"amr": methods(session)} if world.amr_in_access_tokens else {}),
        "appid": app.app_id,
        "appidacr": "1",
        "ipaddr": "192.0.2.1",
        "name": account.name,
        "oid": account.oid,
        "scp": " ".join(of_resource(scopes, resource)),
        "sid": session.sid,
        "sub": _pairwise(app, account),
        "tid": tid,
        "unique_name": account.upn,
        "upn": account.upn,
        "uti": secrets.token_urlsafe(16),
        "ver": "1.0",
    }
    return _handed_out(world, "access_token", jose.sign(claims, world.key(cloud.name)))


def app_token(world: World, cloud: Cloud, app: App, resource: str, tid: str) -> str:
    """An app-only token; it has neither user nor scopes."""
    claims = {
        "aud": resource,
        "iss": f"https://{cloud.sts}/{tid}/",
        **_times(world, APP_TOKEN_SECONDS),
        "appid": app.app_id,
        "appidacr": "1",
        "idtyp": "app",
        "oid": guid(tid, "principal", app.app_id),
        "sub": guid(tid, "principal", app.app_id),
        "tid": tid,
        "uti": secrets.token_urlsafe(16),
        "ver": "1.0",
    }
    return _handed_out(world, "access_token", jose.sign(claims, world.key(cloud.name)))


def _handed_out(world: World, kind: str, token: str) -> str:
    world.remember(kind, token)
    return token


def id_token(
    world: World, cloud: Cloud, app: App, account: Account, nonce: str | None, tid: str, extra: jose.Claims
) -> str:
    """A v2 id_token with what was asked for besides; broken in the way `world.id_token_fault` says."""
    claims = {
        "aud": app.app_id,
        "iss": v2_issuer(cloud, tid),
        **_times(world, 3600),
        "name": account.name,
        "oid": account.oid,
        "preferred_username": account.upn,
        "rh": "1." + jose.b64(secrets.token_bytes(24)) + ".",
        "sub": _pairwise(app, account),
        "tid": tid,
        "uti": secrets.token_urlsafe(16),
        "ver": "2.0",
        **extra,
    }
    if nonce:
        claims["nonce"] = nonce
    if account.app_roles:
        claims["roles"] = sorted(account.app_roles)
    if account.guest:
        claims |= {"acct": 1, "idp": f"https://{cloud.sts}/{guid('elsewhere', account.upn)}/"}
    return _handed_out(world, "id_token", _signed(world, cloud, claims))


def _other_claims(world: World, cloud: Cloud, fault: str, claims: jose.Claims) -> jose.Claims:
    """The claims as one fault has them; the signature is good all the same."""
    now = int(world.now())
    other = guid("somebody else's tenant")
    changes: dict[str, jose.Claims] = {
        "wrong_issuer": {"iss": f"https://login.evil.test/{claims['tid']}/v2.0"},
        "wrong_audience": {"aud": guid("somebody else's app")},
        "wrong_nonce": {"nonce": "0" * 64},
        "wrong_oid": {"oid": guid("somebody else")},
        "wrong_tenant": {"tid": other, "iss": v2_issuer(cloud, other)},
        "expired": {"iat": now - 7200, "nbf": now - 7200, "exp": now - 3600},
        "not_yet_valid": {"iat": now, "nbf": now + 3600, "exp": now + 7200},
        "personal": {"tid": MSA_TENANT, "iss": v2_issuer(cloud, MSA_TENANT)},
    }
    dropped = {"missing_oid": "oid", "missing_tid": "tid"}.get(fault)
    return {name: value for name, value in (claims | changes.get(fault, {})).items() if name != dropped}


def _signed(world: World, cloud: Cloud, claims: jose.Claims) -> str:
    key = world.key(cloud.name)
    fault = world.id_token_fault or ""
    claims = _other_claims(world, cloud, fault, claims)
    if fault == "unsigned":
        return jose.unsigned(claims)
    if fault == "hs256":
        return jose.sign_hs256(claims, key)
    if fault == "unknown_key":
        return jose.sign(claims, jose.new_key("forger"))
    if fault == "forged_key":
        return jose.sign(claims, jose.new_key("forger"), kid=jose.key_id(key))
    return jose.sign(claims, key)
