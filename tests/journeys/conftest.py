"""Journeys to Microsoft and back are walked twice: with the answer in the address, and in a form."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.test import Client

from tests.journeys.colleagues import ANN
from tests.pretend import Person


@pytest.fixture(params=["query", "form_post"])
def response_mode(request, settings):
    settings.CPV_RESPONSE_MODE = request.param
    return request.param


@pytest.fixture
def clock():
    """Time goes on as ever, and a test may set it forward; never back, as what is limited by time would not know."""
    with time_machine.travel(dt.datetime.now(dt.UTC), tick=True) as clock:
        yield clock


@pytest.fixture
def ann(contoso, world):
    """Somebody of Contoso who is no member yet and agreed to nothing: the id_token alone tells of their MFA."""
    world.amr_in_id_tokens = True
    return contoso.add_account(ANN, name="Ann")


@pytest.fixture
def browser(world):
    """Somebody else's browser."""
    return Person(Client(), world)


@pytest.fixture
def by_entra(settings):
    """Staff of the vendor's own tenant come in with Microsoft, under the authentication context c1."""
    settings.CPV_STAFF_ENTRA, settings.CPV_STAFF_CONTEXT = True, "c1"
