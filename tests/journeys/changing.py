"""A customer with one subscription, and what a member does to change it; workers work when the test says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.test import Client

from partners import change_steps, changes, jobs
from partners.models import Change, Customer, Job, Partner, Subscription
from sandbox.directory import Tenant
from sandbox.world import World
from tokens import broker

FAR = "2999-01-01T00:00:00Z"
SEATS = {
    "quantity": 10, "billingType": "license", "unitType": "Licenses", "status": "active", "autoRenewEnabled": True,
    "termDuration": "P1Y", "billingCycle": "monthly", "commitmentEndDate": "2027-03-01T00:00:00Z",
    "cancellationAllowedUntilDate": FAR, "friendlyName": "Basic for everybody",
}  # fmt: skip


@dataclass
class Ground:
    """One customer of Contoso and its only subscription."""

    world: World
    tenant: Tenant
    portal: Client
    customer: Customer
    subscription: Subscription
    clock: Any  # a traveller of time_machine

    @property
    def override(self) -> dict[str, Any]:
        """The pretended customer's; a test may change it."""
        found = self.tenant.customers.find(str(self.customer.tenant_id))
        assert found
        return self.tenant.customer_overrides[found.index]

    @property
    def resource(self) -> dict[str, Any]:
        """How the subscription really stands."""
        found = self.tenant.customers.find(str(self.customer.tenant_id))
        assert found
        return self.world.book.standing(found, 0, self.override, self.world.now())

    @property
    def effects(self) -> int:
        """How often it was really changed."""
        return self.world.book.effects[self.subscription.key]

    @property
    def patches(self) -> list[Any]:
        return self.world.calls_to("partnercenter", "/subscriptions/", method="PATCH")

    def somebody_else(self, **properties: Any) -> None:
        """Change it as another program would."""
        self.world.book.change(self.resource | properties)
        self.world.book.effects[self.subscription.key] -= 1

    # --- What a member does -----------------------------------------------------------------------------------------
    def begin(self, portal: Client | None = None) -> Change:
        answer = (portal or self.portal).post(
            f"/customers/{self.customer.tenant_id}/changes", {"subscription": self.subscription.key}
        )
        assert answer.status_code == 302, answer.content.decode()
        return Change.objects.get(pk=re.findall(r"changes/([0-9a-f-]{36})/", answer["Location"])[0])

    def post(self, change: Change, step: str, portal: Client | None = None, **form: str) -> Any:
        return (portal or self.portal).post(f"{page(change)}{step}", form, follow=True)

    def previewed(self, portal: Client | None = None, /, **form: str) -> Change:
        """A change that was read and chosen; of 12 licences, unless the form says something else."""
        form = form or {"what": "quantity", "quantity": "12"}
        change = self.begin(portal)
        work()
        self.post(change, "choose", portal, **form)
        change.refresh_from_db()
        assert change.state == "previewed", (change.state, change.reason, change.code)
        return change

    def confirm(self, change: Change, portal: Client | None = None) -> Any:
        return self.post(change, "confirm", portal, what=change.what, wanted=str(change.wanted))

    def confirmed(self, **form: str) -> Change:
        change = self.previewed(**form)
        self.confirm(change)
        change.refresh_from_db()
        assert change.state == "confirmed", change.state
        return change

    def settle(self, change: Change, *, hours: float = 0.5, step: float = 30) -> Change:
        """Let time pass, with a tick now and then, until it has ended."""
        passed = 0.0
        while not change.ended_at and passed < hours * 3600:
            passed += step
            self.clock.shift(step)
            broker.forget()  # access tokens get old by another clock, which nobody sets
            tick()
            change.refresh_from_db()
        return change


def page(change: Change) -> str:
    return f"/customers/{change.customer.tenant_id}/changes/{change.pk}/"


def work() -> int:
    """What a worker does once with every change that is there; how many there was something to do for."""
    return sum(change_steps.work(pk) for pk in Change.objects.values_list("pk", flat=True))


def tick() -> int:
    """What the clock finds, done by a worker."""
    return sum(change_steps.work(pk) for pk in changes.offer_waiting())


def ground(world: World, tenant: Tenant, portal: Client, clock: Any) -> Ground:
    jobs.run_job(Job.objects.get(kind="customers", partner__tenant_id=tenant.id).pk)
    customer = Partner.objects.get(tenant_id=tenant.id).customers.order_by("name_key")[0]
    found = tenant.customers.find(str(customer.tenant_id))
    assert found
    tenant.customer_overrides = {found.index: {"subscriptions": 1, "subscription": dict(SEATS)}}
    resource = world.book.standing(found, 0, tenant.customer_overrides[found.index], world.now())
    subscription = Subscription.objects.create(
        partner=customer.partner, customer=customer, key=resource["id"].lower(), subscription_id=resource["id"],
        friendly_name=resource["friendlyName"], quantity=10, status="active", auto_renew=True, content_hash=b"0" * 16,
    )  # fmt: skip
    return Ground(world, tenant, portal, customer, subscription, clock)
