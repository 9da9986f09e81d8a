"""The mirror of a partner's customers: page by page, each page and the place to go on in one short transaction."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from partners import jobs
from partners.models import Customer, Partner
from partners.partnercenter import Cursor, CursorRejected, CustomerInfo, Page, PartnerCenter, Trail, Untrustworthy

STRANGERS = 10  # customers: with fewer, a list that changed altogether proves nothing
WRITTEN = ["name", "name_key", "domain", "relationship", "content_hash", "changed_at", "removed_at", "removed_reason"]


def sync_customers(work: jobs.Work) -> None:
    """
    Mirror the partner's customers, from where an earlier run stopped or from the first page.

    Customers that Microsoft no longer lists stay: one list proves nothing, it may change while we read it.
    """
    partner_center = PartnerCenter(work.session(), correlation_id=work.run.correlation_id)
    place: Cursor | None = work.job.cursor.get("next")
    if place is not None:
        work.count(seen=work.job.cursor.get("seen", 0), expected=work.job.cursor.get("expected"))
        try:
            _read_pages(work, partner_center, place)
        except CursorRejected:
            place = None  # Microsoft forgot where we were
            work.count(seen=-work.run.seen)
    if place is None:
        work.job.cursor = {}
        _read_pages(work, partner_center, None)


def _read_pages(work: jobs.Work, partner_center: PartnerCenter, place: Cursor | None) -> None:
    trail = Trail(place)
    place = _read_page(work, partner_center, place, trail)
    while place is not None:
        work.pause()
        place = _read_page(work, partner_center, place, trail)


def _read_page(work: jobs.Work, partner_center: PartnerCenter, place: Cursor | None, trail: Trail) -> Cursor | None:
    """Fetch and store one page; says where the next one is. A function, so that no two pages are in memory."""
    page = partner_center.customers_page(place)
    trail.follow(page)
    if place is None:
        _check_whose(work.partner, page)
    _store(work, page)
    return page.cursor


def _check_whose(partner: Partner, page: Page) -> None:
    """
    Refuse a first page on which every customer is a stranger though we know many: it is most likely another partner's.

    :raises Untrustworthy: that is so; somebody must look before other people's customers are shown here
    """
    present = partner.customers.present()
    strangers = not present.filter(tenant_id__in=[item.tenant_id for item in page.items]).exists()
    if strangers and len(page.items) >= STRANGERS and present[:STRANGERS].count() == STRANGERS:
        raise Untrustworthy(
            "Not one customer on the first page is known; is this another partner's list?", code="other_tenant"
        )


@transaction.atomic
def _store(work: jobs.Work, page: Page) -> None:
    """The page's rows, the place to go on and the counts: all of them, or none when the lease is lost."""
    earlier = work.job.cursor
    seen = earlier.get("seen", 0) + len(page.items)
    expected = _expected(page, seen, earlier.get("expected"))
    progress = {"next": page.cursor, "pages": earlier.get("pages", 0) + 1, "seen": seen, "expected": expected}
    work.keep(progress)
    counts = _mirror(work.partner, page.items)
    work.count(expected=expected, pages=1, seen=len(page.items), **counts)


def _expected(page: Page, seen: int, earlier: int | None) -> int | None:
    """How many customers there are in all; None while totalCount can as well mean this page only, as on some lists."""
    if page.total is None or page.total < seen or (page.cursor and page.total == seen):
        return earlier
    return page.total


def _mirror(partner: Partner, items: Iterable[CustomerInfo]) -> dict[str, int]:
    """Write what is new or different among a page's customers; a customer that came back is present again."""
    now = timezone.now()
    described = {item.tenant_id: _customer(partner, item, now) for item in items}
    known = _known(partner, list(described))
    changed = [
        customer
        for tenant_id, customer in described.items()
        if known.get(tenant_id) != (customer.content_hash, None)  # other content, unknown, or removed
    ]
    if changed:
        Customer.objects.bulk_create(
            changed, update_conflicts=True, unique_fields=["partner", "tenant_id"], update_fields=WRITTEN
        )
    created = sum(customer.tenant_id not in known for customer in changed)
    return {
        "created": created,
        "updated": len(changed) - created,
        "unchanged": len(described) - len(changed),
    }


def _known(partner: Partner, tenant_ids: list[UUID]) -> dict[UUID, tuple[bytes, Any]]:
    rows = partner.customers.filter(tenant_id__in=tenant_ids)
    return {
        tenant_id: (bytes(content_hash), removed_at)
        for tenant_id, content_hash, removed_at in rows.values_list("tenant_id", "content_hash", "removed_at")
    }


def _customer(partner: Partner, item: CustomerInfo, now: dt.datetime) -> Customer:
    """The row as it should be; texts are cut to what a column holds."""
    name, domain, relationship = item.name[:400], item.domain.lower()[:255], item.relationship[:40]
    return Customer(
        partner=partner,
        tenant_id=item.tenant_id,
        name=name,
        name_key=(name or domain).casefold()[:400],  # a customer without a name is listed under its domain
        domain=domain,
        relationship=relationship,
        content_hash=hashlib.blake2b("\0".join((name, domain, relationship)).encode(), digest_size=16).digest(),
        first_seen_at=now,
        changed_at=now,
    )


KINDS = (
    jobs.Kind(
        name="customers",
        title="Customers",
        run=sync_customers,
        every=dt.timedelta(hours=6),
        fresh_for=dt.timedelta(hours=24),
        purpose="sync.customers",
    ),
)
