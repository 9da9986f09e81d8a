"""What the clock asks of the strong-room."""

from typing import Any

from celery import shared_task

from tokens import broker, custody, watch


@shared_task(name="tokens.sweep", ignore_result=True)
def sweep(**_future: Any) -> None:
    """Disable secret versions that no row may use any more."""
    custody.sweep()


@shared_task(name="tokens.close_stopped", ignore_result=True)
def close_stopped(**_future: Any) -> None:
    """Disable the secrets of whoever was stopped; most of the time nobody was."""
    custody.close_stopped()


@shared_task(name="tokens.tidy", ignore_result=True)
def tidy(**_future: Any) -> None:
    """Let go of ledger lines after 400 days, and of processes that are gone."""
    broker.forget_old()
    watch.forget_old()
