import json
import logging
import socket
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.tokens.fake_entra import OTHER_PARTNER, PARTNER, FakeServer, pem
from tests.tokens.machine import identity_endpoint
from tokens.clouds import CLOUDS, GLOBAL
from tokens.errors import Permanent, Transient
from tokens.http import HostRefused, Network
from tokens.secret import Secret
from tokens.vault import (
    SecretMissing,
    StoredVersion,
    Vault,
    VaultIdentity,
    VaultRefused,
    VaultUnavailable,
    VersionDisabled,
    federated_assertion,
)

VAULT_APP = "66666666-6666-4666-8666-666666666666"
SEALED = '{"v":1,"ct":"canary"}'
numbers = iter(range(10_000))


class FakeVault:
    """Entra and one key vault; set `answer` to make the vault answer otherwise, `token` for Entra."""

    def __init__(self):
        # A host of its own: azure's package remembers challenges per host for the life of the process.
        self.host = f"v{next(numbers)}.vault.azure.net"
        self.answer = None
        self.token = (200, {"access_token": "canary-vault-token", "expires_in": 3600, "token_type": "Bearer"})
        self.resource = "https://vault.azure.net"
        self.tenant = PARTNER

    def __call__(self, request):
        address = urlsplit(request.url)
        if address.netloc == "login.microsoftonline.com":
            return self.token if request.method == "POST" else self.discovery(address)
        if "Authorization" not in request.headers:
            authority = f"https://login.microsoftonline.com/{self.tenant}"
            challenge = f'Bearer authorization="{authority}", resource="{self.resource}"'
            return 401, {}, {"WWW-Authenticate": challenge}
        return self.answer or (200, self.bundle())

    def discovery(self, address):
        base = f"https://login.microsoftonline.com/{address.path.split('/')[1]}/oauth2/v2.0"
        return 200, {"authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token", "issuer": "x"}

    def bundle(self, **changes):
        return {
            "id": f"https://{self.host}/secrets/rt-1/version1",
            "value": SEALED,
            "attributes": {"enabled": True, "created": 1, "updated": 1},
            "tags": {"generation": "1"},
        } | changes


@pytest.fixture
def microsoft():
    return FakeVault()


@pytest.fixture
def server(microsoft):
    return FakeServer(microsoft)


@pytest.fixture
def vault(microsoft, server):
    return made(microsoft, server)


def made(microsoft, server, **proof):
    identity = VaultIdentity(tenant_id=PARTNER, client_id=VAULT_APP, **proof or {"secret": Secret("canary-secret")})
    network = Network(clouds=CLOUDS.values(), adapter=server)
    return Vault(network=network, cloud=GLOBAL, url=f"https://{microsoft.host}", identity=identity)


def asked(server):
    """What the vault was asked with a token: method, path and body."""
    vault_calls = [sent for sent in server.seen if ".vault." in sent.url and "Authorization" in sent.headers]
    return [(sent.method, urlsplit(sent.url).path, json.loads(sent.body or "null")) for sent in vault_calls]


def test_a_sealed_text_is_put_with_its_tags_and_type(vault, server):
    version = vault.put("rt-1", SEALED, tags={"generation": "1"})

    assert version == "version1"
    ((method, path, body),) = asked(server)
    assert (method, path) == ("PUT", "/secrets/rt-1")
    assert (body["value"], body["tags"]) == (SEALED, {"generation": "1"})
    assert body["contentType"] == "application/vnd.cpv.rt+json;v=1"


def test_nothing_of_the_sealed_text_is_sent_before_the_vault_has_named_itself(vault, server):
    vault.put("rt-1", SEALED, tags={})

    first = server.seen[0]
    assert first.body is None or "canary" not in str(first.body)


def test_one_version_is_read(vault, server):
    assert vault.get("rt-1", "version1") == SEALED
    assert asked(server) == [("GET", "/secrets/rt-1/version1", None)]


def test_the_newest_version_is_read_with_its_id_and_tags(vault):
    assert vault.newest("rt-1") == StoredVersion("version1", SEALED, {"generation": "1"})


def test_a_version_without_tags_has_none(vault, microsoft):
    microsoft.answer = (200, microsoft.bundle(tags=None))

    assert vault.newest("rt-1").tags == {}


def test_one_version_is_switched_off(vault, server):
    vault.disable("rt-1", "version1")

    assert asked(server) == [("PATCH", "/secrets/rt-1/version1", {"attributes": {"enabled": False}})]


def test_the_wire_version_is_pinned_and_the_identity_proven_once(vault, server):
    for _ in range(3):
        vault.get("rt-1", "version1")

    versions = {parse_qs(urlsplit(sent.url).query)["api-version"][0] for sent in server.seen if ".vault." in sent.url}
    assert versions == {"7.6"}
    assert len(server.posts()) == 1
    assert server.posts()[0]["client_id"] == VAULT_APP
    assert server.posts()[0]["scope"] == "https://vault.azure.net/.default"


def test_nothing_is_sent_before_the_first_call(vault, server):
    assert server.seen == []


def test_a_certificate_is_preferred_to_a_secret(microsoft, server):
    made(microsoft, server, certificate_pem=Secret(pem()), secret=Secret("canary")).get("rt-1", "version1")

    assert "client_assertion" in server.posts()[0]
    assert "client_secret" not in server.posts()[0]


def test_a_federated_assertion_is_preferred_to_both(microsoft, server):
    proof = {"certificate_pem": Secret(pem()), "secret": Secret("canary"), "assertion": lambda: "federated"}

    made(microsoft, server, **proof).get("rt-1", "version1")

    assert server.posts()[0]["client_assertion"] == "federated"
    assert server.posts()[0]["scope"] == "https://vault.azure.net/.default"


def error(code, inner=None):
    return {"error": {"code": code, "message": "canary", "innererror": inner}}


@pytest.mark.parametrize(
    ("answer", "raised", "root", "code"),
    [
        ((403, error("Forbidden", {"code": "SecretDisabled"})), VersionDisabled, Permanent, "vault-disabled"),
        ((403, error("SecretDisabled")), VersionDisabled, Permanent, "vault-disabled"),
        ((403, error("Forbidden", {"code": "ForbiddenByRbac"})), VaultRefused, Permanent, "vault-403"),
        ((403, b"<html>canary"), VaultRefused, Permanent, "vault-403"),
        ((401, {}), VaultRefused, Permanent, "vault-401"),
        ((404, error("SecretNotFound")), SecretMissing, Permanent, "vault-404"),
        ((409, error("Conflict")), VaultRefused, Permanent, "vault-409"),
        ((400, error("BadParameter")), VaultRefused, Permanent, "vault-400"),
        ((429, error("Throttled")), VaultUnavailable, Transient, "vault-429"),
        ((408, {}), VaultUnavailable, Transient, "vault-408"),
        ((503, b"canary"), VaultUnavailable, Transient, "vault-503"),
        ((200, b"canary"), VaultUnavailable, Transient, "vault-200"),
        ((200, {"value": None, "id": "https://x/secrets/rt-1/v"}), VaultRefused, Permanent, "vault-config"),
        ((200, {"value": "canary", "id": "canary"}), VaultRefused, Permanent, "vault-config"),
        ((200, {"value": "canary", "id": "https://x/secrets/rt-1"}), VaultRefused, Permanent, "vault-config"),
        (requests.ConnectionError("canary"), VaultUnavailable, Transient, "vault-unreachable"),
        (requests.ReadTimeout("canary"), VaultUnavailable, Transient, "vault-unreachable"),
    ],
    ids=str,
)
def test_a_failure_is_named_for_whoever_acts_and_tells_nothing(vault, microsoft, caplog, answer, raised, root, code):
    microsoft.answer = answer

    with caplog.at_level(logging.DEBUG), pytest.raises(raised) as caught:
        vault.newest("rt-1")

    assert isinstance(caught.value, root)
    assert caught.value.code == code
    assert caught.value.__suppress_context__
    assert "canary" not in str(caught.value) + caplog.text


def test_a_failed_put_tells_nothing_of_what_was_put(vault, microsoft, caplog):
    microsoft.answer = (400, {"error": {"code": "BadParameter", "message": f"cannot store {SEALED}"}})

    with caplog.at_level(logging.DEBUG), pytest.raises(VaultRefused) as caught:
        vault.put("rt-1", SEALED, tags={})

    assert "canary" not in str(caught.value) + caplog.text


def test_a_throttled_vault_says_how_long_and_is_not_asked_again_meanwhile(vault, microsoft, server):
    microsoft.answer = (429, {}, {"Retry-After": "7"})

    with pytest.raises(VaultUnavailable) as caught:
        vault.put("rt-1", SEALED, tags={})

    assert caught.value.retry_after == 7
    assert len(asked(server)) == 1


@pytest.mark.parametrize(
    ("token", "raised", "code"),
    [
        (
            (401, {"error": "invalid_client", "error_description": "AADSTS7000222: canary"}),
            VaultRefused,
            "AADSTS7000222",
        ),
        (
            (400, {"error": "invalid_request", "error_description": "AADSTS90033: x"}),
            VaultUnavailable,
            "vault-identity",
        ),
        ((503, {"error": "canary"}), VaultUnavailable, "vault-identity"),
        ((429, {"error": "canary"}), VaultUnavailable, "vault-identity"),
        (requests.ConnectionError("canary"), VaultUnavailable, "vault-identity"),
        (HostRefused("not an address", code="host"), HostRefused, "host"),
        ((200, b"canary"), VaultUnavailable, "vault-identity"),
    ],
    ids=str,
)
def test_an_identity_that_cannot_be_proven_says_why_and_tells_nothing(vault, microsoft, caplog, token, raised, code):
    microsoft.token = token

    with caplog.at_level(logging.DEBUG), pytest.raises(raised) as caught:
        vault.get("rt-1", "version1")

    assert caught.value.code == code
    assert "canary" not in str(caught.value) + caplog.text


def test_a_vault_that_claims_another_domain_gets_no_token(vault, microsoft, server):
    microsoft.resource = "https://vault.evil.example"

    with pytest.raises(VaultRefused) as caught:
        vault.put("rt-1", SEALED, tags={})

    assert caught.value.code == "vault-config"
    assert server.posts() == []


def test_a_vault_that_claims_another_tenant_gets_no_token(vault, microsoft, server):
    microsoft.tenant = OTHER_PARTNER

    with pytest.raises(VaultRefused):
        vault.put("rt-1", SEALED, tags={})

    assert server.posts() == []


def test_what_before_send_raises_comes_out_unchanged_even_where_the_identity_would_be_proven_first(microsoft, server):
    class InTransaction(RuntimeError):
        pass

    def stop():
        raise InTransaction

    made(microsoft, server).get("rt-1", "version1")  # from now on the vault's challenge is remembered
    network = Network(clouds=[GLOBAL], adapter=server, before_send=stop)
    identity = VaultIdentity(tenant_id=PARTNER, client_id=VAULT_APP, secret=Secret("x"))
    with pytest.raises(InTransaction):
        Vault(network=network, cloud=GLOBAL, url=f"https://{microsoft.host}", identity=identity).get("rt-1", "v")


def test_a_tenant_entra_does_not_know_is_no_passing_trouble(vault, microsoft, monkeypatch):
    monkeypatch.setattr(microsoft, "discovery", lambda address: (400, {"error": "invalid_tenant"}))

    with pytest.raises(VaultRefused) as caught:
        vault.get("rt-1", "version1")

    assert caught.value.code == "vault-identity"


def test_one_call_ends_with_its_deadline(microsoft, server):
    network = Network(clouds=[GLOBAL], adapter=server)
    identity = VaultIdentity(tenant_id=PARTNER, client_id=VAULT_APP, secret=Secret("x"))
    vault = Vault(network=network, cloud=GLOBAL, url=f"https://{microsoft.host}", identity=identity, deadline=0)

    with pytest.raises(VaultUnavailable):
        vault.get("rt-1", "version1")

    assert server.seen == []


def test_a_client_id_needs_a_proof_and_an_identity_shows_none():
    with pytest.raises(ValueError, match="needs a certificate or a secret"):
        VaultIdentity(tenant_id=PARTNER, client_id=VAULT_APP)

    assert "canary" not in repr(VaultIdentity(tenant_id=PARTNER, client_id=VAULT_APP, secret=Secret("canary")))


# --- Managed identity ---------------------------------------------------------------------------------------------
@pytest.fixture
def machine(monkeypatch):
    with identity_endpoint(monkeypatch, lambda: "machine-token") as asked_for:
        yield asked_for


def test_without_a_client_id_the_machines_identity_opens_the_vault(microsoft, server, machine):
    network = Network(clouds=[GLOBAL], adapter=server)
    vault = Vault(network=network, cloud=GLOBAL, url=f"https://{microsoft.host}", identity=VaultIdentity())

    assert vault.get("rt-1", "version1") == SEALED
    assert machine[0]["resource"] == ["https://vault.azure.net"]
    assert server.seen[-1].headers["Authorization"] == "Bearer machine-token"


def test_the_machines_identity_vouches_for_the_app_registration(machine):
    assert federated_assertion(GLOBAL, client_id=VAULT_APP)() == "machine-token"
    assert machine[0]["resource"] == ["api://AzureADTokenExchange"]
    assert machine[0]["client_id"] == [VAULT_APP]


def test_a_machine_without_an_identity_says_so(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{port}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "x")

    with pytest.raises(VaultUnavailable):
        federated_assertion(GLOBAL)()
