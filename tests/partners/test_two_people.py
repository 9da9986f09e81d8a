"""What takes two people takes two whom nobody made yesterday, and no one hand made both."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from partners import borrowed, lifecycle, lifting, second_factor, staff, two_people
from partners.models import AccessGrant, Appointment, Partner, User
from tests.desk import code_of, later, settle, somebody
from tokens.actors import SYSTEM, command
from tokens.models import AuditEvent, Halt

pytestmark = pytest.mark.django_db(transaction=True)
TERMINAL = command("appoint")


@pytest.fixture
def admin(db) -> User:
    return somebody("admin", "ada")


def made(name: str, by: User | None, role: str = "security", *, days: float = 2) -> User:
    """Somebody whom an admin appointed, or a command, with a factor since then."""
    user = staff.appoint(username=name, role=role, by=by.as_actor() if by else TERMINAL, reason="new")
    enrolled(user)
    then = timezone.now() - dt.timedelta(days=days)
    User.objects.filter(pk=user.pk).update(created_at=then)
    Appointment.objects.filter(user=user).update(at=then)
    user.totpdevice_set.update(created_at=then)
    return User.objects.get(pk=user.pk)


def enrolled(user: User) -> None:
    if not second_factor.is_enrolled(user):
        user.totpdevice_set.create(name="app")


def lift(first: User, second: User) -> None:
    lifecycle.kill_all(by=SYSTEM, reason="a thief")
    lifting.request(by=first, reason="all is well", code=code_of(first))
    lifting.approve(by=second, code=code_of(second))


def is_stopped() -> bool:
    return Halt.objects.in_force().exists()


# --- Lifting a stop of everything -----------------------------------------------------------------------------------
def test_two_whom_one_admin_appointed_do_not_lift_a_stop(admin):
    first, second = made("sam", admin), made("kim", admin)

    with pytest.raises(lifting.Refused, match="sam and kim have their places from one hand, ada"):
        lift(first, second)

    assert is_stopped()
    assert not AuditEvent.objects.filter(action="everything.unkilled").exists()


def test_nor_where_the_hand_is_further_off(admin):
    sock = made("sock", admin, "admin")

    with pytest.raises(lifting.Refused, match="from one hand, ada"):
        lift(made("sam", admin), made("kim", sock))

    assert is_stopped()


def test_after_thirty_days_in_which_all_could_see_it_they_count_as_two(admin):
    lift(made("sam", admin, days=31), made("kim", admin, days=31))

    assert not is_stopped()


def test_two_of_different_hands_lift_it(admin):
    lift(made("sam", admin), made("kim", somebody("admin", "bea")))

    assert not is_stopped()


def test_the_first_two_by_command_lift_it_a_day_later(db):
    lift(made("sam", None), made("kim", None))

    assert not is_stopped()


@pytest.mark.parametrize("who", ["first", "second"])
def test_whoever_is_new_does_not_count_for_a_day(db, who):
    sam = made("sam", None, days=2 if who == "second" else 0)
    kim = made("kim", None, days=2 if who == "first" else 0)

    with pytest.raises(lifting.Refused, match="less than a day and counts as one of two from"):
        lift(sam, kim)
    assert is_stopped()

    with later(hours=25):
        lifting.request(by=sam, reason="x", code=code_of(sam))
        lifting.approve(by=kim, code=code_of(kim))
    assert not is_stopped()


def test_nor_does_whoever_got_another_role_or_was_let_enrol_anew(admin):
    sam, kim = somebody("support", "sam"), somebody("security", "kim")
    sam = staff.appoint(username="sam", role="security", by=TERMINAL, reason="moved")
    assert "less than a day" in two_people.why_not_yet(sam)

    staff.start_over(user=kim, by=admin.as_actor(), reason="lost")
    enrolled(kim)
    assert "less than a day" in two_people.why_not_yet(kim)
    settle(kim)
    assert not two_people.why_not_yet(kim)


def test_a_factor_of_today_alone_does_not_count_either(db):
    sam = made("sam", None)
    sam.totpdevice_set.all().delete()
    enrolled(sam)

    with pytest.raises(lifting.Refused, match="this second factor, for less than a day"):
        lift(sam, made("kim", None))


def test_another_device_beside_an_old_one_costs_no_day(db):
    sam = made("sam", None)
    sam.totpdevice_set.create(name="another")

    assert not two_people.why_not_yet(sam)


def test_whom_the_account_for_emergencies_appointed_never_counts_until_somebody_else_does_so(admin):
    emergency, _, _ = staff.break_glass(by=TERMINAL, reason="all phones lost")
    sam = made("sam", emergency, days=99)
    kim = made("kim", None)

    with pytest.raises(lifting.Refused, match="nobody and makes nobody who counts"):
        lift(sam, kim)
    assert is_stopped()

    sam = made("sam", admin)
    lifting.request(by=sam, reason="x", code=code_of(sam))
    lifting.approve(by=kim, code=code_of(kim))
    assert not is_stopped()


def test_who_asked_must_count_still_when_another_agrees(admin):
    sam, kim = made("sam", None), made("kim", None)
    lifecycle.kill_all(by=SYSTEM, reason="a thief")
    lifting.request(by=sam, reason="all is well", code=code_of(sam))
    staff.appoint(username="sam", role="security", by=admin.as_actor(), reason="again")

    with pytest.raises(lifting.Refused, match="sam has this role"):
        lifting.approve(by=kim, code=code_of(kim))

    assert is_stopped()


# --- Allowing a look ------------------------------------------------------------------------------------------------
def asked(by: User) -> AccessGrant:
    partner, _ = Partner.objects.get_or_create(
        tenant_id="c0470500-0000-4000-8000-0000000000c0", defaults={"cloud": "global", "name": "Contoso"}
    )
    return borrowed.ask(partner=partner, by=by, reason="names are missing")


@pytest.mark.parametrize("days", [2, 99])
def test_nobody_allows_a_look_to_somebody_they_appointed(admin, days):
    grant = asked(made("pat", admin, "support", days=days))

    with pytest.raises(borrowed.NotNow, match="ada gave pat this place, so somebody else must act"):
        borrowed.approve(grant=grant, by=admin)

    grant.refresh_from_db()
    assert grant.approved_at is None


def test_nor_does_somebody_of_the_same_hand_or_somebody_new(admin):
    grant = asked(made("pat", admin, "support"))

    with pytest.raises(borrowed.NotNow, match="from one hand, ada"):
        borrowed.approve(grant=grant, by=made("sam", admin))
    with pytest.raises(borrowed.NotNow, match=r"less than a day.*An owner of the partner may answer"):
        borrowed.approve(grant=grant, by=made("kim", None, days=0))

    borrowed.refuse(grant=grant, by=admin)
    assert grant.state == "refused", "saying no takes no second hand"


def test_somebody_of_another_hand_allows_it(admin):
    grant = asked(made("pat", admin, "support"))

    borrowed.approve(grant=grant, by=somebody("security", "sam"))

    assert grant.state == "open"


# --- From Entra -----------------------------------------------------------------------------------------------------
def test_whoever_follows_entras_word_has_their_place_from_nobody_here(db):
    user = User.objects.create_user("global:tid:oid", is_staff=True, staff_role="security")

    two_people.note(user, by=user.as_actor())

    assert Appointment.objects.get().by is None
    assert str(Appointment.objects.get()) == "global:tid:oid, by no one here"
    assert "less than a day" in two_people.why_not_yet(user)


def test_two_who_appointed_each_other_are_one_hand_to_all_who_come_of_them(admin):
    bea = made("bea", admin, "admin")
    two_people.note(admin, by=bea.as_actor())

    assert "from one hand" in two_people.why_not_both(made("sam", admin), made("kim", bea))
    assert not two_people.why_not_both(made("pat", admin), somebody("security", "zoe"))
