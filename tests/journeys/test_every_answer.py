"""Every refusal in the table, made to happen: who is marked, who is not, and what people are told."""

from __future__ import annotations

import importlib.util
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from partners import jobs
from partners.models import Job, Partner, Run
from partners.standing import Standing, current_token, standing
from sandbox.scenarios import play
from tests.conftest import CONTOSO
from tests.pretend import text_of
from tokens import actors, broker, minting
from tokens.aadsts import BY_LOCATION, MEANINGS, Kind
from tokens.clouds import Audience
from tokens.entra import OurFault
from tokens.errors import Transient
from tokens.models import Alarm, RefreshToken, TokenUse, UnknownAnswer

pytestmark = pytest.mark.django_db(transaction=True)
WHO = actors.command("test")
OURS = (Kind.APP_CREDENTIAL, Kind.CONFIG)
STATES = {
    Kind.REAUTH: "needs_consent", Kind.CONSENT: "needs_consent", Kind.MFA: "mfa_missing", Kind.PARTNER_ADMIN: "blocked",
}  # fmt: skip


def codes_of(*kinds: Kind) -> list[int]:
    return [code for code, meaning in MEANINGS.items() if meaning.kind in kinds]


def refused_with(world: Any, code: int, *, at: str = CONTOSO) -> None:
    """Entra answers the next request at this tenant with this number."""
    broker.forget()
    world.heal("entra")
    world.fail("entra", f"AADSTS{code}", times=1, path=at)


def sync() -> Run:
    Job.objects.update(next_run_at=timezone.now(), claimed_until=None)
    run = jobs.run_job(Job.objects.get().pk)
    assert run
    return run


def stands() -> Standing:
    partner = Partner.objects.get()
    return standing(partner, current_token(partner))


def forgive() -> None:
    RefreshToken.objects.update(refused_at=None, refusal="", refusal_code="", missing_scopes=[])


# --- In the partner's own tenant --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", STATES)
def test_what_the_partner_must_mend_marks_the_partner_and_says_why(member, world, kind):
    for code in codes_of(kind):
        refused_with(world, code)

        run = sync()

        state, meaning = stands(), MEANINGS[code]
        assert (run.outcome, run.error_code) == ("refused", f"AADSTS{code}")
        assert (state.state, state.owner, state.code) == (STATES[kind], "partner", f"AADSTS{code}")
        assert meaning.summary in state.reason, code
        assert Job.objects.get().next_run_at is None, "only a reconnect makes it due again"
        forgive()
    assert not Alarm.objects.exists()


@pytest.mark.parametrize("kind", OURS)
def test_what_is_our_fault_marks_nobody_and_raises_one_alarm(member, world, kind, caplog):
    for code in codes_of(kind):
        refused_with(world, code)

        run = sync()

        assert (run.outcome, run.error_code) == ("failed", f"AADSTS{code}")
        assert stands().state == "active"
    alarm = Alarm.objects.get()
    assert (alarm.times, alarm.closed_at) == (len(codes_of(kind)), None)
    assert alarm.kind == ("credential" if kind is Kind.APP_CREDENTIAL else "registration")
    assert len([record for record in caplog.records if "no partner is to blame" in record.message]) == 1


def test_the_next_token_closes_the_alarm_and_a_later_fault_opens_another(member, world, capsys):
    refused_with(world, 7000222)
    sync()
    call_command("partners")
    assert "Ours to repair" in capsys.readouterr().err

    broker.forget()
    assert sync().outcome == "done"
    call_command("partners")

    assert "Ours to repair" not in capsys.readouterr().err
    assert Alarm.objects.get().closed_at
    refused_with(world, 7000222)
    sync()
    assert Alarm.objects.filter(closed_at=None).count() == 1


def test_what_passes_is_waited_out(member, world):
    for code in codes_of(Kind.RETRY):
        refused_with(world, code)

        assert sync().outcome == "waiting", code
        assert stands().state == "active"
    assert not Alarm.objects.exists()


# --- In a customer's tenant -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", Kind)
def test_in_a_customers_tenant_nothing_ever_marks_the_partner(member, world, kind):
    token = RefreshToken.objects.select_related("partner").get()
    expected = {Kind.RETRY: Transient, **dict.fromkeys(OURS, OurFault)}.get(kind, minting.CustomerRefused)
    for code in codes_of(kind):
        customer = uuid.UUID(int=code)
        refused_with(world, code, at=str(customer))
        session = broker.session(token, Audience.GRAPH, purpose="token.explain", actor=WHO, tenant=customer)

        with pytest.raises(expected) as refused:
            session.get("/v1.0/users")

        assert refused.value.code == f"AADSTS{code}"
    assert stands().state == "active"
    assert TokenUse.objects.filter(customer_tenant__isnull=False).count() == len(codes_of(kind))


# --- In words -------------------------------------------------------------------------------------------------------
def test_a_withdrawn_consent_names_the_permissions_that_are_missing_and_links_to_each(member, world):
    refused_with(world, 65001)
    sync()

    home = member.portal.get("/")

    assert stands().missing_scopes == ("user_impersonation",)
    assert '<a href="/permissions/#user_impersonation">' in home.content.decode()
    assert 'id="user_impersonation"' in member.portal.get("/permissions/").content.decode()


@pytest.mark.parametrize("code", sorted(BY_LOCATION))
def test_a_policy_by_location_says_our_addresses(member, world, settings, code):
    settings.CPV_EGRESS_ADDRESSES = ["192.0.2.7", "192.0.2.8"]
    refused_with(world, code)
    sync()

    assert "allow sign-ins from our addresses (192.0.2.7, 192.0.2.8)" in text_of(member.portal.get("/"))


def test_a_tenant_of_another_cloud_is_told_so():
    assert MEANINGS[90038].summary == "This tenant lives in another national cloud."


def test_a_number_nobody_knows_is_kept_for_somebody_to_look_up(member, world, support):
    for _ in range(2):
        refused_with(world, 7654321)
        sync()
        forgive()

    unknown = UnknownAnswer.objects.get()
    assert (unknown.code, unknown.times, unknown.taken_for) == ("AADSTS7654321", 2, "reauth")
    assert str(unknown) == "AADSTS7654321"
    assert unknown.trace_id
    assert unknown.correlation_id
    assert "AADSTS7654321" in text_of(support.get("/admin/tokens/unknownanswer/"))


def test_any_number_can_be_made_to_happen_by_name(member, world):
    broker.forget()
    told = play(world, "entra-error", CONTOSO, {"code": 50057, "times": 1})

    assert "Contoso" in told["effect"]
    assert sync().error_code == "AADSTS50057"


def test_the_page_of_errors_is_the_table():
    spec = importlib.util.spec_from_file_location("errors_page", "scripts/errors_page.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    assert Path("docs/errors.md").read_text() == script.page(), "run: make errors"
    assert len(MEANINGS) >= 60


def test_two_processes_that_are_refused_at_once_raise_one_alarm(member, world):
    def another_is_faster(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('INSERT INTO "tokens_alarm"'):
            execute(sql, params, many, context)
        return execute(sql, params, many, context)

    refused_with(world, 7000222)
    with connection.execute_wrapper(another_is_faster):
        sync()

    assert Alarm.objects.count() <= 1
    refused_with(world, 7000222)
    sync()
    assert Alarm.objects.filter(closed_at=None).count() == 1
