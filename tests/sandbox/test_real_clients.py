"""Microsoft's own libraries, not changed in any way, against the stand-in."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
import msal
import pytest
import requests
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import CertificateCredential
from azure.keyvault.secrets import SecretClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sandbox.world import World
from tests.sandbox.conftest import (
    APP,
    LOGIN,
    PARTNER,
    PC,
    REDIRECT,
    SECRET,
    VAULT,
    VENDOR,
    WEB,
    WORKER,
    Browser,
    Certificate,
    claims,
    make_certificate,
    returned,
    secret_client,
)

# MSAL would rather have form_post; the product's own choice is its own matter
pytestmark = pytest.mark.filterwarnings("ignore:.*response_mode.*:UserWarning")
SCOPE = [f"{PC}/user_impersonation"]


def msal_app(http: requests.Session, credential: Any = SECRET, segment: str = "organizations") -> Any:
    return msal.ConfidentialClientApplication(
        APP, authority=f"{LOGIN}/{segment}", client_credential=credential, http_client=http
    )


def sign_in(app: Any, browser: Browser) -> dict[str, Any]:
    flow = app.initiate_auth_code_flow(SCOPE, redirect_uri=REDIRECT)
    answer = browser.post(flow["auth_uri"], "svc@contoso.test")
    result: dict[str, Any] = app.acquire_token_by_auth_code_flow(flow, returned(answer))
    return result


def test_msal_signs_in_with_a_secret_and_pkce(http: requests.Session, browser: Browser, world: World) -> None:
    result = sign_in(msal_app(http), browser)

    assert result["id_token_claims"]["tid"] == PARTNER
    assert result["token_type"] == "Bearer"
    assert result["refresh_token"]
    assert result["scope"] == SCOPE[0]
    assert world.calls_to("public", "authorize")[-1].detail["pkce"] is True


def test_msal_signs_in_with_a_certificate(
    http: requests.Session, browser: Browser, world: World, certificate: Certificate
) -> None:
    world.app_registration(APP, certificates=[certificate.certificate])
    credential = {"private_key": certificate.key, "public_certificate": certificate.certificate}

    assert sign_in(msal_app(http, credential), browser)["id_token_claims"]["tid"] == PARTNER


def test_msal_with_a_certificate_that_is_not_registered_is_refused(
    http: requests.Session, browser: Browser, certificate: Certificate
) -> None:
    credential = {"private_key": certificate.key, "public_certificate": certificate.certificate}

    result = sign_in(msal_app(http, credential), browser)

    assert (result["error"], result["error_codes"]) == ("invalid_client", [700027])


def test_msal_with_an_expired_certificate_is_refused(http: requests.Session, browser: Browser, world: World) -> None:
    old = make_certificate(-1)
    world.app_registration(APP, certificates=[old.certificate])
    credential = {"private_key": old.key, "public_certificate": old.certificate}

    assert sign_in(msal_app(http, credential), browser)["error_codes"] == [700027]


def test_an_assertion_signed_with_another_key_is_refused(
    http: requests.Session, browser: Browser, world: World, certificate: Certificate
) -> None:
    world.app_registration(APP, certificates=[certificate.certificate])
    credential = {"private_key": make_certificate(5).key, "public_certificate": certificate.certificate}

    assert sign_in(msal_app(http, credential), browser)["error_codes"] == [700027]


def test_two_certificates_work_side_by_side(
    http: requests.Session, browser: Browser, world: World, certificate: Certificate
) -> None:
    following = make_certificate(60)
    world.app_registration(APP, certificates=[certificate.certificate, following.certificate])

    for one in (certificate, following):
        credential = {"private_key": one.key, "public_certificate": one.certificate}
        assert "access_token" in sign_in(msal_app(http, credential), browser)


def test_msal_refreshes(http: requests.Session, browser: Browser) -> None:
    first = sign_in(msal_app(http), browser)

    result = msal_app(http, segment=PARTNER).acquire_token_by_refresh_token(first["refresh_token"], SCOPE)

    assert claims(result["access_token"])["tid"] == PARTNER
    assert result["refresh_token"] != first["refresh_token"]


def test_msal_with_a_wrong_secret_is_refused(http: requests.Session, browser: Browser) -> None:
    result = sign_in(msal_app(http, "wrong"), browser)

    assert (result["error"], result["error_codes"]) == ("invalid_client", [7000215])


def test_msal_notices_a_wrong_nonce(http: requests.Session, browser: Browser, world: World) -> None:
    world.id_token_fault = "wrong_nonce"

    with pytest.raises(RuntimeError):
        sign_in(msal_app(http), browser)


def test_msal_does_not_build_on_an_unknown_tenant(http: requests.Session) -> None:
    with pytest.raises(ValueError, match="Unable to get authority configuration"):
        msal_app(http, segment="dddddddd-0000-4000-8000-000000000009")


def test_msal_speaks_to_the_chinese_cloud_too(world: World, http: requests.Session) -> None:
    far = world.add_tenant("dddddddd-0000-4000-8000-000000000004", "Far", cloud="china")
    far.add_account("svc@far.test", groups={"AdminAgents"})
    authority = f"https://login.partner.microsoftonline.cn/{far.id}"
    app = msal.ConfidentialClientApplication(APP, authority=authority, client_credential=SECRET, http_client=http)
    scope = "https://partner.partnercenterapi.microsoftonline.cn/user_impersonation"
    flow = app.initiate_auth_code_flow([scope], redirect_uri=REDIRECT)

    answer = Browser(http).post(flow["auth_uri"], "svc@far.test")

    result = app.acquire_token_by_auth_code_flow(flow, returned(answer))
    assert result["id_token_claims"]["iss"] == f"{authority}/v2.0"


# Azure


def test_the_secret_client_puts_gets_and_disables(http: requests.Session, world: World) -> None:
    client = secret_client(http)

    made = client.set_secret("rt-one", "cipher", tags={"generation": "1"}, content_type="text/plain")
    read = client.get_secret("rt-one")
    client.update_secret_properties("rt-one", made.properties.version, enabled=False)

    assert (read.value, read.properties.version) == ("cipher", made.properties.version)
    assert read.properties.tags == {"generation": "1"}
    assert read.properties.content_type == "text/plain"
    assert [v.enabled for v in world.vault("tests.vault.azure.net").secrets["rt-one"]] == [False]


def test_the_first_call_is_challenged_without_its_body(http: requests.Session, world: World) -> None:
    secret_client(http).set_secret("rt-one", "cipher")

    first, second = world.calls_to("vault")
    assert (first.status, first.has_bearer) == (401, False)
    assert (second.status, second.has_bearer) == (200, True)


def test_a_certificate_credential_opens_the_vault(
    http: requests.Session, world: World, certificate: Certificate
) -> None:
    world.vault_identity(WORKER, certificates=[certificate.certificate], tenant_id=VENDOR)
    transport = RequestsTransport(session=http, session_owner=False)
    pem = (certificate.key + certificate.certificate).encode()
    credential = CertificateCredential(VENDOR, WORKER, certificate_data=pem, transport=transport)

    client = SecretClient(VAULT, credential, transport=transport, retry_total=0)

    assert client.set_secret("rt-one", "cipher").properties.enabled


def test_an_identity_that_may_only_set_cannot_get_or_disable(http: requests.Session) -> None:
    client = secret_client(http, WEB)
    made = client.set_secret("rt-one", "cipher")

    with pytest.raises(HttpResponseError, match="Forbidden") as reading:
        client.get_secret("rt-one")
    with pytest.raises(HttpResponseError, match="Forbidden"):
        client.update_secret_properties("rt-one", made.properties.version, enabled=False)
    assert reading.value.status_code == 403


def test_a_disabled_newest_version_hides_older_ones(http: requests.Session) -> None:
    client = secret_client(http)
    older, newer = client.set_secret("rt-one", "old"), client.set_secret("rt-one", "new")
    client.update_secret_properties("rt-one", newer.properties.version, enabled=False)

    with pytest.raises(HttpResponseError) as refused:
        client.get_secret("rt-one")

    assert refused.value.status_code == 403
    assert refused.value.error
    assert refused.value.error.innererror == {"code": "SecretDisabled"}
    assert client.get_secret("rt-one", older.properties.version).value == "old"


def test_listing_and_deleting_are_forbidden_to_all(http: requests.Session) -> None:
    client = secret_client(http)
    client.set_secret("rt-one", "cipher")

    for forbidden in (
        lambda: list(client.list_properties_of_secrets()),
        lambda: list(client.list_properties_of_secret_versions("rt-one")),
        lambda: client.begin_delete_secret("rt-one"),
    ):
        with pytest.raises(HttpResponseError) as refused:
            forbidden()
        assert refused.value.status_code == 403


def test_an_unknown_secret_is_not_found(http: requests.Session) -> None:
    with pytest.raises(ResourceNotFoundError):
        secret_client(http).get_secret("rt-none")


@pytest.mark.parametrize("length", [25_600, 25_601])
def test_a_value_has_at_most_25_kilobytes(http: requests.Session, length: int) -> None:
    client = secret_client(http)

    if length == 25_600:
        assert client.set_secret("rt-one", "x" * length).value
    else:
        with pytest.raises(HttpResponseError) as refused:
            client.set_secret("rt-one", "x" * length)
        assert refused.value.status_code == 400


def test_a_put_that_hangs_after_its_effect_leaves_a_version(http: requests.Session, world: World) -> None:
    client = secret_client(http)
    client.set_secret("rt-one", "one")
    world.fail("vault", "timeout-after", times=1, method="PUT")
    world.fail("vault", "timeout-before", times=1, method="PUT")

    for _ in range(2):
        with pytest.raises(ServiceResponseError):
            client.set_secret("rt-one", "two")

    assert [version.value for version in world.vault("tests.vault.azure.net").secrets["rt-one"]] == ["one", "two"]


@pytest.mark.parametrize(("kind", "status"), [("forbidden", 403), ("503", 503), ("throttled", 429)])
def test_vault_faults_reach_the_client(http: requests.Session, world: World, kind: str, status: int) -> None:
    world.fail("vault", kind)

    with pytest.raises(HttpResponseError) as refused:
        secret_client(http).get_secret("rt-one")

    assert refused.value.status_code == status


@pytest.mark.parametrize(
    ("suffix", "login"),
    [("vault.usgovcloudapi.net", "login.microsoftonline.us"), ("vault.azure.cn", "login.partner.microsoftonline.cn")],
)
def test_vaults_of_other_clouds_challenge_with_their_own_login(http: requests.Session, suffix: str, login: str) -> None:
    answer = http.get(f"https://x.{suffix}/secrets/a/?api-version=7.5")

    expected = f'Bearer authorization="https://{login}/{VENDOR}", resource="https://{suffix}"'
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, expected)


def test_a_vault_wants_an_api_version(http: requests.Session) -> None:
    assert http.get(f"{VAULT}/secrets/a/").status_code == 400


def test_a_token_for_something_else_does_not_open_a_vault(http: requests.Session, browser: Browser) -> None:
    answer = browser.get(f"{VAULT}/secrets/a/?api-version=7.5", browser.bearer())

    assert answer.status_code == 401
    assert "WWW-Authenticate" in answer.headers


# assertions made by hand


def assertion(certificate: Certificate, header: dict[str, str], **changes: object) -> str:
    now = int(time.time())
    good = {"aud": f"{LOGIN}/{PARTNER}/oauth2/v2.0/token", "iss": APP, "sub": APP, "iat": now, "exp": now + 600}
    return jwt.encode(good | changes, certificate.key, algorithm="RS256", headers=header)


def thumbprint(certificate: Certificate) -> str:
    pem = x509.load_pem_x509_certificate(certificate.certificate.encode())
    return base64.urlsafe_b64encode(pem.fingerprint(hashes.SHA256())).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("changes", "name", "number"),
    [
        ({}, "x5t#S256", 9002313),  # the client is known; only the grant is garbage
        ({}, "x5t", 700027),  # a SHA-256 thumbprint under the name of the SHA-1 one
        ({"aud": f"{LOGIN}/{VENDOR}/oauth2/v2.0/token"}, "x5t#S256", 700027),
        ({"iss": VENDOR}, "x5t#S256", 700027),
        ({"exp": 1}, "x5t#S256", 700027),
    ],
)
def test_an_assertion_is_read_closely(
    browser: Browser, world: World, certificate: Certificate, changes: dict[str, object], name: str, number: int
) -> None:
    world.app_registration(APP, certificates=[certificate.certificate])
    signed = assertion(certificate, {name: thumbprint(certificate)}, **changes)
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

    answer = browser.refresh("garbage", client_secret=None, client_assertion=signed, client_assertion_type=kind)

    assert answer.json()["error_codes"] == [number]
    assert ("client_assertion", signed) in world.issued
