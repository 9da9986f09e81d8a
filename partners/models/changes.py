"""Changes of customers' subscriptions: the one thing that is written at Microsoft in a partner's name."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any, ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from partners.models.mirror import Customer
from partners.models.people import Member, Partner
from tokens.tenancy import OfOnePartner

READ_LIFE = dt.timedelta(minutes=10)  # so long a preview may be confirmed
YES_LIFE = dt.timedelta(minutes=10)  # so long a yes may be sent; later it would come as a surprise
ANSWER_WITHIN = dt.timedelta(seconds=60)  # whoever looks at the page waits no longer for how it stands
SAME_ID_LIFE = dt.timedelta(
    minutes=5
)  # so long the same request is sent again; no document says how long Microsoft knows
GIVEN_UP_AFTER = dt.timedelta(hours=24)  # of looking whether it took effect
TAKEN_FOR = dt.timedelta(seconds=60)  # longer than a request may last, with the opening of its connection
OFFERED_FOR = dt.timedelta(seconds=10)
KEEP = dt.timedelta(days=400)  # what was sent; what nobody confirmed goes after a day


class ChangeQuerySet(OfOnePartner, models.QuerySet["Change"]):
    def of_a_worker(self, now: dt.datetime) -> ChangeQuerySet:
        """Not ended, and no person's turn: to be read, or to be sent and settled."""
        turn = Q(read_at=None) | Q(confirmed_at__isnull=False)
        return self.filter(turn, Q(not_before=None) | Q(not_before__lte=now), ended_at=None)

    def free(self, now: dt.datetime) -> ChangeQuerySet:
        return self.of_a_worker(now).filter(Q(taken_until=None) | Q(taken_until__lte=now))

    def waiting(self, now: dt.datetime) -> ChangeQuerySet:
        """In nobody's hands, though a message should have been read by now."""
        return self.free(now).filter(offered_until__lte=now)

    def under_way(self) -> ChangeQuerySet:
        """Confirmed and not ended: of one subscription there is one such at most."""
        return self.filter(confirmed_at__isnull=False, ended_at=None)


def offer_end() -> dt.datetime:
    return timezone.now() + OFFERED_FOR


class Change(models.Model):
    """
    What somebody wants of one subscription, from the first look to what became of it.

    A worker reads how it stands; a person says what it shall be, sees what that means and confirms; a worker sends.
    That it is sent is written down before it is, so that whoever comes after a crash knows that it may have happened.
    `request_id` is Microsoft's idempotency key: one for as long as a request under it may have had an effect.
    """

    class What(models.TextChoices):
        QUANTITY = "quantity", "Number of licences"
        AUTO_RENEW = "auto_renew", "Automatic renewal"

    class Outcome(models.TextChoices):
        DONE = "done"
        REFUSED = "refused"  # nothing was changed by it
        STOPPED = "stopped"  # before it was sent
        NOT_DONE = "not_done"  # it was sent, no answer came, and Microsoft says that nothing is changed
        UNKNOWN = "unknown"  # a person has to look

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    partner = models.ForeignKey(Partner, models.CASCADE, related_name="changes")
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="changes")
    member = models.ForeignKey(Member, models.SET_NULL, null=True, blank=True, related_name="changes")
    asked_by = models.CharField(max_length=320, blank=True)  # for people, also when the member is gone
    subscription_id = models.CharField(max_length=64)  # as Microsoft writes it
    subscription_key = models.CharField(max_length=64)  # in lower case: Microsoft's ids come in either
    title = models.CharField(max_length=400, blank=True)
    asked_at = models.DateTimeField(default=timezone.now)
    read_at = models.DateTimeField(null=True, blank=True)
    before = models.JSONField(default=dict, blank=True)  # what Microsoft said then, as `facts` of a subscription
    what = models.CharField(max_length=10, choices=What.choices, blank=True)
    wanted = models.PositiveIntegerField(null=True, blank=True)  # the number; for the renewal 1 is on and 0 is off
    chosen_at = models.DateTimeField(null=True, blank=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    request_id = models.UUIDField(default=uuid.uuid4)
    correlation_id = models.UUIDField(default=uuid.uuid4)
    sent_at = models.DateTimeField(null=True, blank=True)  # first, as far as it may have had an effect
    sends = models.PositiveSmallIntegerField(default=0)
    sealed_request = models.TextField(blank=True)  # what was sent, byte for byte; gone at the end
    unsure_at = models.DateTimeField(null=True, blank=True)  # since then we don't know whether it had an effect
    accepted_at = models.DateTimeField(null=True, blank=True)  # Microsoft took it and works on it
    taken_until = models.DateTimeField(null=True, blank=True)
    fence = models.BigIntegerField(default=0)
    offered_until = models.DateTimeField(default=offer_end)
    not_before = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome.choices, blank=True)
    reason = models.CharField(max_length=20, blank=True)  # one of `partners.change_words`
    code = models.CharField(max_length=40, blank=True)  # Microsoft's, or ours
    after = models.JSONField(default=dict, blank=True)

    objects = ChangeQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "id"], name="change_partner_id"),
            models.UniqueConstraint(
                fields=["partner", "subscription_key"],
                condition=Q(confirmed_at__isnull=False, ended_at=None),
                name="change_one_under_way",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["offered_until"], name="change_waiting", condition=Q(ended_at=None)),
            models.Index(fields=["partner", "customer", "-asked_at"], name="change_of_customer"),
        ]

    def __str__(self) -> str:
        return f"{self.get_what_display() or 'change'} of {self.title or self.subscription_id}"

    # --- Properties -------------------------------------------------------------------------------------------------
    @property
    def state(self) -> str:
        """reading, read, previewed, over, confirmed, sending, settling or ended."""
        if self.ended_at:
            return "ended"
        if self.confirmed_at:
            return "confirmed" if not self.sent_at else "settling" if self.unsure_at or self.accepted_at else "sending"
        if self.is_too_old:
            return "over"
        return "reading" if not self.read_at else "previewed" if self.chosen_at else "read"

    @property
    def is_too_old(self) -> bool:
        """Nobody confirmed it, and by now Microsoft may say something else."""
        if self.confirmed_at or self.ended_at:
            return False
        life, since = (READ_LIFE, self.read_at) if self.read_at else (ANSWER_WITHIN, self.asked_at)
        return since + life <= timezone.now()

    @property
    def is_active(self) -> bool:
        """A worker has, or will have, something to do: the page reads itself again."""
        return self.state in ("reading", "confirmed", "sending", "settling")

    @property
    def wanted_value(self) -> int | bool:
        """What Microsoft is told: a number, or true or false."""
        return bool(self.wanted) if self.what == self.What.AUTO_RENEW else int(self.wanted or 0)

    @property
    def good_until(self) -> dt.datetime | None:
        return self.read_at + READ_LIFE if self.read_at else None

    # --- A person ---------------------------------------------------------------------------------------------------
    def choose(self, what: str, wanted: int) -> bool:
        """Note what it shall be; False when it was confirmed, or is over."""
        return self._mine(self._before_the_yes(), what=what, wanted=wanted, chosen_at=timezone.now())

    def confirm(self, what: str, wanted: int) -> bool:
        """
        Confirm exactly this; False when it is confirmed already, over, or something else by now.

        :raises IntegrityError: another change of the same subscription is under way
        """
        now = timezone.now()
        same = self._before_the_yes().filter(what=what, wanted=wanted)
        return self._mine(same, confirmed_at=now, offered_until=now + OFFERED_FOR, not_before=None, taken_until=None)

    def take_back(self) -> bool:
        """End it before it is sent; False when a worker has it, or it is too late."""
        now = timezone.now()
        free = Change.objects.under_way().filter(
            Q(taken_until=None) | Q(taken_until__lte=now), pk=self.pk, sent_at=None
        )
        return self._mine(free, ended_at=now, outcome=self.Outcome.STOPPED, reason="taken_back")

    def _before_the_yes(self) -> ChangeQuerySet:
        still = Change.objects.filter(pk=self.pk, confirmed_at=None, ended_at=None)
        return still.filter(read_at__gt=timezone.now() - READ_LIFE)

    # --- A worker ---------------------------------------------------------------------------------------------------
    def offer(self) -> bool:
        """Claim the right to send a message about it; False when another tick was faster."""
        now = timezone.now()
        return Change.objects.waiting(now).filter(pk=self.pk).update(offered_until=now + OFFERED_FOR) == 1

    def take(self) -> bool:
        """Claim the one right to work on it for a minute; False when somebody has it, or there is nothing to do."""
        now = timezone.now()
        free = Change.objects.free(now).filter(pk=self.pk)
        if not free.update(taken_until=now + TAKEN_FOR, fence=F("fence") + 1):
            return False
        self.refresh_from_db()
        return True

    def hold(self, **facts: Any) -> bool:
        """Write facts and keep it for another minute; False when it was taken over, and nothing more may be sent."""
        return self._held(taken_until=timezone.now() + TAKEN_FOR, **facts)

    def still_holds(self) -> bool:
        """Keep it for another minute; False when it was taken over. Facts are not read anew, as `hold` does."""
        until = timezone.now() + TAKEN_FOR
        return self._ours().update(taken_until=until) == 1

    def let_go(self, *, wait: float | None = None, **facts: Any) -> bool:
        """Write facts and give it back; for `wait` seconds nobody takes it. False when it was taken over."""
        now = timezone.now()
        again = now + dt.timedelta(seconds=wait) if wait is not None else None
        return self._held(taken_until=None, not_before=again, offered_until=again or now, **facts)

    def end(self, outcome: str, **facts: Any) -> bool:
        """Say what became of it; False when it was taken over or has ended. What was sent is not kept."""
        return self._held(ended_at=timezone.now(), outcome=outcome, taken_until=None, sealed_request="", **facts)

    def _held(self, **facts: Any) -> bool:
        return self._mine(self._ours(), **facts)

    def _ours(self) -> ChangeQuerySet:
        return Change.objects.filter(pk=self.pk, fence=self.fence, ended_at=None)

    def _mine(self, rows: ChangeQuerySet, **facts: Any) -> bool:
        written = rows.update(**facts) == 1
        if written:
            self.refresh_from_db()
        return written
