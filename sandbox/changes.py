"""
Changes of subscriptions: what a PATCH does to one, and what is refused.

Microsoft's pages "Change the quantity of a subscription", "Update a subscription's autorenew" and "REST headers".
"""

from __future__ import annotations

import uuid
from datetime import datetime

from werkzeug import Response

from sandbox import subscriptions
from sandbox.asks import Ask, reply
from sandbox.customers import Customer
from sandbox.directory import Tenant
from sandbox.envelopes import refusal
from sandbox.subscriptionbook import Resource
from sandbox.world import World

MOST = 10_000  # seats of one subscription


def find(customer: Customer, override: Resource, subscription_id: str) -> int | None:
    """The index of a customer's subscription; the case of its letters does not matter."""
    wanted = subscription_id.lower()
    places = range(subscriptions.count(customer, override))
    return next((i for i in places if str(subscriptions.at(customer, i)["id"]).lower() == wanted), None)


def listed(world: World, tenant: Tenant, customer: Customer) -> list[Resource]:
    """All of a customer's subscriptions as they are now."""
    override, now = tenant.customers.overrides.get(customer.index, {}), world.now()
    with world.lock:
        return [world.book.standing(customer, i, override, now) for i in range(subscriptions.count(customer, override))]


def serve_one(ask: Ask, tenant: Tenant, customer: Customer, subscription_id: str) -> Response:
    """Read or change one subscription of a customer; who calls has been looked at."""
    book, now, override = ask.world.book, ask.world.now(), tenant.customers.overrides.get(customer.index, {})
    with ask.world.lock:
        index = find(customer, override, subscription_id)
        if index is None:
            return refusal(404, 20003, "The subscription was not found.")
        standing = book.standing(customer, index, override, now)
        if ask.request.method == "GET":
            return reply(standing)
        if ask.request.method != "PATCH":
            return refusal(404, 1000, "Not found")
        request_id = ask.request.headers.get("MS-RequestId") or str(uuid.uuid4())
        again = book.answered(str(ask.call.tenant), request_id)
        if again:
            ask.call.detail["replayed"] = True
            return again
        response = _patch(ask, customer, standing, override)
        book.note(str(ask.call.tenant), request_id, response)
        return response


def _patch(ask: Ask, customer: Customer, standing: Resource, override: Resource) -> Response:
    """The whole resource comes; what it leaves out is lost."""
    given = ask.request.get_json(silent=True)
    if not isinstance(given, dict):
        return refusal(400, 2000, "The body is not a subscription.")
    names = {name.lower(): name for name in standing}
    wanted: Resource = {names.get(str(name).lower()) or str(name): value for name, value in given.items()}
    refused = _refusal(ask, standing, wanted, override)
    if refused:
        return refused
    wanted |= {name: standing[name] for name in ("id", "creationDate", "orderId") if name in standing}
    if wanted.get("quantity") != standing.get("quantity"):
        wanted.pop("scheduledNextTermInstructions", None)  # a change within the term takes a scheduled one back
    if "slow" in override:
        ask.world.book.later(wanted, ask.world.now() + float(override["slow"]))
        where = f"/customers/{customer.tenant_id}/subscriptions/{standing['id']}"
        return Response("", 202, {"Location": where}, content_type="application/json; charset=utf-8")
    return reply(ask.world.book.change(wanted))


def _refusal(ask: Ask, standing: Resource, wanted: Resource, override: Resource) -> Response | None:
    """Microsoft's no, where there is one."""
    if "refusal" in override:
        status, code = override["refusal"]
        return refusal(status, code, "The change is refused.")
    if ask.world.book.is_pending(standing):
        return refusal(409, 900278, "There is a pending operation. Try again after 24 hours.")
    etags = (ask.request.headers.get("If-Match", "").strip('"'), (wanted.get("attributes") or {}).get("etag", ""))
    sent = next(filter(None, etags), "")
    if ask.world.book.enforces_etag and sent != standing["attributes"].get("etag", ""):
        return refusal(400, 2055, "The ETag does not match.")
    if wanted.get("quantity") != standing.get("quantity"):
        return _seats_refused(ask, standing, wanted.get("quantity"))
    if wanted.get("autoRenewEnabled") and (standing.get("isTrial") or standing.get("billingType") == "usage"):
        return refusal(400, 800093, "The subscription cannot be renewed automatically.")
    return None


def _seats_refused(ask: Ask, standing: Resource, quantity: object) -> Response | None:
    if standing.get("status") != "active":
        return refusal(400, 800091, "The subscription is suspended.")
    if standing.get("billingType") == "usage":
        return refusal(400, 800095, "The quantity cannot be changed.")
    if not isinstance(quantity, int) or isinstance(quantity, bool) or not 1 <= quantity <= MOST:
        return refusal(400, 2002, "The quantity is out of range.")
    until = standing.get("cancellationAllowedUntilDate")
    if quantity < standing["quantity"] and (not until or _seconds(until) < ask.world.now()):
        return refusal(400, 800090, "Subscription quantity cannot be decreased.")
    return None


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
