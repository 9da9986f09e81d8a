"""A clock that a test moves, and a customer whose lists are pretended."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from partners.models import Customer, Partner


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(timezone.now(), tick=True) as traveller:
        yield traveller


@pytest.fixture
def customer(connected_partner: Callable[..., Partner]) -> Customer:
    partner = connected_partner(customers=0)
    return Customer.objects.create(partner=partner, tenant_id=uuid.UUID(int=1 << 100), name="A")
