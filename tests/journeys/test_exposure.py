"""What was touched while a machine was in a thief's hands: for certain, and possibly."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from partners.management.commands.exposure import NAMED
from partners.models import Partner
from sandbox.directory import Tenant
from tests.conftest import CONTOSO, FABRIKAM
from tokens import broker, minting
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.errors import Permanent
from tokens.models import LONGEST_LIFE, LONGEST_NUMBER, RefreshToken, TokenUse
from tokens.refusals import EntraUnavailable

pytestmark = pytest.mark.django_db
at_work = pytest.mark.django_db(transaction=True)  # what leaves for Microsoft leaves outside of transactions

SINCE, UNTIL = (dt.datetime(2026, 11, 26, hour, tzinfo=dt.UTC) for hour in (10, 11))
SECOND, HOUR, TICK = dt.timedelta(seconds=1), dt.timedelta(hours=1), dt.timedelta(microseconds=1)
ASSUMED, A_DAY = dt.timedelta(seconds=LONGEST_LIFE), 86_400
CUSTOMER, ANOTHER = (uuid.UUID(f"c0470500-0000-4000-8000-00000000c00{number}") for number in (1, 2))


def partner_named(name: str, tenant_id: str) -> Partner:
    return Partner.objects.create(cloud="global", tenant_id=tenant_id, name=name)


@pytest.fixture
def known() -> Partner:
    return partner_named("Contoso", CONTOSO)


def line(partner: Partner | None, at: dt.datetime, outcome: str = "granted", **fields: Any) -> TokenUse:
    """A line of the ledger; a token that was granted lives an hour unless told otherwise."""
    fields = {"lives_s": 3600 if outcome == "granted" else None, "audience": "graph", "purpose": "users.read"} | fields
    return TokenUse.objects.create(partner=partner, at=at, outcome=outcome, actor_kind="run", **fields)


def told(since: object = SINCE, until: object = UNTIL) -> dict[str, Any]:
    out = io.StringIO()
    call_command("exposure", "--since", str(since), "--until", str(until), "--json", stdout=out)
    document: dict[str, Any] = json.loads(out.getvalue())
    return document


def reasons(document: dict[str, Any], kind: str) -> list[dict[str, int]]:
    return [one["why"] for one in document[kind]]


def in_words() -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("exposure", "--since", str(SINCE), "--until", str(UNTIL), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


# --- By real work ---------------------------------------------------------------------------------------------------
def customers_of(tenant: Tenant) -> list[str]:
    """Three customers; the application may work in the tenants of the first two."""
    found = [tenant.customers.at(number).tenant_id for number in range(3)]
    tenant.application_consents.update(found[:2])
    return found


def work_with(partner: str, customer: str | None = None) -> None:
    token = RefreshToken.objects.select_related("partner").get(partner__tenant_id=partner)
    tenant = uuid.UUID(customer) if customer else None
    broker.session(token, Audience.GRAPH, purpose="token.explain", actor=SYSTEM, tenant=tenant).get("/v1.0/me")


@at_work
def test_partners_audiences_and_customers_that_were_touched_are_named(connected_partner, world):
    begun = timezone.now()
    connected_partner()
    connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    first, second, refusing = customers_of(world.tenants[CONTOSO])
    work_with(CONTOSO, second)
    work_with(CONTOSO, first)
    with pytest.raises(minting.CustomerRefused):
        work_with(CONTOSO, refusing)

    document = told(begun, timezone.now())

    contoso, fabrikam = document["partners"]
    assert (contoso["tenant_id"], contoso["name"]) == (CONTOSO, "Contoso")
    assert contoso["audiences"] == ["graph", "partnercenter"]
    assert {"consent.redeem", "token.explain"} <= set(contoso["purposes"])
    assert contoso["customers"] == sorted([first, second])
    granted = TokenUse.objects.filter(outcome="granted", partner__tenant_id=CONTOSO)
    assert contoso["tokens"] == contoso["why"]["minted"] == granted.count()
    assert (fabrikam["tenant_id"], fabrikam["customers"]) == (FABRIKAM, [])
    assert document["possibly"] == []


@at_work
def test_a_token_that_was_minted_before_and_lives_on_was_touched(member, contoso):
    customer = customers_of(contoso)[0]
    work_with(CONTOSO, customer)
    since = timezone.now()

    (found,) = told(since, since + SECOND)["partners"]

    assert found["why"] == {"alive": TokenUse.objects.filter(outcome="granted", partner__isnull=False).count()}
    assert found["customers"] == [customer]
    assert parse_datetime(found["last_at"]) < since


@at_work
def test_an_answer_that_was_lost_may_have_brought_a_token(member, contoso, world):
    customer, since = customers_of(contoso)[0], timezone.now()
    world.token_fault("504_after", path=customer)
    with pytest.raises(EntraUnavailable):
        work_with(CONTOSO, customer)

    document = told(since, timezone.now())

    (found,) = document["possibly"]
    assert (found["why"], found["customers"]) == ({"unavailable": 1}, [customer])
    assert document["partners"][0]["customers"] == []


@at_work
def test_nobody_knows_what_came_to_a_process_that_died(member, contoso, world):
    customer, since = customers_of(contoso)[0], timezone.now()

    def die(seconds: float) -> None:
        raise KeyboardInterrupt

    world.sleep = die
    world.fail("entra", "slow", path=customer)
    with pytest.raises(KeyboardInterrupt):
        work_with(CONTOSO, customer)

    (found,) = told(since, timezone.now())["possibly"]

    assert (found["why"], found["customers"]) == ({"sent": 1}, [customer])


@at_work
@pytest.mark.parametrize("fault", ["wrong_tenant", "forged_key"])
def test_a_token_that_was_thrown_away_had_been_handed_out(member, world, fault):
    world.id_token_fault, since = fault, timezone.now()
    with pytest.raises(Permanent):
        work_with(CONTOSO)

    (found,) = told(since, timezone.now())["possibly"]

    assert (found["why"], found["audiences"]) == ({"thrown_away": 1}, ["graph"])


# --- From when until when -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("at", "lives_s", "why"),
    [
        pytest.param(SINCE, 3600, "minted", id="minted at the span's first moment"),
        pytest.param(UNTIL - TICK, 3600, "minted", id="minted at its last"),
        pytest.param(UNTIL, 3600, None, id="minted when it was over"),
        pytest.param(SINCE, None, "minted", id="minted in the span, with a life unknown"),
        pytest.param(SINCE - HOUR, 3601, "alive", id="ended a second after the span began"),
        pytest.param(SINCE - HOUR, 3600, None, id="ended as the span began"),
        pytest.param(SINCE - HOUR + TICK, 3600, "alive", id="ended a moment after the span began"),
        pytest.param(SINCE - ASSUMED, LONGEST_LIFE, None, id="the longest ordinary life, ended as the span began"),
        pytest.param(SINCE - ASSUMED, LONGEST_LIFE + 1, "alive", id="a longer one, from just where those are sought"),
        pytest.param(SINCE - ASSUMED + TICK, LONGEST_LIFE + 1, "alive", id="a longer one, from a moment later"),
        pytest.param(SINCE - 23 * HOUR, A_DAY, "alive", id="a policy's day"),
        pytest.param(SINCE - 24 * HOUR, A_DAY, None, id="a policy's day, ended as the span began"),
        pytest.param(SINCE - 300 * 24 * HOUR, LONGEST_NUMBER, "alive", id="a life beyond all measure"),
    ],
)
def test_a_token_was_touched_from_its_birth_until_its_end(known, at, lives_s, why):
    line(known, at, lives_s=lives_s, customer_tenant=CUSTOMER)

    document = told()

    assert reasons(document, "partners") == ([{why: 1}] if why else [])
    assert document["counts"]["certain"] == dict.fromkeys(("partners", "customers", "tokens"), 1 if why else 0)
    assert document["possibly"] == []


@pytest.mark.parametrize(
    ("why", "code"),
    [("sent", ""), ("unavailable", "503"), ("thrown_away", "wrong-holder"), ("thrown_away", "id-token-nonce")],
)
@pytest.mark.parametrize(
    ("at", "counts"),
    [(UNTIL, False), (UNTIL - TICK, True), (SINCE, True), (SINCE - ASSUMED + TICK, True), (SINCE - ASSUMED, False)],
)
def test_what_nobody_knows_was_possibly_touched_for_as_long_as_a_token_lives_at_most(known, at, counts, why, code):
    line(known, at, "granted" if why == "thrown_away" else why, code=code, lives_s=None, customer_tenant=CUSTOMER)

    document = told()

    assert reasons(document, "possibly") == ([{why: 1}] if counts else [])
    assert document["partners"] == []


@pytest.mark.parametrize(
    ("at", "counts"), [(SINCE - TICK, True), (SINCE - ASSUMED + TICK, True), (SINCE - ASSUMED, False)]
)
def test_a_life_that_the_ledger_does_not_know_is_taken_as_the_longest(known, at, counts):
    line(known, at, lives_s=None)

    document = told()

    assert reasons(document, "possibly") == ([{"life_unknown": 1}] if counts else [])
    assert (document["partners"], document["assumed_life_s"]) == ([], LONGEST_LIFE)


def test_what_was_refused_never_left_or_was_no_partners_touched_nothing(known):
    for outcome, code in (("refused", "AADSTS65001"), ("withheld", "vault-503"), ("withheld", "wrong-holder")):
        line(known, SINCE, outcome, code=code, customer_tenant=CUSTOMER)
    line(None, SINCE, purpose="signin")

    document = told()

    assert (document["partners"], document["possibly"]) == ([], [])


# --- The answer -----------------------------------------------------------------------------------------------------
@pytest.fixture
def stolen(known) -> Partner:
    """A span in which something was touched for certain, and something possibly, of two partners."""
    fabrikam = partner_named("Fabrikam", FABRIKAM)
    line(known, SINCE - SECOND, customer_tenant=CUSTOMER, purpose="users.read")
    line(known, SINCE + SECOND, customer_tenant=CUSTOMER, audience="partnercenter", purpose="sync.customers")
    line(known, SINCE + HOUR / 2, "unavailable", customer_tenant=ANOTHER, audience="arm", purpose="token.explain")
    line(known, SINCE + HOUR / 3, "sent", customer_tenant=CUSTOMER)
    line(fabrikam, SINCE + SECOND, "unavailable", customer_tenant=CUSTOMER)
    line(fabrikam, SINCE - SECOND, lives_s=None)
    return fabrikam


def test_what_is_certain_and_what_is_possible_are_kept_apart_and_counted(stolen):
    document = told()

    assert document["partners"] == [
        {
            "tenant_id": CONTOSO,
            "name": "Contoso",
            "audiences": ["graph", "partnercenter"],
            "customers": [str(CUSTOMER)],
            "purposes": ["sync.customers", "users.read"],
            "tokens": 2,
            "first_at": "2026-11-26T09:59:59Z",
            "last_at": "2026-11-26T10:00:01Z",
            "why": {"alive": 1, "minted": 1},
        }
    ]
    assert [(one["name"], one["audiences"], one["customers"], one["why"]) for one in document["possibly"]] == [
        ("Contoso", ["arm", "graph"], [str(CUSTOMER), str(ANOTHER)], {"sent": 1, "unavailable": 1}),
        ("Fabrikam", ["graph"], [str(CUSTOMER)], {"life_unknown": 1, "unavailable": 1}),
    ]
    assert document["counts"] == {
        "certain": {"partners": 1, "customers": 1, "tokens": 2},
        "possibly": {"partners": 2, "customers": 2, "tokens": 4},
    }


def test_a_person_reads_both_kinds_and_what_to_make_of_them(stolen):
    said, explained = in_words()

    assert said.splitlines() == [
        "Touched for certain: 1 partner, 1 customer, 2 tokens.",
        f"  Contoso ({CONTOSO}): graph, partnercenter; 2 tokens (1 minted before the span)",
        f"    1 customer: {CUSTOMER}",
        "Possibly touched: 2 partners, 2 customers, 4 tokens.",
        f"  Contoso ({CONTOSO}): arm, graph; 2 tokens (1 sent, and nobody knows what came; 1 failed, and the answer "
        "may have been lost)",
        f"    2 customers: {CUSTOMER}, {ANOTHER}",
        f"  Fabrikam ({FABRIKAM}): graph; 2 tokens (1 minted in the 2 hours before the span, with a life that the "
        "ledger does not know; 1 failed, and the answer may have been lost)",
        f"    1 customer: {CUSTOMER}",
    ]
    assert "reaches all that the partner reaches there" in explained
    assert "Treat what was possibly touched as touched" in explained
    assert "A life that nobody knows is taken as 2 hours" in explained


def test_a_person_reads_where_nothing_is_certain(known):
    line(known, SINCE, "sent")

    said, explained = in_words()

    assert said.startswith("Touched for certain: nothing.\nPossibly touched: 1 partner, 1 token.\n")
    assert "reaches all" not in explained


def test_a_person_is_not_drowned_in_customers(known):
    customers = [str(uuid.UUID(int=number)) for number in range(NAMED + 2)]
    for tenant in customers:
        line(known, SINCE, customer_tenant=tenant)

    said, _ = in_words()

    assert f"22 customers: {', '.join(customers[:NAMED])} and 2 more; --json names all\n" in said
    assert told()["partners"][0]["customers"] == customers


def test_exposure_of_a_quiet_time_is_empty(stolen):
    document = told("2020-01-01", "2020-01-02T10:00")

    assert (document["partners"], document["possibly"]) == ([], [])
    assert set(document["counts"]) == {"certain", "possibly"}
    assert all(counts == {"partners": 0, "customers": 0, "tokens": 0} for counts in document["counts"].values())


def test_a_day_counts_from_its_first_moment(stolen):
    assert reasons(told("2026-11-26", "2026-11-27"), "partners") == [{"minted": 2}, {"minted": 1}]


def test_a_person_reads_that_nothing_was_touched(db):
    assert in_words() == ("Nothing was touched.\n", "")


def test_the_number_of_queries_does_not_grow_with_partners_and_customers(stolen):
    with CaptureQueriesContext(connection) as few:
        told()
    for number in range(5):
        another = partner_named(f"Partner {number}", str(uuid.uuid4()))
        line(another, SINCE, customer_tenant=uuid.uuid4())
        line(another, SINCE, "sent", customer_tenant=uuid.uuid4())

    with CaptureQueriesContext(connection) as many:
        told()

    assert len(many) == len(few) == 4


@pytest.mark.postgresql
def test_a_long_ledger_is_not_read_from_end_to_end(known):
    partners = [known, *(partner_named(f"Partner {number}", str(uuid.uuid4())) for number in range(20))]
    hours = range(400 * 24)
    ordinary = {"outcome": "granted", "actor_kind": "run", "audience": "graph", "purpose": "users.read"}
    TokenUse.objects.bulk_create(
        TokenUse(partner=partners[number % 20], at=UNTIL - number * HOUR, lives_s=3600, **ordinary) for number in hours
    )
    line(known, SINCE - 20 * HOUR, lives_s=A_DAY)

    with connection.cursor() as cursor, CaptureQueriesContext(connection) as queries:
        cursor.execute("ANALYZE tokens_tokenuse")
        told()
        cursor.execute("SET LOCAL enable_seqscan = off")  # a ledger of a test's size is read faster as a whole
    near, long_lived = (explained(query["sql"]) for query in queries if "GROUP BY" in query["sql"])

    assert re.search(r"token_use_recent.*\n +Index Cond: \(\(partner_id = ANY .* AND \(at > .* AND \(at < ", near)
    assert "token_use_long_lived" in long_lived


def explained(query: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {query}")
        return "\n".join(line for (line,) in cursor.fetchall())


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "2026-11-26T25:00", "2999-01-01"])
def test_a_time_that_is_none_is_wrong_use(db, since):
    with pytest.raises(CommandError) as ended:
        call_command("exposure", "--since", since)

    assert ended.value.returncode == 2
