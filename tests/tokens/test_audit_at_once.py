"""Sealers of the audit who come at the same moment, in several processes: they take turns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections, transaction

from tests.live import until
from tokens import audit, audit_chain
from tokens.actors import SYSTEM
from tokens.models import AuditAnchor

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]
WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted)"


def seal_and_leave() -> AuditAnchor:
    try:
        return audit_chain.seal()
    finally:
        connections.close_all()


def somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(WAITS, [audit_chain.LOCK & 0xFFFF_FFFF])  # a key of 64 bits is shown in two halves
        return bool(cursor.fetchone()[0])


def test_of_two_who_seal_at_once_the_second_waits_and_goes_on_behind_the_first():
    audit.record("sync.asked", actor=SYSTEM)

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            first = audit_chain.seal()
            sealing = pool.submit(seal_and_leave)
            until(somebody_waits, 10)
        second = sealing.result(30)

    assert (first.entries, second.entries) == (1, 1)
    assert second.last_link == first.last_link
    assert audit_chain.verify().intact
