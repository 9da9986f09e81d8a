"""A subscription is changed: looked at, previewed, confirmed, sent once, and it is seen what became of it."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import uuid

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from partners import change_steps, changes, presence, tasks
from partners.access import SESSION_KEY
from partners.models import Change, ChosenCustomer, Customer, Member, Partner
from tests.conftest import FABRIKAM
from tests.journeys import changing
from tests.journeys.changing import Ground, page, tick, work
from tests.journeys.colleagues import add, portal_of
from tests.pretend import text_of
from tests.statements import asked
from tokens import broker, outside
from tokens.models import AuditEvent, Halt, TokenUse

pytestmark = pytest.mark.django_db


@pytest.fixture
def here(member, world, contoso, clock) -> Ground:
    return changing.ground(world, contoso, member.portal, clock)


def ended(change: Change) -> tuple[str, str]:
    change.refresh_from_db()
    return change.outcome, change.reason


# --- The way --------------------------------------------------------------------------------------------------------
def test_a_number_is_changed_from_the_first_look_to_the_last(here):
    change = here.begin()
    assert "Asking Microsoft how it stands" in text_of(here.portal.get(page(change)))
    work()
    assert "Licences 10" in text_of(here.portal.get(page(change)))

    shown = text_of(here.post(change, "choose", what="quantity", quantity="12"))
    assert "2 more licences, which Microsoft charges from now on to the end of the term on 1 Mar 2027" in shown
    assert "Nothing has changed yet." in shown
    change.refresh_from_db()
    assert "A worker sends it in a moment" in text_of(here.confirm(change))
    assert here.effects == 0
    work()

    shown = text_of(here.portal.get(page(change)))
    assert "At Microsoft it stands as you wanted" in shown
    assert (here.resource["quantity"], here.effects, len(here.patches)) == (12, 1, 1)


def test_the_renewal_is_turned_off_and_the_three_ends_of_a_term_are_told(here):
    change = here.begin()
    work()

    shown = text_of(here.post(change, "choose", what="auto_renew", auto_renew="off"))
    assert "there are three ends of a term: renew, go on by the month, and end" in shown
    change.refresh_from_db()
    here.confirm(change)
    work()

    assert ended(change) == ("done", "")
    assert here.resource["autoRenewEnabled"] is False
    assert here.resource["quantity"] == 10


def test_fewer_than_a_week_after_buying_says_that_microsoft_will_probably_refuse(here):
    here.override["subscription"]["cancellationAllowedUntilDate"] = "2026-01-08T00:00:00Z"
    change = here.begin()
    work()

    assert "only within 168 hours" in text_of(here.post(change, "choose", what="quantity", quantity="9"))


def test_every_property_known_or_not_comes_back_as_it_came(here):
    here.override["subscription"]["precise"] = 28.82860766744404
    before = here.resource

    here.confirmed()
    work()

    changed = {"quantity", "attributes"}
    assert {n: v for n, v in here.resource.items() if n not in changed} == {
        n: v for n, v in before.items() if n not in changed
    }
    assert "pretendedExtra" in here.resource


def test_microsoft_is_asked_as_it_documents(here):
    etag = here.resource["attributes"]["etag"]
    change = here.confirmed()
    work()

    [call] = here.patches
    assert call.path == f"/v1/customers/{here.customer.tenant_id}/subscriptions/{here.resource['id']}"
    assert call.headers["Ms-Requestid"] == str(change.request_id)
    assert call.headers["Ms-Correlationid"] == str(change.correlation_id) != str(change.request_id)
    assert call.headers["If-Match"] == f'"{etag}"'
    assert call.headers["Content-Type"] == "application/json"


def test_the_web_process_itself_asks_nobody(here):
    before = len(here.world.calls)
    change = here.begin()
    here.portal.get(page(change))
    assert len(here.world.calls) == before
    work()
    before = len(here.world.calls)

    here.post(change, "choose", what="quantity", quantity="12")
    change.refresh_from_db()
    here.confirm(change)

    assert len(here.world.calls) == before


def test_looking_at_the_pages_begins_and_changes_nothing(here):
    change = here.previewed()
    before = list(Change.objects.values())

    for address in (f"/customers/{here.customer.tenant_id}/subscriptions/", page(change)):
        for _ in range(2):
            assert here.portal.get(address).status_code == 200
    for step in ("choose", "confirm", "back"):
        assert here.portal.get(f"{page(change)}{step}").status_code == 405

    assert list(Change.objects.values()) == before
    assert tick() == 0


def test_audit_and_ledger_name_the_member_and_the_request(here):
    broker.forget()
    change = here.confirmed()
    work()

    lines = AuditEvent.objects.filter(action__startswith="change.").order_by("pk")
    assert [line.action for line in lines] == ["change.asked", "change.confirmed", "change.sent", "change.ended"]
    user = Member.objects.get().user
    assert {line.actor_id for line in lines} == {str(user.pk)}
    assert {line.request_id for line in lines} == {str(change.request_id)}
    assert (lines[1].detail["from"], lines[1].detail["to"]) == (10, 12)
    assert lines[3].detail["outcome"] == "done"
    use = TokenUse.objects.filter(purpose="subscriptions.change")[0]
    assert (use.audience, use.actor_kind, use.actor_id) == ("partnercenter", "member", str(user.pk))
    shown = text_of(here.portal.get("/activity/"))
    assert "Change of a subscription confirmed" in shown
    assert "Change of a subscription sent to Microsoft" in shown


def test_what_was_sent_lies_sealed_and_not_longer_than_needed(here):
    here.world.fail("partnercenter", "timeout-after", method="PATCH", times=1)
    change = here.confirmed()
    work()

    change.refresh_from_db()
    assert change.sealed_request
    assert "pretendedExtra" not in change.sealed_request
    assert here.settle(change).sealed_request == ""


def test_every_page_of_the_way_costs_at_most_six_queries(here):
    change = here.begin()
    for step in (work, lambda: here.post(change, "choose", what="quantity", quantity="12"), work):
        for address in (page(change), f"/customers/{here.customer.tenant_id}/subscriptions/"):
            with CaptureQueriesContext(connection) as queries:
                assert here.portal.get(address).status_code == 200
            assert len(asked(queries)) <= 6, asked(queries)
        step()
        change.refresh_from_db()


# --- What cannot be chosen ------------------------------------------------------------------------------------------
NO_SENSE = [
    ({"what": "quantity", "quantity": "10"}, "That is how it stands now"),
    ({"what": "quantity", "quantity": "0"}, "To have none, have the subscription end"),
    ({"what": "quantity", "quantity": "-3"}, "Write a whole number"),
    ({"what": "quantity", "quantity": "2.5"}, "Write a whole number"),
    ({"what": "quantity", "quantity": "many"}, "Write a whole number"),
    ({"what": "quantity", "quantity": "١٢"}, "Write a whole number"),
    ({"what": "quantity", "quantity": "1" * 90}, "between 1 and 1,000,000"),
    ({"what": "quantity", "quantity": "1000001"}, "between 1 and 1,000,000"),
    ({"what": "quantity"}, "Write a whole number"),
    ({"what": "auto_renew", "auto_renew": "on"}, "That is how it stands now"),
    ({"what": "auto_renew", "auto_renew": "\x00"}, "Choose on or off"),
    ({"what": "status", "status": "deleted"}, "Choose what to change"),
    ({}, "Choose what to change"),
]


def test_what_makes_no_sense_is_answered_clearly_and_not_sent(here):
    change = here.begin()
    work()

    for form, says in NO_SENSE:
        assert says in text_of(here.post(change, "choose", **form)), form
        change.refresh_from_db()
        assert change.state == "read", form


def test_pay_as_you_go_has_no_number_to_change(here):
    here.override["subscription"] |= {"billingType": "usage", "quantity": 1}
    change = here.begin()
    work()

    assert "Number of licences" not in text_of(here.portal.get(page(change)))
    assert "has no number of licences" in text_of(here.post(change, "choose", what="quantity", quantity="3"))


def test_a_subscription_that_the_customer_does_not_have_is_not_there(here):
    for key in ("", "\x00", "no-such", "x" * 500):
        answer = here.portal.post(f"/customers/{here.customer.tenant_id}/changes", {"subscription": key})
        assert answer.status_code == 404, key

    assert not Change.objects.exists()


# --- Who ------------------------------------------------------------------------------------------------------------
def test_confirming_takes_a_fresh_sign_in_and_leads_back_to_the_page(here):
    change = here.previewed()
    session = here.portal.session
    session[presence.PROVED] = 0
    session.save()

    answer = here.portal.post(f"{page(change)}confirm", {"what": "quantity", "wanted": "12"})

    assert answer["Location"] == "/signin/again"
    assert here.portal.session[presence.WANTED] == {"doing": "change a subscription", "back": page(change)}
    change.refresh_from_db()
    assert change.state == "previewed"
    work()
    assert not here.patches


def test_an_operator_may_and_a_reader_only_sees(here):
    operator, reader = portal_of(add("opal", "operator")), portal_of(add("rita", "reader"))
    listed = f"/customers/{here.customer.tenant_id}/subscriptions/"

    change = here.previewed(operator)
    here.confirm(change, operator)
    work()
    assert ended(change) == ("done", "")

    shown = reader.get(listed)
    assert "Basic for everybody" in text_of(shown)
    assert "<button" not in shown.content.decode().partition("<main")[2]
    assert "Changed here lately" not in text_of(shown)
    assert reader.post(f"/customers/{here.customer.tenant_id}/changes", {"subscription": "x"}).status_code == 404
    assert reader.get(page(change)).status_code == 404
    auditor = portal_of(add("aude", "auditor"))
    assert auditor.get(listed).status_code == 404


def test_a_limited_member_changes_only_what_they_see(here):
    opal = add("opal", "operator")
    Member.objects.filter(pk=opal.pk).update(limited_at=timezone.now())
    change = here.confirmed()
    portal = portal_of(opal)

    assert portal.get(page(change)).status_code == 404
    assert portal.get(f"/customers/{here.customer.tenant_id}/subscriptions/").status_code == 404
    form = {"subscription": here.subscription.key}
    assert portal.post(f"/customers/{here.customer.tenant_id}/changes", form).status_code == 404
    ChosenCustomer.objects.create(partner=opal.partner, member=opal, customer=here.customer)
    assert portal.get(page(change)).status_code == 200


def test_another_partner_finds_nothing(here, connected_partner):
    change = here.previewed()
    other = connected_partner(tenant_id=FABRIKAM, name="Fabrikam", customers=1)
    portal = portal_of(other.members.get())

    assert portal.get(page(change)).status_code == 404
    for step in ("choose", "confirm", "back"):
        assert portal.post(f"{page(change)}{step}", {"what": "quantity", "wanted": "12"}).status_code == 404
    assert portal.post(f"/customers/{here.customer.tenant_id}/changes", {"subscription": "x"}).status_code == 404
    change.refresh_from_db()
    assert change.state == "previewed"


def test_what_somebody_has_not_confirmed_is_theirs_alone_and_afterwards_everybodys_to_see(here):
    change = here.previewed()
    colleague = portal_of(add("opal", "operator"))

    assert colleague.get(page(change)).status_code == 404
    assert colleague.post(f"{page(change)}confirm", {"what": "quantity", "wanted": "12"}).status_code == 404
    here.confirm(change)

    assert "Basic for everybody" in text_of(colleague.get(page(change)))
    assert "Somebody else began" in text_of(here.post(change, "confirm", colleague, what="quantity", wanted="12"))


@pytest.mark.parametrize("how", ["role", "removed", "limited"])
def test_whoever_confirmed_and_may_no_longer_has_nothing_sent(here, how):
    opal = add("opal", "operator")
    change = here.previewed(portal_of(opal))
    here.confirm(change, portal_of(opal))
    mine = Member.objects.filter(pk=opal.pk)
    _ = {
        "role": lambda: mine.update(role="reader"),
        "removed": mine.delete,
        "limited": lambda: mine.update(limited_at=timezone.now()),
    }[how]()

    work()

    assert ended(change) == ("stopped", "not_yours")
    assert not here.patches


def test_who_may_no_longer_has_nothing_sent_a_second_time_either(here):
    here.world.fail("partnercenter", "timeout-before", method="PATCH", times=1)
    opal = add("opal", "operator")
    change = here.previewed(portal_of(opal))
    here.confirm(change, portal_of(opal))
    work()
    Member.objects.filter(pk=opal.pk).update(role="reader")
    here.settle(change)

    assert ended(change) == ("not_done", "lost")
    assert len(here.patches) == 1


# --- Two at once ----------------------------------------------------------------------------------------------------
def test_of_two_who_change_the_same_subscription_one_is_told_to_wait(here):
    first, second = here.previewed(), here.previewed(colleague := portal_of(add("opal", "operator")))
    here.confirm(first)

    assert "Another change of this subscription is under way" in text_of(here.confirm(second, colleague))

    second.refresh_from_db()
    assert second.state == "previewed"
    work()
    assert ended(first) == ("done", "")
    here.confirm(second, colleague)
    work()
    assert ended(second) == ("refused", "changed"), "it was previewed before the other one took effect"
    assert (here.effects, here.resource["quantity"]) == (1, 12)


def test_a_doubled_message_and_a_second_worker_do_nothing_more(here):
    change = here.confirmed()

    assert [change_steps.work(change.pk), change_steps.work(change.pk)] == [True, False]
    tasks.make_change(change_id=str(change.pk))
    tasks.make_change(change_id=str(uuid.uuid4()))

    assert (here.effects, len(here.patches)) == (1, 1)


def test_confirming_twice_sends_once(here):
    change = here.confirmed()

    assert "confirmed already" in text_of(here.confirm(change))
    work()
    here.confirm(change)
    work()

    assert (here.effects, len(here.patches)) == (1, 1)


def test_a_yes_counts_only_for_what_the_page_showed(here):
    change = here.previewed()
    here.post(change, "choose", what="quantity", quantity="900")

    assert "too late to confirm this" in text_of(here.confirm(change))

    change.refresh_from_db()
    assert change.state == "previewed"


def test_what_was_confirmed_and_not_sent_can_be_taken_back(here):
    change = here.confirmed()

    assert "Taken back" in text_of(here.post(change, "back"))
    work()

    assert not here.patches
    assert ended(change) == ("stopped", "taken_back")
    assert "too late to take it back" in text_of(here.post(change, "back"))


# --- What changed meanwhile -----------------------------------------------------------------------------------------
def test_what_somebody_else_changed_after_the_look_is_not_overwritten(here):
    change = here.confirmed()
    here.somebody_else(quantity=11)

    work()

    assert ended(change) == ("refused", "changed")
    assert not here.patches
    shown = text_of(here.portal.get(page(change)))
    assert "It changed meanwhile" in shown
    assert "Licences 11" in shown
    assert "Look again" in shown


def test_microsofts_own_no_to_a_stale_mark_says_the_same(here):
    here.override["refusal"] = [400, 2055]
    change = here.confirmed()
    work()

    assert ended(change) == ("refused", "changed")


def test_a_subscription_without_a_mark_is_compared_by_all_that_is_known(here):
    here.override["subscription"]["attributes"] = {"objectType": "Subscription"}
    here.world.book.enforces_etag = False
    change = here.confirmed()
    here.override["subscription"]["autoRenewEnabled"] = False
    work()
    assert ended(change) == ("refused", "changed")

    here.confirmed()
    work()
    assert "If-Match" not in here.patches[0].headers
    assert here.effects == 1


# --- Too late, and stopped ------------------------------------------------------------------------------------------
def test_a_preview_is_good_for_ten_minutes(here):
    change = here.previewed()
    with time_machine.travel(change.read_at + dt.timedelta(minutes=9, seconds=59), tick=False):
        assert "You may say yes until" in text_of(here.portal.get(page(change)))
    with time_machine.travel(change.read_at + dt.timedelta(minutes=10, seconds=1), tick=False):
        assert "This look is over" in text_of(here.portal.get(page(change)))
        assert not change.confirm("quantity", 12)


def test_a_yes_that_no_worker_took_in_ten_minutes_is_never_sent(here):
    change = here.confirmed()

    with time_machine.travel(timezone.now() + dt.timedelta(minutes=10, seconds=1), tick=True):
        assert tick() == 1

    assert ended(change) == ("stopped", "too_late")
    assert not here.patches


def test_a_look_that_nobody_answers_is_over_in_a_minute(here):
    change = here.begin()

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=61), tick=True):
        assert "No answer came within a minute" in text_of(here.portal.get(page(change)))
        tick()

    assert ended(change) == ("stopped", "later")


@pytest.mark.parametrize("how", ["killed_at", "suspended_at", "withdrawn_at", "halt"])
def test_a_stop_ends_what_was_not_sent_and_it_is_not_sent_later(here, how):
    change = here.confirmed()
    if how == "halt":
        Halt.objects.create(reason="a drill", started_by="Vera")
    else:
        Partner.objects.update(**{how: timezone.now()})
    broker.forget()

    work()
    assert ended(change) == ("stopped", "stopped")
    Partner.objects.update(killed_at=None, suspended_at=None, withdrawn_at=None)
    Halt.objects.all().delete()
    here.settle(change)
    tick()

    assert not here.patches


def test_a_partner_that_is_stopped_begins_nothing(here):
    Partner.objects.update(suspended_at=timezone.now())

    answer = here.portal.post(f"/customers/{here.customer.tenant_id}/changes", {"subscription": here.subscription.key})

    assert answer["Location"].endswith("/subscriptions/")
    assert not Change.objects.exists()


# --- What Microsoft refuses -----------------------------------------------------------------------------------------
REFUSALS = [
    (400, 900117, "fewer", "only within 168 hours"),
    (400, 800090, "fewer", "only within 168 hours"),
    (400, 2002, "range", "Microsoft does not allow that number"),
    (400, 800091, "inactive", "not active"),
    (400, 800093, "renewal", "cannot renew by itself"),
    (409, 900278, "pending", "try again after 24 hours"),
    (400, 900311, "frozen", "No more changes"),
    (403, 900121, "credit", "credit limit"),
    (403, 13605, "agreement", "An agreement is missing"),
    (403, 2032, "role", "lacks the role"),
    (404, 20003, "gone", "Partner Center does not know it"),
    (400, 424242, "rejected", "Give support the reference"),
]


def test_a_no_of_microsofts_is_said_with_who_acts(here):
    for status, code, reason, says in REFUSALS:
        here.override["refusal"] = [status, code]
        change = here.confirmed()
        work()

        assert ended(change) == ("refused", reason)
        shown = text_of(here.portal.get(page(change)))
        assert says in shown, code
        assert str(code) in shown

    assert here.effects == 0
    assert len(here.patches) == len(REFUSALS)


def test_more_than_microsoft_allows_is_its_own_no(here):
    change = here.confirmed(what="quantity", quantity="10,001")
    work()

    assert ended(change) == ("refused", "range")


def test_a_lost_mfa_is_the_connections_trouble(here):
    change = here.confirmed()
    here.world.fail("partnercenter", "mfa", method="PATCH")
    work()

    assert ended(change) == ("stopped", "stopped")
    assert AuditEvent.objects.filter(action="connection.refused").count() == 1


@pytest.mark.parametrize(("kind", "reason"), [("503", "later"), ("html", "later"), ("forbidden", "role")])
def test_a_look_that_fails_says_why(here, kind, reason):
    here.world.fail("partnercenter", kind, path="/subscriptions/")
    change = here.begin()
    work()

    assert ended(change)[1] == reason
    assert "Look again" in text_of(here.portal.get(page(change)))
    assert not AuditEvent.objects.filter(action="change.ended").exists()


def test_a_customer_that_left_is_not_known_there(here, contoso):
    change = here.begin()
    contoso.customers.removed.add(contoso.customers.find(str(here.customer.tenant_id)).index)
    work()

    assert ended(change) == ("refused", "gone")


# --- Once -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "effects_at_first"),
    [
        ("timeout-before", 0),
        ("down", 0),
        ("503", 0),
        ("500", 0),
        ("html", 0),
        ("timeout-after", 1),
        ("lost", 1),
        ("504-after", 1),
        ("truncated", 1),
    ],
)
def test_an_answer_that_never_came_leads_to_one_effect(here, kind, effects_at_first):
    here.world.fail("partnercenter", kind, method="PATCH", times=1)
    change = here.confirmed()
    work()
    assert here.effects == effects_at_first
    assert "never done twice" in text_of(here.portal.get(page(change)))

    here.settle(change)

    assert ended(change) == ("done", "")
    assert (here.effects, here.resource["quantity"]) == (1, 12)
    assert {call.headers["Ms-Requestid"] for call in here.patches} == {str(change.request_id)}
    assert len({json.dumps(call.headers.get("If-Match")) for call in here.patches}) == 1


def test_reading_that_lags_behind_leads_to_the_same_request_and_its_first_answer(here):
    here.override["slow"] = 20  # accepted at once, seen later
    here.world.fail("partnercenter", "lost", method="PATCH", times=1)
    change = here.confirmed()
    work()
    change.refresh_from_db()
    assert change.unsure_at

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=6), tick=True):
        tick()
    change.refresh_from_db()
    assert (len(here.patches), here.patches[1].detail.get("replayed")) == (2, True)
    assert change.accepted_at
    here.settle(change)

    assert ended(change) == ("done", "")
    assert here.effects == 1


def test_what_microsoft_took_and_still_works_on_is_followed_until_it_is_seen(here):
    here.override["slow"] = 40
    change = here.confirmed()
    work()
    assert "Microsoft took it and still works on it" in text_of(here.portal.get(page(change)))

    here.settle(change)

    assert ended(change) == ("done", "")
    assert (here.effects, len(here.patches)) == (1, 1)


def test_what_is_never_seen_is_given_up_after_a_day_and_a_person_looks(here):
    here.override["slow"] = 10**9
    change = here.confirmed()
    work()
    here.settle(change, hours=25, step=1800)

    assert ended(change) == ("unknown", "unseen")
    assert len(here.patches) == 1


def test_an_outage_of_minutes_sends_the_same_request_again_and_then_gives_up(here):
    here.world.fail("partnercenter", "timeout-before", method="PATCH")
    change = here.confirmed()
    work()
    here.settle(change)

    assert ended(change) == ("not_done", "lost")
    assert 3 <= len(here.patches) <= 12
    assert len({call.headers["Ms-Requestid"] for call in here.patches}) == 1
    assert max(call.at for call in here.patches) - min(call.at for call in here.patches) < 300 + 60
    assert here.effects == 0
    assert "as Microsoft tells, nothing was changed" in text_of(here.portal.get(page(change)))


def test_after_giving_up_a_person_begins_anew_under_an_id_of_its_own(here):
    here.world.fail("partnercenter", "timeout-before", method="PATCH")
    first = here.confirmed()
    work()
    here.settle(first)
    here.world.heal()

    second = here.confirmed()
    work()

    assert ended(second) == ("done", "")
    assert second.request_id != first.request_id
    assert here.effects == 1


def test_no_answer_and_then_somebody_elses_change_is_not_overwritten(here):
    here.world.fail("partnercenter", "timeout-before", method="PATCH", times=1)
    change = here.confirmed()
    work()
    here.somebody_else(quantity=33)
    here.settle(change)

    assert ended(change) == ("unknown", "overtaken")
    assert here.resource["quantity"] == 33
    assert len(here.patches) == 1


def test_a_no_whose_answer_was_lost_is_heard_the_second_time(here):
    here.override["refusal"] = [400, 800090]
    here.world.fail("partnercenter", "lost", method="PATCH", times=1)
    change = here.confirmed()
    work()
    here.settle(change)

    assert ended(change) == ("refused", "fewer")
    assert here.effects == 0


def test_throttling_is_obeyed_and_nothing_is_unsure(here):
    here.world.fail("partnercenter", "throttled", method="PATCH", times=1, retry_after=90)
    change = here.confirmed()
    work()
    change.refresh_from_db()
    assert change.state == "confirmed"
    assert dt.timedelta(seconds=80) < change.not_before - timezone.now() <= dt.timedelta(seconds=90)
    assert "Microsoft asks us to wait" in text_of(here.portal.get(page(change)))
    assert tick() == work() == 0

    here.settle(change)

    assert ended(change) == ("done", "")
    assert here.effects == 1


@pytest.mark.parametrize("kind", ["throttled", "unauthorized"])
def test_what_microsoft_answered_without_doing_it_goes_again_under_a_new_id(here, kind):
    here.world.fail("partnercenter", kind, method="PATCH", times=1, retry_after=5)
    change = here.confirmed()
    work()
    here.settle(change)

    assert ended(change) == ("done", "")
    first, second = [call.headers["Ms-Requestid"] for call in here.patches]
    assert first != second == str(change.request_id)
    sent = AuditEvent.objects.filter(action="change.sent").order_by("pk").values_list("request_id", flat=True)
    assert list(sent) == [first, second]
    assert here.effects == 1


def test_throttling_longer_than_a_yes_is_good_for_ends_it(here):
    here.world.fail("partnercenter", "throttled", method="PATCH", retry_after=7200)
    change = here.confirmed()
    work()
    here.settle(change)

    assert ended(change) == ("stopped", "too_late")
    assert len(here.patches) == 1


def test_a_change_that_waits_can_be_taken_back(here):
    here.world.fail("partnercenter", "throttled", method="PATCH", retry_after=90)
    change = here.confirmed()
    work()

    here.post(change, "back")

    assert ended(change) == ("stopped", "taken_back")


def test_what_was_sent_and_not_heard_of_can_not_be_taken_back(here):
    here.world.fail("partnercenter", "timeout-before", method="PATCH", times=1)
    change = here.confirmed()
    work()

    assert "too late to take it back" in text_of(here.post(change, "back"))
    assert ended(change) == ("", "")


def unheard_and_slow(here: Ground, then: str) -> Change:
    """Microsoft took it, nobody heard so, and reading does not show it yet; the same request met this answer then."""
    here.override["slow"] = 60
    here.world.fail("partnercenter", "lost", method="PATCH", times=1)
    here.world.fail("partnercenter", then, method="PATCH", times=1, retry_after=5)
    change = here.confirmed()
    work()
    with time_machine.travel(timezone.now() + dt.timedelta(seconds=6), tick=True):
        tick()
    assert len(here.patches) == 2
    assert len({call.headers["Ms-Requestid"] for call in here.patches}) == 1
    return change


def test_throttling_after_an_unheard_answer_does_not_make_it_unsent(here):
    change = unheard_and_slow(here, "throttled")

    assert "too late to take it back" in text_of(here.post(change, "back"))
    here.settle(change)

    assert ended(change) == ("done", "")
    assert len({call.headers["Ms-Requestid"] for call in here.patches}) == 1
    assert here.effects == 1


def test_a_no_after_an_unheard_answer_ends_it_only_once_it_was_read(here):
    change = unheard_and_slow(here, "forbidden")

    assert ended(change) == ("", "role"), "noted, and not the end of it"
    with time_machine.travel(timezone.now() + dt.timedelta(seconds=90), tick=True):
        tick()

    assert ended(change) == ("done", "")
    assert (here.effects, len(here.patches)) == (1, 2)


def test_a_claims_challenge_is_answered_within_the_same_request(here):
    here.world.fail("partnercenter", "claims", method="PATCH")
    change = here.confirmed()
    work()

    assert ended(change) == ("done", "")
    assert here.effects == 1
    assert [call.headers["Ms-Requestid"] for call in here.patches] == [str(change.request_id)] * 2


@pytest.mark.parametrize("when", ["a token comes late", "a connection opens late"])
def test_a_worker_that_was_taken_over_while_it_waited_sends_nothing_any_more(here, when):
    """Neither the id nor the mark would save us: it is the fence that does."""
    here.world.book.forgets_requests, here.world.book.enforces_etag = True, False
    change = here.confirmed()

    def another_worker_goes_on(*_seconds) -> None:
        if here.patches or when == "a connection opens late":
            here.world.latency.clear()
            adapter.while_opening = None
            here.clock.shift(61)
            assert Change.objects.get(pk=change.pk).take()

    adapter = outside.network("global").session.get_adapter("https://anywhere")
    if when == "a token comes late":
        here.world.fail("partnercenter", "claims", method="PATCH")
        here.world.latency["entra"], here.world.sleep = 60, another_worker_goes_on
    else:
        opened = itertools.count()  # first one for the look, then one for the change
        adapter.while_opening = lambda: next(opened) and another_worker_goes_on()
    work()
    late = len(here.patches)
    adapter.while_opening = None
    here.settle(change)

    assert late == (1 if when == "a token comes late" else 0)
    assert ended(change) == ("done", "")
    assert here.effects == 1


def test_a_stop_after_an_unheard_answer_is_waited_out_and_then_looked_at(here):
    here.world.fail("partnercenter", "timeout-after", method="PATCH", times=1)
    change = here.confirmed()
    work()
    Partner.objects.update(suspended_at=timezone.now())
    broker.forget()
    here.settle(change, hours=0.2)
    change.refresh_from_db()
    assert change.state == "settling"
    assert len(here.patches) == 1

    Partner.objects.update(suspended_at=None)
    with time_machine.travel(timezone.now() + dt.timedelta(hours=1), tick=True):
        tick()

    assert ended(change) == ("done", "")
    assert here.effects == 1


def test_a_worker_is_told_when_it_is_begun_and_when_it_is_confirmed(here, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks() as begun:
        change = here.begin()
    work()
    here.post(change, "choose", what="quantity", quantity="12")
    change.refresh_from_db()
    with django_capture_on_commit_callbacks() as confirmed:
        here.confirm(change)

    assert (len(begun), len(confirmed)) == (1, 1)


def test_a_change_whose_message_was_lost_is_found_by_the_clock(here):
    change = here.confirmed()
    assert changes.offer_waiting() == []

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=11), tick=True):
        assert changes.offer_waiting() == [change.pk]
        assert changes.offer_waiting() == []


def test_a_request_that_was_moved_to_another_change_does_not_open(here):
    here.world.fail("partnercenter", "timeout-before", method="PATCH")
    change = here.confirmed()
    work()
    other = uuid.uuid4()
    Change.objects.update(request_id=other)
    here.settle(change, hours=0.05)

    assert len(here.patches) == 1


# --- Afterwards -----------------------------------------------------------------------------------------------------
def test_lately_stands_beside_the_subscriptions(here):
    here.confirmed()
    work()

    shown = text_of(here.portal.get(f"/customers/{here.customer.tenant_id}/subscriptions/"))

    assert "Changed here lately" in shown
    assert "10 → 12 licences" in shown


def test_what_nobody_confirmed_goes_after_a_day_and_what_was_sent_stays(here):
    done = here.confirmed()
    work()
    here.previewed(what="quantity", quantity="15")

    with time_machine.travel(timezone.now() + dt.timedelta(hours=25), tick=True):
        assert changes.forget_old() == 1
    assert Change.objects.get() == done
    with time_machine.travel(timezone.now() + dt.timedelta(days=401), tick=True):
        assert changes.forget_old() == 1


def test_beginning_again_forgets_the_look_before(here):
    here.previewed()
    here.begin()

    assert Change.objects.count() == 1


def test_the_customers_page_leads_to_the_subscriptions(here):
    shown = here.portal.get(f"/customers/{here.customer.tenant_id}/").content.decode()

    assert f'href="/customers/{here.customer.tenant_id}/subscriptions/"' in shown
    assert Customer.objects.filter(pk=here.customer.pk).exists()
    assert SESSION_KEY in here.portal.session
