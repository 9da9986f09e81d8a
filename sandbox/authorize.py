"""Where browsers sign in and consent. One POST with account, mfa and decision does it all, in forms and tests."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from urllib.parse import urlencode

from werkzeug import Response
from werkzeug.utils import redirect

from sandbox import challenges, pages
from sandbox.asks import Ask
from sandbox.clouds import MSA_TENANT, Cloud
from sandbox.directory import Account, App, Tenant, guid
from sandbox.entra import SHARED, known_segment
from sandbox.entraerrors import SHOWN_HERE, EntraError
from sandbox.entratoken import check_principal
from sandbox.ledger import EVERYBODY, Code, Session
from sandbox.scopes import DEFAULT, Asked, UnknownPermission, UnknownResource, parse

BROWSER = "sandbox_signed_in"  # the cookie that remembers a browser's last sign-in here


class ShownHere(Exception):
    """An Entra error that must be shown on the page, because the address to redirect to is not to be trusted."""

    def __init__(self, code: int, *words: str) -> None:
        super().__init__(f"AADSTS{code}")
        self.error = EntraError(code, *words)


@dataclass
class Wish:
    """An authorization request that may be answered."""

    app: App
    segment: str
    cloud: Cloud
    redirect_uri: str
    asked: Asked
    state: str | None
    nonce: str | None
    challenge: str | None
    prompt: str
    form_post: bool
    max_age: int | None
    contexts: tuple[str, ...]


def authorize(ask: Ask, segment: str) -> Response:
    """Answer GET with pages and POST with the next page or the redirect to the app."""
    try:
        app = _app(ask, segment)
        uri = _redirect_uri(ask, app)
    except (ShownHere, EntraError) as error:
        return _shown(ask, error.error if isinstance(error, ShownHere) else error)
    try:
        wish = _wish(ask, app, segment, uri)
        return _decide(ask, wish) if ask.request.method == "POST" else _ask_who(ask, wish)
    except ShownHere as error:
        return _shown(ask, error.error)
    except EntraError as error:
        return _redirected(ask, uri, _error_fields(ask, error))


def refused(ask: Ask, segment: str, error: EntraError) -> Response:
    """Refuse a sign-in or an admin consent, whatever it asks for, where Entra would say so."""
    try:
        uri = _redirect_uri(ask, _app(ask, segment))
    except (ShownHere, EntraError) as earlier:
        return _shown(ask, earlier.error if isinstance(earlier, ShownHere) else earlier)
    if error.code in SHOWN_HERE:
        return _shown(ask, error)
    admin = {"admin_consent": "True"} if ask.request.path.endswith("/adminconsent") else {}
    return _redirected(ask, uri, _error_fields(ask, error) | admin)


def _shown(ask: Ask, error: EntraError) -> Response:
    ask.call.detail["aadsts"] = error.code
    return pages.error(error.description(ask), max(error.kind.status, 400))


def _app(ask: Ask, segment: str) -> App:
    client_id = ask.request.args.get("client_id", "").lower()
    known_segment(ask.world, ask.place.cloud, segment)
    app = ask.world.apps.get(client_id)
    if app is None or ask.place.cloud.name not in app.clouds:
        raise ShownHere(700016, client_id, segment)
    ask.call.client = app.app_id
    return app


def _redirect_uri(ask: Ask, app: App) -> str:
    uri = ask.request.args.get("redirect_uri", "")
    if not app.allows_redirect(uri):
        raise ShownHere(50011, uri, app.app_id)
    return uri


def _wish(ask: Ask, app: App, segment: str, uri: str) -> Wish:
    args = ask.request.args
    kinds = set(args.get("response_type", "").split())
    if kinds != {"code"} and not (app.id_tokens_from_authorize and kinds == {"code", "id_token"}):
        raise EntraError(700054)
    challenge = args.get("code_challenge")
    if challenge and args.get("code_challenge_method") != "S256":
        raise EntraError(90013)
    ask.call.detail |= {"pkce": bool(challenge), "scope": args.get("scope"), "prompt": args.get("prompt")}
    return Wish(
        app=app,
        segment=known_segment(ask.world, ask.place.cloud, segment),
        cloud=ask.place.cloud,
        redirect_uri=uri,
        asked=_asked(ask, app),
        state=args.get("state"),
        nonce=args.get("nonce"),
        challenge=challenge,
        prompt=args.get("prompt", ""),
        form_post=args.get("response_mode") == "form_post",
        max_age=args.get("max_age", type=int),
        contexts=challenges.contexts_asked(ask, "id_token"),
    )


def _asked(ask: Ask, app: App) -> Asked:
    text = ask.request.args.get("scope", "")
    if not text.strip():
        raise EntraError(900144, "scope")
    try:
        asked = parse(text, ask.place.cloud)
    except UnknownResource as error:
        raise EntraError(500011, str(error)) from error
    except UnknownPermission as error:
        raise EntraError(650053, str(error)) from error
    if any(DEFAULT in names for names in asked.resources.values()):
        static = parse(" ".join(sorted(app.static_permissions(ask.place.cloud))), ask.place.cloud)
        asked.resources = static.resources
    return asked


def _ask_who(ask: Ask, wish: Wish) -> Response:
    if wish.prompt == "none":
        return _silently(ask, wish)
    people = ask.world.accounts(wish.cloud)
    if wish.segment not in SHARED and not ask.world.allow_foreign_accounts:
        people = [(tenant, account) for tenant, account in people if tenant.id == wish.segment]
    hint = ask.request.args.get("login_hint", "").lower()
    vendors_own = wish.app.tenant_id  # they come last: mostly somebody of a partner is asked for
    people.sort(key=lambda pair: (pair[1].upn.lower() != hint, pair[0].id == vendors_own))
    return pages.picker(wish.app.name, people)


def _silently(ask: Ask, wish: Wish) -> Response:
    """
    An answer without a page, for a browser that signed in here before and an account that has agreed to all of it.

    :raises EntraError: 50058 nobody signed in, or not lately enough; 65001 something was not agreed to
    """
    earlier = ask.world.ledger.sessions.get(ask.request.cookies.get(BROWSER, ""))
    if earlier is None or (wish.max_age is not None and ask.world.now() > earlier.authenticated_at + wish.max_age):
        raise EntraError(50058)
    tenant, account = _account(ask, wish, earlier.oid)
    ask.call.tenant = account.tenant_id
    check_principal(ask, tenant, set(wish.asked.resources))
    if wish.asked.full() - ask.world.ledger.consented(account.tenant_id, account.oid, wish.app.app_id):
        raise EntraError(65001, wish.app.app_id, wish.app.name)
    fields = _code_fields(ask, wish, account, mfa=earlier.mfa, resting_on=earlier)
    return _redirected(ask, wish.redirect_uri, fields)


def _decide(ask: Ask, wish: Wish) -> Response:
    """Take the form: account, mfa, and (now or on the next page) the decision."""
    form = ask.request.form
    decision = form.get("decision", "")
    if decision == "cancel":
        raise EntraError(65004)
    tenant, account = _account(ask, wish, form.get("account", ""))
    ask.call.tenant = account.tenant_id
    mfa = form.get("mfa") == "yes"
    if mfa and not account.mfa_possible:
        raise ShownHere(50079)
    check_principal(ask, tenant, set(wish.asked.resources))
    missing = wish.asked.full() - ask.world.ledger.consented(account.tenant_id, account.oid, wish.app.app_id)
    if missing and tenant.admin_approval_required and not account.admin:
        raise EntraError(90094, wish.app.name)
    asks_again = wish.prompt == "consent" and bool(wish.asked.resources)
    if (missing or asks_again) and decision != "accept":
        fields = {"account": account.oid, "mfa": "yes" if mfa else "no"}
        return pages.consent(wish.app.name, account, sorted(wish.asked.full()), fields)
    _consent(ask, wish, account)
    response = _redirected(ask, wish.redirect_uri, _code_fields(ask, wish, account, mfa=mfa))
    response.set_cookie(BROWSER, ask.call.detail["sid"], httponly=True, samesite="Lax")
    return response


def _consent(ask: Ask, wish: Wish, account: Account) -> None:
    everybody = account.admin and ask.request.form.get("for_organization") == "yes"
    who = EVERYBODY if everybody else account.oid
    if wish.asked.resources:
        ask.world.ledger.consent(account.tenant_id, who, wish.app.app_id, wish.asked.full())


def _account(ask: Ask, wish: Wish, name: str) -> tuple[Tenant, Account]:
    """Who was picked, if they may sign in at this address."""
    people = ask.world.accounts(wish.cloud)
    wanted = name.strip().lower()
    found = [pair for pair in people if wanted in (pair[1].oid, pair[1].upn.lower())]
    here = [pair for pair in found if pair[0].id == wish.segment]
    if not found:
        raise ShownHere(50034, name, wish.segment)
    tenant, account = (here or found)[0]
    shared = wish.segment == "common" or (wish.segment == "organizations" and not account.personal)
    own = account.tenant_id == wish.segment or (wish.segment == "consumers" and account.tenant_id == MSA_TENANT)
    if not (shared or own or ask.world.allow_foreign_accounts):
        raise ShownHere(50020, account.upn, wish.segment)
    return tenant, account


def _code_fields(
    ask: Ask, wish: Wish, account: Account, *, mfa: bool, resting_on: Session | None = None
) -> dict[str, str]:
    ledger = ask.world.ledger
    session = ledger.sign_in(account, wish.app.app_id, mfa=mfa, resting_on=resting_on)
    ask.call.detail["sid"] = session.sid
    session.offline = "offline_access" in wish.asked.oidc
    ledger.keep(session)
    value = "1.C" + secrets.token_urlsafe(500)
    ledger.new_code(
        Code(
            value=value,
            session=session,
            segment=wish.segment,
            redirect_uri=wish.redirect_uri,
            asked=wish.asked,
            nonce=wish.nonce,
            challenge=wish.challenge,
            contexts=wish.contexts if mfa else (),  # the policy behind each of them asks for MFA
            tells_when=wish.max_age is not None,
            at=ask.world.now(),
        )
    )
    ask.world.remember("code", value)
    return {"code": value, "session_state": guid(session.sid)}


def _error_fields(ask: Ask, error: EntraError) -> dict[str, str]:
    ask.call.detail["aadsts"] = error.code
    fields = {"error": error.kind.error, "error_description": error.description(ask)}
    if error.code == 65004:
        fields["error_subcode"] = "cancel"
    return fields | {"error_uri": error.error_uri(ask)}


def _redirected(ask: Ask, uri: str, fields: dict[str, str]) -> Response:
    """Back to the app, by address or by a form, with the state as it came."""
    if ask.request.args.get("state"):
        fields["state"] = ask.request.args["state"]
    if ask.request.args.get("response_mode") == "form_post":
        return pages.form_post(uri, fields)
    joint = "&" if "?" in uri else "?"
    return redirect(uri + joint + urlencode(fields), 302)


# the administrator's consent


def admin_consent(ask: Ask, segment: str) -> Response:
    """Microsoft's page "Admin consent on the Microsoft identity platform": no code comes of it, and no identity."""
    try:
        app = _app(ask, segment)
        uri = _redirect_uri(ask, app)
        place = known_segment(ask.world, ask.place.cloud, segment)
    except (ShownHere, EntraError) as error:
        return _shown(ask, error.error if isinstance(error, ShownHere) else error)
    people = ask.world.accounts(ask.place.cloud)
    people = [pair for pair in people if pair[1].admin and (place in SHARED or pair[0].id == place)]
    if ask.request.method != "POST":
        return pages.picker(app.name, people)
    try:
        return _redirected(ask, uri, _grant_for_all(ask, app, people, _approvable(ask, app)))
    except EntraError as error:
        return _redirected(ask, uri, _error_fields(ask, error) | {"admin_consent": "True"})


def _approvable(ask: Ask, app: App) -> set[str]:
    """What the newer address names in `scope`; at the older one, everything in the registration."""
    if "/v2.0/" in ask.request.path:
        return _asked(ask, app).full()
    return app.static_permissions(ask.place.cloud)


def _grant_for_all(ask: Ask, app: App, people: list[tuple[Tenant, Account]], scopes: set[str]) -> dict[str, str]:
    wanted = ask.request.form.get("account", "").lower()
    chosen = next((pair for pair in people if wanted in (pair[1].oid, pair[1].upn.lower())), None)
    if ask.request.form.get("decision") == "cancel" or chosen is None:
        raise EntraError(65004)
    tenant, _ = chosen
    check_principal(ask, tenant, {scope.rpartition("/")[0] for scope in scopes})
    ask.call.tenant = tenant.id
    ask.world.ledger.consent(tenant.id, EVERYBODY, app.app_id, scopes)
    return {"admin_consent": "True", "tenant": tenant.id, "scope": " ".join(sorted(scopes))}


def sign_out(ask: Ask) -> Response:
    """Nothing is remembered between two sign-ins here, so this only leads back."""
    uri = ask.request.args.get("post_logout_redirect_uri", "")
    if uri.startswith(("http://localhost:", "http://127.0.0.1:")):
        return redirect(uri, 302)
    return pages.page("Signed out", "<p>You signed out of your pretended account.</p>")
