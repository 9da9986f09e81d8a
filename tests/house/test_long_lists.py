"""The desk's lists cost what their page costs: nothing is counted, sorted or searched through a whole table."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from consent.models import ConsentAttempt
from partners import jobs
from partners.models import Job, Partner, Run, User
from tests.desk import at_the_desk
from tests.pretend import text_of
from tokens.long_lists import ReadOnlyAdmin
from tokens.models import AuditEvent, RefreshToken, TokenUse
from tokens.tenancy import system_scope

pytestmark = pytest.mark.django_db(transaction=True)
LIKE = re.compile(r'"(\w+)"\."(\w+)"(?:::text\))? LIKE')
SEARCHES = ("contoso", "f3b1c2d4-0000-4000-8000-000000000001", "a%b_c\\")


@pytest.fixture
def desk(member) -> Client:
    """Somebody of support, who may look."""
    jobs.run_job(Job.objects.get().pk)
    return at_the_desk("support")


def address(model: type) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def lists() -> list[tuple[type, Any]]:
    found = list(admin.site._registry.items())
    assert all(isinstance(its, ReadOnlyAdmin) for _, its in found)
    return found


def statements(desk: Client, model: type, **asked: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        answer = desk.get(address(model), asked)
    assert answer.status_code == 200, (model, asked)
    return [query["sql"] for query in captured]


def rows_of(answer: Any) -> list[Any]:
    return list(answer.context["cl"].result_list)


def test_no_list_counts_reads_or_offers_more_than_its_first_rows_and_it_says_so(desk, monkeypatch):
    monkeypatch.setattr("tokens.long_lists.MOST", 60)
    AuditEvent.objects.bulk_create(
        AuditEvent(action="drill.old" if n < 50 else "drill.new", actor_kind="system") for n in range(150)
    )
    for model in admin.site._registry:
        for statement in statements(desk, model):
            if re.search(r"\bCOUNT\(|\bDISTINCT\b", statement):
                assert "LIMIT 60" in statement, (model, statement)

    words = text_of(desk.get(address(AuditEvent)))
    assert "of the first 60" in words
    assert "drill.new" in words
    assert "drill.old" not in words, "a value that only older rows have"
    assert "drill.old" in text_of(desk.get(address(AuditEvent), {"q": "drill.old"}))
    assert desk.get(address(AuditEvent), {"p": "3"}).status_code in (200, 302)
    assert "of the first" not in text_of(desk.get(address(Partner)))


def test_values_are_not_counted_and_columns_not_sorted_whatever_the_address_asks(desk):
    for model, _ in lists():
        usual = [statement for statement in statements(desk, model) if "ORDER BY" in statement]
        asked = statements(desk, model, _facets="True", o="3.-1")

        assert [statement for statement in asked if "ORDER BY" in statement] == usual, model
        assert sum("COUNT(" in statement for statement in asked) <= 2, model
        assert "_facets" not in desk.get(address(model)).content.decode()


# --- Searching ------------------------------------------------------------------------------------------------------
def test_texts_without_an_index_are_looked_for_among_the_newest_rows_alone(desk):
    tried = 0
    for model, its in lists():
        for text in SEARCHES if its.get_search_fields(None) else ():
            for statement in statements(desk, model, q=text):
                for table, column in LIKE.findall(statement):
                    tried += 1
                    there = next(of for known, of in lists() if known._meta.db_table == table)
                    assert column in there.finds_parts or f'"{table}"."id" > ' in statement, statement
    assert tried > 40


def test_a_filter_looks_among_the_newest_rows_alone(desk, monkeypatch):
    tried = 0
    for model, its in lists():
        row = model._default_manager.order_by("-pk").first()
        for asked in filters(its, row) if row else ():
            assert row in rows_of(desk.get(address(model), asked)), (model, asked)
            with monkeypatch.context() as none_is_new:
                none_is_new.setattr("tokens.long_lists.NEWEST", 0)
                assert rows_of(desk.get(address(model), asked)) == [], (model, asked)
                assert row in rows_of(desk.get(address(model))), "without a filter all can be leafed through"
            assert "among the newest 50,000" in text_of(desk.get(address(model), asked))
            tried += 1
    assert tried >= 10


def filters(its: Any, row: Any) -> list[dict[str, str]]:
    """What the addresses of its filters ask for, so that this row is found."""
    found: list[dict[str, str]] = []
    for name in its.list_filter:
        if isinstance(name, str):
            field, value = row._meta.get_field(name), getattr(row, name)
            is_known = bool(field.choices) or isinstance(value, bool)
            if value != "":
                found.append(
                    {f"{name}__exact" if is_known else name: str(int(value) if isinstance(value, bool) else value)}
                )
        elif name.parameter_name == "kind":
            found.append({"kind": getattr(row, "job", row).kind})
    return found


@pytest.mark.postgresql
def test_an_index_leads_to_all_that_a_search_finds_for_the_role_that_reads_it(desk):
    """With every other way made dear, whatever is read another way all the same has no index."""
    blind = []
    for model, its in lists():
        for text in SEARCHES if its.get_search_fields(None) else ():
            for statement in statements(desk, model, q=text):
                if statement.startswith("SELECT") and re.search(
                    r"LIKE|correlation_id\" =|\"partner_id\" IN", statement
                ):
                    blind += [(model, text, node) for node in plan(statement) if not is_led(node)]
    assert blind == []


def plan(statement: str) -> list[dict[str, Any]]:
    """Every node that reads a table of ours."""
    with system_scope("a test"), transaction.atomic(), connection.cursor() as cursor:
        for dear in ("seqscan", "indexscan", "indexonlyscan"):
            cursor.execute(f"SET LOCAL enable_{dear} = off")
        cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}")
        [found] = cursor.fetchone()
    waiting, nodes = [(json.loads(found) if isinstance(found, str) else found)[0]["Plan"]], []
    while waiting:
        node = waiting.pop()
        nodes += [node] if "Relation Name" in node else []
        waiting += node.get("Plans", [])
    return nodes


def is_led(node: dict[str, Any]) -> bool:
    return "Index Cond" in node or "Recheck Cond" in node or "Filter" not in node


def test_who_is_meant_is_found_whatever_its_age_and_texts_among_the_newest(desk, monkeypatch):
    monkeypatch.setattr("tokens.long_lists.NEWEST", 5)
    partner, run = Partner.objects.get(), Run.objects.order_by("pk")[0]
    first = TokenUse.objects.order_by("pk")[0]
    other = Partner.objects.create(cloud="global", tenant_id=uuid.uuid4(), name="Fabrikam")
    TokenUse.objects.bulk_create(
        TokenUse(partner=other, purpose="sync.customers", audience="partnercenter", code=f"AADSTS{n}") for n in range(9)
    )
    found = lambda model, text: rows_of(desk.get(address(model), {"q": text}))  # noqa: E731

    for text in ("ntos", "CONTOSO", str(partner.tenant_id), f"  {partner.tenant_id} "):
        assert found(Partner, text) == [partner]
        assert first in found(TokenUse, text)
        assert run in found(Run, text)
        assert {line.partner_id for line in found(TokenUse, text)} == {partner.pk}
    assert found(TokenUse, str(first.correlation_id)) == [first]
    assert found(Run, str(run.correlation_id)) == [run]
    token = RefreshToken.objects.get()
    assert found(RefreshToken, token.secret_name) == [token]
    assert found(RefreshToken, token.secret_name[:-1]) == [], "an identifier counts as a whole"
    assert [line.code for line in found(TokenUse, "aadsts8")] == ["AADSTS8"]
    assert found(TokenUse, "aadsts3") == [], "older than the newest five"
    assert found(TokenUse, "nobody of that name") == []
    assert found(Partner, "Contoso Fabrikam") == [], "a text is looked for as a whole"


def test_people_are_found_by_a_part_of_their_names_and_by_whose_they_are(desk):
    found = lambda model, text: rows_of(desk.get(address(model), {"q": text}))  # noqa: E731
    staff = User.objects.get(is_staff=True)
    [member] = Partner.objects.get().members.all()

    assert found(User, staff.username[1:]) == [staff]
    assert found(User, member.user.upn[2:].upper()) == [member.user]
    assert found(type(member), member.user.upn) == [member]
    assert found(type(member), "contoso") == [member]
    assert found(type(member), "somebody else") == []


def test_a_list_says_what_it_can_be_searched_by(desk):
    page = desk.get(address(TokenUse)).content.decode()

    assert "By partner; by the whole correlation id; among the newest 50,000 by a part of code." in page
    assert "searchbar" not in desk.get(address(ConsentAttempt)).content.decode(), "nothing to search by"
