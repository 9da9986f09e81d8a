"""The life of each access token stands in the ledger; one that lives too long is told to the log and to support."""

from __future__ import annotations

import datetime as dt
import io

import pytest
from django.core.management import call_command
from django.utils import timezone

from tests.conftest import CONTOSO, FABRIKAM
from tokens import broker, lifetimes
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.entra import ConsentRequired
from tokens.models import LONGEST_LIFE, LONGEST_NUMBER, Alarm, RefreshToken, TokenUse
from tokens.tasks import tidy

pytestmark = pytest.mark.django_db(transaction=True)
A_DAY, OF_CAE = 86_400, 28 * 3600


def mint(world, seconds, audience=Audience.GRAPH, tenant_id=CONTOSO):
    world.access_token_seconds = seconds
    token = RefreshToken.objects.current().get(partner__tenant_id=tenant_id)
    broker.forget()
    broker.session(token, audience, purpose="token.explain", actor=SYSTEM).get("/v1.0/me")
    return TokenUse.objects.latest("pk")


def is_alarmed():
    return Alarm.objects.filter(kind=Alarm.Kind.LIFETIME, closed_at=None).exists()


@pytest.mark.parametrize("seconds", [3599, 5400, LONGEST_LIFE])
def test_the_life_of_an_ordinary_token_is_kept_and_not_warned_about(member, world, caplog, seconds):
    assert mint(world, seconds).lives_s == seconds
    assert not is_alarmed()
    assert "lives longer" not in caplog.text


@pytest.mark.parametrize("seconds", [LONGEST_LIFE + 1, A_DAY, OF_CAE])
def test_a_token_that_lives_too_long_is_warned_about(member, world, caplog, seconds):
    line = mint(world, seconds)

    assert line.lives_s == seconds
    assert "an access token lives longer than need be" in caplog.text
    assert Alarm.objects.get(kind=Alarm.Kind.LIFETIME).code == "1 partners"
    assert lifetimes.longest("global") == [
        {"tenant_id": line.partner.tenant_id, "name": "Contoso", "audience": "graph", "lives_s": seconds}
    ]


def test_support_reads_of_it_in_the_list_of_partners(member, world):
    mint(world, A_DAY)
    err = io.StringIO()

    call_command("partners", stdout=io.StringIO(), stderr=err)

    assert "Access tokens live longer than two hours" in err.getvalue()


def test_several_partners_make_one_alarm_that_counts_them(member, connected_partner, world):
    connected_partner(tenant_id=FABRIKAM, name="Fabrikam")
    mint(world, A_DAY)
    mint(world, OF_CAE, Audience.PARTNER_CENTER)
    mint(world, A_DAY, tenant_id=FABRIKAM)

    assert Alarm.objects.get(kind=Alarm.Kind.LIFETIME).code == "2 partners"
    found = [(one["name"], one["audience"], one["lives_s"]) for one in lifetimes.longest("global")]
    assert found == [
        ("Contoso", "partnercenter", OF_CAE),
        ("Contoso", "graph", A_DAY),
        ("Fabrikam", "graph", A_DAY),
    ]
    assert lifetimes.longest("china") == []


def test_the_alarm_ends_when_none_was_handed_out_for_two_days(member, world):
    mint(world, A_DAY)
    tidy()
    assert is_alarmed()

    TokenUse.objects.update(at=timezone.now() - dt.timedelta(days=2, minutes=1))
    tidy()

    assert not is_alarmed()


def test_an_ordinary_token_does_not_end_it(member, world):
    mint(world, A_DAY)
    mint(world, 3599, Audience.PARTNER_CENTER)

    assert is_alarmed()


def test_a_life_beyond_all_measure_is_kept_as_the_longest_there_is(member, world):
    assert mint(world, 10**12).lives_s == LONGEST_NUMBER


def test_a_refused_request_has_no_life(member, world, contoso):
    contoso.revoke()

    with pytest.raises(ConsentRequired):
        mint(world, A_DAY)

    assert TokenUse.objects.latest("pk").lives_s is None
    assert not is_alarmed()


def test_a_sign_in_is_no_partners_token(person, member, world):
    member.portal.post("/signout")
    world.access_token_seconds, world.amr_in_id_tokens = A_DAY, True

    member.sign_in("svc-cpv@contoso.test")

    assert TokenUse.objects.get(purpose="signin").lives_s == A_DAY
    assert not is_alarmed()
