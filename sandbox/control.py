"""The control door `/_sandbox/`: the one part that Microsoft has nothing like."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from typing import Any

from werkzeug import Request, Response

from sandbox import pages
from sandbox.asks import reply
from sandbox.scenarios import SCENARIOS, Wrong, play
from sandbox.world import World


def serve(world: World, request: Request) -> Response:
    """Answer a request to the control door."""
    name = request.path.removeprefix("/_sandbox").strip("/")
    if request.method == "POST":
        return _change(world, request, name)
    if request.method not in ("GET", "HEAD"):
        return reply({"error": "GET or POST"}, 405)
    if name == "calls":
        return _calls(world, request)
    fixed = {
        "health": lambda: reply({"status": "ok"}),
        "world": lambda: reply(overview(world)),
        "effects": lambda: reply({"subscriptions": world.book.effects}),
        "throttling": lambda: reply(world.throttle.as_rows()),
        "style.css": pages.style,
    }
    return home(world) if not name else fixed.get(name, lambda: reply({"error": "no such door"}, 404))()


def _change(world: World, request: Request, name: str) -> Response:
    # A page on another site can post forms here, but not JSON: that needs a permission that is never given.
    if request.mimetype != "application/json":
        return reply({"error": "send application/json"}, 415)
    body = request.get_json(silent=True)
    body = body if isinstance(body, dict) else {}
    if name == "reset":
        world.reset()
        return reply({"effect": "Everything that happened is forgotten; partners and accounts stay.", "undo": ""})
    if name == "throttling":
        world.throttle.forget()
        return reply({"effect": "Calls are counted anew.", "undo": ""})
    if name == "scenario":
        return _scenario(world, body)
    return reply({"error": "no such door"}, 404)


def _scenario(world: World, body: dict[str, Any]) -> Response:
    partner, params = body.get("tenant"), body.get("params")
    try:
        told = play(
            world, str(body.get("name")), str(partner) if partner else None, params if isinstance(params, dict) else {}
        )
    except (Wrong, TypeError, ValueError) as error:
        return reply({"error": str(error)}, 400)
    return reply(told)


def _calls(world: World, request: Request) -> Response:
    since = request.args.get("since", 0, type=int)
    with world.lock:
        rows = [call.as_row() for call in world.calls if call.number > since]
    return reply({"calls": rows, "last": rows[-1]["number"] if rows else since})


def overview(world: World) -> dict[str, Any]:
    """Tenants, accounts and scenarios, and no secret."""
    return {
        "public_url": world.public_url,
        "tenants": [
            {
                "id": tenant.id,
                "name": tenant.name,
                "cloud": tenant.cloud.name,
                "domain": tenant.domain,
                "customers": len(tenant.customers),
                "quirks": tenant.quirks,
                "drift": tenant.drift,
                "partner_center_principal": tenant.partner_center_principal,
                "admin_approval_required": tenant.admin_approval_required,
                "accounts": [
                    {
                        "upn": account.upn,
                        "oid": account.oid,
                        "name": account.name,
                        "groups": sorted(account.groups),
                        "app_roles": sorted(account.app_roles),
                        "admin": account.admin,
                        "personal": account.personal,
                        "guest": account.guest,
                        "mfa_possible": account.mfa_possible,
                    }
                    for account in tenant.accounts.values()
                ],
            }
            for tenant in world.tenants.values()
        ],
        "faults": [fault.as_row() for fault in world.faults if fault.times != 0],
        "delays": [asdict(delay) for delay in world.delays],
        "limits": [limit.as_row() for limit in world.throttle.limits],
        "scenarios": {name: scenario.effect for name, scenario in SCENARIOS.items()},
    }


def _table(headings: list[str], rows: list[list[str]], caption: str) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    # The box scrolls by itself on narrow screens, so it must be reachable by keyboard and have a name.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _account_words(account: dict[str, Any]) -> str:
    words = [*account["groups"], *account["app_roles"]]
    words += [word for word in ("admin", "personal", "guest") if account[word]]
    return ", ".join(words) or "no role"


def home(world: World) -> Response:
    """What there is to play with."""
    seen = overview(world)
    body = (
        "<p>This process pretends to be Microsoft Entra, Microsoft Graph, Partner Center and Key Vault.</p>"
        "<h2>Scenarios</h2><p class=note>python -m sandbox scenario NAME PARTNER</p>"
    )
    body += _table(
        ["name", "what happens"],
        [[n, e.format(partner="the partner")] for n, e in seen["scenarios"].items()],
        "Scenarios",
    )
    faults = [[str(f[word] or "") for word in ("service", "kind", "tenant", "times")] for f in seen["faults"]]
    body += "<h2>Going wrong now</h2>"
    body += _table(["service", "fault", "tenant", "times"], faults, "Faults") if faults else "<p>Nothing.</p>"
    for tenant in seen["tenants"]:
        body += f"<h2>{escape(tenant['name'])}</h2>"
        body += f"<p class=note>{tenant['id']}, {escape(tenant['cloud'])}, {tenant['customers']} customers</p>"
        rows = [[account["upn"], account["name"], _account_words(account)] for account in tenant["accounts"]]
        body += _table(["sign-in name", "name", "role"], rows, f"Accounts of {tenant['name']}")
    return pages.page("Pretended Microsoft cloud", body, wide=True)
