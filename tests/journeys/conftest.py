"""Journeys to Microsoft and back are walked twice: with the answer in the address, and in a form."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["query", "form_post"])
def response_mode(request, settings):
    settings.CPV_RESPONSE_MODE = request.param
    return request.param
