"""A page that is kept goes out by a shorter way, which must not let anybody in whom the long one would not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sandbox.directory import Tenant
from sandbox.drift import Drift
from sandbox.world import World
from tests.sandbox.conftest import OTHER, PARTNER, Browser, Clock
from tests.sandbox.reading import LIST, ids


@pytest.fixture
def token(world: World, browser: Browser) -> str:
    """Of somebody whose first page is kept, and comes by the short way from now on."""
    world.kept.most = 10_000_000
    token = browser.bearer()
    browser.get(LIST, token)
    return token


def test_both_ways_give_the_same_answer(world: World, browser: Browser, token: str) -> None:
    asked = {"MS-RequestId": "one", "MS-CorrelationId": "two", "ValidateMfa": "true"}

    short = browser.get(LIST, token, **asked)
    world.kept.shortcuts.clear()
    long = browser.get(LIST, token, **asked)

    moving = {"MS-CV"}
    assert {k: v for k, v in short.headers.items() if k not in moving} == {
        k: v for k, v in long.headers.items() if k not in moving
    }
    assert short.content == long.content


def test_a_kept_page_is_noted_and_counted_as_any(world: World, browser: Browser, token: str) -> None:
    browser.get(LIST, token, **{"MS-RequestId": "one"})

    before, after = world.calls[-2:]
    assert after.headers.pop("Ms-Requestid") == "one"
    for name in ("service", "method", "host", "path", "query", "status", "tenant", "client", "audience", "headers"):
        assert getattr(before, name) == getattr(after, name)
    assert after.detail["items"] == before.detail["items"] == 500
    assert world.throttle.counts[PARTNER].passed == 2


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda world, tenant: world.ledger.lose_mfa(tenant), 401),
        (lambda world, tenant: world.skew_clock(90_000), 401),
        (lambda world, tenant: world.skew_clock(-90_000), 401),
        (lambda world, tenant: tenant.account("svc@contoso.test").groups.clear(), 403),
        (lambda world, tenant: tenant.accounts.clear(), 403),
        (lambda world, tenant: world.fail("partnercenter", "500"), 500),
        (lambda world, tenant: world.limit(1, 60) and world.limit(1, 60, path="/customers"), 200),
    ],
    ids=["mfa-lost", "expired", "not-yet-valid", "no-agent", "nobody", "fault", "limit"],
)
def test_a_kept_page_is_for_whoever_may_see_it_now(
    world: World,
    browser: Browser,
    partner: Tenant,
    token: str,
    change: Callable[[World, Tenant], object],
    status: int,
) -> None:
    change(world, partner)

    assert browser.get(LIST, token).status_code == status
    if world.throttle.limits:
        assert browser.get(LIST, token).status_code == 429


def test_a_kept_page_is_its_own_partners(world: World, browser: Browser, token: str) -> None:
    stranger = browser.bearer("svc@fabrikam.test")

    theirs = [browser.get(LIST, stranger).json() for _ in range(2)]

    assert [len(page["items"]) for page in theirs] == [40, 40]
    assert not set(ids(theirs)) & {customer.tenant_id for customer in world.tenants[PARTNER].customers}
    assert world.calls[-1].tenant == OTHER


def test_a_kept_page_is_of_its_own_host(browser: Browser, token: str) -> None:
    china = LIST.replace("api.partnercenter.microsoft.com", "partner.partnercenterapi.microsoftonline.cn")

    assert browser.get(china, token).json()["code"] == "900420"


def test_a_kept_page_takes_as_long_as_any(world: World, browser: Browser, token: str, clock: Clock) -> None:
    world.latency["partnercenter"], world.tenants[PARTNER].latency = 0.1, 0.2
    world.delay("partnercenter", 0.4, path="/customers")

    browser.get(LIST, token)

    assert clock.slept == [pytest.approx(0.7)]


def test_a_kept_page_can_begin_elsewhere_each_time(browser: Browser, partner: Tenant, token: str) -> None:
    partner.customers.drift = Drift(order="rotated")

    reads = [browser.get(LIST, token) for _ in range(4)]

    assert len({read.content for read in reads}) == 4
    assert len({tuple(sorted(ids([read.json()]))) for read in reads}) == 1
