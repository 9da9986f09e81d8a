"""What the clock asks of consent."""

from typing import Any

from celery import shared_task

from consent import flow


@shared_task(name="consent.tidy", ignore_result=True)
def tidy(**_future: Any) -> None:
    """Let go of attempts and invitations that are long over."""
    flow.forget_old()
