"""What the clock asks of the strong-room."""

from typing import Any

from celery import shared_task

from tokens import audit_chain, broker, expiry, ledger, lifetimes, rotation, sweeping, watch
from tokens.tenancy import system_scope


@shared_task(name="tokens.sweep", ignore_result=True)
def sweep(**_future: Any) -> None:
    """Disable secret versions that no row may use any more."""
    sweeping.sweep()


@shared_task(name="tokens.keep", ignore_result=True)
def keep(**_future: Any) -> None:
    """The tick: send one message for each stored sign-in that is due to be used and stored anew."""
    for token_id in rotation.claim_due():
        # By the time a message is that old, the row is due again and has another.
        rotate.apply_async(kwargs={"token_id": token_id}, expires=rotation.SHORTEST_PAUSE)


@shared_task(name="tokens.rotate", acks_late=True, ignore_result=True)
def rotate(*, token_id: int, **_future: Any) -> None:
    """Use and store one sign-in anew; a lost message costs a quarter of an hour, a doubled one nothing."""
    rotation.rotate_claimed(token_id)


@shared_task(name="tokens.close_stopped", ignore_result=True)
def close_stopped(**_future: Any) -> None:
    """Disable the secrets of whoever was stopped; most of the time nobody was."""
    sweeping.close_stopped()


@shared_task(name="tokens.seal_audit", ignore_result=True)
def seal_audit(**_future: Any) -> None:
    """Link what was decided since, and anchor it in database and log."""
    audit_chain.seal()


@shared_task(name="tokens.tidy", ignore_result=True)
@system_scope("tidying the strong-room")
def tidy(**_future: Any) -> None:
    """Let go of what is old; look for sign-ins nobody uses, tokens that live too long, and certificates that end."""
    ledger.forget_old()
    watch.forget_old()
    rotation.watch_idle()
    lifetimes.watch(broker.clouds_in_use())
    expiry.watch()
