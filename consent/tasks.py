"""What the clock asks of consent."""

from typing import Any

from celery import shared_task

from consent import attempts, invitations, notices, team
from tokens.tenancy import system_scope


@shared_task(name="consent.tidy", ignore_result=True)
@system_scope("tidying consent")
def tidy(**_future: Any) -> None:
    """Let go of attempts, invitations and notices that are long over."""
    attempts.forget_old()
    invitations.forget_old()
    notices.forget_old()
    team.forget_old()


@shared_task(name="consent.notify", ignore_result=True)
def notify(**_future: Any) -> None:
    """The tick: find who is to be told what, and send one message for each mail that is due."""
    notices.find()
    for notice_id in notices.due():
        send_notice.delay(notice_id=notice_id)


@shared_task(name="consent.send_notice", acks_late=True, ignore_result=True)
def send_notice(*, notice_id: int, **_future: Any) -> None:
    """Send one mail, if it is still due and nobody else does."""
    notices.send(notice_id)
