"""What is mirrored only for partners who ask for it: one of their owners says yes, and no at any time."""

from __future__ import annotations

from django.db import transaction

from partners import jobs, writing
from partners.mirrored_kinds import MIRRORS
from partners.models import Partner
from tokens import audit
from tokens.actors import Actor


def kinds() -> list[jobs.Kind]:
    """Those that take a yes."""
    return [kind for kind in jobs.kinds().values() if kind.opt_in]


def is_asked_for(partner: Partner, kind: str) -> bool:
    """Whether it may be read for this partner; what takes no yes always may."""
    return not jobs.kind_named(kind).opt_in or partner.jobs.filter(kind=kind).exists()


@transaction.atomic
def ask_for(partner: Partner, kind: str, *, by: Actor) -> bool:
    """Have it read from now on; False when it is already."""
    if is_asked_for(partner, kind):
        return False
    jobs.ensure(partner, kind)
    audit.record("mirror.asked_for", actor=by, partner=partner, object=kind)
    return True


@transaction.atomic
def end(partner: Partner, kind: str, *, by: Actor) -> bool:
    """
    Read it no more, and erase what was read; False when it was not asked for.

    A run under way loses its job, and with it the right to write anything.
    """
    if not jobs.kind_named(kind).opt_in or not partner.jobs.filter(kind=kind).delete()[0]:
        return False
    rows = writing.forget(partner.pk, MIRRORS[kind])
    audit.record("mirror.ended", actor=by, partner=partner, object=kind, erased=rows)
    return True
