"""One small world, the clients that talk to it, and a clock that only moves when told."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
from azure.keyvault.secrets._shared import http_challenge_cache
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from sandbox.app import create_app
from sandbox.directory import Account, Tenant
from sandbox.world import World
from tests.standin import InProcessAdapter

APP = "aaaaaaaa-0000-4000-8000-0000000000a1"
SECRET = "pretended"
VENDOR = "aaaaaaaa-0000-4000-8000-000000000001"
PARTNER = "bbbbbbbb-0000-4000-8000-000000000002"
OTHER = "cccccccc-0000-4000-8000-000000000003"
WORKER = "aaaaaaaa-0000-4000-8000-0000000000b2"
WEB = "aaaaaaaa-0000-4000-8000-0000000000b1"
SECRETS = {WORKER: "worker", WEB: "web"}
REDIRECT = "http://localhost:8000/connect/callback"
LOGIN = "https://login.microsoftonline.com"
PC = "https://api.partnercenter.microsoft.com"
GRAPH = "https://graph.microsoft.com"
VAULT = "https://tests.vault.azure.net"
SCOPES = f"{PC}/user_impersonation {GRAPH}/User.Read.All {GRAPH}/GroupMember.Read.All openid profile offline_access"
PARTNER_CENTER = f"{PC}/user_impersonation openid profile offline_access"


class Clock:
    """Seconds since 1970; `sleep` passes the time without waiting."""

    def __init__(self) -> None:
        self.now = datetime.datetime.now(datetime.UTC).timestamp()
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(clock: Clock) -> World:
    world = World(seed=7, clock=clock, sleep=clock.sleep)
    world.add_tenant(VENDOR, "Vendor")
    world.app_registration(APP, secret=SECRET, tenant_id=VENDOR)
    world.vault_identity(WORKER, secret="worker", tenant_id=VENDOR)
    world.vault_identity(WEB, secret="web", rights={"set"}, tenant_id=VENDOR)
    partner = world.add_tenant(PARTNER, "Contoso", customers=1203)
    partner.add_account("svc@contoso.test", groups={"AdminAgents"})
    partner.add_account("sales@contoso.test", groups={"SalesAgents"})
    partner.add_account("help@contoso.test", groups={"HelpdeskAgents"})
    partner.add_account("admin@contoso.test", admin=True)
    partner.add_account("guest@elsewhere.test", guest=True, groups={"AdminAgents"})
    partner.add_account("pat@outlook.test", personal=True)
    partner.add_account("nomfa@contoso.test", mfa_possible=False)
    other = world.add_tenant(OTHER, "Fabrikam", customers=40)
    other.add_account("svc@fabrikam.test", groups={"AdminAgents"})
    return world


@pytest.fixture
def partner(world: World) -> Tenant:
    return world.tenants[PARTNER]


@pytest.fixture
def svc(partner: Tenant) -> Account:
    found = partner.account("svc@contoso.test")
    assert found
    return found


@pytest.fixture
def http(world: World) -> Iterator[requests.Session]:
    session = requests.Session()
    session.trust_env = False
    adapter = InProcessAdapter(create_app(world))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    yield session
    session.close()


@dataclass
class Browser:
    """Signs in as a person would, in one POST, and redeems what comes back."""

    http: requests.Session
    public_url: str = "http://localhost:8400"
    verifier: str = "v" * 50

    def url(self, segment: str = "organizations", **changes: str | None) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        query: dict[str, str | None] = {
            "client_id": APP,
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "scope": SCOPES,
            "state": "the-state",
            "nonce": "the-nonce",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        given = {name: value for name, value in (query | changes).items() if value is not None}
        return f"{self.public_url}/{segment}/oauth2/v2.0/authorize?{urlencode(given)}"

    def post(self, url: str, account: str, *, mfa: str = "yes", **form: str) -> requests.Response:
        form = {"account": account, "mfa": mfa, "decision": "accept"} | form
        return self.http.post(url, data=form, allow_redirects=False)

    def code(self, account: str = "svc@contoso.test", segment: str = "organizations", **changes: str | None) -> str:
        mfa = changes.pop("mfa", "yes")
        answer = self.post(self.url(segment, **changes), account, mfa=mfa or "no")
        assert answer.status_code == 302, answer.text
        return returned(answer)["code"]

    def redeem(self, code: str, /, segment: str = "organizations", **changes: str | None) -> requests.Response:
        form: dict[str, str | None] = {
            "client_id": APP,
            "client_secret": SECRET,
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": self.verifier,
            "scope": PARTNER_CENTER,
        }
        given = {name: value for name, value in (form | changes).items() if value is not None}
        return self.http.post(f"{LOGIN}/{segment}/oauth2/v2.0/token", data=given)

    def refresh(self, token: str, segment: str = PARTNER, **changes: str | None) -> requests.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token, "redirect_uri": None, "code_verifier": None}
        return self.redeem("", segment, **(form | changes))

    def tokens(self, account: str = "svc@contoso.test", **changes: str | None) -> dict[str, Any]:
        answer = self.redeem(self.code(account, **changes))
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def bearer(self, account: str = "svc@contoso.test", scope: str = PARTNER_CENTER, **changes: str | None) -> str:
        code = self.code(account, **changes)
        return str(self.redeem(code, scope=scope).json()["access_token"])

    def get(self, url: str, token: str, **headers: str) -> requests.Response:
        return self.http.get(url, headers={"Authorization": f"Bearer {token}"} | headers)


@pytest.fixture
def browser(http: requests.Session) -> Browser:
    return Browser(http)


def returned(answer: requests.Response) -> dict[str, str]:
    """The query of the address that a redirect leads to."""
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


@dataclass
class Certificate:
    key: str
    certificate: str


@pytest.fixture(scope="session")
def certificate() -> Certificate:
    return make_certificate(30)


@pytest.fixture(autouse=True)
def no_remembered_challenges() -> None:
    """The SDK remembers challenges per host for the whole process."""
    http_challenge_cache.clear()


def secret_client(http: requests.Session, client_id: str = WORKER, **options: Any) -> SecretClient:
    transport = RequestsTransport(session=http, session_owner=False)
    credential = ClientSecretCredential(VENDOR, client_id, SECRETS[client_id], transport=transport)
    return SecretClient(VAULT, credential, transport=transport, retry_total=0, **options)


def make_certificate(days: int) -> Certificate:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cpv")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=90))
    signed = builder.not_valid_after(now + datetime.timedelta(days=days)).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()
    return Certificate(pem, signed.public_bytes(serialization.Encoding.PEM).decode())


@pytest.fixture
def samples() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "samples"
    if not folder.is_dir():
        pytest.skip("the recorded samples are not part of this repository, and not beside it")
    return folder
