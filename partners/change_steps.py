"""
What a worker does for a change of a subscription, step by step, so that an effect happens once.

What is sent, and under which id, is written down before it leaves. So after a crash, or an answer that never came,
somebody knows that it may have happened, and reads how the subscription stands. Is it as wanted, then it is done. Is it
as before, the very same request goes once more, under the same id, for five minutes; after that it is over, and a
person may begin anew. No second id is tried in its place, unless Microsoft answered that it did nothing (429, 401).
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from django.db import transaction
from django.utils import timezone

from partners import jobs, pacing, subscriptions
from partners.change_words import reason_of
from partners.changes import in_numbers, record
from partners.models import Change
from partners.models.changes import ANSWER_WITHIN, GIVEN_UP_AFTER, SAME_ID_LIFE, YES_LIFE
from partners.pacing import Paced
from partners.partnercenter import AccessRefused, CallRejected, MfaMissing, PartnerCenter, SessionRefused, Throttled
from partners.powers import Power
from partners.standing import current_token, standing
from partners.subscriptions import Subscription
from tokens import outside
from tokens.actors import SYSTEM
from tokens.challenges import ChallengedAgain
from tokens.clouds import Audience
from tokens.entra import BlockedByPartner, ConsentRequired, NoSuchTenant
from tokens.errors import Failure, Permanent, Transient
from tokens.gate import Stopped
from tokens.models import RefreshToken
from tokens.secret import Secret
from tokens.tenancy import partner_scope, system_scope

logger = logging.getLogger(__name__)

PURPOSE = "subscriptions.change"
PATIENCE = 3.0  # seconds that a call waits where it may not leave at once; somebody waits for the answer
A_NO = (CallRejected, AccessRefused, MfaMissing, ChallengedAgain)  # Microsoft did not do what was asked
NOT_SENT = (Stopped, ConsentRequired, BlockedByPartner, NoSuchTenant)  # there was no token, or the gate was shut
SOON, LATEST, MUCH_LATER = 5.0, 60.0, 300.0  # seconds until somebody looks again
LONGEST_WAIT = 600.0  # seconds; whatever Microsoft asks beyond that, a yes is not good for


class TakenOver(Permanent):
    """Somebody else works on this change by now; nothing of ours may leave any more."""


def work(change_id: uuid.UUID) -> bool:
    """Take the next step of a change; False when somebody else does, or there is none."""
    with system_scope("whose change it is"):
        partner_id = Change.objects.filter(pk=change_id).values_list("partner_id", flat=True).first()
    if partner_id is None:
        return False
    with partner_scope(partner_id):
        change = Change.objects.select_related("partner", "customer", "member__user").filter(pk=change_id).first()
        if change is None or not change.take():
            return False
        try:
            _Step(change).take()
        except TakenOver:
            logger.warning("a change was taken over", extra={"change": str(change.pk)})
        except Exception:  # the outermost frame: whatever it was, the next one must know that it may have been sent
            logger.exception("a change broke", extra={"change": str(change.pk)})
            _Step(change).broken()
    return True


class _Step:
    """One step of a change that this worker holds."""

    def __init__(self, change: Change) -> None:
        self.change, self.now = change, timezone.now()
        self.actor = change.member.user.as_actor() if change.member else SYSTEM

    def take(self) -> None:
        change = self.change
        if why := self._why_over():
            return self._end(Change.Outcome.STOPPED, why)
        token = current_token(change.partner)
        if token is None or not standing(change.partner, token).is_live:
            return self._not_live("not_live")
        session = pacing.session(
            token,
            Audience.PARTNER_CENTER,
            purpose=PURPOSE,
            actor=self.actor,
            patience=PATIENCE,
            also=self._refuse_if_taken_over,
        )
        client = PartnerCenter(session, correlation_id=change.correlation_id)
        try:
            stands = subscriptions.read(client, change.customer.tenant_id, change.subscription_id)
        except TakenOver:
            raise
        except Failure as failure:
            return self._not_read(token, failure)
        if not change.read_at:
            self._note(stands)
        elif not change.sent_at:
            self._begin(token, client, stands)
        else:
            self._settle(token, client, stands)

    def _refuse_if_taken_over(self) -> None:
        """Asked before each send, the second after a claims challenge, too: a new token may take a minute to come."""
        if not self.change.still_holds():
            raise TakenOver("Somebody else works on this change by now.", code="taken_over")

    def _why_over(self) -> str:
        """Why nothing shall be sent any more, although the step before said so."""
        change = self.change
        if change.sent_at:
            return ""
        if not change.read_at:
            return "later" if change.asked_at + ANSWER_WITHIN <= self.now else ""
        if change.confirmed_at and change.confirmed_at + YES_LIFE <= self.now:
            return "too_late"
        return "" if self._may_still() else "not_yours"

    def _may_still(self) -> bool:
        member = self.change.member
        if member is None or not member.user.is_active or not member.may(Power.CHANGES):
            return False
        return member.customers.present().filter(pk=self.change.customer_id).exists()

    # --- Reading ----------------------------------------------------------------------------------------------------
    def _note(self, stands: Subscription) -> None:
        self.change.let_go(
            read_at=self.now,
            before=stands.facts,
            title=stands.title or self.change.title,
            subscription_id=stands.id or self.change.subscription_id,
        )

    def _not_read(self, token: RefreshToken, failure: Failure) -> None:
        """How it stands is not known; what was not sent yet waits, or ends with the refusal."""
        change = self.change
        if isinstance(failure, MfaMissing):
            jobs.note_missing_mfa(token, failure)
        if change.sent_at:
            return self._wait_for_news(failure)
        if isinstance(failure, Transient | SessionRefused):
            if not change.read_at:
                return self._end(Change.Outcome.STOPPED, "later", failure)
            return self._put_off(failure)
        why = reason_of(failure)
        if why == "ours":
            logger.error("a change failed", extra={"change": str(change.pk), "code": failure.code}, exc_info=failure)
        self._end(Change.Outcome.STOPPED if why == "stopped" else Change.Outcome.REFUSED, why, failure)

    # --- Sending ----------------------------------------------------------------------------------------------------
    def _begin(self, token: RefreshToken, client: PartnerCenter, stands: Subscription) -> None:
        """Write down what will be sent, and send it."""
        change = self.change
        if not is_as_before(change, stands.facts):
            return self._end(Change.Outcome.REFUSED, "changed", after=stands.facts)
        request = stands.with_changed(change.what, change.wanted_value)
        sealed = outside.keyring().seal(Secret(request.decode()), aad=_bound_to(change))
        with transaction.atomic():
            if not change.hold(sent_at=timezone.now(), sends=change.sends + 1, sealed_request=sealed):
                return
            record("change.sent", change, actor=self.actor, **in_numbers(change))
        self._send(token, client, request)

    def _send_again(self, token: RefreshToken, client: PartnerCenter) -> None:
        request = outside.keyring().open(self.change.sealed_request, aad=_bound_to(self.change)).reveal().encode()
        if self.change.hold(sends=self.change.sends + 1):
            self._send(token, client, request)

    def _send(self, token: RefreshToken, client: PartnerCenter, request: bytes) -> None:
        change = self.change
        customer, etag = change.customer.tenant_id, change.before.get("etag", "")
        try:
            after = subscriptions.change(
                client, customer, change.subscription_id, request=request, etag=etag, request_id=change.request_id
            )
        except TakenOver:
            raise
        except (Paced, Throttled, SessionRefused) as failure:
            self._put_off(failure)
        except NOT_SENT as failure:
            self._not_live(failure.code, failure)
        except A_NO as failure:
            if isinstance(failure, MfaMissing):
                jobs.note_missing_mfa(token, failure)
            self._refused(client, token, failure)
        except Failure as failure:
            logger.warning("no answer to a change", extra={"change": str(change.pk), "code": failure.code})
            change.let_go(wait=self._pause(), unsure_at=change.unsure_at or timezone.now())
        else:
            if after is not None and is_as_wanted(change, after.facts):
                return self._end(Change.Outcome.DONE, after=after.facts)
            change.let_go(wait=SOON, accepted_at=change.accepted_at or timezone.now())

    def _refused(self, client: PartnerCenter, token: RefreshToken, failure: Failure) -> None:
        """A no says that this request changed nothing; an earlier one, of which we heard nothing, may have."""
        why = reason_of(failure)
        if not self.change.unsure_at:
            outcome = Change.Outcome.STOPPED if why == "stopped" else Change.Outcome.REFUSED
            return self._end(outcome, why, failure)
        self.change.let_go(wait=0, reason=why, code=failure.code[:40])

    def _put_off(self, failure: Failure) -> None:
        """
        Nothing was done by it. It is as if it had not been sent, unless an earlier one may have arrived.

        An id that was answered is used up: Microsoft may give the same answer again, whatever comes under it.
        """
        wait = failure.retry_after if isinstance(failure, Transient) else None
        pause = min(wait if wait is not None else self._pause(), LONGEST_WAIT)
        facts: dict[str, Any] = {}
        if not self.change.unsure_at:
            facts = {"sent_at": None, "sealed_request": ""}
            facts |= {} if isinstance(failure, Paced) else {"request_id": uuid.uuid4()}
        self.change.let_go(wait=pause, **facts)

    def _not_live(self, code: str, failure: Failure | None = None) -> None:
        """The gate is shut: what was not sent never will be, what was is looked at when it opens again."""
        change = self.change
        if change.sent_at and (change.unsure_at or change.accepted_at or failure is None):
            return self._wait_for_news(failure)
        self._end(Change.Outcome.STOPPED, "stopped", failure, code=code)

    # --- Settling ---------------------------------------------------------------------------------------------------
    def _settle(self, token: RefreshToken, client: PartnerCenter, stands: Subscription) -> None:
        """It was sent and no answer has ended it: how it stands now decides."""
        change = self.change
        # Whoever sent it may have died before they could say how it went.
        if not (change.unsure_at or change.accepted_at) and not change.hold(unsure_at=self.now):
            return
        if is_as_wanted(change, stands.facts):
            return self._end(Change.Outcome.DONE, after=stands.facts)
        if not is_as_before(change, stands.facts):
            return self._end(Change.Outcome.UNKNOWN, "overtaken", after=stands.facts)
        if change.reason:
            return self._end(Change.Outcome.REFUSED, change.reason, code=change.code, after=stands.facts)
        if change.accepted_at:
            return self._wait_for_news(None)
        if change.sent_at and change.sent_at + SAME_ID_LIFE > self.now:
            return self._send_again(token, client) if self._may_still() else self._wait_for_news(None)
        self._end(Change.Outcome.NOT_DONE, "lost", after=stands.facts)

    def _wait_for_news(self, failure: Failure | None) -> None:
        """Look again later whether it took effect; for a day."""
        change = self.change
        if change.sent_at and change.sent_at + GIVEN_UP_AFTER <= self.now:
            return self._end(Change.Outcome.UNKNOWN, "unseen", failure)
        wait = failure.retry_after if isinstance(failure, Transient) else None
        usual = self._pause() if failure is None or isinstance(failure, Transient) else MUCH_LATER
        since = {} if change.unsure_at or change.accepted_at else {"unsure_at": self.now}
        change.let_go(wait=min(max(wait or 0, usual), LONGEST_WAIT), **since)

    def _pause(self) -> float:
        """Seconds; longer the longer it lasts."""
        since = self.change.sent_at or self.change.confirmed_at or self.now
        return min(max(SOON, (timezone.now() - since).total_seconds() / 2), LATEST)

    # --- Ending -----------------------------------------------------------------------------------------------------
    def broken(self) -> None:
        """Our own mistake: what was not sent ends; what may have been sent is looked at again."""
        if self.change.sent_at:
            return self._wait_for_news(None)
        self._end(Change.Outcome.REFUSED, "ours", code=str(self.change.pk)[:8])

    def _end(
        self,
        outcome: Change.Outcome,
        reason: str = "",
        failure: Failure | None = None,
        *,
        code: str = "",
        after: dict[str, Any] | None = None,
    ) -> None:
        change, code = self.change, (code or (failure.code if failure else ""))[:40]
        with transaction.atomic():
            if not change.end(outcome, reason=reason, code=code, after=after or {}) or not change.confirmed_at:
                return
            record(
                "change.ended", change, actor=self.actor, outcome=str(outcome), reason=reason, code=code,
                correlation_id=str(change.correlation_id), **in_numbers(change),
            )  # fmt: skip
        logger.info("a change ended", extra={"change": str(change.pk), "outcome": str(outcome), "code": code})


def is_as_wanted(change: Change, facts: dict[str, Any]) -> bool:
    return bool(facts.get(change.what) == change.wanted_value)


def is_as_before(change: Change, facts: dict[str, Any]) -> bool:
    """Nobody touched it. Microsoft's mark decides; without one all that is known of it has to be the same."""
    before, now = change.before.get("etag"), facts.get("etag")
    return bool(before == now) if before and now else change.before == facts


def _bound_to(change: Change) -> list[str]:
    """A request moved to another partner, customer or change does not open."""
    return ["change", str(change.pk), str(change.partner_id), str(change.customer_id), str(change.request_id)]
