"""
The product's own syncs, in a process that holds what a worker holds: `python -m bench.running NAME OPTIONS`.

Before the clock starts it has a token and has done another job, as the limits have read a page.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import django

for library in ("greenlet", "rich"):  # of the tests, which celery and structlog load where they find them
    sys.modules[library] = None  # type: ignore[assignment]
django.setup()

from bench.clock import clock  # noqa: E402
from bench.names import WARMING, name_of  # noqa: E402
from partners import jobs  # noqa: E402
from partners.models import Partner  # noqa: E402
from partners.standing import current_token  # noqa: E402
from tokens import actors, broker  # noqa: E402
from tokens.clouds import Audience  # noqa: E402
from tokens.tenancy import system_scope  # noqa: E402

WHO = actors.command("bench")


def warm(partner: Partner) -> None:
    """An access token is in this process, and another list of the partner's, a short one, was mirrored by it."""
    token = current_token(partner)
    assert token
    session = broker.session(token, Audience.PARTNER_CENTER, purpose="sync.customers", actor=WHO)
    session.get("/v1/profiles/organization")
    for _ in range(1_000):  # another worker of the same bench may have it
        if run := jobs.run_job(jobs.ensure(partner, WARMING, due_now=True).pk):
            break
        time.sleep(0.01)
    assert run
    assert run.outcome == "done", run.error


def mirror_customers(tenants: list[str], kind: str) -> None:
    """Partners whose customers are in the mirror, and who have jobs of another kind."""
    from cpvpanel import demo  # a worker does not hold it

    for tenant in tenants:
        partner = Partner.objects.create(cloud="global", tenant_id=tenant, name=name_of(tenant))
        demo._consent(partner, demo.Pretended(tenant, partner.name))
        run = jobs.run_job(jobs.ensure(partner, "customers").pk)
        assert run
        assert run.outcome == "done", run.error
        jobs.ensure(partner, kind)


def sync(tenant: str, size: int, first: bool) -> dict[str, Any]:
    """One run of the customers, into an empty mirror or over what an earlier one left."""
    partner = Partner.objects.get(tenant_id=tenant)
    job = jobs.ensure(partner, "customers", due_now=True)
    warm(partner)
    figures: dict[str, Any] = {}
    with clock(figures):
        run = jobs.run_job(job.pk)
    assert run
    assert (run.outcome, run.seen, run.created) == ("done", size, size if first else 0), (run.outcome, run.error)
    return figures


if __name__ == "__main__":
    with system_scope("a bench"):
        found = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(found))  # noqa: T201 - read by bench.ground
