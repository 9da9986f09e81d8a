"""
One partner whose every text is a canary, and everybody who comes to look at it without a right to.

The partner and its rows come about the real way; then each text column gets a text of its own that nothing else has.
"""

from __future__ import annotations

import datetime as dt
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.apps import apps
from django.contrib.sessions.models import Session
from django.db import DEFAULT_DB_ALIAS, connection, models
from django.test import Client
from django.utils import timezone

from consent import invitations, team
from consent.models import ConsentAttempt, Invitation, MemberInvitation, Notice
from partners import borrowed, changes, jobs, lookups, presence, second_factor
from partners import team as partners_team
from partners.access import SESSION_KEY
from partners.models import (
    AccessGrant,
    Change,
    ChosenCustomer,
    Customer,
    CustomerUser,
    Job,
    ListPage,
    ListRefusal,
    ListState,
    Lookup,
    Member,
    Pace,
    Partner,
    Relationship,
    Run,
    SubscribedSku,
    Subscription,
    UnprovenPrincipal,
    User,
)
from partners.sign_in_backends import PEOPLE
from sandbox.world import World
from tests.conftest import CONTOSO, FABRIKAM, SERVICE
from tests.desk import somebody
from tests.history import history_open
from tests.house.test_who_may import ROLES, WHO_MAY
from tests.pretend import Person
from tokens import audit, audit_chain, tenancy
from tokens.actors import SYSTEM
from tokens.models import Alarm, AuditEvent, Halt, RefreshToken

MARK = re.compile(r"zq\d{5}qz")
# Columns the product decides by, or finds things with: what stands there stays. Secret ones are canaries as they are.
KEPT = frozenset({
    "about", "action", "actor_id", "actor_kind", "audience", "cloud", "hash", "key", "kind", "lane", "lease_message",
    "limits", "missing_scopes", "outcome", "password", "pinned_version", "purpose", "refusal",
    "refusal_code", "role", "sealed_answer", "sealed_flow", "sealed_request", "secret_name", "service",
    "subscription_key", "terms_version", "username", "version", "wait_code", "wanted_claims", "what",
})  # fmt: skip
SECRET = frozenset(
    {"password", "sealed_answer", "sealed_flow", "sealed_request", "secret_name", "pinned_version", "hash"}
)
LONG = 20
ABOUT = "a line about a customer"
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
A_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Canary:
    """Where a text stands that nobody else may read."""

    model: str
    column: str
    pk: Any

    def __str__(self) -> str:
        return f"{self.model}.{self.column} of {self.pk}"


@dataclass(frozen=True)
class Actor:
    """Somebody with a session, or none; what is theirs to see and to do is named, and all else is not."""

    name: str
    session: str = ""  # its key
    kept: dict[str, Any] = field(default_factory=dict, hash=False)
    ids: dict[str, Any] = field(default_factory=dict, hash=False)  # other ones of the victim's, for their addresses
    words: dict[str, Any] = field(default_factory=dict, hash=False)  # that only they say in a form
    is_outside: bool = False  # no page of the portal is there for them
    opens: frozenset[str] | None = None  # the pages that are; None for all of their own partner's
    may_see: Callable[[Canary], bool] = lambda _canary: False
    may_see_at_the_desk: Callable[[Canary], bool] = lambda _canary: False
    may_add: frozenset[str] = frozenset()
    may_take: frozenset[str] = frozenset()
    may_change: frozenset[str] = frozenset()  # models, or single columns of them
    has_the_desk: bool = False
    is_over: bool = False  # the session is
    is_costly: bool = False  # most pages are there for them: tried where an attacker begins, and in the whole cross
    number: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return self.name


@dataclass
class Ground:
    """The victim, what is known of it, and who comes."""

    world: World
    partner: Partner
    ids: dict[str, Any]
    canaries: dict[str, Canary]
    actors: list[Actor] = field(default_factory=list)
    owner: Actor | None = None
    before: dict[str, dict[Any, dict[str, Any]]] = field(default_factory=dict)
    digest_before: str | None = None

    # --- The victim's rows ------------------------------------------------------------------------------------------
    def snapshot(self) -> dict[str, dict[Any, dict[str, Any]]]:
        return {
            model._meta.label: {row[model._meta.pk.attname]: row for row in rows.values()}
            for model, rows in of_the_partner(self.partner)
        }

    def digest(self) -> str | None:
        """What all rows of the victim come to, asked in one statement; None where only reading them tells."""
        if connection.vendor != "postgresql":
            return None
        with connection.cursor() as cursor:
            cursor.execute(*self.comes_to)
            return str(cursor.fetchone())

    @cached_property
    def comes_to(self) -> tuple[str, list[Any]]:
        """A statement that reads each row as text, whatever its columns."""
        parts: list[str] = []
        params: list[Any] = []
        for model, rows in of_the_partner(self.partner):
            of_it, given = rows.order_by().query.sql_with_params()
            whole = f"md5(string_agg(r::text, '' ORDER BY r.{model._meta.pk.column}))"
            parts.append(f"(SELECT {whole} FROM ({of_it}) r)")  # noqa: S608 - of our own models
            params += given
        return f"SELECT {', '.join(parts)}", params

    def changed(self, actor: Actor) -> list[str]:
        """What is not as it was, but for what this actor may do; afterwards everything is as it was."""
        digest = self.digest()
        if digest is not None and digest == self.digest_before:
            return []
        now, found = self.snapshot(), []
        for label, rows in now.items():
            before = self.before[label]
            if label not in actor.may_add:
                found += [f"{label} {pk} is new" for pk in rows.keys() - before.keys()]
            if label not in actor.may_take:
                found += [f"{label} {pk} is gone" for pk in before.keys() - rows.keys()]
            for pk, row in rows.items() if label not in actor.may_change else ():
                other = [name for name in row if pk in before and row[name] != before[pk][name]]
                if any(f"{label}.{name}" not in actor.may_change for name in other):
                    found.append(f"{label} {pk}: {', '.join(other)} changed")
        if now != self.before:
            self.restore(now)
        return found

    def restore(self, now: dict[str, dict[Any, dict[str, Any]]]) -> None:
        with history_open():
            tables, back = list(of_the_partner(self.partner)), []
            for model, _ in tables:
                label, before = model._meta.label, self.before[model._meta.label]
                other = [pk for pk in now[label].keys() | before.keys() if now[label].get(pk) != before.get(pk)]
                model._base_manager.filter(pk__in=other)._raw_delete(DEFAULT_DB_ALIAS)
                back += [(model, [model(**before[pk]) for pk in other if pk in before])]
            for model, rows in back:
                model._base_manager.bulk_create(rows)


def of_the_partner(partner: Partner) -> Iterator[tuple[type[models.Model], models.QuerySet[Any]]]:
    """Every table of partners with this one's rows, and its people; what others point at comes first."""
    people = Member._base_manager.filter(partner=partner).values("user")
    yield Partner, Partner._base_manager.filter(pk=partner.pk)
    yield User, User._base_manager.filter(pk__in=people)
    late = (Lookup, Change, ChosenCustomer, MemberInvitation, ConsentAttempt)
    tenants = [model for model in apps.get_models() if tenancy.owner_of(model) and model is not Partner]
    for model in sorted(tenants, key=lambda model: (model in late, model is ConsentAttempt)):
        yield model, model._base_manager.filter(**{tenancy.owner_of(model): partner.pk})


# --- The victim -----------------------------------------------------------------------------------------------------
def far_apart() -> None:
    """No two rows of different tables have the same id, and each is long enough to be told from other numbers."""
    with connection.cursor() as cursor:
        for number, model in enumerate(apps.get_models(), 1):
            table, first = model._meta.db_table, 7_000_000 + 10_000 * number
            if not isinstance(model._meta.pk, models.AutoField):
                continue
            if connection.vendor == "postgresql":
                cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, first])
            else:
                cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
                cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, first])


def build(world: World, connect: Callable[..., Partner]) -> Ground:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = off")  # nobody needs these rows after a power cut
    far_apart()
    partner = connect(customers=4, tenant_id=CONTOSO, name="Contoso")  # first: what looks at everybody's begins with it
    other = connect(customers=2, tenant_id=FABRIKAM, name="Fabrikam")
    stopped = connect(customers=1, tenant_id="7a115917-0000-4000-8000-000000000001", name="Tailspin")
    owner = partner.members.get()
    jobs.run_job(Job.objects.get(partner=partner).pk)
    customers = list(partner.customers.order_by("pk"))
    colleague, limited = (join(partner, name, "reader") for name in ("colleague", "limited"))
    Member.objects.filter(pk=limited.pk).update(role="operator", limited_at=timezone.now())
    ChosenCustomer.objects.create(partner=partner, member=limited, customer=customers[0])
    make_estate(partner, customers[1])
    for name in ("add", "drop"):
        chosen = {"add": [], "drop": [], name: [customers[1].tenant_id]}
        partners_team.choose_customers(member=limited, by=owner, **chosen)
    jobs.ensure(partner, "users")  # an owner asked for it, so that they are on pages
    Run.objects.filter(partner=partner).update(removed=1)
    change, done = make_changes(partner, owner, customers[1])
    ListState.objects.filter(partner=partner, kind="customers").update(held_at=timezone.now(), missing=1)
    opened = f"customer {customers[1].tenant_id}"
    audit.record("access.used", actor=SYSTEM, partner=partner, object=opened, opened=opened)
    changes.record("change.confirmed", change, actor=owner.user.as_actor(), **changes.in_numbers(change))

    browser = Client()
    browser.force_login(owner.user, backend=PEOPLE)
    set_session(browser, **{SESSION_KEY: partner.pk})
    visitor = Person(browser, world)
    known = make_rows(partner, owner, customers)
    known["state"] = known_state = begun(visitor)
    visitor.connect("/connection/renew", SERVICE)  # a renewal that waits for a yes
    assert RefreshToken.objects.pending(timezone.now()).filter(partner=partner).exists()
    late = timezone.now() + A_DAY
    RefreshToken.objects.filter(partner=partner, pending_until__isnull=False).update(pending_until=late)
    ConsentAttempt.objects.update(expires_at=late)

    own = Lookup.objects.create(partner=partner, member=limited, customer=customers[1])  # asked before the limit
    asked = lookups.ask(member=owner, customer=customers[1])
    for lookup in (own, asked):
        assert lookups.answer(lookup.pk)
    Lookup.objects.update(expires_at=late)
    grants = lend(partner, owner)
    audit_chain.seal()
    ids = known | {
        "partner": partner.pk, "tenant_id": customers[1].tenant_id, "customer": customers[1].pk, "look": own.pk,
        "other_look": asked.pk, "member_id": colleague.pk, "member": owner.pk, "user": owner.user_id,
        "grant": grants["waiting"].pk, "open_grant": grants["lent"].pk, "state": known_state,
        "job": Job.objects.get(partner=partner, kind="customers").pk, "change_id": change.pk,
        "done_change": done.pk, "limited_member": limited.pk,
        "run": Run.objects.filter(partner=partner).latest("pk").pk, "firm": partner.tenant_id,
    }  # fmt: skip
    ground = Ground(world, partner, ids, mark(partner, world, spared=[limited.user_id]))
    went = {"removed_at": Run.objects.get(pk=ids["run"]).finished_at, "removed_reason": "absent"}
    Customer._base_manager.filter(pk=customers[3].pk).update(**went)  # that run took it away, so it can be brought back
    people(ground, other, stopped, limited, grants, chosen=customers[0].pk, owner=owner)
    ground.before, ground.digest_before = ground.snapshot(), ground.digest()
    empty = [label for label, rows in ground.before.items() if not rows]
    assert not empty, f"the victim has no row of {empty}"
    world.calls.clear()
    return ground


def join(partner: Partner, name: str, role: str) -> Member:
    return Member.objects.create(user=User.objects.create_user(name), partner=partner, role=role)


def begun(visitor: Person) -> str:
    """The state of a trip to Microsoft that has not ended."""
    return parse_qs(urlsplit(visitor.leave("/connection/renew")).query)["state"][0]


def make_rows(partner: Partner, owner: Member, customers: list[Customer]) -> dict[str, Any]:
    """What the journeys leave in the tables of few; and links that are over, which anybody may have kept."""
    waiting, _ = team.invite(email="open@contoso.test", role="reader", by=owner)
    ended, ended_link = team.invite(email="ended@contoso.test", role="reader", by=owner)
    team.take_back(invitation=ended, by=owner)
    late, late_link = invitations.invite(partner=partner, by=SYSTEM, email="late@contoso.test")
    Invitation.objects.filter(pk=late.pk).update(expires_at=timezone.now() - A_DAY)
    token = partner.refresh_tokens.get()
    Notice.objects.create(partner=partner, token=token, kind=Notice.Kind.ENDING, to="owner@contoso.test")
    alarm = Alarm.objects.create(partner=partner, kind=Alarm.Kind.UNREADABLE, cloud="global", code="unreadable")
    long_ago = timezone.now() - A_DAY
    Pace.objects.get_or_create(partner=partner, service="partnercenter")
    halt = Halt.objects.create(
        partner=partner, reason="a drill", started_by="Vera", started_at=long_ago, ended_by="Vera", ended_at=long_ago
    )
    return {
        "invitation_id": waiting.pk, "invitation": late.pk, "join_link": ended_link.rpartition("/")[2],
        "connect_link": late_link.rpartition("/")[2], "alarm": alarm.pk, "halt": halt.pk, "token": token.pk,
    }  # fmt: skip


def make_estate(partner: Partner, customer: Customer) -> None:
    """What is mirrored beside the customers themselves."""
    of_customer: dict[str, Any] = {"partner": partner, "customer": customer}
    row = {**of_customer, "content_hash": uuid.uuid4().bytes, "removed_reason": "absent"}
    Subscription.objects.create(**row, key="subscription", subscription_id="SUBSCRIPTION")
    SubscribedSku.objects.create(**row, key="sku", sku_id="SKU")
    CustomerUser.objects.create(**row, key="user", user_id="USER", name="Adele", sign_in_name="adele@customer.test")
    UnprovenPrincipal.objects.create(partner=partner, key="principal", content_hash=uuid.uuid4().bytes)
    Relationship.objects.create(
        partner=partner, key="relationship", relationship_id="RELATIONSHIP", customer_tenant_id=customer.tenant_id,
        content_hash=uuid.uuid4().bytes, status="active", lapses_at=timezone.now() + A_DAY,
    )  # fmt: skip
    ListPage.objects.get_or_create(
        partner=partner, kind="customers", number=1, defaults={"digest": uuid.uuid4().bytes, "keys": uuid.uuid4().bytes}
    )
    ListState.objects.get_or_create(partner=partner, kind="customers")
    ListRefusal.objects.create(**of_customer, kind="subscriptions", code="900308")


def make_changes(partner: Partner, owner: Member, customer: Customer) -> tuple[Change, Change]:
    """One that its member has looked at and chosen, and not confirmed; and one that is done, which others see, too."""
    late, chosen = timezone.now() + A_DAY, {
        "partner": partner, "customer": customer, "member": owner, "asked_by": "the owner", "what": "quantity",
        "subscription_id": "SUBSCRIPTION", "subscription_key": "other", "title": "Basic", "wanted": 12,
        "before": {"quantity": 10, "auto_renew": True}, "after": {}, "sealed_request": "{}" * LONG,
    }  # fmt: skip
    now = {"read_at": late, "chosen_at": late}
    then = dict.fromkeys(("read_at", "chosen_at", "confirmed_at", "sent_at", "ended_at"), timezone.now())
    return Change.objects.create(**chosen, **now), Change.objects.create(**chosen, **then, outcome="done")


def lend(partner: Partner, owner: Member) -> dict[str, AccessGrant]:
    """
    Looks at the victim's pages: in force, waiting, ended, over, and one in force for whoever shows no code.

    "orphaned" was allowed by an owner who is an auditor by now.
    """
    grants, allowed_one = {}, join(partner, "allowed a look", "owner")
    for name in ("lent", "waiting", "ended", "over", "bare", "fallen", "orphaned"):
        user = somebody("support", f"{name} support")
        grants[name] = borrowed.ask(partner=partner, by=user, reason="names are missing")
        if name != "waiting":
            borrowed.approve(grant=grants[name], by=allowed_one.user if name == "orphaned" else owner.user)
    Member.objects.filter(pk=allowed_one.pk).update(role="auditor")
    borrowed.end(grant=grants["ended"], by=owner.user)
    gone = timezone.now() - dt.timedelta(minutes=5)
    AccessGrant.objects.filter(pk=grants["over"].pk).update(approved_at=gone, ends_at=gone)
    return grants


def mark(partner: Partner, world: World, *, spared: list[int]) -> dict[str, Canary]:
    """Write a canary into each text column; all of them, and what is secret anyway."""
    canaries: dict[str, Canary] = {}
    for customer in Customer._base_manager.filter(partner=partner):
        canaries[str(customer.tenant_id)] = Canary("partners.Customer", "tenant_id", customer.pk)
    for model, rows in of_the_partner(partner):
        for row in rows.exclude(pk__in=spared) if model is User else rows:
            values: dict[str, Any] = {}
            if model is AuditEvent and (ids := ids_about_a_customer(row, canaries)):
                text = f"zq{len(canaries):05}qz"
                canaries |= {text: Canary(ABOUT, "object", row.pk) for text in ids - canaries.keys()}
                if row.action != "access.used":  # of these the page stays, without its customer
                    canaries[text] = Canary(ABOUT, "detail", row.pk)
                    with history_open():
                        model._base_manager.filter(pk=row.pk).update(detail={**row.detail, "canary": text})
                continue
            for column in model._meta.concrete_fields:
                value, where = getattr(row, column.attname), Canary(model._meta.label, column.name, row.pk)
                text = f"zq{len(canaries):05}qz"
                if isinstance(column, models.BinaryField):
                    canaries[bytes(value).hex()] = where
                elif column.choices or column.name in KEPT:
                    if column.name in SECRET and len(value) >= LONG:
                        canaries[value] = where
                elif isinstance(column, models.JSONField):
                    values[column.attname] = [*value, text] if isinstance(value, list) else {**value, "canary": text}
                elif isinstance(column, models.CharField | models.TextField) and (column.max_length or 99) >= len(text):
                    is_mail = isinstance(column, models.EmailField)
                    values[column.attname] = f"{text}@contoso.test" if is_mail else text
                else:
                    continue
                if column.attname in values:
                    canaries[text] = where
            if values:
                with history_open():
                    model._base_manager.filter(pk=row.pk).update(**values)
    for kind, value in world.issued:
        if len(value) >= LONG:
            canaries[value] = Canary("secret", kind, "")
    return canaries


def ids_about_a_customer(line: AuditEvent, customers: dict[str, Canary]) -> set[str]:
    """The ids that a line of the audit has, where one of them is a customer's."""
    ids = set(ID.findall(f"{line.object} {line.detail}"))
    return ids if ids & customers.keys() else set()


# --- Who comes ------------------------------------------------------------------------------------------------------
def set_session(client: Client, **values: Any) -> None:
    session = client.session
    session.update(values)
    session.save()


BACK = frozenset({  # of whoever may bring back what a run took away
    "partners.Customer.removed_at", "partners.Customer.removed_reason", "partners.Customer.missing_since",
    "partners.Run.brought_back_at",
})  # fmt: skip
ATTEMPTS = frozenset({"consent.ConsentAttempt"})  # of a member to prove who they are


def comes(name: str, user: User | None = None, *, proven: bool = False, **options: Any) -> Actor:
    """An actor with a session of the product's own kind; what is no option goes into the session."""
    fields = {key: options.pop(key) for key in list(options) if key in Actor.__dataclass_fields__}
    if user is None:
        return Actor(name, **fields)
    client = Client()
    client.force_login(user, backend=PEOPLE)
    if proven:
        device = user.totpdevice_set.get()
        options["otp_device_id"] = device.persistent_id
    # They proved themselves just now, so that no act is left out for the lack of it; and however long the sweep takes,
    # no request writes down that they were seen, which would look like a session of another kind.
    now = int(time.time())
    set_session(client, **{presence.PROVED: now + 3600, presence.MFA: {}, presence.SEEN: now + 3600} | options)
    return Actor(name, session=client.session.session_key or "", kept=dict(client.session.items()), **fields)


SHOWN_TO_OPERATORS = (
    "partners.Partner", "partners.Customer", "partners.Run", "partners.User", "partners.Subscription",
    "partners.SubscribedSku", "partners.CustomerUser", "partners.Relationship", "partners.Lookup", "consent.Consent",
)  # fmt: skip


def opened_to(role: str) -> frozenset[str]:
    """The names of the addresses that a role may use."""
    return frozenset(name for (name, _), told in WHO_MAY.items() if told[ROLES.index(role)] != HTTPStatus.NOT_FOUND)


def of(*labels: str) -> Callable[[Canary], bool]:
    return lambda canary: canary.model in labels


def people(
    ground: Ground, other: Partner, stopped: Partner, limited: Member, grants: Any, *, chosen: int, owner: Member
) -> None:
    partner = ground.partner
    gone = join(stopped, "owner of one that left", "owner")
    gone_partner = Partner.objects.create(
        cloud="global", tenant_id=uuid.uuid4(), name="Gone", offboarded_at=timezone.now()
    )
    Member.objects.filter(pk=gone.pk).update(partner=gone_partner)
    former = User.objects.create_user("former")
    both = join(partner, "both", "reader").user
    Member.objects.create(user=both, partner=other, role="reader")
    desk_member = join(partner, "desk and member", "owner").user
    User.objects.filter(pk=desk_member.pk).update(is_staff=True)
    desk_member.refresh_from_db()
    early = somebody("support", "lent by one that was stopped")
    early_grant = borrowed.ask(partner=stopped, by=early, reason="names are missing")
    borrowed.approve(grant=early_grant, by=stopped.members.get(role="owner", user__upn__gt="").user)
    Partner.objects.filter(pk=stopped.pk).update(suspended_at=timezone.now())
    User.objects.filter(username="fallen support").update(staff_role="auditor")
    own_look = somebody("support", "lent by another")
    own_grant = borrowed.ask(partner=other, by=own_look, reason="names are missing")
    borrowed.approve(grant=own_grant, by=other.members.get(role="owner").user)
    somebody("support", "without a look")
    no_role = somebody("support", "without a role")
    User.objects.filter(pk=no_role.pk).update(staff_role="")
    entra = User.objects.create_user(
        "from Entra", is_staff=True, staff_role="admin", cloud="global", tid=uuid.uuid4(), oid=uuid.uuid4()
    )

    at = lambda partner: {SESSION_KEY: partner.pk}  # noqa: E731
    look = lambda grant: {borrowed.SESSION_KEY: grant.pk}  # noqa: E731
    by_microsoft = lambda user: {second_factor.AT_MICROSOFT: user.pk}  # noqa: E731
    named = lambda name: User.objects.get(username=name)  # noqa: E731
    # What the desk shows of any partner; customers, questions about them and whatever is secret it shows to nobody.
    hidden = (
        "partners.Customer",
        "partners.ChosenCustomer",
        "partners.Lookup",
        "partners.Change",
        "partners.Subscription",
        "partners.SubscribedSku",
        "partners.CustomerUser",
        "partners.UnprovenPrincipal",
        "partners.Relationship",
        "partners.ListPage",
        "partners.ListRefusal",
        ABOUT,
        "secret",
    )
    secret = (
        "password", "link_hash", "state_hash", "browser_hash", "sealed_flow", "content_hash", "hash", "digest",
        "next_path", "cursor",
    )  # fmt: skip
    desk = {
        "may_see_at_the_desk": lambda canary: canary.model not in hidden and canary.column not in secret,
        "may_add": frozenset({"consent.Invitation", "tokens.AuditEvent", "partners.AccessGrant"}),
        "may_change": BACK | {"partners.Job", "partners.ListState"}, "has_the_desk": True, "is_outside": True,
    }  # fmt: skip
    # What an owner does without proving anew; whatever else changes is what takes a fresh proof.
    unproven = {
        "is_costly": True,
        "words": {"sure": "yes"},  # others would end the access of their own partner, and the looks that come to it
        "may_see": lambda _canary: True,
        "opens": opened_to("owner") - {"export_activity", "export_evidence"} | {"admin_consent"},
        "may_add": ATTEMPTS | {"tokens.AuditEvent", "partners.Change", "partners.Lookup"},
        "may_take": frozenset({"partners.Lookup"}),  # an answer is seen once
        "may_change": BACK | frozenset({
            "partners.Job", "partners.ListState.is_settled", "partners.Change.chosen_at",
            "partners.AccessGrant.refused_at", "partners.AccessGrant.ended_at", "consent.MemberInvitation.revoked_at",
        }),
    }  # fmt: skip
    long_ago = {presence.PROVED: int(time.time()) - 24 * 3600}
    idle = {presence.SEEN: int(time.time()) - presence.IDLE - 60}
    facts = of("partners.Partner", "consent.Consent", "tokens.RefreshToken", "partners.Run", "partners.User")
    lent = desk | {
        "is_outside": False, "opens": borrowed.OPENS,
        "may_see": lambda canary: (
            facts(canary) or canary.model == "partners.Customer"
            or (canary.model, canary.pk) == ("partners.AccessGrant", grants["lent"].pk)
        ),
    }  # fmt: skip
    ground.actors = [
        comes("anonymous", is_outside=True),
        comes("another partner's reader", join(other, "their reader", "reader").user, **at(other)),
        comes("another partner's owner", other.members.get(role="owner", user__upn__gt="").user, **at(other)),
        comes("an ex-member", former, is_outside=True, **at(partner)),
        comes("a suspended partner's owner", stopped.members.get(role="owner").user, **at(stopped)),
        comes("an owner of a partner that left", gone.user, is_outside=True, **at(gone_partner)),
        comes("staff without a grant", named("without a look"), proven=True, **look(grants["lent"]), **desk),
        comes("staff whose look was ended", named("ended support"), proven=True, **look(grants["ended"]), **desk),
        comes(
            "staff whose hour is over, and whose proof is of yesterday", named("over support"), proven=True,
            **look(grants["over"]), **long_ago, **desk | {"may_add": desk["may_add"] - {"consent.Invitation"}},
        ),
        comes(
            "staff whose look was at one that was stopped", early, proven=True, is_costly=True,
            **look(early_grant), **desk,
        ),
        comes(
            "staff who became an auditor during their look", named("fallen support"), proven=True,
            **look(grants["fallen"]), **desk | {"may_add": frozenset(), "may_change": frozenset(), "is_costly": True},
        ),
        comes(
            "staff whose look was allowed by who is no owner now", named("orphaned support"), proven=True,
            is_costly=True, **look(grants["orphaned"]), **desk,
        ),
        comes("staff without a second factor", named("bare support"), is_outside=True, **look(grants["bare"])),
        comes("staff whose role was taken away", no_role, proven=True, is_outside=True),
        comes("staff from Entra, proven as another", entra, is_outside=True, **by_microsoft(own_look)),
        comes("staff lent a look at another", own_look, proven=True, **look(own_grant), **desk | {"is_outside": False}),
        comes("staff lent a look at the victim", named("lent support"), proven=True, **look(grants["lent"]), **lent),
        comes("staff who is a member", desk_member, is_outside=True, **at(partner)),
        comes("a member of both, at the other", both, **at(other), may_see=of("partners.Partner")),
        comes("an expired session", owner.user, is_outside=True, is_over=True, **at(partner)),
        comes("a session that was idle", owner.user, is_outside=True, **at(partner), **idle),
        comes("the owner, whose proof is of yesterday", owner.user, **at(partner), **long_ago, **unproven),
        comes(
            "another operator of the partner", join(partner, "another operator", "operator").user, **at(partner),
            is_costly=True,
            may_see=lambda canary: canary.model in SHOWN_TO_OPERATORS or canary.pk == ground.ids["done_change"],
            may_add=ATTEMPTS | {"tokens.AuditEvent", "partners.Change", "partners.Lookup"},
            may_change=BACK | {"partners.Job", "partners.ListState"},
            opens=opened_to("operator") - {"change", "choose_change", "confirm_change", "take_back_change"},
        ),
        comes(
            "a member limited to another customer", limited.user, **at(partner),
            ids={"change_id": ground.ids["done_change"]},
            may_see=lambda canary: facts(canary) or (canary.model == "partners.Customer" and canary.pk == chosen),
            may_add=ATTEMPTS | {"tokens.AuditEvent"}, may_change=frozenset({"partners.Job"}),
            opens=frozenset({
                "home", "progress", "connected", "sync_now", "customers", "relationships", "jobs", "job_act",
                "connection", "permissions", "signin_again",
            }),
        ),
        comes(
            "an auditor, who sees no customer", join(partner, "auditor", "auditor").user, **at(partner),
            may_see=lambda canary: canary.model not in hidden, may_add=ATTEMPTS | {"tokens.AuditEvent"},
            opens=frozenset({
                "home", "progress", "connected", "connection", "permissions", "activity", "export_activity",
                "evidence", "export_evidence", "signin_again",
            }),
        ),
    ]  # fmt: skip
    ground.actors = [replace(actor, number=number) for number, actor in enumerate(ground.actors)]
    [over] = [actor for actor in ground.actors if actor.is_over]
    Session.objects.filter(session_key=over.session).update(expire_date=timezone.now() - A_DAY)
    ground.owner = comes("the owner", owner.user, **at(partner), may_see=lambda _canary: True)
