"""Mail to the vendor's own people about alarms that cannot wait until somebody looks at the desk."""

from __future__ import annotations

import logging

from django.conf import settings
from django.core.mail import EmailMessage
from django.urls import reverse

from tokens.models import Alarm
from tokens.tenancy import system_scope

logger = logging.getLogger(__name__)
KINDS = {
    Alarm.Kind.BREAK_GLASS: (
        "the account for emergencies was used",
        "If somebody knows who it was: manage.py breakglass --end --reason R. If not: manage.py kill --all --reason R.",
    ),
    Alarm.Kind.AUDIT: (
        "the audit is not as it was sealed",
        "Keep database and log as they are, and compare them: manage.py verifyaudit --log FILE. Afterwards: manage.py "
        "verifyaudit --looked-into --reason R.",
    ),
}
"""What the mail is called, and what to do."""


@system_scope("what our own people are told")
def tell() -> int:
    """Mail what is open and not told yet; how many. What does not leave is tried again at the next tick."""
    told = 0
    for alarm in (
        Alarm.objects.filter(kind__in=KINDS, closed_at=None, mailed_at=None) if settings.CPV_ALARM_MAIL else ()
    ):
        try:
            _mail(alarm).send()
        except OSError as trouble:
            logger.warning("a mail did not leave", extra={"alarm": alarm.pk, "why": type(trouble).__name__})
            continue
        told += alarm.mark_mailed()
    return told


def _mail(alarm: Alarm) -> EmailMessage:
    subject, what_to_do = KINDS[Alarm.Kind(alarm.kind)]
    lines = [
        f"{alarm.get_kind_display()}",
        f"{alarm.code}: {alarm.times} times, last at {alarm.last_at:%Y-%m-%d %H:%M} UTC.",
        f"The audit has more: {settings.CPV_BASE_URL}{reverse('admin:tokens_auditevent_changelist')}",
        what_to_do,
    ]
    return EmailMessage(
        f"ALARM at CPV Panel: {subject}", "\n\n".join(lines), to=settings.CPV_ALARM_MAIL,
        headers={"Auto-Submitted": "auto-generated"},
    )  # fmt: skip
