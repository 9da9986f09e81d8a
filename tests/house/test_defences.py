"""One test for each defence of the portal; each fails when that defence is taken away."""

from __future__ import annotations

import csv
import datetime as dt
import inspect
import io
import random
import re
import uuid
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.sessions.models import Session
from django.core import mail
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape
from hypothesis import given
from hypothesis import strategies as st
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.serialization import dumps, loads, unregister

from consent import invitations, mails
from consent.models import ConsentAttempt
from cpvpanel import signing
from cpvpanel.celery import app as workers
from partners import activity, jobs, lookups, presence
from partners.models import Change, Customer, Job, Lookup, Member, Partner, Run, User
from tests.conftest import SERVICE
from tests.house.test_walls import portal_patterns
from tests.house.victim import make_changes
from tests.pem import pair
from tests.pretend import Person
from tokens import actors, audit
from tokens.models import RefreshToken

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def unhurried(settings):
    """What is looked at here is not how often."""
    settings.CPV_RATE_PER_ADDRESS = settings.CPV_RATE_OVERALL = "1000000/second"


def addresses(*, link: str = "x") -> Iterator[str]:
    """Every address of the portal, with a customer and a change that are there."""
    customer, change = Customer.objects.order_by("pk").first(), Change.objects.first()
    for route, _ in portal_patterns():
        tenant_id = str(customer.tenant_id if customer else Partner.objects.get().tenant_id)
        address = route.replace("<uuid:tenant_id>", tenant_id).replace("<str:link>", link)
        address = address.replace("<uuid:change_id>", str(change.pk if change else uuid.UUID(int=1)))
        address = address.replace("<slug:kind>", "customers")
        yield "/" + re.sub(r"<int:\w+>", "1", address)


def synced(member: Person) -> Person:
    jobs.run_job(Job.objects.get(kind="customers").pk)
    owner = Member.objects.get()
    make_changes(owner.partner, owner, Customer.objects.order_by("pk")[0])
    return member


# --- Session fixation -----------------------------------------------------------------------------------------------
def test_a_session_somebody_else_prepared_is_not_the_one_that_is_signed_in(person, invited):
    person.portal.get(invited[1])
    person.leave(invited[1])
    prepared = person.portal.session.session_key
    assert prepared
    person.come_back(person.at_microsoft(person.leave(invited[1]), SERVICE))

    assert person.portal.get("/").status_code == 200
    thief = Client()
    thief.cookies["cpv_session"] = prepared
    assert thief.get("/").status_code == 302
    assert not Session.objects.filter(session_key=prepared).exists()


# --- Open redirect --------------------------------------------------------------------------------------------------
PIECES = (
    "/", "//", "\\", "/\\", "http:", "https:", "javascript:alert(1)", "data:text/html,x", "evil.test", "@evil.test",
    "user@", "%2f", "%5c", "%09", "\t", "\n", "\r", " ", "\x00", "\x0b", "?", "#", ".", "..", "customers", "testserver",
    "testserver.evil.test", "\u2028", "\u00a0", "\uff0f", ";", ":80", "[::1]", "x",
)  # fmt: skip


def as_a_browser_reads_it(address: str) -> str:
    """Where a browser on our page would go; https://url.spec.whatwg.org drops and turns some letters first."""
    bare = re.sub(r"[\t\r\n]", "", address.strip("".join(map(chr, range(33))))).replace("\\", "/")
    return urljoin("http://testserver/signin", bare)


def test_no_next_of_thousands_leads_to_another_site(person, world, unhurried):
    dice = random.Random(7)  # noqa: S311 - dice
    kept = 0
    for _ in range(1_000):
        wanted = "".join(dice.choice(PIECES) for _ in range(dice.randint(1, 5)))
        answer = person.portal.get("/signin", {"next": wanted})
        [shown] = re.findall(r'name="next" value="([^"]*)"', answer.content.decode())
        leads_to = urlsplit(as_a_browser_reads_it(shown.replace("&amp;", "&")))
        assert (leads_to.scheme, leads_to.netloc) == ("http", "testserver"), wanted
        kept += bool(shown)
    assert kept > 20
    person.leave("/signin", cloud="global", next="//evil.test")
    assert ConsentAttempt.objects.get().next_path == ""


@given(st.lists(st.sampled_from((*PIECES, "/connection/", "http://testserver")), max_size=5).map("".join))
def test_no_page_we_are_told_we_came_from_leads_to_another_site(before):
    request = RequestFactory().post("/", headers={"Referer": before.encode("latin-1", "replace").decode("latin-1")})

    path = presence.page_before(request)

    leads_to = urlsplit(as_a_browser_reads_it(path))
    assert (leads_to.scheme, leads_to.netloc) == ("http", "testserver")


# --- Mass assignment ------------------------------------------------------------------------------------------------
EXTRA = {
    "is_staff": "1", "is_superuser": "1", "staff_role": "admin", "is_active": "0", "role": "owner", "owner": "1",
    "partner": "2", "partner_id": "2", "tenant_id": "00000000-0000-4000-8000-000000000000", "cloud": "global",
    "user": "1", "user_id": "1", "username": "root", "oid": "x", "upn": "x@evil.test", "name": "Evil", "killed_at": "",
    "lapses_at": "2099-01-01", "access_days": "9999", "generation": "9", "proved_at": "9999999999",
    "sure": "yes", "doing": "x",
}  # fmt: skip


def roles() -> dict[str, Any]:
    """Who may do what, where no form may reach."""
    return {
        "users": sorted(User.objects.values_list("pk", "username", "cloud", "tid", "oid", "is_staff", "is_superuser",
                                                 "staff_role", "is_active")),
        "members": sorted(Member.objects.values_list("pk", "user", "partner", "role")),
        "partners": sorted(Partner.objects.values_list("pk", "cloud", "tenant_id", "name", "killed_at")),
    }  # fmt: skip


@pytest.mark.parametrize("role", ["owner", "auditor"])
def test_no_form_takes_more_than_it_asks_for(member, contoso, unhurried, role):
    synced(member)
    Member.objects.update(role=role)
    before, posted = roles(), 0

    for address in addresses():
        if address != "/signout" and "callback" not in address:
            answer = member.portal.post(address, EXTRA | {"days": "90", "format": "csv", "answer": "no", "reason": "r"})
            posted += answer.status_code not in (404, 405)
            assert roles() == before, address

    assert posted > (5 if role == "owner" else 2)
    assert member.portal.session["partner_id"] == Partner.objects.get().pk
    assert member.portal.session["proved_at"] < 9_999_999_999
    assert Partner.objects.get().access_days in (90, 180)


# --- CSRF -----------------------------------------------------------------------------------------------------------
FROM_MICROSOFT = {
    "/connect/callback",
    "/signin/callback",
    "/admin/microsoft/callback",
}  # believed by their state, or not at all


def test_every_form_without_our_token_is_refused(member, settings, unhurried):
    synced(member)
    settings.CPV_RESPONSE_MODE, settings.CPV_STAFF_ENTRA = "form_post", True
    another_site = Client(enforce_csrf_checks=True)
    another_site.cookies = member.portal.cookies
    before = everything()

    exempt = set()
    for address in [*addresses(), *desk_addresses()]:
        for method in ("post", "put", "patch", "delete"):
            answer = getattr(another_site, method)(address, headers={"Origin": "https://evil.test"})
            if answer.status_code != 403:
                exempt.add(address)
                assert answer.status_code in (400, 405), (method, address)
    assert exempt == FROM_MICROSOFT
    assert everything() == before


def desk_addresses() -> list[str]:
    models = [model for model in admin.site._registry if model._default_manager.exists()]
    lists = [reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist") for model in models]
    ways = [reverse(f"admin:{name}") for name in ("login", "logout", "microsoft", "microsoft_callback")]
    return [*ways, *lists]


# --- Changes by a mere look -----------------------------------------------------------------------------------------
def everything() -> dict[str, list[Any]]:
    """Every row of the database."""
    return {
        model._meta.label: sorted(model._default_manager.values_list(), key=repr)
        for model in apps.get_models(include_auto_created=True)
    }


def test_looking_changes_nothing(member, world, invited, unhurried):
    synced(member)
    _, link = invitations.invite(partner=invited[0], by=actors.SYSTEM)
    before, calls = everything(), len(world.calls)

    for address in addresses(link=link.rpartition("/")[2]):
        for method in ("get", "head", "options"):
            getattr(member.portal, method)(address)
            assert everything() == before, (method, address)
    assert len(world.calls) == calls


# --- Stored XSS -----------------------------------------------------------------------------------------------------
MARK = "xsscanary"
PAYLOADS = (
    f"<{MARK}>", f"\"><{MARK} a=\"", f"'><{MARK} a='", f"</script><{MARK}>", f"</title></textarea><{MARK}>",
    f"\" onfocus={MARK} autofocus a=\"", f"' onerror={MARK} a='", f"<img src=x onerror={MARK}>", f"<!--{MARK}-->",
    f"javascript:{MARK}", f"{{{{ {MARK} }}}}{{% debug %}}", f"&lt;{MARK}&gt;<{MARK}>", f"<svg/onload={MARK}>",
)  # fmt: skip
URL_ATTRIBUTES = {"href", "src", "action", "formaction", "data"}


class Reader(HTMLParser):
    """Reads a page as a browser does, and notes what a name must never become."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == MARK or (tag == "img" and dict(attributes).get("src") == "x"):
            self.found.append(tag)
        for name, value in attributes:
            is_active = name.startswith("on") or MARK in name
            if is_active or (name in URL_ATTRIBUTES and re.match(r"\s*(javascript|data:text)", value or "", re.I)):
                self.found.append(f"{tag} {name}={value}")

    def handle_data(self, text: str) -> None:
        self.words += text

    def handle_comment(self, text: str) -> None:
        self.found += [f"comment {text}"] if MARK in text else []


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_name_is_never_more_than_text(world, person, support, contoso, db, unhurried, payload):
    contoso.name, account = payload, contoso.account(SERVICE)
    account.name, account.upn = payload, f"{payload}@contoso.test"
    contoso.customer_overrides = {0: {"companyName": payload, "domain": payload}, 1: {"companyName": payload}}
    partner = Partner.objects.create(cloud="global", tenant_id=contoso.id, name=payload)
    _, url = invitations.invite(partner=partner, by=actors.SYSTEM, email="admin@contoso.example")
    pages = {"invitation": person.portal.get(url).content.decode()}
    person.connect(url, account.oid)
    synced(person)
    audit.record(
        "sync.asked", actor=actors.Actor(actors.ActorKind.MEMBER, label=payload), partner=partner, reason=payload
    )
    mails.send("invitation", to="a@b.example", partner=payload, url=url, context={"expires_at": None, "cloud": payload})

    searched = f"/customers/?q={quote(payload)}", f"/signin?next={quote(payload)}", f"/activity/?since={quote(payload)}"
    for address in (
        *addresses(link=url.rpartition("/")[2]),
        *searched,
        f"/connect/{quote(payload)}",
        f"/{quote(payload)}",
    ):
        pages[address] = person.portal.get(address).content.decode()
    for address in (*desk_addresses(), reverse("admin:partners_partner_change", args=[partner.pk])):
        pages[address] = support.get(address).content.decode()
    pages |= {f"mail {n}": str(html[0]) for n, sent in enumerate(mail.outbox) for html in sent.alternatives}

    read_pages = {name: read(page) for name, page in pages.items()}
    assert not {name: reader.found for name, reader in read_pages.items() if reader.found}
    showing = [name for name, page in pages.items() if escape(payload)[:30] in page]
    assert {"/", "/customers/", "/activity/", "/connection/", "invitation"} <= set(showing)
    assert any(name.startswith("mail") for name in showing)


# --- Formula injection ----------------------------------------------------------------------------------------------
STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", " =", "\u00a0=", "\ufeff+", "\x00-", "\u200b@")


@given(st.builds(str.__add__, st.sampled_from(("", *STARTS)), st.text(max_size=20)))
def test_no_cell_is_ever_taken_for_a_formula(text):
    [[cell]] = csv.reader(io.StringIO(activity._csv_row([activity._plain(text)]), newline=""), strict=True)

    assert cell in (text, f"'{text}")
    skipped = re.sub(r"^[\s\x00-\x1f\x7f\ufeff\u200b]+", "", cell)
    assert not skipped.startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert not cell.startswith(("\t", "\r", "\n"))


# --- Messages -------------------------------------------------------------------------------------------------------
@pytest.fixture
def signed():
    """Messages as production has them; gives what a worker makes of one."""
    ours = pair("ours")
    signing.use(key=ours.key, certificate=ours.certificate, trusted=ours.certificate)

    def taken(content_type: str, encoding: str, body: bytes | str) -> Any:
        return loads(body, content_type, encoding, accept=["auth"])

    yield taken
    unregister("auth")


def told(name: str, body: Any) -> None:
    """A worker is told to do this; what it cannot make sense of it drops."""
    args, kwargs, _ = body
    tasks()[name].apply(args=args, kwargs=kwargs, throw=False)


def traces() -> tuple[object, ...]:
    """What work leaves behind."""
    return (
        sorted(Run.objects.values_list("pk", "outcome")), sorted(Lookup.objects.values_list("pk", "taken_at")),
        sorted(Job.objects.values_list("pk", "claimed_until", "fence")),
    )  # fmt: skip


def test_a_forged_message_is_none(member, signed):
    """Of whoever can write to the message broker and has no key of ours."""
    body = [[], {"job_id": Job.objects.get().pk}, {}]
    theirs = pair("theirs")
    plain, pickled = dumps(body, serializer="json"), dumps(body, serializer="pickle")
    good = dumps(body, serializer="auth")
    assert signed(*good) == body
    signing.use(key=theirs.key, certificate=theirs.certificate, trusted=theirs.certificate)
    forged = dumps(body, serializer="auth")
    ours = pair("ours again")
    signing.use(key=ours.key, certificate=ours.certificate, trusted=ours.certificate)

    for message in (plain, pickled):
        with pytest.raises(ContentDisallowed):
            signed(*message)
    with pytest.raises(DecodeError):
        signed(*forged)
    assert not Run.objects.exists()


def test_a_replayed_message_does_nothing_a_second_time(member, signed, world):
    message = dumps([[], {"job_id": Job.objects.get().pk}, {}], serializer="auth")
    told("partners.run_job", signed(*message))
    assert Run.objects.get().outcome == "done"
    before, calls = traces(), len(world.calls)

    for _ in range(3):
        told("partners.run_job", signed(*message))

    assert (traces(), len(world.calls)) == (before, calls)


def test_a_signed_body_under_another_tasks_name_does_nothing(member, signed, world):
    """The signature covers the body and not the name of the task."""
    synced(member)
    lookup = lookups.ask(member=Member.objects.get(), customer=Customer.objects.all()[0], after="")
    Job.objects.update(claimed_until=None, next_run_at=timezone.now() - dt.timedelta(minutes=1))
    bodies: dict[str, dict[str, Any]] = {
        "partners.run_job": {"job_id": Job.objects.get().pk},
        "partners.look_up": {"lookup_id": str(lookup.pk)},
        "partners.make_change": {"change_id": str(Change.objects.latest("chosen_at").pk)},
        "consent.send_notice": {"notice_id": 1},
        "tokens.rotate": {"token_id": RefreshToken.objects.get().pk},
    }
    told_what = {name for name, task in tasks().items() if signature_of(task)}
    assert told_what == set(bodies), "the others are ticks: they take no word of a message, and claim what is due"
    before, calls = traces(), len(world.calls)

    for owner, kwargs in bodies.items():
        message = dumps([[], kwargs, {}], serializer="auth")
        for name in told_what - {owner}:
            told(name, signed(*message))
            assert (traces(), len(world.calls)) == (before, calls), (name, owner)


def tasks() -> dict[str, Any]:
    workers.loader.import_default_modules()
    return {name: task for name, task in workers.tasks.items() if not name.startswith("celery.")}


def signature_of(task: Any) -> list[str]:
    """What a task needs to be told."""
    wanted = inspect.signature(task.run).parameters.values()
    return [each.name for each in wanted if each.kind is each.KEYWORD_ONLY and each.default is each.empty]


def test_no_task_can_stop_or_open_anything(member):
    """So no message, however it came to be, can kill, lift a stop, or appoint anybody."""
    names = {name.partition(".")[2] for name in tasks()}

    assert "close_stopped" in names, "disables what rows say was stopped"
    assert not {name for name in names if re.search(r"kill|halt|stop(?!ped)|resume|role|staff|member", name)}
