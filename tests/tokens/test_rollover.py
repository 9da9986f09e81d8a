"""Two certificates of our application: from one to the other and back, with a ledger line for every request."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.core.checks import run_checks
from django.utils import timezone

from partners.models import Partner
from partners.standing import current_token, standing
from tests.conftest import CONTOSO, SERVICE
from tests.pem import pair
from tests.tokens.proofs import FIRST, NEXT, accept, ask, configure, lines, pem, requests_seen, used
from tokens import expiry, gate, rotation, tasks
from tokens.credential import InUse, Proof
from tokens.entra import ConsentRequired, OurFault
from tokens.errors import Transient
from tokens.models import Alarm, RefreshToken, TokenUse, UnknownAnswer

pytestmark = pytest.mark.django_db(transaction=True)


def state() -> str:
    partner = Partner.objects.get()
    return standing(partner, current_token(partner)).state


# --- Over and back ----------------------------------------------------------------------------------------------------
def test_a_refused_certificate_gives_way_to_the_next_within_the_same_request(member, two, world, caplog):
    ask()
    accept(world, NEXT)

    ask()
    ask()

    assert lines() == [("granted", ""), ("refused", "AADSTS700027"), ("granted", ""), ("granted", "")]
    assert TokenUse.objects.count() == requests_seen(world)
    assert TokenUse.objects.values("correlation_id").distinct().count() == TokenUse.objects.count()
    assert used() == "next"
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.code, alarm.closed_at) == ("rolled_over", "AADSTS700027", None)
    assert state() == "active"
    told = [record for record in caplog.records if "the other is in use" in record.message]
    assert [record.used for record in told] == ["next"]


def test_it_rolls_back_when_the_next_is_refused_and_the_first_is_good_again(member, two, world):
    accept(world, NEXT)
    ask()
    accept(world, FIRST)

    ask()

    assert used() == "certificate"
    assert lines()[-2:] == [("refused", "AADSTS700027"), ("granted", "")]
    assert Alarm.objects.get().closed_at, "the first is in use: nothing is left to repair"


def test_an_operator_takes_it_back_with_a_restart(member, two, world, settings):
    accept(world, NEXT)
    ask()
    accept(world, FIRST, NEXT)
    ask()
    assert (used(), Alarm.objects.get().closed_at) == ("next", None)

    configure(settings, certificate=pem(NEXT))
    ask()

    assert used() == "certificate"
    assert Alarm.objects.get().closed_at


def test_with_both_refused_one_alarm_is_raised_and_no_partner_is_touched(member, two, world):
    accept(world)
    before = RefreshToken.objects.values().get()

    for _ in range(3):
        with pytest.raises(OurFault):
            ask()

    assert lines() == [("refused", "AADSTS700027")] * 6, "each is tried once, and once with the other"
    assert TokenUse.objects.count() == requests_seen(world)
    assert [(alarm.kind, alarm.times) for alarm in Alarm.objects.all()] == [("credential", 3)]
    assert RefreshToken.objects.values().get() == before
    assert state() == "active"

    accept(world, NEXT)
    ask()
    kinds = dict(Alarm.objects.values_list("kind", "closed_at"))
    assert kinds["credential"]
    assert kinds["rolled_over"] is None


def test_a_single_certificate_is_tried_once(member, world, settings):
    configure(settings, certificate=pem(FIRST))
    accept(world)

    with pytest.raises(OurFault):
        ask()

    assert lines() == [("refused", "AADSTS700027")]
    assert Alarm.objects.get().kind == "credential"


@pytest.mark.parametrize("code", ["AADSTS50173", "AADSTS700084", "AADSTS90033"])
def test_what_does_not_concern_the_certificate_is_not_tried_again(member, two, world, code):
    world.fail("entra", code, times=1, path=f"{CONTOSO}/oauth2/v2.0/token")

    with pytest.raises((OurFault, Transient, ConsentRequired)):
        ask()

    assert lines() == [(("unavailable" if code == "AADSTS90033" else "refused"), code)]
    assert used() == "certificate"


def test_a_refusal_of_the_certificate_by_a_number_nobody_knows_rolls_over_and_is_kept(member, two, world):
    world.token_fault("AADSTS650053", times=1, tenant=CONTOSO)  # comes as invalid_client

    ask()

    assert used() == "next"
    assert UnknownAnswer.objects.get().code == "AADSTS650053"


def test_a_consent_goes_on_with_the_next_certificate(two, person, invited, contoso, world):
    accept(world, NEXT)

    answer = person.connect(invited[1], SERVICE)

    assert answer.status_code == 200
    redeems = TokenUse.objects.filter(purpose="consent.redeem").order_by("pk")
    assert list(redeems.values_list("outcome", flat=True)) == ["refused", "granted"]
    assert TokenUse.objects.count() == requests_seen(world)


def test_a_sign_in_is_stored_anew_with_the_next_certificate(member, two, world):
    accept(world, NEXT)
    RefreshToken.objects.update(next_refresh_at=timezone.now() - dt.timedelta(seconds=1))
    before = RefreshToken.objects.get()

    assert rotation.rotate(rotation.claim_due()[0])

    after = RefreshToken.objects.get()
    assert after.pinned_version != before.pinned_version
    assert after.leased_until is None


def test_a_stop_between_the_two_tries_lets_the_second_not_leave(two, member, world):
    accept(world, NEXT)
    world.latency["entra"] = 1

    def killed(_seconds: float) -> None:
        Partner.objects.update(killed_at=timezone.now())
        gate.forget()

    world.sleep = killed
    with pytest.raises(gate.Stopped):
        ask()

    assert lines() == [("refused", "AADSTS700027"), ("withheld", "stopped")]


def test_threads_that_were_refused_together_move_on_once():
    first, second = Proof("certificate"), Proof("next")
    in_use = InUse([first, second])

    in_use.give_way(first)
    in_use.give_way(first)

    assert in_use.proof is second
    assert not in_use.is_first


# --- The end of a certificate -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "warning"),
    [
        (dt.timedelta(days=31), ""),
        (dt.timedelta(days=30), "30 days"),
        (dt.timedelta(days=14), "14 days"),
        (dt.timedelta(days=7), "7 days"),
        (dt.timedelta(hours=24), "1 day"),
        (dt.timedelta(), "ended"),
    ],
)
def test_the_end_of_a_certificate_is_told_of_from_thirty_days_on(two, before, warning, caplog):
    first = expiry.configured()[0]
    with time_machine.travel(first.certificate.not_after - before, tick=False):
        tasks.tidy()
        tasks.tidy()
        messages = [message for message in run_checks() if message.id == "tokens.W002"]

    told = [record for record in caplog.records if "ends soon" in record.message]
    if not warning:
        assert not Alarm.objects.exists()
        assert not messages
        return
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.cloud, alarm.code) == ("expiring", "global", f"CPV_APP_CERTIFICATE: {warning}")
    assert len(told) == 1, "each once"
    assert "CPV_APP_CERTIFICATE is good until" in messages[0].msg


def test_each_of_the_four_days_is_told_once_and_a_new_certificate_ends_it(two, settings, caplog):
    ends = expiry.configured()[0].certificate.not_after
    for days in (30, 29, 14, 13, 7, 6, 1, 0.5):
        with time_machine.travel(ends - dt.timedelta(days=days), tick=False):
            expiry.watch()

    assert len([record for record in caplog.records if "ends soon" in record.message]) == 4
    configure(settings, certificate=pem(NEXT))
    expiry.watch()
    assert Alarm.objects.get().closed_at


def test_of_several_in_a_cloud_the_alarm_names_all_that_end_and_the_vaults_counts_too(two, settings):
    soon = pair("vault", days=5)
    settings.CPV_VAULTS = {
        **settings.CPV_VAULTS, "china": settings.CPV_VAULTS["china"] | {"certificate": pem(soon)},
    }  # fmt: skip

    with time_machine.travel(expiry.configured()[-1].certificate.not_after - dt.timedelta(days=2), tick=False):
        expiry.watch()

    codes = dict(Alarm.objects.values_list("cloud", "code"))
    assert codes == {
        "global": "CPV_APP_CERTIFICATE: ended; CPV_APP_CERTIFICATE_NEXT: 7 days",
        "china": "KEY_VAULT_CERTIFICATE_CHINA: ended",
    }
