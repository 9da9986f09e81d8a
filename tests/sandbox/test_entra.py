from __future__ import annotations

from urllib.parse import urlencode

import jwt
import pytest
import requests

from sandbox.directory import Tenant
from sandbox.world import ID_TOKEN_FAULTS, World
from tests.sandbox.conftest import (
    APP,
    GRAPH,
    LOGIN,
    OTHER,
    PARTNER,
    PARTNER_CENTER,
    PC,
    REDIRECT,
    SCOPES,
    SECRET,
    VENDOR,
    WORKER,
    Browser,
    Clock,
    claims,
    returned,
)

MSA = "9188040d-6c67-4c5b-b112-36a304b66dad"


def refusal(answer: requests.Response) -> int:
    assert answer.status_code >= 400, answer.text
    return int(answer.json()["error_codes"][0])


# discovery


@pytest.mark.parametrize("segment", ["organizations", "common"])
def test_the_shared_document_has_an_issuer_with_a_gap_for_the_tenant(http: requests.Session, segment: str) -> None:
    document = http.get(f"{LOGIN}/{segment}/v2.0/.well-known/openid-configuration").json()

    assert document["issuer"] == f"{LOGIN}/{{tenantid}}/v2.0"
    assert document["authorization_endpoint"] == f"http://localhost:8400/{segment}/oauth2/v2.0/authorize"
    assert document["token_endpoint"] == f"{LOGIN}/{segment}/oauth2/v2.0/token"
    assert document["jwks_uri"] == f"{LOGIN}/{segment}/discovery/v2.0/keys"


def test_a_tenants_document_names_the_tenant(http: requests.Session) -> None:
    document = http.get(f"{LOGIN}/{PARTNER}/v2.0/.well-known/openid-configuration").json()

    assert document["issuer"] == f"{LOGIN}/{PARTNER}/v2.0"


def test_an_unknown_tenant_has_no_document(http: requests.Session) -> None:
    answer = http.get(f"{LOGIN}/dddddddd-0000-4000-8000-000000000009/v2.0/.well-known/openid-configuration")

    assert answer.status_code == 400
    assert answer.json()["error_description"].startswith("AADSTS90002:")


@pytest.mark.parametrize(
    ("host", "cloud"),
    [
        ("login.microsoftonline.us", "usgov"),
        ("login.partner.microsoftonline.cn", "china"),
        ("login.chinacloudapi.cn", "china"),
    ],
)
def test_other_clouds_have_their_own_documents_keys_and_pages(
    world: World, http: requests.Session, host: str, cloud: str
) -> None:
    tenant = world.add_tenant("dddddddd-0000-4000-8000-000000000004", "Far", cloud=cloud)
    tenant.add_account("svc@far.test", groups={"AdminAgents"})

    document = http.get(f"https://{host}/{tenant.id}/v2.0/.well-known/openid-configuration").json()
    kids = {key["kid"] for key in http.get(document["jwks_uri"]).json()["keys"]}
    page = http.get(Browser(http, f"http://localhost:8400/cloud/{cloud}").url(tenant.id, scope="openid"))

    assert document["authorization_endpoint"].startswith(f"http://localhost:8400/cloud/{cloud}/{tenant.id}/oauth2/")
    assert document["token_endpoint"].startswith(f"https://{host}/")
    assert kids.isdisjoint(key["kid"] for key in http.get(f"{LOGIN}/common/discovery/v2.0/keys").json()["keys"])
    assert "svc@far.test" in page.text


def test_a_tenant_of_another_cloud_is_refused_with_that_reason(world: World, http: requests.Session) -> None:
    world.add_tenant("dddddddd-0000-4000-8000-000000000004", "Far", cloud="china")

    answer = http.get(f"{LOGIN}/dddddddd-0000-4000-8000-000000000004/v2.0/.well-known/openid-configuration")

    assert refusal(answer) == 90038


def test_keys_say_who_issues_with_them(http: requests.Session) -> None:
    (key,) = http.get(f"{LOGIN}/{PARTNER}/discovery/v2.0/keys").json()["keys"]

    assert key["issuer"] == f"{LOGIN}/{{tenantid}}/v2.0"
    assert (key["kty"], key["use"]) == ("RSA", "sig")


def test_the_instance_document_knows_the_aliases_of_china(http: requests.Session) -> None:
    document = http.get(f"{LOGIN}/common/discovery/instance?api-version=1.1").json()

    aliases = [entry["aliases"] for entry in document["metadata"]]
    assert ["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"] in aliases


# pages


def test_the_picker_shows_a_tenants_accounts_with_and_without_mfa(browser: Browser) -> None:
    page = browser.http.get(browser.url(PARTNER)).text

    assert "svc@contoso.test" in page
    assert "svc@fabrikam.test" not in page
    assert "Sign in with MFA" in page
    assert "Sign in without MFA" in page


def test_the_shared_picker_shows_everybody(browser: Browser) -> None:
    page = browser.http.get(browser.url()).text

    assert all(upn in page for upn in ("svc@contoso.test", "svc@fabrikam.test", "pat@outlook.test"))


def test_pages_are_usable_without_script_and_send_no_inline_code(browser: Browser) -> None:
    answer = browser.http.get(browser.url())

    assert '<html lang="en">' in answer.text
    assert "<title>" in answer.text
    assert "<script" not in answer.text
    assert " style=" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "prefers-color-scheme: dark" in browser.http.get("http://localhost:8400/_sandbox/style.css").text


def test_names_from_outside_are_escaped(world: World, browser: Browser) -> None:
    world.tenants[PARTNER].add_account("x@contoso.test", name="<b>bold</b>")

    assert "<b>bold" not in browser.http.get(browser.url(PARTNER)).text


def test_consent_names_app_and_scopes_and_comes_before_the_code(browser: Browser) -> None:
    answer = browser.http.post(browser.url(), data={"account": "svc@contoso.test", "mfa": "yes"}, allow_redirects=False)

    assert answer.status_code == 200
    assert "CPV Panel" in answer.text
    assert f"{GRAPH}/User.Read.All" in answer.text
    assert 'value="accept"' in answer.text
    assert 'value="cancel"' in answer.text


def test_consent_is_skipped_when_everything_was_agreed_to(browser: Browser) -> None:
    browser.code()

    again = browser.http.post(browser.url(), data={"account": "svc@contoso.test", "mfa": "yes"}, allow_redirects=False)

    assert again.status_code == 302


def test_prompt_consent_asks_again(browser: Browser) -> None:
    browser.code()

    url = browser.url(prompt="consent")
    again = browser.http.post(url, data={"account": "svc@contoso.test", "mfa": "yes"}, allow_redirects=False)

    assert again.status_code == 200


def test_signing_in_alone_needs_no_consent(browser: Browser) -> None:
    url = browser.url(scope="openid profile", prompt="consent")
    answer = browser.http.post(url, data={"account": "svc@contoso.test", "mfa": "yes"}, allow_redirects=False)

    assert answer.status_code == 302


def test_an_administrator_can_consent_for_everybody(browser: Browser) -> None:
    browser.post(browser.url(), "admin@contoso.test", for_organization="yes")

    other = browser.http.post(
        browser.url(), data={"account": "sales@contoso.test", "mfa": "yes"}, allow_redirects=False
    )

    assert other.status_code == 302


def test_an_ordinary_user_cannot_consent_for_everybody(browser: Browser) -> None:
    browser.post(browser.url(), "svc@contoso.test", for_organization="yes")

    other = browser.http.post(
        browser.url(), data={"account": "sales@contoso.test", "mfa": "yes"}, allow_redirects=False
    )

    assert other.status_code == 200


def test_the_code_comes_back_with_the_state(browser: Browser) -> None:
    answer = browser.post(browser.url(), "svc@contoso.test")

    assert answer.headers["Location"].startswith(REDIRECT + "?")
    assert returned(answer)["state"] == "the-state"
    assert returned(answer)["session_state"]


def test_form_post_is_a_page_with_a_button(browser: Browser) -> None:
    answer = browser.post(browser.url(response_mode="form_post"), "svc@contoso.test")

    assert answer.status_code == 200
    assert f'action="{REDIRECT}"' in answer.text
    assert 'name="code"' in answer.text
    assert 'name="state" value="the-state"' in answer.text
    assert "<script" not in answer.text


def test_cancel_is_told_to_the_app(browser: Browser) -> None:
    told = returned(browser.post(browser.url(), "svc@contoso.test", decision="cancel"))

    assert told["error"] == "access_denied"
    assert told["error_description"].startswith("AADSTS65004:")
    assert told["state"] == "the-state"


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/connect/callback",
        "http://localhost:8000/elsewhere",
        "http://panel.test/connect/callback",
        "http://localhost.evil.example/connect/callback",
        "",
    ],
)
def test_a_foreign_redirect_address_is_never_followed(browser: Browser, uri: str) -> None:
    answer = browser.post(browser.url(redirect_uri=uri), "svc@contoso.test")

    assert answer.status_code == 400
    assert "AADSTS50011" in answer.text
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9999/signin/callback",
        "http://testserver/connect/callback",
        "https://panel.test/connect/admin-consent/callback",
    ],
)
def test_local_redirect_addresses_are_fine(browser: Browser, uri: str) -> None:
    assert browser.post(browser.url(redirect_uri=uri), "svc@contoso.test").headers["Location"].startswith(uri)


def test_registered_redirect_addresses_are_compared_exactly(world: World, browser: Browser) -> None:
    world.apps[APP].redirect_uris = {"https://panel.example/connect/callback"}

    assert browser.post(browser.url(), "svc@contoso.test").status_code == 400


def test_hybrid_is_refused(browser: Browser) -> None:
    told = returned(browser.post(browser.url(response_type="code id_token"), "svc@contoso.test"))

    assert told["error"] == "unsupported_response_type"
    assert "AADSTS700054" in told["error_description"]


def test_a_sign_in_without_pkce_works_but_is_noted(world: World, browser: Browser) -> None:
    code = browser.code(code_challenge=None, code_challenge_method=None)

    assert browser.redeem(code, code_verifier=None).status_code == 200
    assert world.calls_to("public", "authorize")[-1].detail["pkce"] is False


@pytest.mark.parametrize(
    ("changes", "error"), [({"code_challenge_method": "plain"}, "invalid_request"), ({"scope": " "}, "invalid_request")]
)
def test_an_unfit_request_is_sent_back(browser: Browser, changes: dict[str, str], error: str) -> None:
    told = returned(browser.post(browser.url(**changes), "svc@contoso.test"))

    assert (told["error"], told["state"]) == (error, "the-state")


def test_signing_out_leads_back_to_local_addresses_only(http: requests.Session) -> None:
    url = f"http://localhost:8400/{PARTNER}/oauth2/v2.0/logout?post_logout_redirect_uri="

    assert http.get(url + "http://localhost:8000/", allow_redirects=False).status_code == 302
    assert http.get(url + "https://evil.example/", allow_redirects=False).status_code == 200


def test_an_unknown_app_is_refused_on_the_page(browser: Browser) -> None:
    assert "AADSTS700016" in browser.post(browser.url(client_id=OTHER), "svc@contoso.test").text


def test_where_administrators_approve_others_are_sent_back(partner: Tenant, browser: Browser) -> None:
    partner.admin_approval_required = True

    told = returned(browser.post(browser.url(), "svc@contoso.test"))

    assert told["error"] == "access_denied"
    assert "AADSTS90094" in told["error_description"]
    assert "code" in returned(browser.post(browser.url(), "admin@contoso.test"))


def test_without_partner_centers_principal_nobody_can_ask_for_it(partner: Tenant, browser: Browser) -> None:
    partner.partner_center_principal = False

    told = returned(browser.post(browser.url(), "svc@contoso.test"))

    assert told["error"] == "invalid_resource"
    assert "AADSTS650052" in told["error_description"]
    assert browser.post(browser.url(scope="openid"), "svc@contoso.test").status_code == 302


def test_somebody_elses_account_cannot_sign_in_here(browser: Browser) -> None:
    answer = browser.post(browser.url(PARTNER), "svc@fabrikam.test")

    assert answer.status_code == 400
    assert "AADSTS50020" in answer.text


def test_a_switch_lets_a_foreign_account_in_with_its_own_tenant(world: World, browser: Browser) -> None:
    world.allow_foreign_accounts = True

    body = browser.redeem(browser.code("svc@fabrikam.test", PARTNER), PARTNER).json()

    assert claims(body["id_token"])["tid"] == OTHER


def test_personal_accounts_sign_in_at_common_only(browser: Browser) -> None:
    code = browser.code("pat@outlook.test", "common", scope="openid profile")

    assert claims(browser.redeem(code, "common", scope="openid").json()["id_token"])["tid"] == MSA
    assert "AADSTS50020" in browser.post(browser.url(), "pat@outlook.test").text


def test_who_cannot_do_mfa_cannot_claim_it(browser: Browser) -> None:
    assert "AADSTS50079" in browser.post(browser.url(), "nomfa@contoso.test").text
    assert browser.post(browser.url(), "nomfa@contoso.test", mfa="no").status_code == 302


def test_prompt_none_tells_that_nobody_is_signed_in(browser: Browser) -> None:
    answer = browser.http.get(browser.url(prompt="none"), allow_redirects=False)

    assert returned(answer)["error"] == "login_required"


def test_admin_consent_gives_no_code(browser: Browser) -> None:
    uri = "http://localhost:8000/connect/admin-consent/callback"
    query = urlencode({"client_id": APP, "redirect_uri": uri, "state": "s", "scope": SCOPES})
    url = f"http://localhost:8400/{PARTNER}/v2.0/adminconsent?{query}"

    told = returned(browser.post(url, "admin@contoso.test"))
    refused = returned(browser.post(url, "svc@contoso.test"))

    assert (told["admin_consent"], told["tenant"], told["state"]) == ("True", PARTNER, "s")
    assert "code" not in told
    assert refused["error"] == "access_denied"
    assert (
        browser.http.post(browser.url(), data={"account": "sales@contoso.test"}, allow_redirects=False).status_code
        == 302
    )


@pytest.mark.parametrize(
    ("path", "scope", "passes"),
    [
        ("v2.0/adminconsent", SCOPES, True),
        ("v2.0/adminconsent", f"{PC}/user_impersonation", False),
        ("v2.0/adminconsent", f"{PC}/.default", True),
        ("adminconsent", "", True),
    ],
)
def test_after_an_administrators_approval_others_pass_with_what_was_approved(
    partner: Tenant, browser: Browser, path: str, scope: str, passes: bool
) -> None:
    partner.admin_approval_required = True
    uri = "http://localhost:8000/connect/admin-consent/callback"
    query = urlencode({"client_id": APP, "redirect_uri": uri, "state": "s", "scope": scope})

    told = returned(browser.post(f"http://localhost:8400/{PARTNER}/{path}?{query}", "admin@contoso.test"))

    assert told["tenant"] == PARTNER
    assert ("code" in returned(browser.post(browser.url(), "svc@contoso.test"))) is passes


def test_a_switch_gives_the_newer_endpoint_the_older_shape(world: World, browser: Browser) -> None:
    world.token_shape = "v1"

    body = browser.redeem(browser.code()).json()

    assert (body["expires_in"], body["ext_expires_in"]) == ("3599", "3599")
    assert int(body["expires_on"]) - int(body["not_before"]) == 3599
    assert (body["resource"], body["scope"]) == (PC, "user_impersonation")


@pytest.mark.parametrize("scope", ["", "x"])
def test_an_approval_of_nothing_that_exists_is_sent_back(browser: Browser, scope: str) -> None:
    uri = "http://localhost:8000/connect/admin-consent/callback"
    query = urlencode({"client_id": APP, "redirect_uri": uri, "state": "s", "scope": scope})

    told = returned(browser.post(f"http://localhost:8400/{PARTNER}/v2.0/adminconsent?{query}", "admin@contoso.test"))

    assert (told["admin_consent"], told["state"]) == ("True", "s")
    assert told["error"]


# the token endpoint


def test_a_token_answer_has_numbers_and_the_partner_center_scope(browser: Browser) -> None:
    body = browser.redeem(browser.code(), client_info="1").json()

    assert body["token_type"] == "Bearer"
    assert isinstance(body["expires_in"], int)
    assert isinstance(body["ext_expires_in"], int)
    assert body["scope"] == f"{PC}/user_impersonation"
    assert {"access_token", "refresh_token", "id_token", "client_info"} <= set(body)


def test_the_id_token_is_signed_and_never_tells_about_mfa(
    world: World, http: requests.Session, browser: Browser
) -> None:
    token = browser.tokens()["id_token"]

    (key,) = http.get(f"{LOGIN}/organizations/discovery/v2.0/keys").json()["keys"]
    found = jwt.decode(token, jwt.PyJWK(key), algorithms=["RS256"], audience=APP)
    assert found["iss"] == f"{LOGIN}/{PARTNER}/v2.0"
    assert (found["tid"], found["nonce"], found["ver"]) == (PARTNER, "the-nonce", "2.0")
    assert found["preferred_username"] == "svc@contoso.test"
    assert {"oid", "sub", "name", "iat", "nbf", "exp"} <= set(found)
    assert "amr" not in found
    assert "acct" not in found


def test_an_id_token_has_the_app_roles_of_whoever_has_some(browser: Browser, partner: Tenant) -> None:
    partner.add_account("ada@contoso.test", groups={"AdminAgents"}, app_roles={"Desk.Support", "Desk.Admin"})

    assert claims(browser.tokens("ada@contoso.test")["id_token"])["roles"] == ["Desk.Admin", "Desk.Support"]
    assert "roles" not in claims(browser.tokens()["id_token"])
    assert "roles" not in claims(browser.tokens("ada@contoso.test")["access_token"])


def test_a_guests_id_token_says_so(browser: Browser) -> None:
    assert claims(browser.tokens("guest@elsewhere.test")["id_token"])["acct"] == 1


@pytest.mark.parametrize(("mfa", "amr"), [("yes", ["pwd", "mfa"]), ("no", ["pwd"])])
def test_the_partner_center_token_tells_about_mfa(browser: Browser, mfa: str, amr: list[str]) -> None:
    found = claims(browser.tokens(mfa=mfa)["access_token"])

    assert found["amr"] == amr
    assert (found["aud"], found["ver"], found["appid"]) == (PC, "1.0", APP)
    assert found["iss"] == f"https://sts.windows.net/{PARTNER}/"
    assert found["scp"] == "user_impersonation"


def test_without_offline_access_there_is_no_refresh_token(browser: Browser) -> None:
    body = browser.tokens(scope=f"{PC}/user_impersonation openid")

    assert "refresh_token" not in body


def test_without_openid_there_is_no_id_token(browser: Browser) -> None:
    body = browser.tokens(scope=f"{PC}/user_impersonation offline_access")

    assert "id_token" not in body


def test_a_wrong_verifier_is_refused_and_the_right_one_still_works(browser: Browser) -> None:
    code = browser.code()

    assert refusal(browser.redeem(code, code_verifier="x" * 50)) == 501481
    assert refusal(browser.redeem(code, code_verifier=None)) == 501481
    assert browser.redeem(code).status_code == 200


def test_a_code_works_once(browser: Browser) -> None:
    code = browser.code()
    browser.redeem(code)

    assert refusal(browser.redeem(code)) == 54005


def test_a_code_lives_ten_minutes(browser: Browser, clock: Clock) -> None:
    code = browser.code()
    clock.now += 601

    assert refusal(browser.redeem(code)) == 70008


def test_a_code_belongs_to_one_address(browser: Browser) -> None:
    code = browser.code()

    assert refusal(browser.redeem(code, redirect_uri="http://localhost:1/connect/callback")) == 500112
    assert refusal(browser.redeem(code, PARTNER)) == 700005


def test_garbage_is_no_code(browser: Browser) -> None:
    assert refusal(browser.redeem("garbage")) == 9002313


def test_a_wrong_secret_is_401(browser: Browser) -> None:
    answer = browser.redeem(browser.code(), client_secret="wrong")

    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"
    assert refusal(answer) == 7000215


def test_no_credential_at_all_is_refused(browser: Browser) -> None:
    assert refusal(browser.redeem(browser.code(), client_secret=None)) == 7000218


def test_an_expired_secret_has_its_own_number(world: World, browser: Browser) -> None:
    world.apps[APP].secret_expired = True

    assert refusal(browser.redeem(browser.code())) == 7000222


def test_an_app_that_is_not_in_a_cloud_is_unknown_there(world: World, browser: Browser) -> None:
    code = browser.code()
    world.apps[APP].clouds = frozenset({"china"})

    assert refusal(browser.redeem(code)) == 700016


def test_a_token_is_for_one_resource(browser: Browser) -> None:
    scope = f"{PC}/user_impersonation {GRAPH}/User.Read.All"

    assert refusal(browser.redeem(browser.code(), scope=scope)) == 28002


def test_an_unknown_scope_or_resource_is_refused(browser: Browser) -> None:
    told = returned(browser.post(browser.url(scope=f"{GRAPH}/Made.Up"), "svc@contoso.test"))

    assert "AADSTS650053" in told["error_description"]
    assert refusal(browser.redeem(browser.code(), scope="https://graph.windows.net/.default")) == 500011
    assert refusal(browser.redeem(browser.code(), scope=f"{GRAPH}/Made.Up")) == 70011


def test_the_v2_endpoint_does_not_know_resource(browser: Browser) -> None:
    assert refusal(browser.redeem(browser.code(), resource=PC)) == 901002


def test_the_older_endpoint_answers_with_strings(browser: Browser, http: requests.Session) -> None:
    token = browser.tokens()["refresh_token"]
    form = {"client_id": APP, "client_secret": SECRET, "grant_type": "refresh_token", "refresh_token": token}

    body = http.post(f"{LOGIN}/{PARTNER}/oauth2/token", data=form | {"resource": PC}).json()

    assert body["expires_in"] == "3599"
    assert body["resource"] == PC
    assert claims(body["access_token"])["aud"] == PC


def test_an_error_has_entras_shape_and_the_callers_correlation_id(browser: Browser) -> None:
    wanted = "12345678-1234-4234-8234-123456789012"
    form = {"client_id": APP, "client_secret": SECRET, "grant_type": "refresh_token", "refresh_token": "x"}

    answer = browser.http.post(f"{LOGIN}/{PARTNER}/oauth2/v2.0/token", data=form, headers={"client-request-id": wanted})

    body = answer.json()
    expected = {"error", "error_description", "error_codes", "timestamp", "trace_id", "correlation_id", "error_uri"}
    assert set(body) == expected
    assert body["correlation_id"] == wanted
    assert body["error_uri"] == f"{LOGIN}/error?code=9002313"
    assert f"Trace ID: {body['trace_id']} Correlation ID: {wanted} Timestamp: " in body["error_description"]


def test_the_app_wide_permissions_are_what_default_asks_for(world: World, browser: Browser) -> None:
    body = browser.redeem(browser.code(scope=f"{PC}/.default openid"), scope=f"{GRAPH}/.default").json()

    assert f"{GRAPH}/DelegatedAdminRelationship.ReadWrite.All" in body["scope"]


def test_withheld_permissions_are_silently_left_out(partner: Tenant, browser: Browser) -> None:
    partner.withheld = {"GroupMember.Read.All"}

    body = browser.redeem(browser.code(), scope=f"{GRAPH}/.default").json()

    assert f"{GRAPH}/User.Read.All" in body["scope"]
    assert "GroupMember" not in body["scope"]
    assert "GroupMember" not in claims(body["access_token"])["scp"]


# refresh tokens


def test_a_refresh_gives_a_new_token_and_the_old_one_stays_good(browser: Browser) -> None:
    first = browser.tokens()["refresh_token"]

    second = browser.refresh(first).json()["refresh_token"]

    assert second != first
    assert len(second) > 1000
    assert browser.refresh(first).status_code == 200
    assert browser.refresh(second).status_code == 200


def test_a_refresh_token_works_for_another_resource_that_was_agreed_to(browser: Browser) -> None:
    body = browser.refresh(browser.tokens()["refresh_token"], scope=f"{GRAPH}/User.Read.All openid").json()

    assert claims(body["access_token"])["aud"] == GRAPH
    assert "nonce" not in claims(body["id_token"])


def test_what_nobody_agreed_to_needs_consent(browser: Browser) -> None:
    answer = browser.refresh(browser.tokens()["refresh_token"], scope=f"{GRAPH}/Directory.Read.All")

    assert refusal(answer) == 65001
    assert answer.json()["suberror"] == "consent_required"
    assert answer.json()["error"] == "invalid_grant"


def test_removed_consent_refuses_and_comes_back(world: World, partner: Tenant, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    world.ledger.remove_consents(partner)
    assert refusal(browser.refresh(token)) == 65001

    world.ledger.give_consents_back(partner)

    assert browser.refresh(token).status_code == 200


def test_a_missing_principal_refuses_partner_center_but_not_graph(partner: Tenant, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    partner.partner_center_principal = False

    assert refusal(browser.refresh(token)) == 650052
    assert browser.refresh(token, scope=f"{GRAPH}/User.Read.All").status_code == 200


def test_revoking_a_tenant_kills_its_tokens_but_not_later_ones(partner: Tenant, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    partner.revoke()

    answer = browser.refresh(token)

    assert refusal(answer) == 50173
    assert answer.json()["suberror"] == "bad_token"
    assert browser.refresh(browser.tokens()["refresh_token"]).status_code == 200


def test_revoking_one_account_leaves_the_others_alone(partner: Tenant, browser: Browser) -> None:
    token, other = browser.tokens()["refresh_token"], browser.tokens("sales@contoso.test")["refresh_token"]

    partner.revoke(partner.account("svc@contoso.test"))

    assert refusal(browser.refresh(token)) == 50173
    assert browser.refresh(other).status_code == 200


def test_a_disabled_account_is_refused(partner: Tenant, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    partner.accounts[next(iter(partner.accounts))].disabled = True

    assert refusal(browser.refresh(token)) == 50057


def test_an_unused_refresh_token_ends_after_ninety_days(browser: Browser, clock: Clock) -> None:
    token = browser.tokens()["refresh_token"]
    clock.now += 90 * 86_400 + 1

    assert refusal(browser.refresh(token)) == 700082


def test_a_garbled_refresh_token_and_a_strange_one_differ(browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]

    assert refusal(browser.refresh(token[:500])) == 9002313
    assert refusal(browser.refresh(token[:-4] + "AAAA")) == 70000


def test_a_refresh_token_belongs_to_its_app(world: World, browser: Browser) -> None:
    world.app_registration(OTHER, secret="other")
    token = browser.tokens()["refresh_token"]

    assert refusal(browser.refresh(token, client_id=OTHER, client_secret="other")) == 70000


def test_a_partners_token_works_in_a_customers_tenant_where_the_app_is_consented(
    partner: Tenant, browser: Browser
) -> None:
    token, customer = browser.tokens()["refresh_token"], partner.customers.at(5).tenant_id
    assert refusal(browser.refresh(token, customer, scope=f"{GRAPH}/.default")) == 65001

    partner.application_consents.add(customer)

    body = browser.refresh(token, customer, scope=f"{GRAPH}/.default openid").json()
    assert claims(body["access_token"])["tid"] == customer
    assert claims(body["id_token"])["iss"] == f"{LOGIN}/{customer}/v2.0"


def test_a_partners_token_does_not_work_in_another_partners_tenant(browser: Browser) -> None:
    assert refusal(browser.refresh(browser.tokens()["refresh_token"], OTHER)) == 50020


# app-only


def app_only(browser: Browser, client: str, secret: str, scope: str, segment: str = VENDOR) -> requests.Response:
    form = {"client_id": client, "client_secret": secret, "grant_type": "client_credentials", "scope": scope}
    return browser.http.post(f"{LOGIN}/{segment}/oauth2/v2.0/token", data=form)


def test_a_vault_identity_gets_tokens_for_the_vault_only(browser: Browser) -> None:
    body = app_only(browser, WORKER, "worker", "https://vault.azure.net/.default").json()

    assert claims(body["access_token"])["aud"] == "https://vault.azure.net"
    assert claims(body["access_token"])["appid"] == WORKER
    assert "refresh_token" not in body
    assert refusal(app_only(browser, WORKER, "worker", f"{GRAPH}/.default")) == 500011


def test_a_vault_identity_is_unknown_in_other_tenants(browser: Browser) -> None:
    assert refusal(app_only(browser, WORKER, "worker", "https://vault.azure.net/.default", PARTNER)) == 700016


def test_the_vendors_app_does_not_get_into_the_vault(browser: Browser) -> None:
    assert refusal(app_only(browser, APP, SECRET, "https://vault.azure.net/.default")) == 500011


def test_app_only_scopes_end_with_default(browser: Browser) -> None:
    assert refusal(app_only(browser, WORKER, "worker", "https://vault.azure.net/user_impersonation")) == 1002012


def test_other_grant_types_are_refused(browser: Browser) -> None:
    assert refusal(browser.redeem("", grant_type="password")) == 70003


# broken id_tokens


@pytest.mark.parametrize("fault", ID_TOKEN_FAULTS)
def test_each_fault_spoils_the_id_token_in_its_own_way(
    world: World, browser: Browser, fault: str, clock: Clock
) -> None:
    world.id_token_fault = fault
    (key,) = browser.http.get(f"{LOGIN}/organizations/discovery/v2.0/keys").json()["keys"]

    token = browser.tokens()["id_token"]

    header, found = jwt.get_unverified_header(token), claims(token)
    spoiled = {
        "wrong_issuer": found.get("iss") != f"{LOGIN}/{PARTNER}/v2.0" and found.get("tid") == PARTNER,
        "wrong_audience": found.get("aud") != APP,
        "wrong_nonce": found.get("nonce") != "the-nonce",
        "wrong_tenant": found.get("tid") not in (PARTNER, MSA, None),
        "expired": found["exp"] < clock.now,
        "not_yet_valid": found["nbf"] > clock.now,
        "unsigned": header["alg"] == "none" and token.endswith("."),
        "unknown_key": header.get("kid") != key["kid"] and header["alg"] == "RS256",
        "forged_key": header["alg"] == "RS256" and header["kid"] == key["kid"] and not _verifies(token, key),
        "hs256": header["alg"] == "HS256",
        "missing_oid": "oid" not in found,
        "missing_tid": "tid" not in found,
        "personal": found.get("tid") == MSA,
    }
    assert [name for name, seen in spoiled.items() if seen] == [fault]


def _verifies(token: str, key: dict[str, str]) -> bool:
    try:
        jwt.decode(token, jwt.PyJWK(key), algorithms=["RS256"], options={"verify_aud": False, "verify_exp": False})
    except jwt.InvalidSignatureError:
        return False
    except jwt.ImmatureSignatureError:
        return True
    return True


def test_scopes_of_tokens_are_what_was_asked_when_the_token_request_names_none(browser: Browser) -> None:
    body = browser.redeem(browser.code(scope=PARTNER_CENTER), scope=None).json()

    assert claims(body["access_token"])["aud"] == PC
