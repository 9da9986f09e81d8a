"""Situations that can be brought about by name, each with what will happen and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandbox.customers import Customers
from sandbox.directory import Tenant
from sandbox.drift import Drift
from sandbox.quirks import check
from sandbox.world import World

Params = dict[str, Any]


class Wrong(ValueError):
    """No such scenario or partner, or a partner is missing; the message is for the person who typed it."""


@dataclass(frozen=True)
class Scenario:
    """
    `needs_partner`: it makes no sense for all at once; `for_all`: nor for one alone. `effect` may name {partner}.
    """

    effect: str
    act: Callable[[World, Tenant | None, Params], None]
    needs_partner: bool = False
    undo: str = "healthy"
    for_all: bool = False


def _of(tenant: Tenant | None) -> Tenant:
    if tenant is None:
        raise Wrong("this scenario needs a partner")
    return tenant


def _switch(name: str, value: object) -> Callable[[World, Tenant | None, Params], None]:
    def act(world: World, tenant: Tenant | None, params: Params) -> None:
        setattr(_of(tenant), name, value)
        world.save_switches(_of(tenant))

    return act


def _fault(service: str, kind: str, path: str | None = None) -> Callable[[World, Tenant | None, Params], None]:
    def act(world: World, tenant: Tenant | None, params: Params) -> None:
        options = {name: params[name] for name in ("times", "retry_after", "seconds") if name in params}
        world.fail(service, kind, tenant=tenant.id if tenant else None, path=path, **options)

    return act


def _revoked(world: World, tenant: Tenant | None, params: Params) -> None:
    world.ledger.revoke(_of(tenant))


def _mfa_missing(world: World, tenant: Tenant | None, params: Params) -> None:
    world.ledger.lose_mfa(_of(tenant))


def _mfa_back(world: World, tenant: Tenant | None, params: Params) -> None:
    world.ledger.regain_mfa(_of(tenant))


def _consent_removed(world: World, tenant: Tenant | None, params: Params) -> None:
    world.ledger.remove_consents(_of(tenant))


def _healthy(world: World, tenant: Tenant | None, params: Params) -> None:
    world.heal(tenant=tenant.id if tenant else None)
    for partner in [tenant] if tenant else list(world.tenants.values()):
        partner.partner_center_principal, partner.admin_approval_required = True, False
        partner.gdap_missing, partner.refresh_mode = False, None
        partner.settle()
        world.save_switches(partner)
        world.ledger.unrevoke(partner)
        world.ledger.regain_mfa(partner)
        world.ledger.give_consents_back(partner)
    if tenant is None:
        world.refresh_tokens(None)
        world.skew_clock(0)


FAULT_OPTIONS = ("times", "after", "retry_after", "seconds", "operation", "path", "method", "size")
ANY_CODE = 50076  # what entra-error means without a number
SKEW = 600  # seconds; what clock-skew means without a number: past the five minutes that most clients forgive


def _entra_error(world: World, tenant: Tenant | None, params: Params) -> None:
    code = params.get("code", ANY_CODE)
    if not isinstance(code, int):
        raise Wrong("the code of this scenario is a number, such as 50076")
    options = {name: params[name] for name in ("times", "operation", "suberror") if name in params}
    world.fail("entra", f"AADSTS{code}", tenant=tenant.id if tenant else None, **options)


def _failing(service: str) -> Callable[[World, Tenant | None, Params], None]:
    """Any fault of one service, of one operation if `operation` names it."""

    def act(world: World, tenant: Tenant | None, params: Params) -> None:
        options = {n: params[n] for n in FAULT_OPTIONS if n in params}
        world.fail(service, str(params.get("kind", "503")), tenant=tenant.id if tenant else None, **options)

    return act


def _refresh_tokens(world: World, tenant: Tenant | None, params: Params) -> None:
    seconds = float(params["seconds"]) if "seconds" in params else None
    world.refresh_tokens(str(params.get("mode", "strict")), tenant=tenant.id if tenant else None, seconds=seconds)


def _clock_skew(world: World, tenant: Tenant | None, params: Params) -> None:
    world.skew_clock(float(params.get("seconds", SKEW)))


def _latency(world: World, tenant: Tenant | None, params: Params) -> None:
    who = tenant.id if tenant else None
    world.delay(
        str(params.get("service", "partnercenter")),
        float(params.get("seconds", 1)),
        tenant=who,
        path=params.get("path"),
    )


def _limit(world: World, tenant: Tenant | None, params: Params) -> None:
    requests, seconds = int(params.get("requests", 500)), float(params.get("seconds", 60))
    options = {name: params[name] for name in ("per", "path", "method") if name in params}
    world.limit(requests, seconds, tenant=tenant.id if tenant else None, **options)


def _share(params: Params, usual: float) -> float:
    share = float(params.get("share", usual))
    if not 0 <= share <= 1:
        raise Wrong("a share is a number from 0 to 1")
    return share


def _of_list(change: Callable[[Customers, Params], object]) -> Callable[[World, Tenant | None, Params], None]:
    """Something about a partner's list of customers, kept over a restart."""

    def act(world: World, tenant: Tenant | None, params: Params) -> None:
        change(_of(tenant).customers, params)
        world.save_switches(_of(tenant))

    return act


def _grown(world: World, tenant: Tenant | None, params: Params) -> None:
    _of(tenant).customer_count = int(params.get("number", 1_000_000))
    world.save_switches(_of(tenant))


def _unstable(customers: Customers, params: Params) -> None:
    old = customers.drift
    customers.drift = Drift(
        old.changes, old.absent, str(params.get("mode", "shuffled")), params.get("kind") == "fields"
    )


def _quirks(world: World, tenant: Tenant | None, params: Params) -> None:
    _of(tenant).quirks = check(word for word in str(params.get("kind", "")).split(",") if word)
    world.save_switches(_of(tenant))


SCENARIOS: dict[str, Scenario] = {
    "healthy": Scenario("Everything works again for {partner}.", _healthy, undo=""),
    "token-revoked": Scenario(
        "The next refresh for {partner} is refused (AADSTS50173): somebody there revoked all sessions.", _revoked, True
    ),
    "mfa-missing": Scenario(
        "The tokens of {partner} count as made without MFA: Partner Center answers 401 with code 900421.",
        _mfa_missing,
        True,
        "mfa-back",
    ),
    "mfa-back": Scenario("The tokens of {partner} are as good as when they signed in.", _mfa_back, True, "mfa-missing"),
    "consent-removed": Scenario(
        "An administrator of {partner} deleted the application: the next refresh is refused (AADSTS65001).",
        _consent_removed,
        True,
    ),
    "service-principal-missing": Scenario(
        "{partner} has no Partner Center service principal: sign-in and refresh end with AADSTS650052.",
        _switch("partner_center_principal", False),
        True,
    ),
    "admin-approval": Scenario(
        "{partner} lets only administrators consent: other people end with AADSTS90094.",
        _switch("admin_approval_required", True),
        True,
    ),
    "gdap-missing": Scenario(
        "The account of {partner} has no role in its customers: their users are refused (403, 900308).",
        _switch("gdap_missing", True),
        True,
    ),
    "throttled": Scenario(
        "Partner Center answers {partner} with 429 and Retry-After.", _fault("partnercenter", "throttled")
    ),
    "partner-center-down": Scenario("Partner Center answers {partner} with 503.", _fault("partnercenter", "503")),
    "vault-down": Scenario("Key Vault answers 503 to everybody.", _fault("vault", "503"), for_all=True),
    "vault-fault": Scenario(
        "Key Vault fails everybody in the way of --kind (or with 503), at --operation get, set or update, or at each.",
        _failing("vault"),
        for_all=True,
    ),
    "entra-fault": Scenario(
        "Entra fails {partner} in the way of --kind (or with 503), at the grant that --operation names, or everywhere.",
        _failing("entra"),
    ),
    "refresh-tokens": Scenario(
        "Spent refresh tokens of {partner} are from now on treated as --mode says: entra (they stay good), "
        "grace (they work for --seconds, or a minute) or strict (each works once; without --mode).",
        _refresh_tokens,
    ),
    "clock-skew": Scenario(
        "Microsoft's clocks are ahead by --seconds (or 600), or behind when negative.", _clock_skew, for_all=True
    ),
    "entra-error": Scenario(
        "Entra refuses {partner} at every sign-in and refresh, with the AADSTS number of --code (or 50076).",
        _entra_error,
    ),
    "entra-down": Scenario("Entra answers {partner} with 503; nobody can sign in or refresh.", _fault("entra", "503")),
    "partner-center-fault": Scenario(
        "Partner Center fails {partner} in the way of --kind (or with 503), where --path, --operation and --after say.",
        _failing("partnercenter"),
    ),
    "graph-fault": Scenario(
        "Graph fails {partner} in the way of --kind (or with 503), where --path and --after say.", _failing("graph")
    ),
    "latency": Scenario(
        "Answers of Partner Center (or of --service) to {partner} take --seconds (or one) longer, where --path says.",
        _latency,
    ),
    "limit": Scenario(
        "Partner Center answers {partner} with 429 past --requests (or 500) in --seconds (or 60), --per partner (as "
        "here) or customer, where --path says.",
        _limit,
    ),
    "customers": Scenario("{partner} has --number customers (or a million).", _grown, True),
    "changed": Scenario(
        "A --share (or a hundredth) of the customers of {partner} has another name from now on.",
        _of_list(lambda customers, params: customers.change(_share(params, 0.01))),
        True,
    ),
    "absent": Scenario(
        "A --share (or a tenth) of the customers of {partner} is missing from the list; 0 brings them back.",
        _of_list(lambda customers, params: customers.hide(_share(params, 0.1))),
        True,
    ),
    "unstable": Scenario(
        "The list of {partner} comes in another order at each read, as --mode says: shuffled, rotated or stable; with "
        "--kind fields the properties do too.",
        _of_list(_unstable),
        True,
    ),
    "quirks": Scenario("Partner Center's answers to {partner} have the quirks of --kind, by commas.", _quirks, True),
    "slow": Scenario(
        "Every answer of Partner Center to {partner} takes five seconds longer.", _fault("partnercenter", "slow")
    ),
    "html": Scenario(
        "Partner Center answers {partner} with a web page and status 200.", _fault("partnercenter", "html")
    ),
    "truncated": Scenario(
        "Partner Center's answers to {partner} end in the middle.", _fault("partnercenter", "truncated")
    ),
}
FOR_ALL = "every partner"


def play(world: World, name: str, partner: str | None, params: Params | None = None) -> dict[str, str]:
    """
    Bring a scenario about; the answer says what will happen and how to undo it.

    :raises Wrong: no such scenario or partner
    """
    scenario = SCENARIOS.get(name)
    if scenario is None:
        raise Wrong(f"There is no scenario {name!r}. There are: {', '.join(sorted(SCENARIOS))}.")
    tenant = world.find_tenant(partner) if partner else None
    if partner and tenant is None:
        known = ", ".join(f"{t.name} ({t.id})" for t in world.tenants.values())
        raise Wrong(f"There is no partner {partner!r}. There are: {known}.")
    if scenario.needs_partner and tenant is None:
        raise Wrong(f"The scenario {name!r} needs a partner: its name or tenant id.")
    scenario.act(world, None if scenario.for_all else tenant, params or {})
    return {"effect": scenario.effect.format(partner=tenant.name if tenant else FOR_ALL), "undo": _undo(name, tenant)}


def _undo(name: str, tenant: Tenant | None) -> str:
    back = SCENARIOS[name].undo
    if SCENARIOS[name].for_all:  # what is of no partner in particular is taken away with everything else
        return f"python -m sandbox scenario {back}"
    return f"python -m sandbox scenario {back}{f' {tenant.id}' if tenant else ''}" if back else ""
