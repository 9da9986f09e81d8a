import hashlib
import json
import logging
import os
import threading
import time
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import requests

from tests.tokens.fake_entra import (
    APP,
    KEY,
    OTHER_KEY,
    OTHER_PARTNER,
    PARTNER,
    TRACE,
    FakeServer,
    claims,
    elliptic_pem,
    pem,
    signed,
)
from tokens.aadsts import Kind
from tokens.clouds import CLOUDS, GLOBAL
from tokens.entra import (
    AnswerMismatch,
    AppRegistration,
    BadIdToken,
    BlockedByPartner,
    ConsentRequired,
    Entra,
    EntraUnavailable,
    NoSuchTenant,
    OurFault,
    Refused,
)
from tokens.errors import Permanent, Transient
from tokens.http import Network
from tokens.secret import Secret

USER_READ = "https://graph.microsoft.com/User.Read.All"
CENTER = "https://api.partnercenter.microsoft.com/user_impersonation"
CALLBACK = "https://portal.example/connect/callback"
RT = Secret("canary-refresh-token")


def begin(entra, **options):
    return entra.begin(**{"tenant": PARTNER, "scopes": [CENTER, USER_READ], "redirect_uri": CALLBACK} | options)


def asked(flow):
    return {name: values[0] for name, values in parse_qs(urlsplit(flow["auth_uri"]).query).items()}


def redeem(entra, **options):
    return entra.redeem_refresh_token(**{"refresh_token": RT, "tenant": PARTNER, "scopes": [USER_READ]} | options)


def redeem_code(entra, flow, answer=None, scopes=(CENTER,)):
    answer = {"state": flow["state"], "code": "canary-code"} if answer is None else answer
    return entra.redeem_code(flow=flow, answer=answer, tenant=PARTNER, scopes=scopes)


def no(code, error="invalid_grant", **more):
    body = {"error": error, "error_codes": [code], "error_description": f"AADSTS{code}: canary", "trace_id": TRACE}
    return body | more


# --- Begin --------------------------------------------------------------------------------------------------------
def test_a_flow_asks_for_a_code_with_pkce_state_and_nonce(entra):
    flow = begin(entra, login_hint="admin@partner.example")
    query = asked(flow)

    assert flow["auth_uri"].startswith(f"https://login.microsoftonline.com/{PARTNER}/oauth2/v2.0/authorize?")
    assert (query["response_type"], query["response_mode"]) == ("code", "query")
    assert (query["code_challenge_method"], query["prompt"]) == ("S256", "select_account")
    assert query["login_hint"] == "admin@partner.example"
    assert query["redirect_uri"] == CALLBACK
    assert set(query["scope"].split()) == {CENTER, USER_READ, "openid", "profile", "offline_access"}
    assert query["state"] == flow["state"]
    assert query["nonce"] == hashlib.sha256(flow["nonce"].encode()).hexdigest()
    assert flow["code_verifier"] not in flow["auth_uri"]


def test_a_flow_can_be_kept_as_json(entra):
    flow = begin(entra)

    assert json.loads(json.dumps(flow)) == flow


def test_a_sign_in_asks_who_the_user_is_and_for_nothing_else(entra):
    assert set(asked(begin(entra, scopes=[], offline_access=False))["scope"].split()) == {"openid", "profile"}


def test_claims_prompt_and_response_mode_are_passed_on(entra):
    query = asked(begin(entra, claims='{"access_token":{}}', prompt=None, response_mode="form_post"))

    assert (query["claims"], query["response_mode"]) == ('{"access_token":{}}', "form_post")
    assert "prompt" not in query


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ("https://login.microsoftonline.us/x/oauth2/v2.0/authorize", Kind.TENANT),
        ("http://login.microsoftonline.com/x/oauth2/v2.0/authorize", Kind.CONFIG),
        ("https://login.microsoftonline.com.evil.example/x/oauth2/v2.0/authorize", Kind.CONFIG),
        ("https://login.microsoftonline.com@evil.example/x", Kind.CONFIG),
    ],
)
def test_the_browser_is_sent_to_the_clouds_login_host_only(entra, microsoft, endpoint, kind):
    token = f"https://login.microsoftonline.com/{PARTNER}/oauth2/v2.0/token"
    microsoft.discovery = (200, {"authorization_endpoint": endpoint, "token_endpoint": token})

    with pytest.raises(Refused, match="authorization endpoint") as caught:
        begin(entra)

    assert caught.value.meaning.kind is kind


def admin_consent(entra):
    return entra.admin_consent_address(tenant=PARTNER, scopes=[CENTER, USER_READ], redirect_uri=CALLBACK, state="s")


def test_an_administrators_approval_is_asked_for_beside_the_authorization_endpoint(entra):
    address = urlsplit(admin_consent(entra))

    assert address._replace(query="").geturl() == f"https://login.microsoftonline.com/{PARTNER}/v2.0/adminconsent"
    asked = {name: values[0] for name, values in parse_qs(address.query).items()}
    assert asked == {"client_id": APP, "scope": f"{CENTER} {USER_READ}", "redirect_uri": CALLBACK, "state": "s"}


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://login.evil.example/x/oauth2/v2.0/authorize",
        "https://login.microsoftonline.com/x/oauth2/v2.0/authorize/more",
        "https://login.microsoftonline.com/x/sign-in",
    ],
)
def test_an_administrator_is_sent_to_the_clouds_login_host_only(entra, microsoft, endpoint):
    token = f"https://login.microsoftonline.com/{PARTNER}/oauth2/v2.0/token"
    microsoft.discovery = (200, {"authorization_endpoint": endpoint, "token_endpoint": token})

    with pytest.raises(OurFault, match="authorization endpoint"):
        admin_consent(entra)


@pytest.mark.parametrize("allowed", ["localhost:8400", "localhost"])
def test_a_stand_ins_address_is_fine_where_it_was_allowed(network, microsoft, allowed):
    token = f"https://login.microsoftonline.com/{PARTNER}/oauth2/v2.0/token"
    page = f"http://localhost:8400/login.microsoftonline.com/{PARTNER}/oauth2/v2.0/authorize"
    microsoft.discovery = (200, {"authorization_endpoint": page, "token_endpoint": token})
    app = AppRegistration(client_id=APP, secret=Secret("x"))
    entra = Entra(network=network, cloud=GLOBAL, app=app, authorization_hosts=frozenset({allowed}))

    assert begin(entra)["auth_uri"].startswith(page + "?")
    assert OTHER_PARTNER in begin(entra, tenant=OTHER_PARTNER)["auth_uri"]


@pytest.mark.parametrize(
    ("endpoint", "failure"),
    [
        ("https://login.microsoftonline.us/x/token", NoSuchTenant),
        ("http://login.microsoftonline.com/x/token", OurFault),
    ],
)
def test_no_credential_goes_to_another_clouds_token_endpoint(entra, microsoft, server, endpoint, failure):
    page = f"https://login.microsoftonline.com/{PARTNER}/oauth2/v2.0/authorize"
    microsoft.discovery = (200, {"authorization_endpoint": page, "token_endpoint": endpoint})

    with pytest.raises(failure, match="token endpoint"):
        redeem(entra)

    assert server.posts() == []


# --- Discovery ----------------------------------------------------------------------------------------------------
def test_many_tenants_cost_one_discovery_a_day_and_each_is_asked_at_its_own_address(entra, server, clock):
    for tenant in (PARTNER, OTHER_PARTNER, "organizations"):
        redeem(entra, tenant=tenant)
    assert len(server.gets()) == 1

    clock.shift(24 * 3600 + 1)
    redeem(entra)

    assert len(server.gets()) == 2
    posted = [urlsplit(sent.url).path.split("/")[1] for sent in server.seen if sent.method == "POST"]
    assert posted == [PARTNER, OTHER_PARTNER, "organizations", PARTNER]


def test_a_document_that_does_not_name_its_tenant_is_not_used_for_others(entra, microsoft, server):
    base = "https://login.microsoftonline.com/shared/oauth2/v2.0"
    microsoft.discovery = (200, {"authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token"})

    redeem(entra)
    redeem(entra, tenant=OTHER_PARTNER)

    assert len(server.gets()) == 2


def test_an_unknown_tenant_is_told_apart_from_a_fault_of_ours(entra, microsoft):
    microsoft.discovery = (400, no(90002, "invalid_tenant"))

    with pytest.raises(NoSuchTenant) as caught:
        begin(entra)

    assert caught.value.code == "AADSTS90002"


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}),
        (200, {"token_endpoint": 7}),
        (200, {"authorization_endpoint": "x"}),
        (200, b"<html>"),
        (302, {"a": 1}),
        (500, {}),
        (429, {}, {"Retry-After": "9"}),
    ],
    ids=str,
)
def test_a_discovery_that_cannot_be_used_passes(entra, microsoft, answer):
    microsoft.discovery = answer

    with pytest.raises(EntraUnavailable):
        begin(entra)


def test_a_discovery_that_cannot_be_reached_passes():
    server = FakeServer(lambda request: requests.ConnectionError("canary"))
    app = AppRegistration(client_id=APP, secret=Secret("x"))

    with pytest.raises(EntraUnavailable) as caught:
        begin(Entra(network=Network(clouds=[GLOBAL], adapter=server), cloud=GLOBAL, app=app))

    assert caught.value.code == "unreachable"


# --- Redeem a refresh token ---------------------------------------------------------------------------------------
def test_a_refresh_token_is_spent_for_the_scopes_of_one_audience(entra, server):
    grant = redeem(entra, claims='{"access_token":{}}')

    form = server.posts()[0]
    assert form["grant_type"] == "refresh_token"
    assert form["refresh_token"] == RT.reveal()
    assert form["client_secret"] == "app-secret"
    assert form["claims"] == '{"access_token":{}}'
    assert set(form["scope"].split()) == {USER_READ, "openid", "profile", "offline_access"}
    assert (grant.access_token, grant.refresh_token, grant.id_token) == (Secret("AT"), None, None)
    assert (grant.scopes, grant.expires_in) == (frozenset({"s1", "s2"}), 3600)
    assert len(grant.correlation_id) == 36


@pytest.mark.parametrize("form", ["expires_in", "expires_on"])
def test_an_answer_in_the_v1_shape_is_read_too(entra, microsoft, form):
    times = {"expires_in": "3600", "expires_on": str(int(time.time()) + 3600)}
    body = {"access_token": "AT", "refresh_token": "RT", "scope": "user_impersonation", "not_before": "1"}
    microsoft.token = (200, body | {"resource": CENTER, "token_type": "Bearer", form: times[form]})

    grant = redeem(entra)

    assert 3590 <= grant.expires_in <= 3600
    assert grant.scopes == {"user_impersonation"}
    assert grant.refresh_token == Secret("RT")


def test_a_grant_shows_none_of_its_tokens(entra, microsoft):
    id_token = signed(claims())
    microsoft.token = (200, microsoft.token[1] | {"refresh_token": "canary-next", "id_token": id_token})

    grant = redeem(entra)

    assert (grant.refresh_token, grant.id_token) == (Secret("canary-next"), Secret(id_token))
    assert "canary" not in repr(grant)
    assert "token" not in repr(grant)


def test_nothing_is_remembered_between_two_redemptions(entra, server, microsoft):
    microsoft.token = (400, no(50173))
    for _ in range(2):
        with pytest.raises(ConsentRequired):
            redeem(entra)
    microsoft.token = (200, {"access_token": "AT2", "expires_in": "60"}, {"Retry-After": "60"})
    first = redeem(entra)
    microsoft.token = (200, {"access_token": "AT3", "expires_in": 60})

    assert (first.access_token, first.expires_in) == (Secret("AT2"), 60)
    assert redeem(entra).access_token == Secret("AT3")
    assert len(server.posts()) == 4


@pytest.mark.parametrize(
    ("code", "leaf"),
    [
        (50173, ConsentRequired),
        (50076, ConsentRequired),
        (65001, ConsentRequired),
        (53003, BlockedByPartner),
        (7000222, OurFault),
        (700084, OurFault),
        (99999999, ConsentRequired),
    ],
)
def test_a_refusal_is_named_for_whoever_acts(entra, microsoft, code, leaf):
    microsoft.token = (400, no(code, suberror="bad_token", claims='{"x":1}', correlation_id=TRACE))

    with pytest.raises(Refused) as caught:
        redeem(entra)

    refused = caught.value
    assert type(refused) is leaf
    assert isinstance(refused, Permanent)
    assert (refused.code, refused.meaning.code) == (f"AADSTS{code}", code)
    assert (refused.claims, refused.suberror) == ('{"x":1}', "bad_token")
    assert (refused.trace_id, refused.correlation_id) == (TRACE, TRACE)
    assert "canary" not in str(refused)


def test_what_is_kept_of_a_refusal_was_checked_first(entra, microsoft):
    microsoft.token = (
        400,
        {"error": "<b>", "error_codes": "many", "suberror": 7, "claims": {}, "trace_id": "<b>", "correlation_id": 7},
    )

    with pytest.raises(OurFault) as caught:
        redeem(entra)

    refused = caught.value
    assert (refused.code, refused.claims, refused.suberror, refused.trace_id) == ("refused", "", "", "")
    assert len(refused.correlation_id) == 36  # our own


def test_numbers_are_found_in_the_description_when_they_are_not_listed(entra, microsoft):
    microsoft.token = (400, {"error": "invalid_grant", "error_description": "AADSTS65001: canary"})

    with pytest.raises(ConsentRequired) as caught:
        redeem(entra)

    assert caught.value.code == "AADSTS65001"


@pytest.mark.parametrize(
    ("answer", "code", "wait"),
    [
        ((429, {}, {"Retry-After": "17"}), "entra-429", 17),
        ((503, b"<html>"), "entra-503", None),
        ((500, no(90033)), "AADSTS90033", None),
        ((400, no(90033), {"Retry-After": "3"}), "AADSTS90033", 3),
        ((400, no(50196)), "AADSTS50196", 900),
        ((400, no(50196), {"Retry-After": "3"}), "AADSTS50196", 900),
        ((200, b"<html>canary"), "unusable-answer", None),
        ((200, ["canary"]), "unusable-answer", None),
        ((200, {"expires_in": 3600}), "unusable-answer", None),
        ((200, {"access_token": "canary"}), "unusable-answer", None),
        ((200, {"access_token": "canary", "expires_in": "soon"}), "unusable-answer", None),
        ((200, {"access_token": "canary", "expires_in": 1, "id_token": "canary"}), "unusable-answer", None),
        ((200, {"access_token": "canary", "expires_in": 1, "scope": 7}), "unusable-answer", None),
        ((302, {"a": "canary"}), "unusable-answer", None),
        (requests.ConnectionError("canary"), "unreachable", None),
        (requests.ReadTimeout("canary"), "unreachable", None),
    ],
    ids=str,
)
def test_what_passes_by_itself_is_transient_and_tells_nothing(entra, microsoft, caplog, answer, code, wait):
    microsoft.token = answer

    with caplog.at_level(logging.DEBUG), pytest.raises(EntraUnavailable) as caught:
        redeem(entra)

    assert isinstance(caught.value, Transient)
    assert (caught.value.code, caught.value.retry_after) == (code, wait)
    assert "canary" not in str(caught.value) + caplog.text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_what_before_send_raises_comes_out_unchanged(server):
    class InTransaction(RuntimeError):
        pass

    def stop_inside():
        if inside:
            raise InTransaction

    inside = []
    network = Network(clouds=[GLOBAL], adapter=server, before_send=stop_inside)
    entra = Entra(network=network, cloud=GLOBAL, app=AppRegistration(client_id=APP, secret=Secret("x")))
    begin(entra)
    inside.append("a transaction")

    with pytest.raises(InTransaction):
        redeem(entra)


def test_msal_stores_nothing(entra, caplog):
    with caplog.at_level(logging.DEBUG):
        redeem(entra)

    assert "msal.token_cache" not in {record.name for record in caplog.records}


def test_many_threads_redeem_side_by_side(entra, server):
    threads = [threading.Thread(target=redeem, args=(entra,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(server.posts()) == 8


# --- Redeem a code ------------------------------------------------------------------------------------------------
def test_a_code_is_spent_with_the_flows_verifier_for_one_audience(entra, server, microsoft):
    flow = begin(entra)
    id_token = signed(claims(nonce=hashlib.sha256(flow["nonce"].encode()).hexdigest()))
    microsoft.token = (200, microsoft.token[1] | {"refresh_token": "RT", "id_token": id_token})

    grant = redeem_code(entra, json.loads(json.dumps(flow)))

    form = server.posts()[0]
    assert (form["grant_type"], form["code"]) == ("authorization_code", "canary-code")
    assert (form["code_verifier"], form["redirect_uri"]) == (flow["code_verifier"], CALLBACK)
    assert set(form["scope"].split()) == {CENTER, "openid", "profile", "offline_access"}
    assert grant.refresh_token == Secret("RT")
    assert entra.validate(grant.id_token, nonce=flow["nonce"]).username == "admin@partner.example"


def test_a_sign_ins_code_is_spent_for_the_id_token_alone(entra, server):
    flow = begin(entra, tenant="organizations", scopes=[], offline_access=False)

    redeem_code(entra, flow, scopes=[])

    assert set(server.posts()[0]["scope"].split()) == {"openid", "profile"}


@pytest.mark.parametrize("state", ["", "another", None])
def test_an_answer_to_another_attempt_is_refused_before_anything_is_sent(entra, server, state):
    flow = begin(entra)
    answer = {"code": "canary-code"} | ({} if state is None else {"state": state})

    with pytest.raises(AnswerMismatch) as caught:
        redeem_code(entra, flow, answer)

    assert caught.value.code == "state"
    assert flow["state"] not in str(caught.value)
    assert server.posts() == []


def test_an_answer_without_a_code_is_refused(entra):
    flow = begin(entra)

    with pytest.raises(AnswerMismatch) as caught:
        redeem_code(entra, flow, {"state": flow["state"]})

    assert caught.value.code == "no-code"


@pytest.mark.parametrize(
    ("error", "description", "leaf", "code"),
    [
        ("access_denied", "AADSTS65004: declined", ConsentRequired, "AADSTS65004"),
        ("access_denied", "", ConsentRequired, "access_denied"),
        ("server_error", "AADSTS90033: busy", EntraUnavailable, "AADSTS90033"),
        ("temporarily_unavailable", "", EntraUnavailable, "temporarily_unavailable"),
        ("<script>", "canary", OurFault, "refused"),
    ],
)
def test_an_error_in_the_browsers_answer_is_classified_and_not_quoted(entra, error, description, leaf, code):
    flow = begin(entra)
    answer = {"state": flow["state"], "error": error, "error_description": description, "code": "canary"}

    with pytest.raises(leaf) as caught:
        redeem_code(entra, flow, answer)

    assert caught.value.code == code
    assert "canary" not in str(caught.value)
    assert "script" not in str(caught.value)


def test_an_id_token_with_another_nonce_is_refused(entra, microsoft):
    microsoft.token = (200, microsoft.token[1] | {"id_token": signed(claims(nonce="another"))})

    with pytest.raises(BadIdToken) as caught:
        redeem_code(entra, begin(entra))

    assert caught.value.reason == "nonce"
    assert caught.value.__suppress_context__


def test_what_else_the_address_bar_brings_is_not_looked_at(entra):
    flow = begin(entra)
    answer = {"state": flow["state"], "code": "c", "client_info": "not base64 !", "access_token": "theirs"}

    assert redeem_code(entra, flow, answer).access_token == Secret("AT")


def test_scopes_outside_the_flow_are_not_sent(entra, server):
    with pytest.raises(EntraUnavailable):
        redeem_code(entra, begin(entra), scopes=["https://graph.microsoft.com/Directory.ReadWrite.All"])

    assert server.posts() == []


# --- The app registration -----------------------------------------------------------------------------------------
def with_app(network, **proof):
    return Entra(network=network, cloud=GLOBAL, app=AppRegistration(client_id=APP, **proof))


def test_a_certificate_signs_for_the_token_endpoint_in_the_form_entra_documents(network, server):
    redeem(with_app(network, certificate_pem=Secret(pem()), secret=Secret("spare")))

    form = server.posts()[0]
    assertion = jwt.decode(
        form["client_assertion"],
        KEY.public_key(),
        algorithms=["PS256"],
        audience=f"https://login.microsoftonline.com/{PARTNER}/oauth2/v2.0/token",
    )
    assert (assertion["iss"], assertion["sub"]) == (APP, APP)
    assert "x5t#S256" in jwt.get_unverified_header(form["client_assertion"])
    assert "client_secret" not in form


def test_a_federated_assertion_comes_first_and_is_fetched_for_each_request(network, server):
    fresh = iter(["first", "second"])
    entra = with_app(network, assertion=lambda: next(fresh), certificate_pem=Secret(pem()))

    redeem(entra)
    redeem(entra)

    assert [form["client_assertion"] for form in server.posts()] == ["first", "second"]


def test_a_failing_assertion_says_so_itself(network):
    def assertion():
        raise Transient("the machine's identity did not answer", code="vault-unreachable")

    with pytest.raises(Transient) as caught:
        redeem(with_app(network, assertion=assertion))

    assert caught.value.code == "vault-unreachable"


@pytest.mark.parametrize(
    "text",
    ["canary", pem().split("-----BEGIN CERTIFICATE")[0], pem(KEY, certified=OTHER_KEY), elliptic_pem()],
    ids=["text", "no certificate", "another's certificate", "not RSA"],
)
def test_a_certificate_that_cannot_work_is_refused_at_the_start(text):
    with pytest.raises(ValueError, match="certificate") as caught:
        AppRegistration(client_id=APP, certificate_pem=Secret(text))

    assert "canary" not in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


def test_an_app_registration_needs_a_proof_and_shows_none():
    with pytest.raises(ValueError, match="needs a federated identity"):
        AppRegistration(client_id=APP, secret=Secret(""))

    app = AppRegistration(client_id=APP, secret=Secret("canary"), certificate_pem=Secret(pem()))
    assert "canary" not in repr(app)
    assert "PRIVATE" not in repr(app)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("[1]", ""),
        ("no json", ""),
        ("[" * 3000, ""),
        ('{"a": "' + "b" * 4096 + '"}', ""),
        (7, ""),
    ],
)
def test_claims_are_kept_as_they_were_said_where_they_are_an_object_and_short(entra, microsoft, said, kept):
    microsoft.token = (400, no(50076, "interaction_required") | {"claims": said})

    with pytest.raises(ConsentRequired) as caught:
        redeem(entra)

    assert caught.value.claims == kept


def test_there_is_no_way_to_ask_without_a_person():
    offered = {name for name in vars(Entra) if not name.startswith("_")}

    redemptions = {"redeem_code", "redeem_refresh_token", "ready_to_validate", "validate"}
    assert offered == {"admin_consent_address", "begin"} | redemptions


def test_the_environment_does_not_move_the_token_endpoint(monkeypatch, entra, server):
    monkeypatch.setitem(os.environ, "MSAL_FORCE_REGION", "no region!")

    redeem(entra)

    assert {urlsplit(sent.url).netloc for sent in server.seen} == {"login.microsoftonline.com"}
    assert "login.microsoftonline.com" in CLOUDS["global"].hosts()


def test_a_proof_of_the_last_minutes_is_asked_for_and_not_judged_by_msal(entra):
    flow = begin(entra, scopes=[], offline_access=False, prompt="login", max_age=600)

    assert (asked(flow)["max_age"], asked(flow)["prompt"]) == ("600", "login")
    assert "max_age" not in flow
    assert "max_age" not in asked(begin(entra))
