"""A schedule that goes wrong is noticed, says its seed, and goes wrong again from it."""

from __future__ import annotations

import pytest
from django.utils import timezone

from tests.tokens.schedules.play import HOST, MODES, Play, mint
from tests.tokens.schedules.verdict import Wrong
from tokens import custody, outside, rotation, sweeping
from tokens.models import RefreshToken, SecretVersion

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("uncounted")]


def careless(play: Play) -> None:
    """Rotates without a lease, and pins without looking whose turn it is."""
    token = RefreshToken.objects.select_related("partner").get(pk=play.token.pk)
    sealed = outside.keyring().seal(custody.read(token), aad=custody.additional_data(token))
    version = outside.vault("global").put(token.secret_name, sealed, tags=custody._tags(token))
    RefreshToken.objects.filter(pk=token.pk).update(pinned_version=version)


def hasty(play: Play) -> None:
    """Pins first, and stores what it pinned never."""
    RefreshToken.objects.filter(pk=play.token.pk).update(pinned_version="a-version-to-come")


def thief(play: Play) -> None:
    """Switches on again what was switched off."""
    play.killed = True
    play.token.partner.mark_killed()
    sweeping.close_stopped()
    sweeping.sweep()
    for versions in play.world.vault(HOST).secrets.values():
        for version in versions:
            version.enabled = True


def revoker(play: Play) -> None:
    for session in play.world.ledger.sessions.values():
        session.revoked = True


def forger(play: Play) -> None:
    """Lets a renewal be confirmed that never came in force."""
    play.confirmed = True


def sloth(play: Play) -> None:
    """Holds a lease from now on for ever."""
    RefreshToken.objects.update(leased_until=timezone.now().replace(year=9999))


def untidy(play: Play) -> None:
    """Stores twice and writes neither down."""
    token = play.token
    for _ in range(2):
        outside.vault("global").put(token.secret_name, "sealed", tags={"fence": "0"})
    SecretVersion.objects.filter(token=token).update(disabled_at=None)


def alone(act):
    """A play in which nobody acts but this one, and nothing else goes wrong."""

    def instead(play: Play) -> None:
        play.actors.clear()
        play.world.heal()
        play.crashes = play.lapses = 0
        play.add("the careless", lambda: act(play))

    return instead


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (careless, "stale: a pin went back"),
        (hasty, "lost: the pin names what nobody can read"),
        (thief, "resurrected: a version that must be disabled is enabled"),
        (revoker, "lost: the sign-in in force is refused"),
        (forger, "stale: generation"),
        (sloth, "stuck: a lease was left"),
        (untidy, "resurrected: a version that nobody would find"),
    ],
)
def test_whoever_breaks_the_protocol_is_caught(play, act, found):
    with pytest.raises(Wrong, match=found):
        play("a seed", "entra", before=alone(act))


def test_a_world_where_tokens_work_once_is_not_taken_for_entra(play):
    """What is judged by Entra's rules in a stricter world goes wrong in some schedule, and again from its seed."""

    def stricter(acting: Play) -> None:
        acting.world.refresh_tokens("strict")

    def first_wrong() -> tuple[str, str]:
        for number in range(100):
            try:
                play(f"strict {number}", "entra", before=stricter)
            except Wrong as wrong:
                return f"strict {number}", str(wrong)
        pytest.fail("nothing went wrong in a hundred schedules")

    seed, told = first_wrong()

    assert f"seed {seed!r}" in told
    with pytest.raises(Wrong) as again:
        play(seed, "entra", before=stricter)
    assert _without_ids(str(again.value)) == _without_ids(told)


def _without_ids(told: str) -> list[str]:
    """The story without the names of secrets, which are drawn by nobody's seed."""
    return [line.partition("/secrets/")[0] for line in told.splitlines() if not line.startswith("pinned")]


def test_every_mode_has_its_schedules(play):
    assert MODES == ("entra", "grace", "strict")
    for mode in MODES:
        assert play("one", mode, before=alone(lambda acting: rotation.rotate(acting.token.pk))) == ""
        assert play("two", mode, before=alone(lambda acting: mint(acting.token))) in ("", "reported")
