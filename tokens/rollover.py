"""
From one certificate of our application to the other and back: where Entra refuses one, the same request goes out once
more with the other, under a ledger line of its own.

Which one is in use is remembered by each process for itself (`Entra.credential`); that one is refused is an alarm for
all of them, until the first is used again.
"""

from __future__ import annotations

from collections.abc import Callable

from tokens import alarms, outside
from tokens.entra import Grant, OurFault
from tokens.models import TokenUse
from tokens.refusals import is_about_credential


def redeem(use: TokenUse, cloud: str, spend: Callable[[], Grant]) -> Grant:
    """
    Return what `spend` brings, at its second try where the first found one of two certificates refused.

    `use` is the line of the request that is under way; after a second try it is that one's.
    :raises Refused, EntraUnavailable: as `spend` does; with two certificates refused, what was said of the second
    """
    credential = outside.entra(cloud).credential
    try:
        return spend()
    except OurFault as refused:
        if not (is_about_credential(refused) and credential.has_other):
            raise
        first = refused
    use.close(TokenUse.Outcome.REFUSED, code=first.code)
    use.start_over()
    grant = spend()
    alarms.note_rolled_over(first, cloud=cloud, used=credential.proof.kind)
    return grant


def all_clear(cloud: str, *, audience: str, partner_id: int | None) -> None:
    """A token came, of this partner's stored sign-in where one is named: let the alarms about ourselves be over."""
    by_first = outside.entra(cloud).credential.is_first
    alarms.all_clear(cloud, audience=audience, partner_id=partner_id, by_first_proof=by_first)
