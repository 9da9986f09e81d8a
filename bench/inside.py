"""
What fresh processes do: `python -m bench.inside NAME OPTIONS` calls one function of this module with JSON options.

Whatever is needed first (a connection, a token, a page in the stand-in's memory) is had before the clock starts.
"""

from __future__ import annotations

import functools
import json
import os
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import django
import msal
import psycopg
import requests

django.setup()

from django.conf import settings  # noqa: E402
from django.core import signing  # noqa: E402
from django.db import connection  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402

from bench.standin import CERTIFICATE, PARTNER_CENTER, TLS, TLS_URL  # noqa: E402
from cpvpanel import demo  # noqa: E402
from partners import jobs, listing  # noqa: E402
from partners.mirrored_kinds import CUSTOMERS  # noqa: E402
from partners.models import Customer, Job, Member, Partner, Run, User  # noqa: E402
from partners.partnercenter import PartnerCenter  # noqa: E402
from partners.standing import current_token  # noqa: E402
from partners.sync import read_list  # noqa: E402
from sandbox.customers import Customers  # noqa: E402
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
from tokens.tenancy import partner_scope, system_scope  # noqa: E402

WARM_UP = 15  # requests or tokens before the clock starts
PLACES = 20  # deep pages that are looked at
WHO = actors.command("bench")
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


# --- The ground -----------------------------------------------------------------------------------------------------
def connect(tenant: str, size: int) -> None:
    """A partner that connects the real way; then the stand-in has every page of its customers in memory."""
    partner = Partner.objects.create(cloud="global", tenant_id=tenant, name=f"Bench{size}")
    demo._consent(partner, demo.Pretended(tenant, f"Bench{size}"))
    read = sum(page.count for page in read_list(PartnerCenter(_session(partner)), CUSTOMERS, "customers", known={}))
    assert read == size, read


def reconnect(partner: Partner) -> None:
    """The real way through consent, for a partner that has none in force."""
    token = current_token(partner)
    if token is None or token.refused_at:
        demo._consent(partner, demo.Pretended(str(partner.tenant_id), partner.name))


def _session(partner: Partner) -> ApiSession:
    token = current_token(partner)
    assert token
    return broker.session(token, Audience.PARTNER_CENTER, purpose="sync.customers", actor=WHO)


def fill(tenant: str, size: int) -> None:
    """A partner with this many customers in the mirror, one complete sync, and a member who may look."""
    partner = Partner.objects.create(cloud="global", tenant_id=tenant, name=f"Bench{size}")
    user = User.objects.create_user(f"member of {size}")
    Member.objects.create(user=user, partner=partner, role=Member.Role.OWNER)
    described = [
        Customer(
            partner=partner,
            tenant_id=one.tenant_id,
            name=one.company_name,
            name_key=one.company_name.casefold(),
            domain=one.domain,
            relationship=one.relationship,
            content_hash=bytes(16),
        )
        for one in Customers(1, tenant, size)
    ]
    with partner_scope(partner):
        Customer.objects.bulk_create(described, batch_size=5_000)
    job = jobs.ensure(partner, "customers")
    Run.objects.create(
        partner=partner, job=job, fence=1, outcome=Run.Outcome.DONE, seen=size, finished_at=timezone.now()
    )
    Job.objects.update(next_run_at=None)  # as after a sync: nothing is due
    tidy()


def tidy() -> None:
    """Statistics and visibility as the server's own housekeeping leaves them sooner or later."""
    if connection.vendor == "postgresql":
        with psycopg.connect(os.environ["DATABASE_OWNER_URL"], autocommit=True) as owner:
            owner.execute("VACUUM ANALYZE partners_customer")
    else:
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


# --- The clock ------------------------------------------------------------------------------------------------------
@contextmanager
def clock(figures: dict[str, Any]) -> Iterator[None]:
    """Seconds by the wall and of this process's CPU, and the most memory it ever had, in MB."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    figures["seconds"] = time.perf_counter() - wall
    figures["cpu"] = time.process_time() - cpu
    figures["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- Customer sync --------------------------------------------------------------------------------------------------
class Wire:
    """Pages of customers read with nothing but a connection; the first, unmeasured reading learns the places."""

    def __init__(self, tenant: str) -> None:
        self._http = requests.Session()
        self._http.trust_env = False
        self._headers = {"Host": PARTNER_CENTER, "X-Bench-Tenant": tenant}
        self._places = [("/v1/customers?size=500", "")]
        while following := json.loads(self.page(*self._places[-1]))["links"].get("next"):
            self._places.append((f"/v1{following['uri']}", following["headers"][0]["value"]))

    def page(self, address: str, token: str) -> bytes:
        headers = self._headers | ({"MS-ContinuationToken": token} if token else {})
        answer = self._http.get(settings.CPV_SANDBOX_URL + address, headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.content

    def pages(self) -> Iterator[bytes]:
        return (self.page(*place) for place in self._places)


def fetch(tenant: str, size: int, parse: bool) -> dict[str, Any]:
    """The limit: every page fetched, and parsed or not."""
    wire, items = Wire(tenant), 0
    figures: dict[str, Any] = {}
    with clock(figures):
        for page in wire.pages():
            items += len(json.loads(page)["items"]) if parse else page.count(b'"companyProfile"')
    assert items == size, items
    return figures


def sync(tenant: str, size: int, first: bool) -> dict[str, Any]:
    """One run of the product's customer sync, into an empty mirror or over one that holds the same already."""
    partner = Partner.objects.get(tenant_id=tenant)
    if first:
        with partner_scope(partner):
            Customer.objects.filter(partner=partner)._raw_delete("default")
        tidy()
    job = jobs.ensure(partner, "customers", due_now=True)
    _session(partner).get("/v1/profiles/organization")  # the token
    figures: dict[str, Any] = {}
    with clock(figures):
        run = jobs.run_job(job.pk)
    assert run
    assert (run.outcome, run.seen, run.created) == ("done", size, size if first else 0), (run.outcome, run.error)
    return figures


# --- Customer list --------------------------------------------------------------------------------------------------
def pages(tenants: dict[str, str], requests_each: int, walls: bool = True) -> dict[str, dict[str, list[float]]]:
    """
    Milliseconds of every request: page → size → values. Sizes take turns, so the machine's moods meet all.

    Without `walls` nothing guards a statement, and the login is one that no policy binds: what they cost is the rest.
    """
    if not walls:
        connection_created.disconnect(dispatch_uid="tenancy")
        connection.execute_wrappers.clear()
    visitors = {size: Visitor(tenant) for size, tenant in tenants.items()}
    found: dict[str, dict[str, list[float]]] = {page: {size: [] for size in tenants} for page in PAGES}
    for turn in range(WARM_UP + requests_each):
        for page, address in PAGES.items():
            for size, visitor in visitors.items():
                milliseconds = visitor.look(address(visitor))
                if turn >= WARM_UP:
                    found[page][size].append(milliseconds)
    return found


class Visitor:
    """A signed-in member of one partner, who knows a few of its customers."""

    def __init__(self, tenant: str) -> None:
        partner = Partner.objects.get(tenant_id=tenant)
        self._client = Client()
        self._client.force_login(partner.members.get().user)
        session = self._client.session
        session["partner_id"] = partner.pk
        session.save()
        with partner_scope(partner):
            keys = list(partner.customers.order_by("name_key", "id").values_list("name_key", "id", "domain"))
        some = random.Random(7).choices(keys[: -listing.PAGE_SIZE] or keys, k=PLACES)  # noqa: S311 - any places will do
        self.marks = [signing.dumps([name, pk], salt=listing.SALT, compress=True) for name, pk, _ in some]
        self.domains = [domain for *_, domain in some]
        self._turn = 0

    def look(self, query: str) -> float:
        self._turn += 1
        began = time.perf_counter()
        answer = self._client.get(f"/customers/{query}")
        milliseconds = (time.perf_counter() - began) * 1000
        assert answer.status_code == 200, answer.status_code
        assert b"data-label" in answer.content, query
        return milliseconds

    def one_of(self, some: list[str]) -> str:
        return quote(some[self._turn % len(some)])


PAGES: dict[str, Callable[[Visitor], str]] = {
    "first page": lambda visitor: "",
    "deep page": lambda visitor: f"?after={visitor.one_of(visitor.marks)}",
    "search, many found": lambda visitor: "?q=group",
    "search, one found": lambda visitor: f"?q={visitor.one_of(visitor.domains)}",
}


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
