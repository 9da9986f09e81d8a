"""
What fresh processes do: `python -m bench.inside NAME OPTIONS` calls one function of this module with JSON options.

Whatever is needed first (a connection, a token, a page in the stand-in's memory) is had before the clock starts.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import django
import msal
import requests

django.setup()

from django.conf import settings  # noqa: E402

from bench.clock import clock  # noqa: E402
from bench.names import name_of  # noqa: E402
from bench.standin import CERTIFICATE, TLS, TLS_URL  # noqa: E402
from cpvpanel import demo  # noqa: E402
from partners import jobs  # noqa: E402
from partners.models import Partner  # noqa: E402
from partners.standing import current_token  # noqa: E402
from tokens import actors, broker, custody, outside, permissions  # noqa: E402
from tokens.access_cache import AccessCache, Key  # noqa: E402
from tokens.clouds import Audience, cloud_named  # noqa: E402
from tokens.credential import AppRegistration, Signer  # noqa: E402
from tokens.entra import Entra  # noqa: E402
from tokens.http import Network, StandInAdapter  # noqa: E402
from tokens.minting import Wish  # noqa: E402
from tokens.models import RefreshToken  # noqa: E402
from tokens.secret import Secret  # noqa: E402
from tokens.sessions import ApiSession  # noqa: E402
from tokens.tenancy import mirrored_tables, system_scope, tenant_tables  # noqa: E402

WARM_UP = 15  # tokens before the clock starts
WHO = actors.command("bench")
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


# --- The ground -----------------------------------------------------------------------------------------------------
def connect(tenant: str) -> str:
    """A partner that connects the real way; an access token for it, for those who have no broker."""
    partner = Partner.objects.create(cloud="global", tenant_id=tenant, name=name_of(tenant))
    reconnect(partner)
    token = current_token(partner)
    assert token
    return str(_plain(token, _trusting(settings.CPV_SANDBOX_URL))())


def add_job(tenant: str) -> None:
    """The partner's customers are due."""
    jobs.ensure(Partner.objects.get(tenant_id=tenant), "customers")


def mirrored() -> list[str]:
    """The tables of what is mirrored, and of what is known about the lists it came from."""
    lists = {table for table in tenant_tables() if table.startswith("partners_list")}
    return sorted(mirrored_tables() | lists)


def reconnect(partner: Partner) -> None:
    """The real way through consent, for a partner that has none in force."""
    token = current_token(partner)
    if token is None or token.refused_at:
        demo._consent(partner, demo.Pretended(str(partner.tenant_id), partner.name))


def _session(partner: Partner) -> ApiSession:
    token = current_token(partner)
    assert token
    return broker.session(token, Audience.PARTNER_CENTER, purpose="sync.customers", actor=WHO)


def _each(step: Callable[[], object], number: int) -> dict[str, Any]:
    """What one of so many steps takes, once it is warm."""
    for _ in range(min(WARM_UP, number)):
        step()
    figures: dict[str, Any] = {}
    with clock(figures):
        for _ in range(number):
            step()
    return {name: value if name == "memory" else value / number for name, value in figures.items()}


# --- Tokens ---------------------------------------------------------------------------------------------------------
def mint(tenant: str, tokens: int, plain: bool) -> dict[str, Any]:
    """
    Access tokens for Partner Center.

    Plain: one POST each over a warm connection. Ours: gate, ledger, vault, envelope, MSAL and the row's note.
    """
    token = current_token(Partner.objects.get(tenant_id=tenant))
    assert token
    step = _plain(token, _trusting(settings.CPV_SANDBOX_URL)) if plain else _ours(token)
    return _each(step, tokens)


def look_up(times: int, ours: bool) -> dict[str, Any]:
    """A token that is there already: in our cache, or in a dict under a lock with a look at its end."""
    key, later = Key(1, 1, "graph", None), time.monotonic() + 3600
    lock, plain, cache = threading.Lock(), {key: (Secret("x"), later)}, AccessCache()
    cache.get_or_mint(key, lambda: (Secret("x"), later))

    def mint() -> tuple[Secret, float]:
        raise AssertionError("it is in the cache")

    figures: dict[str, Any] = {}
    with clock(figures):
        for _ in range(times):
            if ours:
                cache.get_or_mint(key, mint)
            else:
                with lock:
                    found, until = plain[key]
                if until > time.monotonic():
                    _ = found
    return {name: value if name == "memory" else value / times for name, value in figures.items()}


class _Patient:
    """MSAL's `http_client` with a timeout, which a session of its own making would have."""

    def __init__(self, http: requests.Session) -> None:
        self.get = functools.partial(http.get, timeout=30)
        self.post = functools.partial(http.post, timeout=30)
        self.close = http.close


def redeem(tenant: str, tokens: int, way: str, certificate: bool) -> dict[str, Any]:
    """
    A refresh token spent at Entra, over TLS: by one POST of a warm session, by us, or by MSAL as people write it.

    That is a new application with a session of its own each time, which opens a connection and asks for endpoints.
    """
    token = current_token(Partner.objects.get(tenant_id=tenant))
    assert token
    cloud, app = cloud_named("global"), settings.CPV_APPS["global"]
    scopes = permissions.scopes(outside.asked_permissions(), cloud, Audience.PARTNER_CENTER)
    refresh_token = custody.read(token)
    pem = os.environ[CERTIFICATE] if certificate else ""
    proof = AppRegistration(
        client_id=app["app_id"],
        secret=None if certificate else Secret(app["secret"]),
        certificate_pem=Secret(pem) if certificate else None,
    )
    adapter = StandInAdapter(os.environ[TLS_URL])
    entra = Entra(network=Network(clouds=[cloud], adapter=adapter, verify=os.environ[TLS]), cloud=cloud, app=proof)

    def ours() -> object:
        return entra.redeem_refresh_token(refresh_token=refresh_token, tenant=tenant, scopes=scopes)

    def by_msal() -> object:
        with _trusting(os.environ[TLS_URL]) as http:
            application = msal.ConfidentialClientApplication(
                app["app_id"],
                client_credential={"private_key": pem, "public_certificate": pem} if certificate else app["secret"],
                authority=f"https://login.microsoftonline.com/{tenant}",
                instance_discovery=False,
                http_client=_Patient(http),
            )
            return application.acquire_token_by_refresh_token(refresh_token.reveal(), scopes)["access_token"]

    plain = _plain(token, _trusting(os.environ[TLS_URL]), assertion=_assertion(proof, tenant) if certificate else "")
    return _each({"post": plain, "ours": ours, "msal": by_msal}[way], tokens)


def _trusting(url: str) -> requests.Session:
    """A session as people have it, with what it takes to reach the stand-in and nothing else."""
    http = requests.Session()
    http.trust_env, http.verify = False, os.environ[TLS]
    http.mount("https://", StandInAdapter(url))
    return http


def _assertion(app: AppRegistration, tenant: str) -> str:
    """What proves the application at one tenant, signed once."""
    proof = app.proofs[0]
    audience = f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
    return Signer(proof.secret or Secret("")).assertion(client_id=app.client_id, audience=audience)


def _ours(token: RefreshToken) -> Callable[[], object]:
    def step() -> object:
        broker.forget()
        return broker._mint(Wish(token, Audience.PARTNER_CENTER, "sync.customers", WHO))

    return step


def _plain(token: RefreshToken, http: requests.Session, *, assertion: str = "") -> Callable[[], object]:
    """One POST of a session that is warm; the application proves itself with an assertion, or else with its secret."""
    scopes = permissions.scopes(outside.asked_permissions(), cloud_named("global"), Audience.PARTNER_CENTER)
    form = {
        "grant_type": "refresh_token",
        "refresh_token": custody.read(token).reveal(),
        "client_id": settings.CPV_APPS["global"]["app_id"],
        "scope": " ".join([*scopes, "openid", "profile", "offline_access"]),
    }
    if assertion:
        form |= {"client_assertion": assertion, "client_assertion_type": JWT_BEARER}
    else:
        form["client_secret"] = settings.CPV_APPS["global"]["secret"]
    address = f"https://login.microsoftonline.com/{token.partner.tenant_id}/oauth2/v2.0/token"

    def step() -> object:
        answer = http.post(address, data=form, timeout=30)
        answer.raise_for_status()
        return answer.json()["access_token"]

    return step


if __name__ == "__main__":
    with system_scope("a bench"):
        found = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(found))  # noqa: T201 - read by bench.ground
