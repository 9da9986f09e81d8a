"""
Live looks at Microsoft for a member: asked by a page, answered by a worker, sealed in between, gone within a minute.

A web process may not read the vault, so it cannot ask Microsoft itself. It leaves a row; a worker takes the row, asks,
and seals the answer to (partner, customer, member); the page opens it once and deletes it. Nothing enters the mirror.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import uuid
from dataclasses import dataclass
from typing import Any

from django.core import signing
from django.db import transaction
from django.utils import timezone

from partners import jobs, messages, pacing
from partners.models import Customer, Lookup, Member
from partners.partnercenter import (
    AccessRefused,
    CursorRejected,
    MfaMissing,
    NotThere,
    PartnerCenter,
    SessionRefused,
)
from partners.reading import Cursor
from partners.standing import current_token, standing
from tokens import audit, outside
from tokens.challenges import ChallengedAgain
from tokens.clouds import Audience
from tokens.entra import BlockedByPartner, ConsentRequired, NoSuchTenant
from tokens.envelope import NotOurs
from tokens.errors import Failure, Transient
from tokens.gate import Stopped
from tokens.models import RefreshToken
from tokens.secret import Secret
from tokens.tenancy import partner_scope, system_scope

logger = logging.getLogger(__name__)

PURPOSE = "users.read"
PATIENCE = 3.0  # seconds that a question waits where calls may not leave at once; somebody waits for the answer
MARK_LIFE = dt.timedelta(hours=1)  # how long "more" leads on from a page that was read
SALT = "lookups.after"
BY_A_POLICY = "900309"  # Partner Center: a Conditional Access policy in the customer's tenant
LONGEST_WAIT = 24 * 3600.0  # seconds; whatever Microsoft asks beyond that is asked again


@dataclass(frozen=True)
class Words:
    """What a page says when there are no users to show."""

    title: str
    why: str
    owner: str  # partner, support or nobody
    action: str


REFUSALS = {
    "role": Words(
        "A role is missing in this customer",
        "Microsoft does not let the account that is connected read this customer's users. The connection itself works.",
        "partner",
        "Give the account one of the roles Directory Reader, Global Reader or User Administrator in this customer"
        " (GDAP), and see that it is an admin agent in Partner Center. Then ask again.",
    ),
    "policy": Words(
        "The customer's policy blocks this",
        "A sign-in policy in this customer's tenant does not let the account that is connected in.",
        "partner",
        "Ask the customer to allow service provider access in its Conditional Access policies. Then ask again.",
    ),
    "unknown": Words(
        "Partner Center does not know this customer as yours",
        "The relationship may have ended since the last sync.",
        "partner",
        "Look the customer up in Partner Center. If the relationship has ended, there is nothing to do.",
    ),
    "later": Words(
        "Microsoft does not answer now",
        "Partner Center or the sign-in service is down, or asks us to wait. Nothing is lost.",
        "nobody",
        "Ask again later.",
    ),
    "stopped": Words(
        "The connection needs attention",
        "No call leaves for your organisation now.",
        "partner",
        "Your home page says what to do.",
    ),
    "moved": Words(
        "The list cannot be continued here",
        "Microsoft no longer knows the place where this page ended.",
        "nobody",
        "Start from the first page.",
    ),
    "ours": Words("We could not read the answer", "This is our own mistake.", "support", "Give support the reference."),
}


@dataclass(frozen=True)
class Look:
    """What became of a question: still asked, answered with users or a refusal, or no longer there."""

    state: str  # asking, users, refused or gone
    users: list[dict[str, str]]
    at: dt.datetime | None = None
    more: str = ""
    is_first: bool = True
    words: Words | None = None
    retry_at: dt.datetime | None = None
    reference: str = ""

    @property
    def is_asking(self) -> bool:
        return self.state == "asking"


# --- The page -------------------------------------------------------------------------------------------------------
def ask(*, member: Member, customer: Customer, after: str = "") -> Lookup:
    """Leave a question for a worker; an earlier one of this member, and its answer, is gone with it."""
    with transaction.atomic():
        member.lookups.all().delete()
        lookup = member.lookups.create(
            partner_id=member.partner_id, customer=customer, cursor=_read_mark(after, member.pk, customer.pk) or {}
        )
        audit.record(
            "users.asked", actor=member.user.as_actor(), partner=member.partner, object=str(customer.tenant_id)
        )
        transaction.on_commit(lambda: messages.send("partners.look_up", lookup_id=str(lookup.pk)))
    return lookup


def find(*, member: Member, tenant_id: uuid.UUID, look: str, **along: Any) -> Lookup | None:
    """The member's own question about this customer, with the customer and what is to be read along; None when over."""
    if member.pk is None:  # staff to whom a look was lent: they asked Microsoft nothing
        return None
    try:
        wanted = uuid.UUID(look)
    except ValueError:
        return None
    mine = member.lookups.filter(pk=wanted, customer__tenant_id=tenant_id, customer__removed_at=None)
    mine = mine.filter(partner_id=member.partner_id, expires_at__gt=timezone.now())
    if not member.sees_every_customer:
        mine = mine.filter(customer__in=member.customers)
    return mine.select_related("customer").annotate(**along).first()


def take(lookup: Lookup) -> Look:
    """The answer, which is deleted as it is taken: of two who try, one gets it."""
    if not lookup.sealed_answer:
        return Look("asking", [])
    bound_to = _bound_to(lookup)
    if not lookup.delete()[0]:
        return gone()
    try:
        said = json.loads(outside.keyring().open(lookup.sealed_answer, aad=bound_to).reveal())
    except NotOurs as failure:
        logger.critical("an answer was not sealed for this question", extra={"code": failure.code})
        return gone()
    return Look(
        state=said["state"],
        users=said.get("users", []),
        at=dt.datetime.fromisoformat(said["at"]),
        more=_mark(said["cursor"], lookup.member_id, lookup.customer_id) if said.get("cursor") else "",
        is_first=said.get("is_first", True),
        words=REFUSALS.get(said.get("refusal", "")),
        retry_at=dt.datetime.fromisoformat(said["retry_at"]) if said.get("retry_at") else None,
        reference=said.get("reference", ""),
    )


def gone() -> Look:
    return Look("gone", [])


def _mark(cursor: Cursor, member_id: int, customer_id: int) -> str:
    return signing.dumps(cursor, salt=f"{SALT}:{member_id}:{customer_id}", compress=True)


def _read_mark(mark: str, member_id: int, customer_id: int) -> Cursor | None:
    """The place a mark names; None, which is the beginning, for one that is old or was not made for this page."""
    try:
        cursor: Cursor = signing.loads(mark, salt=f"{SALT}:{member_id}:{customer_id}", max_age=MARK_LIFE)
    except (signing.BadSignature, ValueError):
        return None
    return cursor


# --- The worker -----------------------------------------------------------------------------------------------------
def answer(lookup_id: uuid.UUID) -> bool:
    """Ask Microsoft, once, and leave the sealed answer; False when somebody else does, or it is too late."""
    with system_scope("whose question it is"):
        partner_id = Lookup.objects.filter(pk=lookup_id).values_list("partner_id", flat=True).first()
    if partner_id is None:
        return False
    with partner_scope(partner_id):
        return _answer(lookup_id)


def _answer(lookup_id: uuid.UUID) -> bool:
    found = Lookup.objects.select_related("partner", "customer", "member__user").filter(pk=lookup_id).first()
    if found is None or not found.take():
        return False
    said = {"at": timezone.now().isoformat(), "is_first": not found.cursor, **_ask_microsoft(found)}
    return found.mark_answered(outside.keyring().seal(Secret(json.dumps(said)), aad=_bound_to(found)))


def _bound_to(lookup: Lookup) -> list[str]:
    """An answer moved to another partner, customer, member or question does not open."""
    return ["lookup", str(lookup.pk), str(lookup.partner_id), str(lookup.customer_id), str(lookup.member_id)]


def _ask_microsoft(lookup: Lookup) -> dict[str, Any]:
    token = current_token(lookup.partner)
    if token is None or not standing(lookup.partner, token).is_live:
        return _refused("stopped")
    try:
        return _users(lookup, token)
    except MfaMissing as failure:
        jobs.note_missing_mfa(token, failure)
        return _because(failure)
    except Failure as failure:
        return _because(failure)
    except Exception:  # the outermost frame: whatever it was, the page must not wait in vain
        logger.exception("a look broke", extra={"lookup": str(lookup.pk)})
        return _refused("ours") | {"reference": str(lookup.pk)}


def _because(failure: Failure) -> dict[str, Any]:
    match failure:
        case MfaMissing() | Stopped() | ConsentRequired() | BlockedByPartner() | NoSuchTenant():
            return _refused("stopped", failure)
        case Transient() | SessionRefused():  # a refused access token is dropped; the next look has a new one
            wait = failure.retry_after if isinstance(failure, Transient) else None
            return _refused("later", failure) | ({"retry_at": _in(wait)} if wait else {})
        case ChallengedAgain():
            return _refused("policy", failure)
        case AccessRefused():
            return _refused("policy" if failure.code == BY_A_POLICY else "role", failure)
        case CursorRejected():
            return _refused("moved", failure)
        case NotThere():
            return _refused("unknown", failure)
    logger.error("a look failed", extra={"code": failure.code}, exc_info=failure)
    return _refused("ours", failure)


def _users(lookup: Lookup, token: RefreshToken) -> dict[str, Any]:
    actor = lookup.member.user.as_actor()
    session = pacing.session(token, Audience.PARTNER_CENTER, purpose=PURPOSE, actor=actor, patience=PATIENCE)
    client = PartnerCenter(session, correlation_id=lookup.pk)
    page = client.users_page(lookup.customer.tenant_id, lookup.cursor or None)
    users = [{"name": user.name, "sign_in_name": user.sign_in_name, "state": user.state} for user in page.items]
    return {"state": "users", "users": users, "cursor": page.cursor}


def _refused(refusal: str, failure: Failure | None = None) -> dict[str, Any]:
    reference = " ".join(filter(None, (failure.code, failure.correlation_id))) if failure else ""
    return {"state": "refused", "refusal": refusal, "reference": reference}


def _in(seconds: float) -> str:
    return (timezone.now() + dt.timedelta(seconds=min(seconds, LONGEST_WAIT))).isoformat()


# --- The clock ------------------------------------------------------------------------------------------------------
@system_scope("questions that wait")
def offer_waiting() -> list[uuid.UUID]:
    """Questions whose message seems lost, each for one caller to send anew; and what is over is deleted."""
    now = timezone.now()
    Lookup.objects.over(now).delete()
    return [lookup.pk for lookup in Lookup.objects.waiting(now) if lookup.offer()]
