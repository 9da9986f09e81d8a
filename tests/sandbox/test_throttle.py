"""Limits per partner and per customer, who obeys them, and answers that take their time."""

from __future__ import annotations

import pytest
import requests

from sandbox.directory import Tenant
from sandbox.world import World
from tests.sandbox.conftest import OTHER, PARTNER, PC, Browser, Clock
from tests.sandbox.reading import LIST, keys


@pytest.fixture
def token(browser: Browser) -> str:
    return browser.bearer()


def statuses(browser: Browser, token: str, times: int, url: str = LIST) -> list[int]:
    return [browser.get(url, token).status_code for _ in range(times)]


def test_past_the_limit_the_gateway_says_how_long_to_wait(
    world: World, browser: Browser, token: str, clock: Clock
) -> None:
    world.limit(3, 60)
    allowed = statuses(browser, token, 3)
    clock.now += 12.5

    answer = browser.get(LIST, token)

    assert allowed == [200, 200, 200]
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "48"
    assert answer.json() == {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 48 seconds."}
    assert answer.headers["MS-RequestId"]
    assert world.calls[-1].fault == "limit"


def test_who_waits_as_told_gets_through_and_is_never_early(
    world: World, browser: Browser, token: str, clock: Clock
) -> None:
    world.limit(2, 10)
    done = 0
    while done < 9:
        answer = browser.get(LIST, token)
        clock.now += float(answer.headers.get("Retry-After", 0.1))
        done += answer.status_code == 200

    count = world.throttle.counts[PARTNER]
    assert (count.passed, count.rejected, count.early) == (9, 4, 0)


def test_who_does_not_wait_is_counted_and_pays_in_the_next_window(
    world: World, browser: Browser, token: str, clock: Clock
) -> None:
    world.limit(2, 10)
    statuses(browser, token, 3)
    clock.now += 1
    impatient = statuses(browser, token, 1)
    clock.now += 9.1

    assert impatient == [429]
    assert statuses(browser, token, 2) == [200, 429]
    assert world.throttle.counts[PARTNER].early == 1


def test_a_limit_is_each_partners_own(world: World, browser: Browser, token: str) -> None:
    stranger = browser.bearer("svc@fabrikam.test")
    world.limit(1, 60)

    assert statuses(browser, token, 2) == [200, 429]
    assert statuses(browser, stranger, 2) == [200, 429]


def test_a_limit_of_one_partner_leaves_the_others_alone(world: World, browser: Browser, token: str) -> None:
    world.limit(1, 60, tenant=OTHER)

    assert statuses(browser, token, 3) == [200, 200, 200]


def test_a_limit_per_customer_counts_each_customer_by_itself(
    world: World, browser: Browser, partner: Tenant, token: str
) -> None:
    world.limit(2, 60, per="customer")
    one, two = (f"{PC}/v1/customers/{partner.customers.at(index).tenant_id}/subscriptions" for index in (1, 2))

    assert statuses(browser, token, 3, one) == [200, 200, 429]
    assert statuses(browser, token, 3, two) == [200, 200, 429]
    assert statuses(browser, token, 3) == [200, 200, 200]
    assert world.throttle.counts[PARTNER].early == 0


def test_a_limit_can_be_about_a_part_of_the_path(world: World, browser: Browser, partner: Tenant, token: str) -> None:
    world.limit(1, 60, path="/subscriptions", method="GET")
    world.limit(1, 60, method="PATCH")
    url = f"{PC}/v1/customers/{partner.customers.at(1).tenant_id}/subscriptions"

    assert statuses(browser, token, 2, url) == [200, 429]
    assert statuses(browser, token, 2) == [200, 200]


def test_calls_while_a_faults_retry_after_runs_are_early_too(
    world: World, browser: Browser, token: str, clock: Clock
) -> None:
    world.fail("partnercenter", "throttled", times=1, retry_after=20)
    statuses(browser, token, 1)

    for pause in (5, 14, 2):  # the last one comes in time
        clock.now += pause
        browser.get(LIST, token)

    assert world.throttle.counts[PARTNER].early == 2


@pytest.mark.parametrize(("requests", "seconds", "per"), [(0, 60, "partner"), (5, 0, "partner"), (5, 60, "planet")])
def test_limits_that_make_no_sense_are_refused(world: World, requests: int, seconds: float, per: str) -> None:
    with pytest.raises(ValueError, match="a limit is some requests"):
        world.limit(requests, seconds, per=per)


def test_healing_ends_limits_and_delays_and_the_door_counts_anew(
    world: World, http: requests.Session, browser: Browser, token: str
) -> None:
    door = "http://localhost:8400/_sandbox/throttling"
    world.limit(1, 60)
    world.delay("partnercenter", 3)
    statuses(browser, token, 2)
    counted = http.get(door).json()

    http.post(door, json={})
    world.heal("partnercenter")

    assert counted["tenants"][PARTNER] == {"passed": 1, "rejected": 1, "early": 0}
    assert [limit["requests"] for limit in counted["limits"]] == [1]
    assert http.get(door).json() == {"limits": [], "tenants": {}}
    assert (world.delays, statuses(browser, token, 2)) == ([], [200, 200])


def test_429_without_retry_after(world: World, browser: Browser, token: str) -> None:
    world.fail("partnercenter", "throttled-silent")

    answer = browser.get(LIST, token)

    assert (answer.status_code, answer.headers.get("Retry-After")) == (429, None)
    assert keys(answer.json()) == {".statusCode", ".message"}


# latency


def test_latency_is_per_service_tenant_and_path(
    world: World, browser: Browser, partner: Tenant, token: str, clock: Clock
) -> None:
    url = f"{PC}/v1/customers/{partner.customers.at(1).tenant_id}/subscriptions"
    world.latency["partnercenter"] = 0.1
    world.delay("partnercenter", 0.2, tenant=PARTNER, path="/subscriptions")
    world.delay("partnercenter", 5, tenant=OTHER)
    world.delay("vault", 7)

    statuses(browser, token, 1)
    statuses(browser, token, 1, url)

    assert clock.slept == pytest.approx([0.1, 0.3])


def test_a_delay_takes_the_place_of_the_one_before(world: World, browser: Browser, token: str, clock: Clock) -> None:
    world.delay("partnercenter", 9, path="/customers")
    world.delay("partnercenter", 0.5, path="/customers")
    statuses(browser, token, 1)
    world.delay("partnercenter", 0, path="/customers")
    statuses(browser, token, 1)

    assert clock.slept == [0.5]
    with pytest.raises(ValueError, match="no such service"):
        world.delay("telephone", 1)
