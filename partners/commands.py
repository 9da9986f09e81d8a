"""What our management commands share: one JSON document for scripts, a few lines for people, and the exit code."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser, SystemCheckError
from django.core.serializers.json import DjangoJSONEncoder

from partners.models import Partner
from tokens import tenancy, watch

NEEDS_A_PERSON, WRONG_USE = 1, 2  # exit codes; 0 is fine


class PanelCommand(BaseCommand):
    """
    Takes `--json`: then stdout carries exactly one JSON document, also when something is wrong.

    Messages for people go to stderr. Exit code 0: fine; 1: something needs a person; 2: wrong use or configuration.
    """

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        self._is_process = True
        try:
            super().run_from_argv(argv)
        except SystemExit as end:
            if end.code == WRONG_USE and "--json" in argv and not self._has_answered:
                self._print({"error": "Wrong use; the line on stderr and --help tell more."})
            raise

    def execute(self, *args: Any, **options: Any) -> str | None:
        self._as_json = bool(options.get("json"))
        try:
            with tenancy.no_scope(), tenancy.system_scope("a command of the vendor's"):
                return super().execute(*args, **options)
        except CommandError as error:
            if isinstance(error, SystemCheckError):
                error.returncode = WRONG_USE
            if self._as_json and not self._has_answered:
                self._print({"error": str(error)})
            raise

    def answer(self, document: Any, lines: Iterable[str], *, fine: bool = True) -> None:
        """Print the document or the lines; ends the process with exit code 1 when not fine."""
        if self._as_json:
            self._print(document)
        else:
            self.stdout.write("\n".join(lines))
        if not fine:
            raise SystemExit(NEEDS_A_PERSON)

    def wrong_use(self, text: str) -> NoReturn:
        """End with exit code 2 and a text that says what to change."""
        raise CommandError(text, returncode=WRONG_USE)

    def needs_a_person(self, text: str) -> NoReturn:
        """End with exit code 1 and a text that says who has to do what."""
        raise CommandError(text, returncode=NEEDS_A_PERSON)

    def partner(self, tenant_id: str) -> Partner:
        """The partner of this tenant id as typed; ends with exit code 2 when there is none."""
        try:
            return Partner.objects.living().get(tenant_id=uuid.UUID(tenant_id))
        except ValueError:
            self.wrong_use(f"{tenant_id!r} is no tenant id; it looks like 11111111-2222-3333-4444-555555555555.")
        except Partner.DoesNotExist:
            self.wrong_use(f"No partner has the tenant id {tenant_id}; `manage.py partners` lists them.")

    def reason(self, given: str) -> str:
        """Why somebody decides this, as partner and auditor will read it; ends with exit code 2 when it is empty."""
        reason = " ".join(given.split())
        if not reason:
            self.wrong_use("--reason is empty: the partner reads it in its audit")
        return reason

    def needs_the_vault(self) -> None:
        """End with exit code 2 in a process that may not read the vault; in others, be seen to act upon stops."""
        if settings.CPV_ROLE != "worker":
            self.wrong_use(
                f"This needs to read the vault, and the role {settings.CPV_ROLE!r} may not: set CPV_ROLE=worker."
            )
        if self._is_process:
            watch.start()

    _as_json = False
    _is_process = False  # started from a shell, and not by code of a process that watches already
    _has_answered = False

    def _print(self, document: Any) -> None:
        self._has_answered = True
        self.stdout.write(json.dumps(document, cls=DjangoJSONEncoder))
