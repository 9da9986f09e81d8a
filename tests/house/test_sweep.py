"""The walls hold at every address, against everybody: see `tests.house.sweep`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.db import DEFAULT_DB_ALIAS, connection
from django.urls import path

from tests.house import attempts, mutants, sweep, victim
from tests.house.attempts import Attempt
from tests.house.mutants import Mutant
from tests.house.sweep import Sweep
from tests.house.test_walls import portal_patterns
from tests.house.test_who_may import WHO_MAY

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("uncounted")]
ENOUGH = {"postgresql": 20_000, "sqlite": 2_000}


@pytest.fixture
def ground(world, connected_partner, settings) -> victim.Ground:
    settings.CPV_RATE_PER_ADDRESS = settings.CPV_RATE_OVERALL = "1000000/minute"
    settings.CPV_STAFF_ENTRA = True
    ground = victim.build(world, connected_partner)
    attempts.complete(ground)
    return ground


@pytest.fixture
def swept(ground) -> Iterator[Sweep]:
    with sweep.quiet() as errors:
        yield Sweep(ground, errors)


def portal(name: str) -> attempts.Route:
    return next(route for route in attempts.routes() if route.name == name)


def test_nobody_reaches_the_victim_at_any_address(ground, swept, record_property):
    began = time.process_time()

    is_sample = connection.vendor == "sqlite"
    swept.run(attempts.chosen(ground.actors, ENOUGH[connection.vendor], is_sample=is_sample))

    assert not swept.found, "\n".join(swept.found)
    tried, routes = swept.tried.total(), list(attempts.routes())
    assert tried >= ENOUGH[connection.vendor]
    assert swept.reached == set(routes)
    assert len(swept.tried) == len(ground.actors) >= 8
    record_property(
        "figure",
        f"sweep on {connection.vendor}: {tried:,} attempts by {len(ground.actors)} actors at {len(routes)} of"
        f" {len(routes)} routes, {swept.pairs:,} of them with a missing id beside, {len(ground.canaries)} canaries:"
        f" 0 holes, {time.process_time() - began:.0f} s of one core",
    )


def test_what_nobody_else_sees_its_owner_does(ground, swept):
    """Else the sweep would prove nothing: the canaries are on the pages, and the forms change the rows."""
    seen = set()
    for route in attempts.routes():
        if not route.is_desk and not route.is_open and route.name != "switch":
            came = swept.attempt(ground.owner, Attempt(route, "get", "path"))
            assert came.status in (200, 404 if route.name == "team_customers" else 405), route
            seen |= {ground.canaries[mark].model for mark in victim.MARK.findall(came.text)}
    assert seen == {
        "partners.Partner", "partners.User", "partners.AccessGrant", "partners.Customer",
        "partners.Run", "partners.Subscription", "partners.SubscribedSku", "partners.CustomerUser",
        "partners.UnprovenPrincipal", "partners.Relationship", "partners.Change", "consent.Consent",
        "consent.MemberInvitation", "tokens.AuditEvent", "tokens.Halt", "tokens.TokenUse", victim.ABOUT,
    }  # fmt: skip
    for name in (
        "team_take_back",
        "team_role",
        "team_remove",
        "team_limit",
        "ask_for_users",
        "begin_change",
        "confirm_change",
        "allow_access",
        "renewal",
    ):
        swept.attempt(ground.owner, Attempt(portal(name), "post", "path"))
        assert ground.changed(ground.owner), name
        assert not ground.changed(ground.owner), "all is as it was"


def test_a_row_of_the_victim_that_changes_or_comes_or_goes_is_noticed_in_every_table(ground):
    """Else nothing would be noticed in the sweep, either."""
    assert ground.changed(ground.owner) == []
    for model, rows in victim.of_the_partner(ground.partner):
        [row] = rows.order_by("pk")[:1]
        canary = next((of for of in ground.canaries.values() if (of.model, of.pk) == (model._meta.label, row.pk)), None)
        with victim.history_open():
            if canary is not None and model._meta.get_field(canary.column).get_internal_type() in (
                "CharField",
                "TextField",
            ):
                model._base_manager.filter(pk=row.pk).update(**{canary.column: "another"})
                assert any("changed" in said for said in ground.changed(replace(ground.owner, may_change=frozenset())))
            model._base_manager.filter(pk=row.pk)._raw_delete(DEFAULT_DB_ALIAS)
            assert f"{model._meta.label} {row.pk} is gone" in ground.changed(ground.owner)
        assert ground.changed(ground.owner) == [], "and afterwards all is as it was"


def test_the_desk_shows_a_partners_connection_and_never_its_customers(ground, swept):
    staff = next(actor for actor in ground.actors if actor.name == "staff without a grant")
    seen = set()
    for route in attempts.routes():
        if route.is_desk:
            came = swept.attempt(staff, Attempt(route, "get", "path"))
            seen |= {ground.canaries[mark].model for mark in victim.MARK.findall(came.text)}

    assert swept.found == []
    assert seen >= {"partners.Partner", "partners.Run", "consent.Consent", "tokens.RefreshToken", "tokens.AuditEvent"}
    assert victim.ABOUT not in seen
    mirrored = {
        "partners.SubscribedSku",
        "partners.CustomerUser",
        "partners.UnprovenPrincipal",
        "partners.Relationship",
    }
    assert not seen & {"partners.Customer", "partners.ChosenCustomer", "partners.Lookup", *mirrored}


def test_a_parameter_the_sweep_does_not_know_is_an_error_with_its_name():
    class Urls:
        urlpatterns = (path("things/<int:thing_id>/", lambda request: None, name="thing"),)
        url_patterns = urlpatterns

    [route] = attempts.routes(Urls)

    with pytest.raises(LookupError, match="thing_id"):
        route.address({})


@pytest.mark.soak
def test_the_whole_cross(ground, swept, record_property):
    """
    Every route, method, actor and place; and each known id under each name that a form has.

    CPV_SOAK_SECONDS ends it after that time, and the figure says how much of it was tried.
    """
    began, longest = time.monotonic(), float(os.environ.get("CPV_SOAK_SECONDS", "inf"))
    whole, routes = list(attempts.every_attempt()), set(attempts.routes())
    under_each_name = attempts.each_id_under_each_name(ground.actors, len(swept.values))
    plan = {actor: whole + under_each_name[actor] for actor in ground.actors}

    for part in attempts.in_parts(plan, 200):
        if time.monotonic() - began < longest:
            swept.run(part)

    planned, tried = sum(map(len, plan.values())), swept.tried.total()
    record_property(
        "figure",
        f"the whole sweep on {connection.vendor}: {tried:,} of {planned:,} attempts by {len(ground.actors)} actors at"
        f" {len(swept.reached)} of {len(routes)} routes ({len(whole) * len(ground.actors):,} are the whole cross of"
        f" route, method, actor and place; the others each of {len(swept.values)} ids under each of"
        f" {len(swept.names)} names), {swept.pairs:,} with a missing id beside: {len(swept.found)} holes,"
        f" {time.monotonic() - began:.0f} s",
    )
    assert not swept.found, "\n".join(swept.found)
    assert tried == planned or longest < float("inf")
    assert swept.reached == routes or tried < planned


# --- Mutation control -------------------------------------------------------------------------------------------------
FIRST_TRIED = (("get", "path"), ("post", "path"))  # what nearly every hole is seen by
THEN = (("get", "query"), ("post", "body"))


def holes(ground: victim.Ground, mutant: Mutant, *beneath: Mutant, by: list[victim.Actor] | None = None) -> list[str]:
    """What the sweep finds with this statement left out, and perhaps walls beneath, where it leads through."""
    left_out, actors = (*mutant.beside, *beneath), by or ground.actors
    if mutant.beside:
        before = tried(ground, mutant.routes, actors, *left_out)
        assert not [found for found in before if mutant.does in found], f"{mutant} is not what prevents it"
    return [found for found in tried(ground, mutant.routes, actors, mutant, *left_out) if mutant.does in found]


def tried(ground: victim.Ground, names: tuple[str, ...], actors: list[victim.Actor], *left_out: Mutant) -> list[str]:
    routes = [route for route in attempts.routes() if route.name in names]
    assert {route.name for route in routes} == set(names)
    with mutants.in_place(*left_out), sweep.quiet() as errors:
        swept = Sweep(ground, errors)
        for ways in (FIRST_TRIED, THEN):
            tries = [
                Attempt(route, method, place, turn)
                for route in routes
                for method, place in ways
                if not {(route.name, "get"), (route.name, "post")} & WHO_MAY.keys() or (route.name, method) in WHO_MAY
                for turn in range(len(attempts.ACTS) if route.is_desk and (method, place) == ("post", "path") else 1)
            ]
            if not swept.found:
                swept.run(dict.fromkeys(actors, tries), until_found=True)
    return swept.found


def test_every_act_that_takes_a_fresh_proof_is_seen_to_be_done_without_it(ground, swept):
    """One at a time: that one of them is noticed says nothing about the others."""
    [owner] = [actor for actor in ground.actors if actor.name == "the owner, whose proof is of yesterday"]
    marked = {one.name for _, one in portal_patterns() if getattr(one.callback, "freshly_signed_in", False)}
    assert marked == set(mutants.PROVEN_ANEW), "each is tried here"
    for name in mutants.PROVEN_ANEW:
        about = {"member_id": ground.ids["limited_member"]} if name == "team_choose" else {}
        plan = {replace(owner, ids=about): [Attempt(portal(name), "post", place) for place in ("path", "body")]}
        swept.run(plan)
        assert swept.found == [], name
        with mutants.in_place(mutants.FRESHLY):
            swept.run(plan)
        assert swept.found, f"{name} is done, and nobody notices"
        swept.found.clear()


@pytest.mark.postgresql  # SQLite has one layer less, and nothing else to show
def test_whatever_check_is_left_out_the_sweep_sees_it_or_a_wall_beneath_holds(ground, record_property):
    """
    What the sweep doesn't see has a layer beneath that keeps it in: it sees it once that layer is taken away, too.

    A mutant that is seen under no circumstances says that the sweep is blind there.
    """
    began = time.process_time()
    seen: set[Mutant] = set()
    blind: list[str] = []
    held: dict[str, set[Mutant]] = {"the managers": set(), "row level security": set()}
    for mutant in mutants.MUTANTS:
        if holes(ground, mutant):
            seen.add(mutant)
            continue
        if not holes(ground, mutant, mutants.MANAGERS, mutants.ROW_LEVEL_SECURITY):
            blind.append(str(mutant))
            continue
        finder = ground.actors[:1]  # has come in with both away: does one of them alone keep them out?
        if not holes(ground, mutant, mutants.ROW_LEVEL_SECURITY, by=finder):
            held["the managers"].add(mutant)
        if not holes(ground, mutant, mutants.MANAGERS, by=finder):
            held["row level security"].add(mutant)
    unseen = set(mutants.MUTANTS) - seen

    assert blind == [], "nothing notices"
    assert unseen == held["row level security"], "what the sweep cannot see is kept in by the database itself"
    assert len(mutants.MUTANTS) >= 20
    layers = {"the sweep": seen} | held
    of = {layer: len(mutants.MUTANTS if by is seen else unseen) for layer, by in layers.items()}
    said = ", ".join(f"{layer} {len(by)}/{of[layer]}" for layer, by in layers.items())
    record_property(
        "figure",
        f"mutation control on {connection.vendor}: {len(mutants.MUTANTS)}/{len(mutants.MUTANTS)} caught: {said},"
        f" {time.process_time() - began:.0f} s of one core",
    )


def test_a_mutant_of_a_statement_that_is_gone_is_an_error():
    with pytest.raises(LookupError, match="does not say once"):
        mutants.code_with(Mutant("partners.access:membership", "no such words", "", ()))
