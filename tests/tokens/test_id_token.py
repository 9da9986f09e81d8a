import base64
import hashlib
import json
import time
from uuid import UUID

import jwt
import pytest

from tests.tokens.fake_entra import (
    APP,
    OTHER_KEY,
    OTHER_PARTNER,
    PARTNER,
    USER,
    FakeEntra,
    FakeServer,
    claims,
    jwks_entry,
    signed,
)
from tokens.clouds import CHINA, CLOUDS
from tokens.entra import AppRegistration, BadIdToken, Entra, EntraUnavailable, authentication_methods
from tokens.http import Network
from tokens.secret import Secret

NONCE = "the flow's own nonce"
HASHED = hashlib.sha256(NONCE.encode()).hexdigest()


def token(**changes):
    return Secret(signed(claims(nonce=HASHED, **changes)))


def reason(entra, id_token, **options):
    with pytest.raises(BadIdToken) as caught:
        entra.validate(id_token, **{"nonce": NONCE} | options)
    assert caught.value.code == f"id-token-{caught.value.reason}"
    assert (id_token.reveal() or "canary") not in str(caught.value)
    return caught.value.reason


def test_a_good_id_token_says_who_signed_in(entra):
    identity = entra.validate(token(), nonce=NONCE)

    assert (identity.cloud, identity.tenant_id, identity.object_id) == ("global", UUID(PARTNER), UUID(USER))
    assert (identity.username, identity.name, identity.is_guest) == ("admin@partner.example", "Ada Admin", False)


def test_a_token_that_came_with_a_refresh_needs_no_nonce(entra):
    assert entra.validate(Secret(signed(claims())), nonce=None).tenant_id == UUID(PARTNER)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"iss": f"https://login.microsoftonline.com/{OTHER_PARTNER}/v2.0"}, "issuer"),
        ({"iss": f"https://sts.windows.net/{PARTNER}/"}, "issuer"),
        ({"iss": f"https://login.microsoftonline.us/{PARTNER}/v2.0"}, "issuer"),
        ({"iss": f"https://login.microsoftonline.com/{PARTNER}/v2.0/"}, "issuer"),
        ({"aud": OTHER_PARTNER}, "audience"),
        ({"aud": [APP]}, "audience"),
        ({"exp": "tomorrow"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": float("nan")}, "malformed"),
        ({"tid": "contoso.onmicrosoft.com"}, "malformed"),
        ({"tid": PARTNER.replace("-", "")}, "malformed"),
        ({"oid": "z" * 36}, "malformed"),
        ({"oid": 7}, "malformed"),
        ({"nonce": NONCE}, "nonce"),
        ({"nonce": ...}, "nonce"),
        ({"nonce": 7}, "nonce"),
        ({"nonce": "é"}, "nonce"),
        ({"tid": "9188040d-6c67-4c5b-b112-36a304b66dad"}, "personal"),
        ({"tid": "9188040D-6C67-4C5B-B112-36A304B66DAD"}, "personal"),
    ],
    ids=str,
)
def test_a_claim_that_does_not_fit_is_refused(entra, changes, expected):
    made = {name: value for name, value in (claims(nonce=HASHED) | changes).items() if value is not ...}

    assert reason(entra, Secret(signed(made))) == expected


@pytest.mark.parametrize(
    ("name", "ahead", "expected"),
    [("exp", -200, "expired"), ("nbf", 200, "not_yet_valid"), ("iat", 200, "not_yet_valid")],
)
def test_a_time_that_is_over_or_not_yet_there_is_refused(entra, name, ahead, expected):
    assert reason(entra, token(**{name: time.time() + ahead})) == expected


@pytest.mark.parametrize("name", ["exp", "iat", "nbf", "iss", "aud", "tid", "oid", "sub"])
def test_every_claim_we_rely_on_must_be_there(entra, name):
    assert reason(entra, token(**{name: ...})) == "missing_claim"


def test_two_minutes_of_difference_between_clocks_are_fine(entra):
    now = time.time()

    entra.validate(token(), nonce=NONCE, now=now - 110)
    entra.validate(token(), nonce=NONCE, now=now + 3600 + 110)
    assert reason(entra, token(), now=now - 130) == "not_yet_valid"
    assert reason(entra, token(), now=now + 3600 + 130) == "expired"


def test_a_token_of_another_signer_is_refused(entra):
    assert reason(entra, Secret(signed(claims(), key=OTHER_KEY))) == "signature"


def test_a_token_whose_content_was_changed_is_refused(entra):
    head, _, signature = signed(claims()).split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(tid=OTHER_PARTNER)).encode()).rstrip(b"=").decode()

    assert reason(entra, Secret(f"{head}.{body}.{signature}")) == "signature"


def test_a_token_of_an_unknown_key_is_refused(entra):
    assert reason(entra, Secret(signed(claims(), kid="k2"))) == "unknown_key"
    assert reason(entra, Secret(signed(claims(), kid=None))) == "unknown_key"


@pytest.mark.parametrize(
    "id_token",
    [
        jwt.encode(claims(), "", algorithm="none", headers={"kid": "k1"}),
        jwt.encode(claims(), "k" * 64, algorithm="HS256", headers={"kid": "k1"}),
        signed(claims(), alg="PS256"),
        signed(claims(), alg="RS384"),
    ],
    ids=["none", "HS256", "PS256", "RS384"],
)
def test_only_rs256_is_accepted(entra, id_token):
    assert reason(entra, Secret(id_token)) == "algorithm"


@pytest.mark.parametrize(
    "text", ["", "a.b", "a.b.c", "é.é.é", signed(claims()) + ".x", jwt.api_jws.encode(b"[]", OTHER_KEY, "RS256")]
)
def test_what_is_no_token_is_refused(entra, text):
    assert reason(entra, Secret(text)) in {"malformed", "unknown_key"}


def test_a_signed_text_that_is_no_object_is_refused(entra):
    from tests.tokens.fake_entra import KEY

    assert reason(entra, Secret(jwt.api_jws.encode(b"[]", KEY, "RS256", headers={"kid": "k1"}))) == "malformed"


def test_the_keys_own_issuer_must_agree(entra, microsoft):
    microsoft.jwks = (200, {"keys": [jwks_entry(issuer=f"https://login.microsoftonline.com/{OTHER_PARTNER}/v2.0")]})

    assert reason(entra, token()) == "issuer"


def test_a_key_without_issuer_serves_every_tenant_of_the_cloud(entra, microsoft):
    microsoft.jwks = (200, {"keys": [jwks_entry()]})

    assert entra.validate(token(), nonce=NONCE).tenant_id == UUID(PARTNER)


def test_chinas_tokens_come_from_chinas_login_host():
    microsoft = FakeEntra()
    server = FakeServer(microsoft)
    microsoft.jwks = (200, {"keys": [jwks_entry()]})
    entra = Entra(
        network=Network(clouds=CLOUDS.values(), adapter=server),
        cloud=CHINA,
        app=AppRegistration(client_id=APP, secret=Secret("x")),
    )

    identity = entra.validate(token(iss=CHINA.issuer(PARTNER)), nonce=NONCE)

    assert identity.cloud == "china"
    assert server.gets() == ["https://login.partner.microsoftonline.cn/organizations/discovery/v2.0/keys"]


@pytest.mark.parametrize(
    ("changes", "guest"),
    [
        ({}, False),
        ({"acct": 0}, False),
        ({"acct": 1}, True),
        ({"idp": f"https://sts.windows.net/{PARTNER}/"}, False),
        ({"idp": f"https://sts.windows.net/{OTHER_PARTNER}/"}, True),
        ({"idp": "live.com"}, True),
        ({"idp": 7}, False),
    ],
)
def test_a_guest_is_seen(entra, changes, guest):
    assert entra.validate(token(**changes), nonce=NONCE).is_guest is guest


def test_a_token_without_names_still_says_who(entra):
    identity = entra.validate(token(preferred_username=..., name=...), nonce=NONCE)

    assert (identity.username, identity.name) == ("", "")


# --- The keys -----------------------------------------------------------------------------------------------------
def test_keys_are_fetched_once_a_day(entra, server, clock):
    for _ in range(3):
        entra.validate(token(), nonce=NONCE)
    assert len(server.gets()) == 1

    clock.shift(24 * 3600 + 1)
    entra.validate(token(), nonce=NONCE)

    assert len(server.gets()) == 2


def test_an_unknown_key_is_looked_for_at_most_once_a_minute(entra, server, microsoft, clock):
    entra.validate(token(), nonce=NONCE)
    for _ in range(3):
        assert reason(entra, Secret(signed(claims(), kid="k2"))) == "unknown_key"
    assert len(server.gets()) == 1

    clock.shift(61)
    microsoft.jwks = (200, {"keys": [jwks_entry(kid="k2")]})
    entra.validate(Secret(signed(claims(nonce=HASHED), kid="k2")), nonce=NONCE)

    assert len(server.gets()) == 2


@pytest.mark.parametrize(
    "broken",
    [(503, {}), (200, b"<html>"), (200, {}), (200, {"keys": []}), (200, []), (200, {"keys": [7]})],
    ids=str,
)
def test_the_last_good_keys_serve_while_new_ones_cannot_be_fetched(entra, microsoft, clock, broken):
    entra.validate(token(), nonce=NONCE)
    clock.shift(24 * 3600 + 1)
    microsoft.jwks = broken

    assert entra.validate(token(), nonce=NONCE).tenant_id == UUID(PARTNER)


def test_keys_that_are_at_hand_are_not_fetched_again_for_the_next_redemption(entra, server, clock):
    entra.ready_to_validate()

    for _ in range(5):
        clock.shift(3600)
        entra.ready_to_validate()

    assert len(server.gets()) == 1


def test_without_any_keys_it_is_a_passing_trouble(entra, server, microsoft, clock):
    good, microsoft.jwks = microsoft.jwks, (503, {})
    for _ in range(3):
        with pytest.raises(EntraUnavailable):
            entra.validate(token(), nonce=NONCE)
    assert len(server.gets()) == 1

    clock.shift(6)
    microsoft.jwks = good
    assert entra.validate(token(), nonce=NONCE).tenant_id == UUID(PARTNER)


def test_keys_we_cannot_use_are_passed_over(entra, microsoft):
    odd = [7, {"kid": "k1"}, {"kty": "RSA"}, jwks_entry(OTHER_KEY, use="enc"), jwks_entry(OTHER_KEY, kid=7)]
    microsoft.jwks = (200, {"keys": [*odd, jwks_entry()]})

    assert entra.validate(token(), nonce=NONCE).tenant_id == UUID(PARTNER)


# --- Access tokens ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("access_token", "methods"),
    [
        (signed({"amr": ["pwd", "mfa"]}), {"pwd", "mfa"}),
        (signed({"amr": ["pwd", 7]}), {"pwd"}),
        (signed({"amr": "mfa"}), None),
        (signed({}), None),
        ("opaque", None),
        ("é.é.é", None),
    ],
)
def test_the_authentication_methods_of_an_access_token_are_evidence_when_they_can_be_read(access_token, methods):
    assert authentication_methods(Secret(access_token)) == methods


# --- How somebody signed in -----------------------------------------------------------------------------------------
def test_how_and_when_somebody_signed_in_is_read_where_it_is_told(entra):
    told = token(amr=["pwd", "mfa", 7], acrs=["c1"], auth_time=1_700_000_000)
    identity = entra.validate(told, nonce=NONCE)

    assert (identity.methods, identity.contexts) == ({"pwd", "mfa"}, {"c1"})
    assert identity.authenticated_at == 1_700_000_000


@pytest.mark.parametrize("changes", [{}, {"amr": "mfa", "acrs": "c1", "auth_time": "now"}, {"auth_time": True}])
def test_what_is_not_told_or_of_another_kind_says_nothing(entra, changes):
    identity = entra.validate(token(**changes), nonce=NONCE)

    assert (identity.methods, identity.contexts, identity.authenticated_at) == (None, frozenset(), None)


@pytest.mark.parametrize(
    ("roles", "read"), [(["Desk.Admin", 7], {"Desk.Admin"}), ([], set()), ("Desk.Admin", set()), (None, set())]
)
def test_app_roles_are_read_where_they_are_a_list(entra, roles, read):
    assert entra.validate(token(roles=roles), nonce=NONCE).roles == read
    assert entra.validate(token(), nonce=NONCE).roles == frozenset()


@pytest.mark.parametrize(
    ("changes", "methods"),
    [({}, {"mfa"}), ({"oid": OTHER_PARTNER}, None), ({"tid": OTHER_PARTNER}, None), ({"tid": ...}, None)],
)
def test_an_access_token_tells_of_the_person_it_names_only(entra, changes, methods):
    identity = entra.validate(token(), nonce=NONCE)

    assert authentication_methods(Secret(signed(claims(amr=["mfa"], **changes))), of=identity) == methods
