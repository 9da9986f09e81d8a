"""The token endpoint; Microsoft's page "Microsoft identity platform and OAuth 2.0 authorization code flow"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from werkzeug import Response

from sandbox import challenges, minting
from sandbox.asks import Ask, reply
from sandbox.clouds import MSA_TENANT
from sandbox.directory import Account, App, Tenant
from sandbox.entraclient import authenticated, challenge_of
from sandbox.entraerrors import EntraError
from sandbox.ledger import CODE_SECONDS, REFRESH_SECONDS, Code, Refresh, Session
from sandbox.scopes import DEFAULT, OIDC, Asked, UnknownPermission, UnknownResource, of_resource, parse

SHARED = ("organizations", "common")
Grant = tuple[Session, Asked, str | None, dict[str, Any]]  # the last: what the id_token says of how it came about


def token(ask: Ask, segment: str, *, v1: bool) -> Response:
    """Answer a token request at `/{segment}/oauth2/v2.0/token`, or at the older address with `resource`."""
    form = ask.request.form
    ask.call.detail |= {"grant_type": form.get("grant_type"), "scope": form.get("scope"), "segment": segment}
    if form.get("resource") and not v1:
        raise EntraError(901002)
    app = authenticated(ask, segment)
    grants: dict[str, Callable[[Ask, App, str], dict[str, Any]]] = {
        "authorization_code": _by_code,
        "refresh_token": _by_refresh_token,
        "client_credentials": _by_client_credentials,
    }
    grant = grants.get(form.get("grant_type", ""))
    if grant is None:
        raise EntraError(70003, form.get("grant_type", ""))
    body = grant(ask, app, segment)
    old = v1 or ask.world.token_shape == "v1"  # noqa: S105 - no password, the shape of an answer
    return reply(
        _as_v1(ask, body) if old else body,
        headers={"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"},
    )


def _as_v1(ask: Ask, body: dict[str, Any]) -> dict[str, Any]:
    """The older endpoint answers with numbers as strings, and names the resource."""
    now = int(ask.world.now())
    resource, bare = _v1_resource(ask), body.get("scope", "").split()
    resource = resource or next((scope.rpartition("/")[0] for scope in bare if "/" in scope), "")
    extra = {"expires_on": str(now + body["expires_in"]), "not_before": str(now), "resource": resource}
    if bare:
        extra["scope"] = " ".join(scope.rpartition("/")[2] for scope in bare)
    return {name: str(value) if isinstance(value, int) else value for name, value in body.items()} | extra


def _v1_resource(ask: Ask) -> str:
    return ask.request.form.get("resource", "").rstrip("/")


def _asked(ask: Ask) -> Asked:
    """The scope of this request; none is fine."""
    text = ask.request.form.get("scope", "")
    if _v1_resource(ask):
        text = f"{_v1_resource(ask)}/{DEFAULT} openid offline_access"
    try:
        return parse(text, ask.place.cloud)
    except UnknownResource as error:
        raise EntraError(500011, str(error), ask.call.tenant or "") from error
    except UnknownPermission as error:
        raise EntraError(70011, str(error)) from error


# authorization code


def _by_code(ask: Ask, app: App, segment: str) -> dict[str, Any]:
    form = ask.request.form
    for name in ("code", "code_verifier"):
        ask.world.remember(name, form.get(name))
    code = ask.world.ledger.codes.get(form.get("code", ""))
    if code is None or code.session.client_id != app.app_id:
        raise EntraError(9002313 if code is None else 70000)
    ask.call.tenant = code.session.tenant_id
    _check_code(ask, code, segment)
    asked = _asked(ask)
    if not asked.resources:
        asked = Asked(asked.oidc | code.asked.oidc, dict(list(code.asked.resources.items())[:1]))
    asked.oidc = code.asked.oidc
    if not ask.world.ledger.redeem(code):
        raise EntraError(54005)
    about = minting.about_sign_in(ask.world, code)
    return _delegated(ask, app, (code.session, asked, code.nonce, about), segment)


def _check_code(ask: Ask, code: Code, segment: str) -> None:
    form = ask.request.form
    if code.redeemed:
        raise EntraError(54005)
    if ask.world.now() > code.at + CODE_SECONDS:
        raise EntraError(70008)
    if code.segment != segment:
        raise EntraError(700005)
    if code.redirect_uri != form.get("redirect_uri"):
        raise EntraError(500112, form.get("redirect_uri", ""))
    if code.challenge and challenge_of(form.get("code_verifier", "")) != code.challenge:
        raise EntraError(501481)


# refresh token


def _by_refresh_token(ask: Ask, app: App, segment: str) -> dict[str, Any]:
    ledger, given = ask.world.ledger, ask.request.form.get("refresh_token", "")
    ask.world.remember("refresh_token", given)
    refresh = ledger.refreshes.get(given)
    if refresh is None and ask.world.any_refresh_token_works:
        refresh = next((r for r in ledger.refreshes.values() if ledger.sessions[r.sid].tenant_id == segment), None)
    if refresh is None:
        raise EntraError(70000 if given.startswith("1.A") and len(given) > 1000 else 9002313)
    session = ledger.sessions[refresh.sid]
    ask.call.tenant = session.tenant_id
    if session.client_id != app.app_id:
        raise EntraError(70000)
    _check_refresh(ask, refresh, session)
    return _delegated(ask, app, (session, _asked(ask), None, {}), segment, spending=refresh)


def _check_refresh(ask: Ask, refresh: Refresh, session: Session) -> None:
    now = ask.world.now()
    if session.revoked:
        raise EntraError(50173)
    if now > refresh.at + REFRESH_SECONDS:
        raise EntraError(700082)
    if refresh.spent_at is not None:
        ask.call.detail["spent"] = True
    if ask.world.ledger.is_over(refresh, ask.world.grace_of(session.tenant_id)):
        raise _reused(ask, session)


def _spend(ask: Ask, refresh: Refresh, session: Session) -> None:
    if not ask.world.ledger.spend(refresh, ask.world.grace_of(session.tenant_id)):
        raise _reused(ask, session)


def _reused(ask: Ask, session: Session) -> EntraError:
    """Where tokens work once, a spent one that comes again tells of a thief: RFC 9700, section 4.14.2."""
    if ask.world.refresh_mode_of(session.tenant_id) == "strict":
        ask.world.ledger.end(session)
    return EntraError(70000)


# both


def _delegated(ask: Ask, app: App, grant: Grant, segment: str, *, spending: Refresh | None = None) -> dict[str, Any]:
    """The answer for somebody who signed in; `spending` is spent once nothing can be refused any more."""
    session, asked, *_ = grant
    account = ask.world.account_of(session.tenant_id, session.oid)
    if account is None:
        raise EntraError(50034, session.oid, session.tenant_id)
    if account.disabled:
        raise EntraError(50057)
    tid = _token_tenant(ask, session, segment)
    resource, granted = _granted(ask, app, session, asked, tid)
    if spending:
        _spend(ask, spending, session)
    return _body(ask, app, account, grant, resource, granted, tid) | _refresh_part(ask, session)


def _token_tenant(ask: Ask, session: Session, segment: str) -> str:
    """
    Whose tenant the token is for: the account's own, or a customer's where our app is consented.

    A refresh token works in a customer's tenant too; Microsoft's page "Control panel vendor APIs".
    """
    if segment in (*SHARED, session.tenant_id) or session.tenant_id == MSA_TENANT:
        return session.tenant_id
    if ask.world.allow_foreign_accounts and segment in ask.world.tenants:
        return session.tenant_id
    home = ask.world.tenants[session.tenant_id]
    if home.customers.find(segment) is None:
        raise EntraError(50020, session.oid, segment)
    ask.call.detail["customer"] = segment
    if segment not in home.application_consents:
        raise EntraError(65001, session.client_id, ask.world.apps[session.client_id].name)
    return segment


def _granted(ask: Ask, app: App, session: Session, asked: Asked, tid: str) -> tuple[str, set[str]]:
    """
    The resource of this request, and all permissions on it that were agreed to.

    :raises EntraError: 28002 for two resources, 65001 for what nobody agreed to, 650052 for a missing service
    """
    if len(asked.resources) > 1:
        raise EntraError(28002, ask.request.form.get("scope", ""))
    if not asked.resources:
        return ask.place.cloud.resource("graph"), set()
    resource, names = next(iter(asked.resources.items()))
    tenant = ask.world.tenants.get(session.tenant_id)
    check_principal(ask, tenant, {resource})
    agreed = ask.world.ledger.consented(session.tenant_id, session.oid, app.app_id)
    wanted = {f"{resource}/{name}".lower() for name in names if name != DEFAULT}
    barred = tenant.unconsented if tenant else set()
    granted = {name for name in agreed if name.rpartition("/")[0] == resource and not barred & _both(name)}
    if not granted or not wanted <= {name.lower() for name in granted}:
        raise EntraError(65001, app.app_id, app.name)
    withheld = _withheld(ask, session)
    return resource, {name for name in granted if not withheld & _both(name)}


def _both(name: str) -> set[str]:
    """A permission as tests may name it: whole, or without its resource."""
    return {name, name.rpartition("/")[2]}


def _withheld(ask: Ask, session: Session) -> set[str]:
    tenant = ask.world.tenants.get(session.tenant_id)
    return tenant.withheld if tenant else set()


def check_principal(ask: Ask, tenant: Tenant | None, resources: set[str]) -> None:
    """:raises EntraError: 650052 when Partner Center is asked for in a tenant that has no such service principal"""
    resource = ask.place.cloud.resource("partnercenter")
    if tenant and not tenant.partner_center_principal and resource in resources:
        raise EntraError(650052, resource, tenant.name)


def _body(
    ask: Ask, app: App, account: Account, grant: Grant, resource: str, granted: set[str], tid: str
) -> dict[str, Any]:
    session, asked, nonce, about = grant
    world, cloud = ask.world, ask.place.cloud
    body: dict[str, Any] = {
        "token_type": "Bearer",
        "scope": _scope_text(ask, asked, resource, granted),
        "expires_in": world.access_token_seconds,
        "ext_expires_in": world.access_token_seconds,
        "access_token": minting.access_token(
            world, cloud, app, account, session, resource, granted, tid, challenges.contexts_asked(ask)
        ),
    }
    if "openid" in asked.oidc and "openid" not in _withheld(ask, session):
        body["id_token"] = minting.id_token(world, cloud, app, account, nonce, tid, about)
    if ask.request.form.get("client_info") == "1":
        body["client_info"] = minting.client_info(account)
    return body


def _scope_text(ask: Ask, asked: Asked, resource: str, granted: set[str]) -> str:
    """Permissions in the form they were asked in; Graph names the OIDC words too, other resources do not."""
    bare = asked.bare or not asked.resources
    names = [name if bare else f"{resource}/{name}" for name in of_resource(granted, resource)]
    if resource == ask.place.cloud.resource("graph"):
        names += sorted((asked.oidc & OIDC) - {"offline_access"})
    return " ".join(names)


def _refresh_part(ask: Ask, session: Session) -> dict[str, str]:
    """A new refresh token, when the sign-in asked for offline_access."""
    if not session.offline or "offline_access" in _withheld(ask, session):
        return {}
    value = ask.world.ledger.new_refresh(session).value
    ask.world.remember("refresh_token", value)
    return {"refresh_token": value}


# client credentials


def _by_client_credentials(ask: Ask, app: App, segment: str) -> dict[str, Any]:
    """App-only tokens: for a vault identity the vault, for the vendor's app what is known; for others nothing."""
    asked = _asked(ask)
    ask.call.tenant = segment
    if len(asked.resources) != 1:
        raise EntraError(28002 if asked.resources else 70011, ask.request.form.get("scope", ""))
    resource, names = next(iter(asked.resources.items()))
    if names != [DEFAULT]:
        raise EntraError(1002012, f"{resource}/{names[0]}")
    if segment in SHARED or app.tenant_id not in (None, segment):
        raise EntraError(700016, app.app_id, segment)
    is_vault = ask.place.cloud.resources()[resource] == "vault"
    if is_vault != bool(app.vault_rights):
        raise EntraError(500011, resource, segment)
    seconds = minting.APP_TOKEN_SECONDS
    access = minting.app_token(ask.world, ask.place.cloud, app, resource, segment)
    return {"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": access}
