"""
Changes of subscriptions, so that an effect happens once: what a person does, and the clock.

Who confirms leaves a row; a worker sends (`partners.change_steps`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from partners import messages
from partners.models import Change, Customer, Member
from partners.models.changes import KEEP
from tokens import audit
from tokens.actors import Actor
from tokens.tenancy import system_scope

MOST = 1_000_000  # licences; Microsoft allows fewer, and says so
A_DAY = dt.timedelta(days=1)


class NotNow(Exception):
    """It was not done; the text says why, and what next."""


# --- A person -------------------------------------------------------------------------------------------------------
def ask(*, member: Member, customer: Customer, subscription_id: str, title: str = "") -> Change:
    """Begin: have a worker read how a subscription stands."""
    with transaction.atomic():
        earlier = member.changes.filter(customer=customer, subscription_key=subscription_id.lower())
        earlier.filter(confirmed_at=None).delete()
        change: Change = member.changes.create(
            partner_id=member.partner_id,
            customer=customer,
            asked_by=str(member.user)[:320],
            subscription_id=subscription_id,
            subscription_key=subscription_id.lower(),
            title=title,
        )
        record("change.asked", change, actor=member.user.as_actor())
        transaction.on_commit(lambda: _send_message(change))
    return change


def choose(*, change: Change, by: Member, what: str, text: str) -> None:
    """
    Say what it shall be: a number of licences, or "on" or "off" for the renewal.

    :raises NotNow: somebody else's, no such thing, the same as now, or too late
    """
    _refuse_others(change, by)
    wanted = wanted_of(change, what, text)
    if not change.choose(what, wanted):
        raise NotNow("It is too late to choose: look again how the subscription stands.")


def wanted_of(change: Change, what: str, text: str) -> int:
    """:raises NotNow: it is nothing that this subscription could be"""
    if what == Change.What.AUTO_RENEW:
        if text not in ("on", "off"):
            raise NotNow("Choose on or off.")
        wanted, now = int(text == "on"), change.before.get("auto_renew")
        if now is None:
            raise NotNow("Microsoft does not say whether this subscription renews by itself.")
    elif what == Change.What.QUANTITY:
        wanted, now = _number(text), change.before.get("quantity")
        if now is None or change.before.get("billing") == "usage":
            raise NotNow("This subscription has no number of licences to change.")
    else:
        raise NotNow("Choose what to change.")
    if wanted == now:
        raise NotNow("That is how it stands now.")
    return wanted


def _number(text: str) -> int:
    text = text.strip().replace(",", "")
    if not (text.isascii() and text.isdigit()):
        raise NotNow("Write a whole number of licences, such as 25.")
    if not 1 <= int(text[:12]) <= MOST or len(text) > 12:
        raise NotNow("Choose between 1 and 1,000,000 licences. To have none, have the subscription end.")
    return int(text)


def confirm(*, change: Change, by: Member, what: str, wanted: int) -> None:
    """
    Have exactly this done, once.

    :raises NotNow: somebody else's, too late, something else by now, or another change of it is under way
    """
    _refuse_others(change, by)
    try:
        with transaction.atomic():
            if not change.confirm(what, wanted):
                raise NotNow("It is too late to confirm this, or it was confirmed already: see below how it stands.")
            record("change.confirmed", change, actor=by.user.as_actor(), **in_numbers(change))
            transaction.on_commit(lambda: _send_message(change))
    except IntegrityError as twice:
        raise NotNow(
            "Another change of this subscription is under way. Wait until it has ended, and look again."
        ) from twice


def _refuse_others(change: Change, by: Member) -> None:
    if change.member_id != by.pk:
        raise NotNow("Somebody else began this change. Begin one of your own.")


def take_back(*, change: Change, by: Member) -> None:
    """
    Have a change that was confirmed and not sent yet not be done.

    :raises NotNow: too late
    """
    with transaction.atomic():
        if not change.take_back():
            raise NotNow("It is too late to take it back: it is on its way, or over.")
        record("change.ended", change, actor=by.user.as_actor(), outcome=change.outcome, reason=change.reason)


def in_numbers(change: Change) -> dict[str, Any]:
    """What it was and what it shall be, for the audit."""
    return {"what": change.what, "from": change.before.get(change.what), "to": change.wanted_value}


def record(action: str, change: Change, *, actor: Actor, **detail: Any) -> None:
    """Write a step of a change down, with the id that Microsoft knows it by."""
    customer = str(change.customer.tenant_id)
    audit.record(
        action, actor=actor, partner=change.partner, object=change.subscription_id, request_id=str(change.request_id),
        customer=customer, **detail,
    )  # fmt: skip


def _send_message(change: Change) -> None:
    messages.send("partners.make_change", change_id=str(change.pk))


# --- The clock ------------------------------------------------------------------------------------------------------
@system_scope("changes that wait")
def offer_waiting() -> list[uuid.UUID]:
    """Changes whose message seems lost, or whose time has come, each for one caller to send anew."""
    now = timezone.now()
    return [change.pk for change in Change.objects.waiting(now) if change.offer()]


@system_scope("tidying changes")
def forget_old() -> int:
    """Let go of what nobody confirmed within a day, and of what ended 400 days ago."""
    now = timezone.now()
    nothing = Change.objects.filter(confirmed_at=None, asked_at__lt=now - A_DAY)
    return nothing.delete()[0] + Change.objects.filter(ended_at__lt=now - KEEP).delete()[0]
