"""Lets a partner that was stopped for security connect again; the stop of everything takes two people."""

from __future__ import annotations

import getpass
import sys
from typing import Any

from django.core.management.base import CommandParser

from partners import lifecycle, lifting
from partners.commands import PanelCommand
from partners.models import LiftRequest, User
from partners.standing import current_token, standing
from tokens import actors

STEPS = ("request", "approve")


class Command(PanelCommand):
    """Exit code 0: lifted, or asked for; 1: nothing was stopped, or somebody else must act; 2: wrong use."""

    help = "Lift a stop. Secrets stay disabled: work goes on after a new consent."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", metavar="TID|request|approve", nargs="?", help="a tenant id; or a step, with --all")
        parser.add_argument("--all", action="store_true", help="the stop of everything: one requests, another approves")
        parser.add_argument("--reason", default="", help="why; it goes into the audit (approving needs none)")
        parser.add_argument("--as", dest="person", metavar="USER", help="who of security acts, with --all")

    def handle(self, *args: Any, what: str | None, reason: str, **options: Any) -> None:
        if options["all"]:
            self._all(what, reason, options["person"])
        elif not what or what in STEPS or options["person"]:
            self.wrong_use("Name the partner's tenant id; or --all request, then --all approve, each with --as USER.")
        else:
            self._one(what, reason)

    def _one(self, tenant_id: str, reason: str) -> None:
        partner, reason = self.partner(tenant_id), self.reason(reason)
        if not lifecycle.unkill(partner=partner, by=actors.command("unkill"), reason=reason):
            self.needs_a_person(f"{partner.name} was not stopped for security; `manage.py partners` tells its state.")
        stands = standing(partner, current_token(partner))
        self.answer(
            {"partner": str(partner.tenant_id), "state": stands.state},
            [f"{partner.name}: {stands.title}. {stands.reason} {stands.action}"],
        )

    def _all(self, step: str | None, reason: str, person: str | None) -> None:
        if step not in STEPS or not person:
            self.wrong_use("Two people: --all request --reason R --as USER, then --all approve --as ANOTHER.")
        if step == "request":
            reason = self.reason(reason)
        user = User.objects.filter(username=person, is_staff=True).first()
        if user is None:
            self.wrong_use(f"Nobody of the staff is called {person}.")
        code = self._code(person)
        try:
            asked = lifting.request(by=user, code=code, reason=reason) if step == "request" else None
            asked = asked or lifting.approve(by=user, code=code)
        except lifting.Refused as why:
            self.needs_a_person(str(why))
        self.answer(_document(asked), _lines(asked))

    def _code(self, person: str) -> str:
        """Typed or piped, so that it stands neither in a shell's history nor among the running processes."""
        if sys.stdin.isatty():
            return getpass.getpass(f"Code of {person}: ")
        code = sys.stdin.readline().strip()
        if not code:
            self.wrong_use(
                f"The code of {person} is missing: the newest six digits, or a recovery code. Type it when asked at a"
                " terminal, or send it on standard input."
            )
        return code


def _document(asked: LiftRequest) -> dict[str, Any]:
    return {
        "state": "asked" if asked.approved_at is None else "lifted",
        "asked_by": asked.asked_by.username,
        "approved_by": asked.approved_by.username if asked.approved_by else None,
        "until": asked.ends_at,
    }


def _lines(asked: LiftRequest) -> list[str]:
    if asked.approved_at is None:
        return [f"Asked. Another one of security must approve until {asked.ends_at:%H:%M} UTC."]
    return ["The stop of everything is lifted. Partners connect anew, each for itself: what was disabled stays so."]
