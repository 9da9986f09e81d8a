"""What is turned away at the door: too often, too much, in the wrong way; and what it may cost."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.core.checks import run_checks
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.test import Client, RequestFactory
from django.utils import timezone
from limits.errors import StorageError

from consent.models import ConsentAttempt
from cpvpanel import counting, desk, ratelimits, views
from partners.client_address import address_of
from tests.conftest import SERVICE
from tests.pretend import Person, text_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def few(settings, world):
    """Three by one address, five by strangers and seven by everybody, a minute; the clock goes when told."""
    settings.CPV_RATE_PER_ADDRESS, settings.CPV_RATE_OVERALL = "3/minute", "7/minute"
    with time_machine.travel(timezone.now().replace(second=0, microsecond=0), tick=False) as clock:
        yield clock


def statuses(client: Client, times: int, path: str = "/signin/callback?state=x", **options: object) -> list[int]:
    return [client.get(path, **options).status_code for _ in range(times)]


# --- Too often ------------------------------------------------------------------------------------------------------
def test_one_address_is_stopped_and_told_when_to_come_again(few):
    client = Client()

    assert statuses(client, 4) == [400, 400, 400, 429]
    answer = client.get("/signin/callback?state=x")
    assert int(answer["Retry-After"]) == 61
    assert "Too many tries just now" in text_of(answer)
    few.shift(dt.timedelta(seconds=int(answer["Retry-After"])))
    assert statuses(client, 1) == [400]


def test_another_address_goes_on_until_everybody_together_is_too_many(few):
    assert statuses(Client(REMOTE_ADDR="192.0.2.1"), 4) == [400, 400, 400, 429]
    assert statuses(Client(REMOTE_ADDR="192.0.2.2"), 3) == [400, 400, 429]
    assert statuses(Client(REMOTE_ADDR="192.0.2.3"), 1) == [429]


def test_whoever_has_a_whole_network_has_the_share_of_four_addresses(few, settings):
    settings.CPV_RATE_OVERALL = "1000/minute"

    for around in ("2001:db8:1:{}::1", "192.0.2.{}"):
        tries = [statuses(Client(REMOTE_ADDR=around.format(n)), 1) for n in range(1, 14)]
        assert tries == [[400]] * 12 + [[429]], around
    assert statuses(Client(REMOTE_ADDR="2001:db8:2:1::1"), 1) == [400]


def test_who_comes_from_where_somebody_got_in_lately_is_not_shut_out_by_strangers(few, member):
    at_home, elsewhere = "198.51.100.7", "203.0.113.7"
    signs_in = Person(Client(REMOTE_ADDR=at_home), member.world)
    assert signs_in.sign_in(SERVICE).status_code == 200
    few.shift(dt.timedelta(minutes=2))

    for n in (1, 2):
        statuses(Client(REMOTE_ADDR=f"192.0.{n}.1"), 3)

    assert statuses(Client(REMOTE_ADDR=elsewhere), 1) == [429]
    assert statuses(Client(REMOTE_ADDR="198.51.100.9"), 2) == [400, 400]
    assert statuses(Client(REMOTE_ADDR="198.51.100.9"), 1) == [429], "all together are still counted"
    few.shift(dt.timedelta(days=31))
    for n in (1, 2):
        statuses(Client(REMOTE_ADDR=f"192.0.{n}.1"), 3)
    assert statuses(Client(REMOTE_ADDR=at_home), 1) == [429], "that was not lately"


def test_forms_of_another_site_take_nothing_of_anybodys_share(few):
    forged = Client(enforce_csrf_checks=True)

    got = [forged.post("/admin/login/", headers={"Origin": "https://evil.test"}).status_code for _ in range(9)]

    assert got == [403] * 9
    assert Client().post("/admin/login/", {}).status_code == 200


def test_each_way_to_microsoft_and_back_and_exports_are_counted(few, member, settings):
    settings.CPV_STAFF_ENTRA = True
    ways = {
        "leaving": [("post", "/signin"), ("post", "/signin/again"), ("post", "/connect/x"),
                    ("post", "/connect/admin-consent"), ("post", "/connection/renew"), ("post", "/admin/microsoft/")],
        "coming back": [("get", "/connect/callback?a=b"), ("get", "/signin/callback?a=b"), ("post", "/signin/callback"),
                        ("get", "/connect/admin-consent/callback?a=b"), ("get", "/admin/microsoft/callback?a=b")],
        "taking along": [("post", "/activity/export"), ("post", "/evidence/export")],
    }  # fmt: skip
    for group in ways.values():
        for method, path in group:
            counting.forget()
            got = [getattr(member.portal, method)(path).status_code for _ in range(5)]
            assert got[3:] == [429, 429], (path, got)
            assert getattr(member.portal, method)(group[0][1]).status_code in (405, 429), "one count for the group"
    assert set(ratelimits.COUNTED) == {
        "signin", "signin_again", "connect", "join", "admin_consent", "renew", "callback", "signin_callback",
        "admin_consent_callback", "export_activity", "export_evidence", "admin:again", "admin:password_change",
        *(f"admin:{name}" for name in desk.OPEN),
    }  # fmt: skip


def test_the_desks_door_counts_every_try_of_one_address_whatever_name_it_gives(few):
    client = Client(REMOTE_ADDR="192.0.2.7")
    tries = [client.post("/admin/login/", {"username": f"n{number}", "password": "x"}) for number in range(3)]

    assert [answer.status_code for answer in tries] == [200] * 3
    assert client.post("/admin/second-factor/", {"code": "000000"}).status_code == 429
    assert client.post("/admin/second-factor/passkey/ask/").status_code == 429
    assert client.get("/admin/login/").status_code == 200
    assert Client(REMOTE_ADDR="192.0.2.8").post("/admin/login/", {}).status_code == 200


def test_looking_at_the_pages_is_not_counted(few):
    assert statuses(Client(), 9, "/signin") == [200] * 9


def test_an_export_counts_for_six(settings, member):
    settings.CPV_RATE_PER_ADDRESS = "12/minute"

    got = [member.portal.post("/activity/export", {"format": "json"}).status_code for _ in range(3)]

    assert got == [200, 200, 429]


def test_who_is_stopped_costs_no_query_and_leaves_no_attempt(few, django_assert_num_queries):
    client = Client()
    statuses(client, 4)

    with django_assert_num_queries(0):
        assert statuses(client, 1) == [429]
    assert not ConsentAttempt.objects.exists()


# --- Whose request it is --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("trusted", "forwarded", "remote", "client"),
    [
        (0, "203.0.113.9", "192.0.2.1", "192.0.2.1"),
        (1, "203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (1, "10.0.0.1, 203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (2, "evil, 203.0.113.9, 10.0.0.1", "192.0.2.1", "203.0.113.9"),
        (2, "203.0.113.9", "192.0.2.1", "192.0.2.1"),
        (1, "nonsense", "192.0.2.1", "192.0.2.1"),
        (1, "", "192.0.2.1", "192.0.2.1"),
        (0, "", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        (1, "2001:db8:1:2::1", "", "2001:db8:1:2::"),
        (1, "203.0.113.9:4711", "192.0.2.1", "203.0.113.9"),
        (1, "[2001:db8:1:2::1]:4711", "192.0.2.1", "2001:db8:1:2::"),
        (0, "", "::ffff:192.0.2.1", "192.0.2.1"),
        (0, "", "", None),
    ],
)
def test_only_proxies_of_ours_may_say_whose_request_it_is(settings, trusted, forwarded, remote, client):
    settings.CPV_TRUSTED_PROXIES = trusted
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}

    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=remote)

    assert address_of(request) == client


def test_an_address_written_by_the_visitor_gains_nothing(few):
    client = Client()

    got = [client.get("/signin/callback?a=b", headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(4)]

    assert got[-1].status_code == 429


# --- Where it is counted --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("locmemcache://", ""),
        ("rediss://user:word@host:6380/1", "rediss://user:word@host:6380/1"),
        ("redis://host/1", "redis://host/1"),
        ("rediscache://host/1", "redis://host/1"),
        ("memcache://host", ""),
        ("redis:///var/run/redis.sock", ""),
    ],
)
def test_the_cache_says_where_all_processes_count_together(url, server):
    assert counting.shared_counter(url) == server


def test_while_the_server_that_counts_is_away_each_process_counts_alone(few, settings):
    settings.CPV_CACHE_URL = "redis://127.0.0.1:1/0"
    counting.forget()
    pytest.importorskip("redis")

    assert statuses(Client(), 4) == [400, 400, 400, 429]


def test_what_it_raises_then_is_what_we_catch(settings):
    settings.CPV_CACHE_URL = "redis://127.0.0.1:1/0"
    counting.forget()

    with pytest.raises(StorageError):
        counting._limiter().storage.get("x")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, set()),
        ({"CPV_SIGN_IN_CONTEXT": "c1"}, set()),
        ({"CPV_SIGN_IN_CONTEXT": "c99"}, set()),
        ({"CPV_SIGN_IN_CONTEXT": "c100"}, {"cpvpanel.E001"}),
        ({"CPV_SIGN_IN_CONTEXT": "strong"}, {"cpvpanel.E001"}),
        ({"CPV_STAFF_CONTEXT": "c0"}, {"cpvpanel.E001"}),
        ({"CPV_STAFF_ENTRA": True, "CPV_STAFF_CLOUD": "mars"}, {"cpvpanel.E004"}),
        ({"CPV_STAFF_ENTRA": True, "CPV_STAFF_CLOUD": "china"}, {"cpvpanel.E005", "cpvpanel.E006"}),
        ({"CPV_STAFF_ENTRA": True, "CPV_STAFF_CONTEXT": "c1"}, set()),
        ({"CPV_STAFF_CLOUD": "mars"}, set()),
        ({"CPV_RATE_OVERALL": "many"}, {"cpvpanel.E002"}),
        ({"CPV_TRUSTED_PROXIES": -1}, {"cpvpanel.E003"}),
    ],
)
def test_settings_that_do_not_fit_are_found_at_the_start(settings, changes, found):
    for name, value in changes.items():
        setattr(settings, name, value)

    assert {message.id for message in run_checks() if message.id.startswith("cpvpanel")} == found


def test_whose_people_come_in_is_said_by_a_tenants_id_and_not_by_a_domain(settings):
    named = settings.CPV_APPS["global"] | {"tenant_id": "vendor.onmicrosoft.com"}
    settings.CPV_STAFF_ENTRA, settings.CPV_APPS = True, settings.CPV_APPS | {"global": named}

    assert {message.id for message in run_checks() if message.id.startswith("cpvpanel")} == {"cpvpanel.E006"}


def test_a_deployment_is_told_that_staff_can_show_no_mfa(settings):
    settings.CPV_CACHE_URL, settings.CPV_TRUSTED_PROXIES, settings.CPV_STAFF_ENTRA = "rediss://counter/1", 1, True
    settings.CPV_ALARM_MAIL = ["security@cpv.test"]
    assert ids() == {"cpvpanel.W004"}

    settings.CPV_STAFF_CONTEXT = "c1"
    assert ids() == set()


def test_a_deployment_is_told_what_makes_counting_weak(settings):
    settings.HTTPS, settings.CPV_CACHE_URL, settings.CPV_ALARM_MAIL = True, "locmemcache://", ["security@cpv.test"]
    assert ids() == {"cpvpanel.W001", "cpvpanel.W002"}

    settings.CPV_CACHE_URL, settings.CPV_TRUSTED_PROXIES = "rediss://counter/1", 1
    assert ids() == set()


def test_a_deployment_is_told_when_an_alarm_would_reach_nobody(settings):
    settings.CPV_CACHE_URL, settings.CPV_ALARM_MAIL = "rediss://counter/1", []
    assert ids() == {"cpvpanel.W003"}


def ids() -> set[str]:
    found = run_checks(include_deployment_checks=True)
    return {message.id for message in found if message.id.startswith("cpvpanel")}


# --- Too much, and in the wrong way ---------------------------------------------------------------------------------
@pytest.mark.parametrize("length", ["262145", "99999999999", "-1", "x"])
def test_a_body_that_is_too_large_is_not_read(world, length, django_assert_num_queries):
    with django_assert_num_queries(0):
        answer = Client().generic("POST", "/signin", b"a=b", CONTENT_LENGTH=length)

    assert answer.status_code == 413
    assert "That is too much at once" in text_of(answer)


def test_a_request_in_the_wrong_way_has_a_page_and_says_which_way_is_right(world):
    answer = Client().get("/signout")

    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert "not how this address is used" in text_of(answer)


def test_a_host_that_is_not_ours_is_one_page_without_a_trace(world):
    answer = Client().get("/signin", headers={"Host": "evil.test"})

    assert answer.status_code == 400
    assert "evil" not in text_of(answer)
    assert "<h1" in answer.content.decode()


def test_a_failure_of_ours_is_one_page_without_a_trace(member, settings):
    del settings.CPV_APPS
    member.portal.raise_request_exception = False

    answer = member.portal.get("/connection/")

    assert answer.status_code == 500
    words = text_of(answer)
    assert "Something went wrong on our side" in words
    assert "CPV_APPS" not in words


@pytest.mark.parametrize(
    ("page", "status"),
    [
        (lambda request: views.bad_request(request, SuspiciousOperation("canary")), 400),
        (lambda request: views.forbidden(request, PermissionDenied("canary")), 403),
        (lambda request: views.server_error(request), 500),
    ],
)
def test_error_pages_say_nothing_of_the_error(member, page, status):
    request = RequestFactory().get("/")
    request.session, request.user = member.portal.session, None

    answer = page(request)

    assert answer.status_code == status
    assert b"canary" not in answer.content
    assert b"<h1" in answer.content
