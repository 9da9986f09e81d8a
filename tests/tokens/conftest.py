import pytest

from tests.tokens.fake_entra import APP, FakeEntra, FakeServer
from tests.tokens.proofs import FIRST, NEXT, accept, configure, pem
from tokens.clouds import CLOUDS, GLOBAL
from tokens.entra import AppRegistration, Entra
from tokens.http import Network
from tokens.secret import Secret


@pytest.fixture
def microsoft():
    return FakeEntra()


@pytest.fixture
def server(microsoft):
    return FakeServer(microsoft)


@pytest.fixture
def network(server):
    return Network(clouds=CLOUDS.values(), adapter=server)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def shift(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def entra(network, clock):
    app = AppRegistration(client_id=APP, secret=Secret("app-secret"))
    return Entra(network=network, cloud=GLOBAL, app=app, clock=clock)


@pytest.fixture
def two(world, settings):
    """Both certificates are configured and registered."""
    configure(settings, certificate=pem(FIRST), next_certificate=pem(NEXT))
    accept(world, FIRST, NEXT)
