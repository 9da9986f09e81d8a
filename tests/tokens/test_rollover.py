"""Two certificates of our application: from one to the other and back, with a ledger line for every request."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
from typing import Any

import pytest
import time_machine
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.utils import timezone

from partners.models import Partner
from partners.standing import current_token, standing
from sandbox import demo
from sandbox.directory import read_certificates
from tests.conftest import CONTOSO, SERVICE
from tests.pem import Pair, pair
from tokens import broker, drill, expiry, outside, rotation, tasks
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.credential import InUse, Proof
from tokens.entra import OurFault
from tokens.models import Alarm, RefreshToken, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
FIRST, NEXT = pair("first", days=300), pair("next", days=400)
WHERE = "/v1/profiles/organization"


def pem(one: Pair) -> str:
    return one.key + one.certificate


def configure(settings: Any, **changes: Any) -> None:
    """Our application proves itself with these; what this process remembers is forgotten, as with a restart."""
    ours = {"certificate": "", "next_certificate": "", "federated": False, "secret": ""} | changes
    settings.CPV_APPS = {**settings.CPV_APPS, "global": settings.CPV_APPS["global"] | ours}
    outside.forget()
    broker.forget()


def accept(world: Any, *pairs: Pair) -> None:
    """Microsoft knows these certificates of ours and no other, and no secret."""
    app = world.apps[demo.APP_ID]
    app.certificates, app.secrets = read_certificates(one.certificate for one in pairs), set()


@pytest.fixture
def two(world, settings):
    """Both certificates are configured and registered."""
    configure(settings, certificate=pem(FIRST), next_certificate=pem(NEXT))
    accept(world, FIRST, NEXT)


def ask() -> None:
    broker.forget()
    token = RefreshToken.objects.select_related("partner").get()
    broker.session(token, Audience.PARTNER_CENTER, purpose="token.explain", actor=SYSTEM).get(WHERE)


def used() -> str:
    return outside.entra("global").credential.proof.kind


def lines() -> list[tuple[str, str]]:
    found = TokenUse.objects.filter(purpose="token.explain").order_by("pk")
    return list(found.values_list("outcome", "code"))


def requests_seen(world: Any) -> int:
    return sum(call.client == demo.APP_ID and call.path.endswith("/token") for call in world.calls)


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
    world.fail("entra", code, times=1, path=CONTOSO)

    with pytest.raises((OurFault, broker.Transient, broker.ConsentRequired)):
        ask()

    assert lines() == [(("unavailable" if code == "AADSTS90033" else "refused"), code)]
    assert used() == "certificate"


def test_a_number_of_a_refused_certificate_that_nobody_knows_is_kept(member, two, world):
    world.fail("entra", "AADSTS7009999", times=1, path=CONTOSO)
    with pytest.raises(broker.ConsentRequired):  # what an unknown number with invalid_grant is taken for
        ask()
    assert used() == "certificate"


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
        broker.forget_gate()

    world.sleep = killed
    with pytest.raises(broker.Stopped):
        ask()

    assert lines() == [("refused", "AADSTS700027"), ("refused", "stopped")]


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
        messages = [message for message in run_checks() if message.id == "tokens.W001"]

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


def test_of_several_in_a_cloud_the_alarm_names_the_first_to_end_and_the_vaults_counts_too(two, settings):
    soon = pair("vault", days=5)
    settings.CPV_VAULTS = {
        **settings.CPV_VAULTS, "china": settings.CPV_VAULTS["china"] | {"certificate": pem(soon)},
    }  # fmt: skip

    with time_machine.travel(expiry.configured()[-1].certificate.not_after - dt.timedelta(days=2), tick=False):
        expiry.watch()

    codes = dict(Alarm.objects.values_list("cloud", "code"))
    assert codes == {"global": "CPV_APP_CERTIFICATE: ended", "china": "KEY_VAULT_CERTIFICATE_CHINA: ended"}


# --- The drill ----------------------------------------------------------------------------------------------------
def drilled(*words: str) -> tuple[Any, int]:
    out, code = io.StringIO(), 0
    try:
        call_command("rotatecredential", *words, "--json", stdout=out)
    except SystemExit as end:
        code = int(end.code or 0)
    return json.loads(out.getvalue()), code


@pytest.mark.parametrize(
    ("known", "results", "code", "step"),
    [
        ([FIRST, NEXT], ["accepted", "accepted"], 0, "Move CPV_APP_CERTIFICATE_NEXT into CPV_APP_CERTIFICATE"),
        ([NEXT], ["refused", "accepted"], 1, "CPV_APP_CERTIFICATE is refused"),
        ([FIRST], ["accepted", "refused"], 1, "CPV_APP_CERTIFICATE_NEXT is refused"),
        ([], ["refused", "refused"], 1, "Nothing is accepted"),
    ],
)
def test_the_drill_tries_each_certificate_and_says_what_next(two, world, known, results, code, step):
    accept(world, *known)

    ((document,), ended) = drilled()

    rows = document["credentials"]
    assert [row["result"] for row in rows] == results
    assert [row["setting"] for row in rows] == ["CPV_APP_CERTIFICATE", "CPV_APP_CERTIFICATE_NEXT"]
    assert [row["in_use"] for row in rows] == [True, False]
    assert rows[0]["thumbprint"] == expiry.configured()[0].certificate.thumbprint
    assert document["next"].startswith(step)
    assert ended == code


def test_the_drill_touches_no_partner_and_is_in_the_ledger(member, two, world):
    before, seen = RefreshToken.objects.values().get(), len(world.calls)
    accept(world, NEXT)

    drilled()

    calls = [call for call in world.calls[seen:] if call.path.endswith("/token")]
    mine = TokenUse.objects.filter(purpose=drill.PURPOSE)
    assert len(calls) == mine.count() == 3
    assert {call.detail["grant_type"] for call in calls} == {"refresh_token"}, "never an app-only token"
    assert all(f"/{demo.VENDOR_TENANT_ID}/" in call.path for call in calls)
    assert set(mine.values_list("partner", "outcome", "actor_kind")) == {(None, "refused", "command")}
    assert RefreshToken.objects.values().get() == before
    assert not Alarm.objects.exists()


def test_the_drill_shows_that_the_next_is_in_use_after_a_roll_over(member, two, world):
    accept(world, NEXT)
    ask()

    ((document,), _) = drilled()

    assert [row["in_use"] for row in document["credentials"]] == [False, True]


def test_a_drill_for_people_names_thumbprint_and_end(two, world, capsys):
    call_command("rotatecredential", "--cloud", "global")

    printed = capsys.readouterr().out
    certificate = expiry.configured()[0].certificate
    assert f"CPV_APP_CERTIFICATE {certificate.thumbprint}: accepted" in printed
    assert f"until {certificate.not_after:%Y-%m-%d}" in printed
    assert "PRIVATE KEY" not in printed


def test_a_secret_is_tried_too(world):
    ((document,), code) = drilled()

    (row,) = document["credentials"]
    assert (row["setting"], row["result"], row["thumbprint"], code) == ("CPV_APP_SECRET", "accepted", None, 0)
    assert document["next"] == "Nothing to do."


def test_a_lone_certificate_near_its_end_needs_a_person(world, settings):
    configure(settings, certificate=pem(pair("short", days=3)))
    accept(world, FIRST)
    world.apps[demo.APP_ID].certificates += read_certificates([settings.CPV_APPS["global"]["certificate"]])

    ((document,), code) = drilled()

    assert code == 1
    assert document["credentials"][0]["warning"] == "CPV_APP_CERTIFICATE: 7 days"
    assert document["next"].startswith("Make a new certificate")


@pytest.mark.parametrize(
    ("fault", "result"), [("503", "unavailable"), ("AADSTS700016", "unclear"), ("AADSTS70000", "unclear")]
)
def test_an_answer_that_says_nothing_about_the_certificate_is_told_apart(two, world, fault, result):
    """The last is an Entra that would look at the refresh token first: then its answer proves nothing."""
    world.fail("entra", fault, path="/oauth2/v2.0/token")

    ((document,), code) = drilled()

    assert [row["result"] for row in document["credentials"]] == [result, result]
    assert code == 1
    assert "look the codes up" in document["next"]


def test_a_cloud_that_is_not_set_up_is_wrong_use(world):
    with pytest.raises(CommandError, match="CPV_TENANT_ID_CHINA, CPV_APP_ID_CHINA, CPV_APP_CERTIFICATE_CHINA") as ended:
        call_command("rotatecredential", "--cloud", "china")

    assert ended.value.returncode == 2


def test_without_any_cloud_there_is_nothing_to_try(world, settings):
    settings.CPV_APPS = dict.fromkeys(settings.CPV_APPS, settings.CPV_APPS["china"])

    with pytest.raises(CommandError, match="CPV_APP_ID") as ended:
        call_command("rotatecredential")

    assert ended.value.returncode == 2


def test_a_certificate_that_cannot_work_is_wrong_use(world, settings):
    configure(settings, certificate=FIRST.key + NEXT.certificate)

    with pytest.raises(CommandError, match="does not belong") as ended:
        call_command("rotatecredential", skip_checks=True)

    assert ended.value.returncode == 2
    assert logging.getLogger("msal").level >= logging.WARNING
