"""
Authorization statements of the product, each with what it looks like when somebody has left it out.

A mutant is put in place in memory: the module is compiled anew with the one statement changed, and the living functions
take on the new code, wherever they are wrapped or referred to. Nothing is written, and all is as it was afterwards.
"""

from __future__ import annotations

import ast
import gc
import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

ROOMS = ("cpvpanel", "consent", "partners", "tokens")


@dataclass(frozen=True)
class Mutant:
    """One statement left out, and the addresses that lead through it."""

    function: str  # "module:Class.function.inner"
    was: str
    becomes: str
    routes: tuple[str, ...]
    beside: tuple[Mutant, ...] = ()  # other statements that have to be left out before this one is asked at all
    does: str = ""  # what is found then and not before

    def __str__(self) -> str:
        return f"{self.function}: {self.was}"


@cache
def code_with(mutant: Mutant) -> tuple[str, str, CodeType]:
    """
    The file, the function's name in it, and its code with the statement changed.

    :raises LookupError: the product says it differently by now: bring the list of mutants up to date
    """
    module_name, _, name = mutant.function.partition(":")
    path = str(importlib.import_module(module_name).__file__)
    lines = Path(path).read_text().splitlines(keepends=True)
    node: Any = ast.parse("".join(lines))
    for part in name.split("."):
        inside = [child for child in node.body if getattr(child, "name", "") == part]
        if len(inside) != 1:
            raise LookupError(f"{mutant.function} is gone")
        [node] = inside
    before, text, after = lines[: node.lineno - 1], lines[node.lineno - 1 : node.end_lineno], lines[node.end_lineno :]
    if "".join(text).count(mutant.was) != 1:
        raise LookupError(f"{mutant.function} does not say once: {mutant.was}")
    changed = "".join([*before, "".join(text).replace(mutant.was, mutant.becomes), *after])
    [code] = [code for code in _inside(compile(changed, path, "exec")) if _name(code) == name]
    return path, name, code


def _inside(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _inside(constant)


def _name(code: CodeType) -> str:
    return code.co_qualname.replace(".<locals>", "")


@cache
def _living() -> dict[tuple[str, str], list[FunctionType]]:
    """Every function of the product by file and name: methods, what decorators hold, closures of each page."""
    found: dict[tuple[str, str], list[FunctionType]] = {}
    gc.unfreeze()  # what the product froze would not be among the objects
    for there in gc.get_objects():
        if type(there) is FunctionType and str(there.__module__).partition(".")[0] in ROOMS:
            found.setdefault((there.__code__.co_filename, _name(there.__code__)), []).append(there)
    return found


@contextmanager
def in_place(*mutants: Mutant) -> Iterator[None]:
    """The product with these statements left out."""
    with ExitStack() as stack:
        for mutant in mutants:
            path, name, code = code_with(mutant)
            living = _living().get((path, name))
            assert living, mutant
            for function in living:
                stack.callback(setattr, function, "__code__", function.__code__)
                function.__code__ = code
        yield


# --- The layers beneath ---------------------------------------------------------------------------------------------
MANAGERS = Mutant(
    "tokens.tenancy:_of_the_scope",
    "return rows.filter(partner=open_now.partner_id) if open_now.role == TENANT else rows",
    "return rows",
    (),
)
ROW_LEVEL_SECURITY = Mutant(
    "tokens.tenancy:_take_on", 'wants = (wanted.role, str(wanted.partner_id or ""))',
    "wants = _OF_THE_LOGIN", (),
)  # fmt: skip

# --- The statements -------------------------------------------------------------------------------------------------
PAGES = ("home", "customers", "connection", "activity", "team")
LOOKED = ("home", "customers", "connected", "permissions")
PROVEN_ANEW = (
    "allow_access", "choose_kind", "confirm_change", "export_activity", "choose_period", "revoke", "team_invite",
    "team_role", "team_remove", "team_limit", "team_choose", "renewal", "export_evidence", "accept_removals",
)  # fmt: skip
FRESHLY = Mutant(  # at one of them; a test of its own tries each
    "partners.presence:freshly_signed_in.decorated.checked", "is_fresh(request.session)", "True", ("choose_period",)
)
OTHERS_CHANGES = Mutant(
    "partners.views_changes:_change", "theirs, customer__tenant_id", "customer__tenant_id", ("change", "choose_change")
)
MUTANTS = (
    # Who passes the wall
    Mutant("partners.access:partner_required.checked", 'or not member.may(getattr(view, "power", None))', "", PAGES),
    Mutant(
        "partners.access:membership", "mine.filter(partner_id=chosen_partner(request)).first()", "mine.first()", PAGES
    ),
    Mutant("partners.access:membership", "or request.user.is_staff", "", PAGES),
    Mutant("partners.access:places", "user_id=user_id, ", "", PAGES),
    Mutant("partners.access:places", ", partner__offboarded_at=None", "", PAGES),
    Mutant("partners.models.people:Member.may", "power is None or power in self.powers", "True", PAGES),
    Mutant("partners.views_switch:switch", "in mine if", "in type(mine[0])._base_manager.all() if", ("switch",)),
    Mutant("consent.views:_own_partner", "or not member.may(Power.CONSENT)", "", ("admin_consent",)),
    # Which customers
    Mutant("partners.models.people:Member.customers", "self.limited_at is None", "self.pk", ("customers", "customer")),
    Mutant("partners.views:customers", "request.member.customers", "partner.customers.all()", ("customers",)),
    Mutant(
        "partners.views:customer", "request.member.customers.present()", "partner.customers.present()", ("customer",)
    ),
    Mutant(
        "partners.views:customer",
        "request.member.customers.present()",
        "partner.customers.model.objects.present()",
        ("customer",),
    ),
    Mutant(
        "partners.views:ask_for_users",
        "request.member.customers.present()",
        "request.partner.customers.present()",
        ("ask_for_users",),
    ),
    Mutant("partners.views_changes:_change", "if not request.member.sees_every_customer:", "if False:", ("change",)),
    Mutant(
        "partners.views_jobs:accept_removals",
        "if not request.member.sees_every_customer:",
        "if False:",
        ("accept_removals",),
    ),
    Mutant("partners.lookups:find", "if not member.sees_every_customer:", "if False:", ("customer",)),
    # Whose rows, within a partner
    Mutant("partners.overview:overview", "partner.runs.annotate", "Run.objects.annotate", ("home", "progress")),
    Mutant("partners.standing:current_token", ".filter(partner=partner)", "", ("home", "connection", "permissions")),
    Mutant(
        "partners.activity:_found",
        "partner.audit_events.all()",
        "AuditEvent.objects.all()",
        ("activity", "export_activity"),
    ),
    Mutant("consent.views_team:_member", "request.partner.members", "Member.objects", ("team_role", "team_customers")),
    Mutant("consent.views_team:_team_page", "request.partner.members", "Member.objects", ("team",)),
    Mutant(
        "consent.views_team:_team_page",
        "request.partner.member_invitations.open()",
        "MemberInvitation.objects.open()",
        ("team",),
    ),
    Mutant(
        "consent.views_team:take_back",
        "request.partner.member_invitations",
        "MemberInvitation.objects.all()",
        ("team_take_back",),
    ),
    Mutant("partners.views_borrowed:access", "request.partner.access_grants", "AccessGrant.objects", ("access",)),
    Mutant(
        "partners.views_borrowed:_named",
        "request.partner.access_grants",
        "AccessGrant.objects",
        ("allow_access", "end_access"),
    ),
    Mutant("consent.flow:renewal_of", "partner.refresh_tokens.pending", "RefreshToken.objects.pending", ("renewal",)),
    OTHERS_CHANGES,
    Mutant(
        "partners.changes:_refuse_others",
        "if change.member_id != by.pk:",
        "if False:",
        ("choose_change", "confirm_change"),
        beside=(OTHERS_CHANGES,),
        does="partners.Change",
    ),
    # How long, and how lately
    Mutant("cpvpanel.sessions:_ended", "    if why:", "    if False:", PAGES),
    FRESHLY,
    Mutant("partners.desk_acts:confirmed", "not presence.is_fresh(request.session)", "False", ("send_link",)),
    # The vendor's staff
    Mutant("partners.borrowed:stand_in", ", asked_by=request.user.pk", "", LOOKED),
    Mutant("partners.borrowed:stand_in", " or not is_proven_staff(request)", "", LOOKED),
    Mutant("partners.borrowed:stand_in", " or page not in OPENS", "", LOOKED),
    Mutant("partners.models.grants:AccessGrantQuerySet.in_force", ", ended_at=None)", ")", LOOKED),
    Mutant(
        "partners.models.grants:AccessGrantQuerySet.in_force", "ends_at__gt=now, ", "ends_at__isnull=False, ", LOOKED
    ),
    Mutant(
        "partners.models.grants:AccessGrantQuerySet._worth_it",
        "asked_by__staff_role__in=roles_that_may(Act.ASK_FOR_A_LOOK),",
        "",
        LOOKED,
    ),
    Mutant("partners.models.grants:AccessGrantQuerySet._worth_it", "partner__suspended_at=None,", "", LOOKED),
    Mutant("partners.models.grants:AccessGrantQuerySet._allowed_still", "by_staff | by_owner, ", "", LOOKED),
    Mutant("partners.evidence:_stops", "| Q(partner=partner)", "| Q(partner__isnull=False)", ("evidence",)),
    Mutant("partners.job_admin:_act", "Page(may_do", "Page(Act.LOOK", ("try_again", "pause_job")),
    Mutant("partners.job_admin:_bring_back", "Page(Act.TRY_AGAIN", "Page(Act.LOOK", ("bring_back",)),
    Mutant("partners.borrowed:_still_open", "not may_approve(by, grant)", "False", ("borrowed_access",)),
    Mutant("partners.borrowed:end", "not is_own and not is_owner(by, grant)", "False", ("borrowed_access",)),
    Mutant("partners.desk_acts:confirmed", " or not may(user, page.act)", "", ("stop_partner", "stop_everything")),
    Mutant(
        "cpvpanel.desk:Desk.has_permission",
        " and second_factor.was_shown(request)",
        "",
        ("index", "partners_partner_changelist"),
    ),
    Mutant(
        "cpvpanel.desk:Desk.has_permission",
        "bool(acts_of(request.user)) and ",
        "",
        ("index", "partners_partner_changelist"),
    ),
    Mutant(
        "partners.second_factor:was_shown",
        "return is_from_entra and request.session.get(AT_MICROSOFT) == user.pk",
        "return is_from_entra",
        ("index", "partners_partner_changelist"),
    ),
    # Links, and the way back from Microsoft
    Mutant("consent.invitations:usable", "if invitation.is_expired:", "if False:", ("connect",)),
    Mutant("consent.team:usable", " or invitation.revoked_at", "", ("join",)),
    Mutant("consent.attempts:_why_not", "if not browser or not hmac", "if False and not hmac", ("callback",)),
)
