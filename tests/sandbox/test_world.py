from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import requests

import sandbox
from sandbox import demo
from sandbox.app import create_app
from sandbox.clouds import place_of
from sandbox.directory import Tenant
from sandbox.scenarios import SCENARIOS
from sandbox.state import FileStore
from sandbox.world import World
from tests.sandbox.conftest import (
    APP,
    GRAPH,
    LOGIN,
    OTHER,
    PARTNER,
    PC,
    SECRET,
    VAULT,
    VENDOR,
    WORKER,
    Browser,
    Clock,
    claims,
)
from tests.standin import InProcessAdapter

DOOR = "http://localhost:8400/_sandbox"
LIST = f"{PC}/v1/customers?size=500"


def play(http: requests.Session, name: str, tenant: str | None = PARTNER, **params: object) -> requests.Response:
    return http.post(f"{DOOR}/scenario", json={"name": name, "tenant": tenant, "params": params})


def codes(answer: requests.Response) -> list[int]:
    found: list[int] = answer.json()["error_codes"]
    return found


# what is noted


def test_calls_are_noted_without_their_secrets(world: World, browser: Browser) -> None:
    token = browser.bearer()
    browser.get(LIST, token, Cookie="secret=1")

    call = world.calls[-1]
    assert (call.service, call.method, call.path, call.status) == ("partnercenter", "GET", "/v1/customers", 200)
    assert (call.tenant, call.client, call.audience, call.has_bearer) == (PARTNER, APP, PC, True)
    assert call.host == "api.partnercenter.microsoft.com"
    assert not {"authorization", "cookie"} & {name.lower() for name in call.headers}
    assert token not in json.dumps([one.as_row() for one in world.calls])


def test_a_bearer_sent_to_a_strange_host_is_noted(world: World, browser: Browser) -> None:
    browser.get("https://customers.evil.test/v1/customers", browser.bearer())

    assert (world.calls[-1].host, world.calls[-1].service) == ("customers.evil.test", "public")
    assert world.calls[-1].has_bearer


def test_every_secret_is_remembered_for_canary_scans(world: World, browser: Browser) -> None:
    code = browser.code()
    body = browser.redeem(code).json()

    seen = set(world.issued)
    assert {("code", code), ("code_verifier", browser.verifier), ("client_secret", SECRET)} <= seen
    assert {(kind, body[kind]) for kind in ("access_token", "refresh_token", "id_token")} <= seen
    assert len({value for kind, value in seen if kind == "code"}) == 1


def test_secrets_are_long_and_never_the_same(world: World, browser: Browser) -> None:
    values = [browser.tokens()["refresh_token"] for _ in range(3)]

    assert len(set(values)) == 3
    assert min(map(len, values)) > 1000


def test_hosts_are_told_apart_by_whole_names(world: World) -> None:
    assert place_of("LOGIN.microsoftonline.com:443").service == "entra"
    assert place_of("x.vault.azure.net").service == "vault"
    for strange in ("vault.azure.net", "evil-login.microsoftonline.com", "graph.microsoft.com.evil.test", "", "[::1]"):
        assert place_of(strange).service == "public"


def test_machine_addresses_are_not_served_under_the_stand_ins_own_name(http: requests.Session) -> None:
    assert http.get("http://localhost:8400/v1/customers").status_code == 404
    assert http.post(f"http://localhost:8400/{PARTNER}/oauth2/v2.0/token").status_code == 404


# faults of Entra


def test_a_named_aadsts_error_can_be_brought_about_for_one_tenant(world: World, browser: Browser) -> None:
    mine, other = browser.tokens()["refresh_token"], browser.tokens("svc@fabrikam.test")["refresh_token"]
    world.fail("entra", "AADSTS50076", tenant=PARTNER, path="/token", times=1)

    assert browser.refresh(other, OTHER).status_code == 200
    answer = browser.refresh(mine)

    assert codes(answer) == [50076]
    assert json.loads(answer.json()["claims"])
    assert answer.json()["suberror"] == "basic_action"
    assert browser.refresh(mine).status_code == 200


def test_a_fault_of_one_tenant_meets_its_people_at_the_shared_sign_in(world: World, browser: Browser) -> None:
    world.fail("entra", "503", tenant=PARTNER)

    assert browser.post(browser.url(), "svc@contoso.test").status_code == 503
    assert browser.post(browser.url(), "svc@fabrikam.test").status_code == 302


def test_a_counted_fault_is_not_used_up_by_strange_addresses(world: World, http: requests.Session) -> None:
    world.fail("entra", "503", times=1)

    assert http.get("https://customers.evil.test/").status_code == 200
    assert http.get(f"{LOGIN}/common/discovery/v2.0/keys").status_code == 503


@pytest.mark.parametrize("claims_part", ["eyJ0aWQiOlsxXX0", "W10", "eA"])
def test_strange_bearers_do_no_harm(browser: Browser, claims_part: str) -> None:
    assert browser.get(LIST, f"e30.{claims_part}.AA").status_code == 401


def test_a_fault_finds_the_tenant_of_a_refresh_at_a_shared_address(world: World, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    world.fail("entra", "AADSTS53003", tenant=PARTNER)

    assert codes(browser.refresh(token, "organizations")) == [53003]


def test_entra_throttles_and_goes_down(world: World, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    world.fail("entra", "throttled", retry_after=9, times=1)
    world.fail("entra", "503", times=2)

    throttled, down = browser.refresh(token), browser.refresh(token)

    assert (throttled.status_code, throttled.headers["Retry-After"], codes(throttled)) == (429, "9", [90055])
    assert down.status_code == 503
    assert browser.http.get(browser.url()).status_code == 503


def test_hanging_requests_end_as_timeouts(world: World, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    before = len(world.ledger.refreshes)
    world.fail("entra", "timeout-before", times=1)
    with pytest.raises(requests.exceptions.ReadTimeout):
        browser.refresh(token)
    assert len(world.ledger.refreshes) == before

    world.fail("entra", "timeout-after", times=1)
    with pytest.raises(requests.exceptions.ReadTimeout):
        browser.refresh(token)

    assert len(world.ledger.refreshes) == before + 1


# the control door


def test_the_door_lists_the_world_and_no_secret(world: World, http: requests.Session, browser: Browser) -> None:
    browser.tokens()

    text = http.get(f"{DOOR}/world").text + http.get(f"{DOOR}/").text + http.get(f"{DOOR}/calls").text

    assert "svc@contoso.test" in text
    assert "Contoso" in http.get(f"{DOOR}/").text
    assert [kind for kind, value in world.issued if kind != "client_secret" and value in text] == []
    assert http.get(f"{DOOR}/health").json() == {"status": "ok"}


def test_calls_can_be_read_from_a_point_on(http: requests.Session, browser: Browser) -> None:
    browser.tokens()
    first = http.get(f"{DOOR}/calls").json()
    browser.tokens()

    later = http.get(f"{DOOR}/calls?since={first['last']}").json()

    assert {call["number"] for call in later["calls"]}.isdisjoint(call["number"] for call in first["calls"])
    assert later["calls"]


def test_the_door_does_not_take_forms(http: requests.Session) -> None:
    """A page of another site can send a form to localhost, but not JSON."""
    assert http.post(f"{DOOR}/reset", data={"a": "b"}).status_code == 415


def test_reset_forgets_what_happened_and_keeps_who_exists(
    world: World, partner: Tenant, http: requests.Session, browser: Browser
) -> None:
    token = browser.tokens()["refresh_token"]
    partner.admin_approval_required = True
    world.fail("graph", "500")

    http.post(f"{DOOR}/reset", json={})

    assert codes(browser.refresh(token)) == [70000]
    assert (partner.admin_approval_required, world.faults) == (False, [])
    assert browser.tokens()


def test_unknown_scenarios_partners_and_doors_are_explained(http: requests.Session) -> None:
    assert "There are:" in play(http, "sulks").json()["error"]
    assert "Contoso" in play(http, "token-revoked", "Nobody").json()["error"]
    assert "needs a partner" in play(http, "token-revoked", None).json()["error"]
    assert http.get(f"{DOOR}/nothing").status_code == 404
    assert http.post(f"{DOOR}/nothing", json={}).status_code == 404
    assert http.delete(f"{DOOR}/world").status_code == 405


# scenarios


def test_every_scenario_tells_what_happens_and_how_it_ends(http: requests.Session) -> None:
    for name in SCENARIOS:
        told = play(http, name, "Contoso").json()
        assert told["effect"].endswith(".")
        assert told["undo"].startswith("python -m sandbox scenario ") or name == "healthy"


def expected(http: requests.Session, browser: Browser) -> dict[str, object]:
    """What each service says to one partner now."""
    answer = browser.post(browser.url(), "sales@contoso.test")
    signed_in = "code=" in answer.headers.get("Location", "")
    return {"sign-in": signed_in}


@pytest.mark.parametrize(
    ("name", "number"), [("token-revoked", 50173), ("consent-removed", 65001), ("service-principal-missing", 650052)]
)
def test_scenarios_that_refuse_the_refresh(http: requests.Session, browser: Browser, name: str, number: int) -> None:
    mine, other = browser.tokens()["refresh_token"], browser.tokens("svc@fabrikam.test")["refresh_token"]

    play(http, name)

    assert codes(browser.refresh(mine)) == [number]
    assert browser.refresh(other, OTHER).status_code == 200
    play(http, "healthy")
    assert browser.refresh(mine).status_code == 200


@pytest.mark.parametrize(
    ("name", "status"), [("mfa-missing", 401), ("throttled", 429), ("partner-center-down", 503), ("html", 200)]
)
def test_scenarios_that_spoil_partner_center(http: requests.Session, browser: Browser, name: str, status: int) -> None:
    token, other = browser.bearer(), browser.bearer("svc@fabrikam.test")

    play(http, name)

    answer = browser.get(LIST, token)
    assert answer.status_code == status
    assert answer.text != browser.get(LIST, other).text
    assert browser.get(LIST, other).json()["totalCount"] == 40
    play(http, "healthy")
    assert browser.get(LIST, token).json()["totalCount"] == 1203


def test_a_refreshed_token_lacks_mfa_until_it_is_back(http: requests.Session, browser: Browser) -> None:
    token = browser.tokens()["refresh_token"]
    play(http, "mfa-missing")
    assert claims(browser.refresh(token).json()["access_token"])["amr"] == ["pwd"]

    play(http, "mfa-back")

    assert claims(browser.refresh(token).json()["access_token"])["amr"] == ["pwd", "mfa"]


def test_admin_approval_by_scenario(http: requests.Session, browser: Browser) -> None:
    play(http, "admin-approval")
    assert not expected(http, browser)["sign-in"]

    play(http, "healthy")

    assert expected(http, browser)["sign-in"]


def test_vault_and_entra_can_go_down(http: requests.Session, browser: Browser) -> None:
    play(http, "vault-down", None)
    play(http, "entra-down", None)

    assert http.get(f"{VAULT}/secrets/a/?api-version=7.5").status_code == 503
    assert http.get(f"{LOGIN}/{PARTNER}/v2.0/.well-known/openid-configuration").status_code == 503
    play(http, "healthy", None)
    assert http.get(f"{VAULT}/secrets/a/?api-version=7.5").status_code == 401


def test_scenarios_take_parameters(http: requests.Session, browser: Browser, clock: Clock) -> None:
    token = browser.bearer()
    play(http, "throttled", retry_after=3, times=1)
    play(http, "slow", seconds=2, times=1)

    assert browser.get(LIST, token).headers["Retry-After"] == "3"
    assert browser.get(LIST, token).status_code == 200
    assert clock.slept == [2]
    assert play(http, "slow", seconds=2, times=0).status_code == 200


def test_truncated_by_scenario(http: requests.Session, browser: Browser) -> None:
    token = browser.bearer()
    play(http, "truncated")

    assert not browser.get(LIST, token).text.endswith("}")


# the demo world


def test_the_demo_has_a_vendor_three_partners_and_people_of_every_kind() -> None:
    world = demo.build(World())

    counts = {tenant.name: len(tenant.customers) for tenant in world.tenants.values()}
    assert counts == {"Panel Vendor": 0, "Fabrikam": 1200, "Northwind Traders": 340, "Contoso": 1200}
    contoso = world.tenants[demo.CONTOSO]
    assert contoso.latency == pytest.approx(1.2)
    people = list(contoso.accounts.values())
    assert {group for person in people for group in person.groups} == {"AdminAgents", "SalesAgents", "HelpdeskAgents"}
    assert [sum(getattr(p, kind) for p in people) for kind in ("admin", "guest", "personal")] == [1, 1, 1]
    assert world.apps[demo.VAULT_WEB_CLIENT_ID].vault_rights == {"set"}
    roles = sorted(sorted(person.app_roles) for person in world.tenants[demo.VENDOR_TENANT_ID].accounts.values())
    assert roles == [[], ["Desk.Admin"], ["Desk.Auditor"], ["Desk.Security"], ["Desk.Support"]]
    assert not any(
        person.app_roles for tenant in world.tenants.values() if tenant.customers for person in tenant.accounts.values()
    )


def test_the_demo_takes_the_products_own_settings() -> None:
    env = {"CPV_APP_ID": APP, "CPV_APP_SECRET": "mine", "CPV_TENANT_ID": VENDOR, "KEY_VAULT_CLIENT_ID": WORKER}

    world = demo.build(World(), env)

    assert world.apps[APP].secrets == {"mine"}
    assert world.apps[WORKER].tenant_id == VENDOR


def test_the_documented_constants_are_the_real_ones() -> None:
    text = (Path(sandbox.__file__).parents[1] / "docs" / "sandbox.md").read_text("utf-8")

    values = {name: value for name, value in vars(demo).items() if name.isupper() and isinstance(value, str)}
    assert [name for name, value in values.items() if value not in text] == []
    assert [name for name in SCENARIOS if f"`{name}`" not in text] == []


# state


def kept(folder: Path, clock: Clock) -> tuple[World, Browser]:
    world = World(clock=clock, sleep=clock.sleep, store=FileStore(folder))
    world.add_tenant(VENDOR, "Vendor")
    world.app_registration(APP, secret=SECRET)
    world.vault_identity(WORKER, secret="worker", tenant_id=VENDOR)
    tenant = world.add_tenant(PARTNER, "Contoso", customers=3)
    tenant.add_account("svc@contoso.test", groups={"AdminAgents"})
    world.restore()
    session = requests.Session()
    session.mount("http://", InProcessAdapter(create_app(world)))
    session.mount("https://", InProcessAdapter(create_app(world)))
    return world, Browser(session)


def test_a_second_start_goes_on_where_the_first_ended(tmp_path: Path, clock: Clock) -> None:
    world, browser = kept(tmp_path, clock)
    body = browser.tokens()
    made = world.vault("tests.vault.azure.net").put("rt-one", "cipher", {"generation": "1"}, None)
    play(browser.http, "admin-approval")
    play(browser.http, "throttled")

    again, later = kept(tmp_path, clock)

    assert later.refresh(body["refresh_token"]).status_code == 200
    assert later.refresh(body["refresh_token"], scope=f"{GRAPH}/User.Read.All").status_code == 200
    assert again.key("global").private_numbers() == world.key("global").private_numbers()
    assert again.vault("tests.vault.azure.net").secrets["rt-one"] == [made]
    assert again.tenants[PARTNER].admin_approval_required
    assert later.get(LIST, body["access_token"]).status_code == 429


def test_revocation_and_removed_consent_survive_too(tmp_path: Path, clock: Clock) -> None:
    _, browser = kept(tmp_path, clock)
    token = browser.tokens()["refresh_token"]
    play(browser.http, "consent-removed")
    _, later = kept(tmp_path, clock)
    assert codes(later.refresh(token)) == [65001]
    play(later.http, "healthy")
    play(later.http, "token-revoked")

    _, last = kept(tmp_path, clock)

    assert codes(last.refresh(token)) == [50173]


def test_the_state_is_for_its_owners_eyes_only(tmp_path: Path, clock: Clock) -> None:
    kept(tmp_path / "state", clock)[1].tokens()

    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()} == {0o600}


def test_reset_clears_the_file_too(tmp_path: Path, clock: Clock) -> None:
    world, browser = kept(tmp_path, clock)
    token = browser.tokens()["refresh_token"]
    world.reset()

    _, later = kept(tmp_path, clock)

    assert codes(later.refresh(token)) == [70000]


# independence


def test_the_stand_in_imports_nothing_of_the_product() -> None:
    allowed = {"sandbox", "werkzeug", "cryptography", "_typeshed"}
    stranger = {"django", "msal", "azure", "requests", "cpvpanel", "consent", "partners", "tokens"}
    found: set[str] = set()
    for path in Path(sandbox.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])

    assert not found & stranger
    assert found >= allowed


def test_the_adapter_streams_and_keeps_cookies_and_hosts(http: requests.Session) -> None:
    def app(environ, start_response):  # type: ignore[no-untyped-def]
        start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        return [environ["HTTP_HOST"].encode(), environ["wsgi.input"].read()]

    http.mount("https://", InProcessAdapter(app))

    answer = http.post("https://some.test:8443/x", data=b"abc", stream=True)

    assert b"".join(answer.iter_content(2)) == b"some.test:8443abc"
    assert dict(http.cookies) == {"a": "1", "b": "2"}
    assert http.post("https://x.test/", data=iter([b"a", b"b"]), headers={"Host": "y.test"}).text == "y.testab"
