"""The pages people see: plain HTML without script, readable in light and dark and on a narrow screen."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from werkzeug import Response

from sandbox.directory import Account, Tenant

STYLE_PATH = "/_sandbox/style.css"
STYLE = """
:root { color-scheme: light dark; --paper: #f2f2f2; --card: #fff; --ink: #1b1b1b; --soft: #4d4d4d; --line: #8a8a8a;
  --act: #005a9e; --on-act: #fff; --warn: #8a1f11; }
@media (prefers-color-scheme: dark) { :root { --paper: #161616; --card: #242424; --ink: #f3f3f3; --soft: #c8c8c8;
  --line: #8f8f8f; --act: #6cb8f6; --on-act: #0b1a26; --warn: #ff9d8f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 "Segoe UI", system-ui, sans-serif; }
main { max-width: 34rem; margin: 2rem auto; padding: 1.5rem; background: var(--card); border: 1px solid var(--line); }
main.wide { max-width: 64rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 1.5rem 0 .25rem; }
p, li, td, th, legend { overflow-wrap: anywhere; }
fieldset { min-width: 0; }
.note { color: var(--soft); font-size: .9rem; margin: .25rem 0 1rem; }
.pretended { border-left: .3rem solid var(--act); padding-left: .75rem; }
.error { border-left: .3rem solid var(--warn); padding-left: .75rem; }
fieldset { border: 1px solid var(--line); margin: 0 0 .75rem; padding: .5rem .75rem .75rem; min-width: 0; }
legend { font-weight: 600; padding: 0 .25rem; max-width: 100%; }
.buttons { display: flex; flex-wrap: wrap; gap: .5rem; }
button { font: inherit; min-height: 2.75rem; padding: .4rem 1rem; border: 1px solid var(--act); cursor: pointer;
  background: var(--act); color: var(--on-act); }
button.second { background: transparent; color: var(--act); }
button:focus-visible, a:focus-visible, input:focus-visible { outline: 3px solid var(--ink); outline-offset: 2px; }
a { color: var(--act); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .5rem; border-bottom: 1px solid var(--line); }
.scroll { overflow-x: auto; }
@media (max-width: 30rem) { main { margin: 0; border: 0; padding: 1rem; } .buttons button { flex: 1 1 100%; } }
"""
# No form-action here: browsers apply it to the redirect after the form too, and that goes to the product.
POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"


def page(title: str, body: str, status: int = 200, *, wide: bool = False) -> Response:
    """A whole page; the caller escaped everything that came from outside."""
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="stylesheet" href="{STYLE_PATH}"></head>'
        f"<body><main{' class=wide' if wide else ''}><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(text, status, headers, content_type="text/html; charset=utf-8")


def style() -> Response:
    return Response(STYLE, content_type="text/css; charset=utf-8", headers={"Cache-Control": "max-age=3600"})


PRETENDED = '<p class="note pretended">This is a pretended Microsoft sign-in for development. No password is asked.</p>'


def _hidden(fields: dict[str, str]) -> str:
    return "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items()
    )


def _describe(tenant: Tenant, account: Account) -> str:
    if account.personal:
        return "personal Microsoft account"
    words = [tenant.name, *sorted(account.groups), *sorted(account.app_roles)]
    words += ["global administrator"] if account.admin else []
    words += ["guest"] if account.guest else []
    words += ["disabled"] if account.disabled else []
    return ", ".join(words)


def _choice(tenant: Tenant, account: Account) -> str:
    without = '<button class="second" name="mfa" value="no">Sign in without MFA</button>'
    with_mfa = '<button name="mfa" value="yes">Sign in with MFA</button>' if account.mfa_possible else ""
    return (
        f'<form method="post"><fieldset><legend>{escape(account.upn)}</legend>'
        f'<p class="note">{escape(account.name)} ({escape(_describe(tenant, account))})</p>'
        f"{_hidden({'account': account.oid})}"
        f'<div class="buttons">{with_mfa}{without}</div></fieldset></form>'
    )


def picker(app_name: str, accounts: Iterable[tuple[Tenant, Account]]) -> Response:
    """Who wants to sign in, and with which strength. The form posts to the same address, query included."""
    choices = "".join(_choice(tenant, account) for tenant, account in accounts)
    cancel = (
        '<form method="post"><input type="hidden" name="decision" value="cancel">'
        '<button class="second">Cancel</button></form>'
    )
    lead = f"<p>to continue to <strong>{escape(app_name)}</strong></p>"
    return page("Pick an account", PRETENDED + lead + (choices or "<p>Nobody can sign in here.</p>") + cancel)


def consent(app_name: str, account: Account, scopes: Iterable[str], fields: dict[str, str]) -> Response:
    """What the app asks for, with a yes and a no."""
    listed = "".join(f"<li>{escape(scope)}</li>" for scope in scopes)
    organization = (
        '<p><label><input type="checkbox" name="for_organization" value="yes"> '
        "Consent on behalf of your organization</label></p>"
        if account.admin
        else ""
    )
    body = (
        f"{PRETENDED}<p>{escape(account.upn)}</p><p><strong>{escape(app_name)}</strong> would like to:</p>"
        f'<ul>{listed}</ul><form method="post">{_hidden(fields)}{organization}<div class="buttons">'
        '<button name="decision" value="accept">Accept</button>'
        '<button class="second" name="decision" value="cancel">Cancel</button></div></form>'
    )
    return page("Permissions requested", body)


def form_post(redirect_uri: str, fields: dict[str, str]) -> Response:
    """What `response_mode=form_post` shows; Microsoft's own page submits itself by script, this one by a button."""
    body = (
        f'{PRETENDED}<form method="post" action="{escape(redirect_uri)}">{_hidden(fields)}'
        "<button>Continue</button></form>"
    )
    return page("Continue to the application", body)


def error(description: str, status: int = 400) -> Response:
    """An error that stays on Microsoft's side, because it would not be safe to redirect."""
    body = f'<p>Sorry, but we are having trouble signing you in.</p><p class="error">{escape(description)}</p>'
    return page("Sign in", body, status)
