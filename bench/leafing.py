"""
What a member who leafs through customers and searches waits for: `python -m bench.leafing NAME OPTIONS`.

Beside our list stands the plain one that people write: Django's Paginator, which counts and skips.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import quote, unquote

import django
import psycopg
from psycopg import sql

django.setup()

from django.conf import settings  # noqa: E402
from django.core import signing  # noqa: E402
from django.core.paginator import Paginator  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.shortcuts import render  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import timezone  # noqa: E402
from django.views.decorators.http import require_safe  # noqa: E402

from bench.clock import WATCHED  # noqa: E402
from cpvpanel.urls import urlpatterns as ours  # noqa: E402
from partners import jobs, listing, search_index  # noqa: E402
from partners.access import PartnerRequest, needs, partner_required  # noqa: E402
from partners.models import Customer, CustomerQuerySet, Job, Member, Partner, Run, User  # noqa: E402
from partners.powers import Power  # noqa: E402
from partners.standing import current_token, standing  # noqa: E402
from sandbox.customers import Customers  # noqa: E402
from tokens import tenancy  # noqa: E402
from tokens.tenancy import partner_scope, system_scope  # noqa: E402

WARM_UP = 15  # requests before the clock starts
PLACES = 20  # deep pages and customers that are looked for
WRITTEN = 100_000  # customers of the stand-in's; more are these with a number behind
SEARCHES = ("prefix search", "substring search")
PARTS = {"customer_parts"}  # an index that is made faster than kept


# --- The ground -----------------------------------------------------------------------------------------------------
def fill(tenant: str, size: int) -> None:
    """A partner with this many customers in the mirror, one complete sync, and a member who may look."""
    partner = Partner.objects.create(cloud="global", tenant_id=tenant, name=f"Bench{size}")
    user = User.objects.create_user(f"member of {size}")
    Member.objects.create(user=user, partner=partner, role=Member.Role.OWNER)
    written = min(size, WRITTEN) if connection.vendor == "postgresql" else size
    described = (
        Customer(
            partner=partner,
            tenant_id=one.tenant_id,
            name=one.company_name,
            name_key=one.company_name.casefold(),
            domain=one.domain,
            relationship=one.relationship,
            content_hash=bytes(16),
        )
        for one in Customers(1, tenant, written)
    )
    with partner_scope(partner):
        Customer.objects.bulk_create(described, batch_size=5_000)
    if size > search_index.MANY and connection.vendor == "postgresql":  # as some minutes after a sync
        while search_index.mark_some(partner.pk):
            pass
    if size > written:
        _multiply(partner.pk, size // written)
    job = jobs.ensure(partner, "customers")
    Run.objects.create(
        partner=partner, job=job, fence=1, outcome=Run.Outcome.DONE, seen=size, finished_at=timezone.now()
    )
    Job.objects.update(next_run_at=None)  # as after a sync: nothing is due
    tidy()


def _multiply(partner_id: int, times: int) -> None:
    """So many times the customers there are, written by the server itself; PostgreSQL only."""
    copied = "partner_id, name, relationship, content_hash, first_seen_at, changed_at, removed_reason, is_indexed"
    with psycopg.connect(os.environ[WATCHED], autocommit=True) as behind:
        asked = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'partners_customer'"
        parts = [(name, definition) for name, definition in behind.execute(asked) if name in PARTS]
        for name, _ in parts:
            behind.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
        behind.execute(
            f"INSERT INTO partners_customer ({copied}, tenant_id, name_key, domain)"  # noqa: S608 - columns
            f" SELECT {copied}, gen_random_uuid(), name_key || ' ' || n, regexp_replace(domain, '[.]', '-' || n || '.')"
            " FROM generate_series(2, %s) AS n, partners_customer WHERE partner_id = %s",
            [times, partner_id],
        )
        behind.execute("SET maintenance_work_mem = '512MB'")
        for _, definition in parts:
            behind.execute(definition)


def tidy() -> None:
    """Statistics and visibility as the server's own housekeeping leaves them sooner or later."""
    if connection.vendor == "postgresql":
        with psycopg.connect(os.environ["DATABASE_OWNER_URL"], autocommit=True) as owner:
            owner.execute("VACUUM ANALYZE partners_customer")
    else:
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


# --- The plain list -------------------------------------------------------------------------------------------------
@require_safe
@partner_required
@needs(Power.CUSTOMERS)
def plain(request: PartnerRequest) -> HttpResponse:
    """The same page by Django's Paginator, which counts what is found and skips what lies before."""
    page = Paginator(request.member.customers.present().order_by("name_key", "id"), listing.PAGE_SIZE).get_page(
        request.GET.get("page")
    )
    context = {
        "page": listing.CustomerPage(list(page), "?more" if page.has_next() else None, None),
        "customer_count": page.paginator.count,
        "standing": standing(request.partner, current_token(request.partner)),
    }
    return render(request, "partners/customers.html", context)


urlpatterns = [*ours, path("plain/", plain)]


# --- The clock ------------------------------------------------------------------------------------------------------
def pages(tenants: dict[str, str], requests_each: int, walls: bool = True) -> dict[str, dict[str, dict[str, Any]]]:
    """
    Page → size → milliseconds of every request, and statements of one; of a search also those of its statement.

    Sizes take turns, so the machine's moods meet all. Without `walls` nothing guards a statement, and the login is one
    that no policy binds: what they cost is the rest.
    """
    settings.ROOT_URLCONF = __name__
    if not walls:
        connection_created.disconnect(dispatch_uid="tenancy")
        connection.execute_wrappers.clear()
        CustomerQuerySet.first_found = _found_without_walls  # type: ignore[method-assign,assignment]
    visitors = {size: Visitor(tenant, int(size)) for size, tenant in tenants.items()}
    found: dict[str, dict[str, dict[str, Any]]] = {
        page: {size: {"ms": [], "statements": 0, "sql": []} for size in tenants} for page in PAGES
    }
    for turn in range(WARM_UP + requests_each):
        for page, address in PAGES.items():
            if page in SELDOM and turn % SELDOM[page]:
                continue
            for size, visitor in visitors.items():
                milliseconds = visitor.look(address(visitor))
                if turn >= WARM_UP:
                    found[page][size]["ms"].append(milliseconds)
    for page, address in PAGES.items():
        for size, visitor in visitors.items():
            found[page][size]["statements"] = visitor.statements(address(visitor))
            if page in SEARCHES:
                found[page][size]["sql"] = [visitor.searched(address(visitor)) for _ in range(requests_each)]
    return found


def _found_without_walls(customers: CustomerQuerySet, text: str, **_place: Any) -> CustomerQuerySet:
    """By LIKE alone, which has an index where no policy is."""
    open_now = tenancy.current()
    assert open_now is not None
    if _are_indexed(open_now.partner_id):
        customers = customers.filter(is_indexed=True)
    return customers.matching(text)


@cache
def _are_indexed(partner_id: int | None) -> bool:
    return not Customer.objects.not_indexed().filter(partner=partner_id).exists()


class Visitor:
    """A signed-in member of one partner, who knows a few of its customers."""

    def __init__(self, tenant: str, size: int) -> None:
        self._partner = Partner.objects.get(tenant_id=tenant)
        self._client = Client()
        self._client.force_login(self._partner.members.get().user)
        session = self._client.session
        session["partner_id"] = self._partner.pk
        session.save()
        self.middle = max(size // listing.PAGE_SIZE // 2, 1)
        with partner_scope(self._partner):
            ids = list(self._partner.customers.order_by("id").values_list("id", flat=True)[:WRITTEN])
            some = random.Random(7).choices(ids[: -listing.PAGE_SIZE] or ids, k=PLACES)  # noqa: S311 - any will do
            rows = list(self._partner.customers.filter(id__in=some).values_list("name_key", "id", "domain"))
        self.marks = [signing.dumps([name, pk], salt=listing.SALT, compress=True) for name, pk, _ in rows]
        self.domains = [domain for *_, domain in rows]
        stems = [domain.partition(".")[0] for domain in self.domains]
        self.beginnings = [stem[:-2] if len(stem) > 4 else stem for stem in stems]
        self.middles = [stem[2:] if len(stem) > 4 else stem for stem in stems]
        self._turn = 0

    def look(self, address: str) -> float:
        self._turn += 1
        began = time.perf_counter()
        answer = self._client.get(address)
        milliseconds = (time.perf_counter() - began) * 1000
        assert answer.status_code == 200, answer.status_code
        assert b"data-label" in answer.content, address
        return milliseconds

    def statements(self, address: str) -> int:
        """How many a page takes, without where transactions begin and end."""
        asked: list[str] = []

        def note(execute: Callable[..., Any], text: Any, params: Any, many: bool, context: Any) -> Any:
            asked.append(str(text))
            return execute(text, params, many, context)

        with connection.execute_wrapper(note):
            self.look(address)
        return len(asked)

    def searched(self, address: str) -> float:
        """Milliseconds of the search's own statement."""
        text, took = unquote(address.partition("?q=")[2]), [0.0]
        self._turn += 1

        def note(execute: Callable[..., Any], *given: Any) -> Any:
            began = time.perf_counter()
            try:
                return execute(*given)
            finally:
                took[0] = (time.perf_counter() - began) * 1000

        with partner_scope(self._partner), transaction.atomic(), connection.execute_wrapper(note):
            listing.customer_page(self._partner.customers.all(), text=text, after="")
        return took[0]

    def one_of(self, some: list[str]) -> str:
        return quote(some[self._turn % len(some)])


PAGES: dict[str, Callable[[Visitor], str]] = {
    "first page": lambda visitor: "/customers/",
    "deep page": lambda visitor: f"/customers/?after={visitor.one_of(visitor.marks)}",
    "search, many found": lambda visitor: "/customers/?q=group",
    "search, one found": lambda visitor: f"/customers/?q={visitor.one_of(visitor.domains)}",
    "prefix search": lambda visitor: f"/customers/?q={visitor.one_of(visitor.beginnings)}",
    "substring search": lambda visitor: f"/customers/?q={visitor.one_of(visitor.middles)}",
    "Paginator, page 1": lambda visitor: "/plain/",
    "Paginator, in the middle": lambda visitor: f"/plain/?page={visitor.middle}",
}
SELDOM = {"Paginator, page 1": 3, "Paginator, in the middle": 3}  # they take long


if __name__ == "__main__":
    with system_scope("a bench"):
        found = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(found))  # noqa: T201 - read by bench.ground
