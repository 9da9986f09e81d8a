"""Make an invitation, and mail it when an address is given."""

from __future__ import annotations

import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from consent import invitations, mails
from consent.models import Invitation
from partners.commands import PanelCommand
from partners.models import CLOUDS, Partner
from partners.standing import current_token, standing
from tokens import actors, outside
from tokens.clouds import UnknownCloud, cloud_named

LONGEST_NAME = 256


class Command(PanelCommand):
    help = "Invite a partner: prints the link, and mails it with --email."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True, help="the partner's name, for people")
        parser.add_argument("--tenant", required=True, help="the partner's tenant id (a GUID)")
        parser.add_argument("--cloud", required=True, help=f"one of {', '.join(CLOUDS)}; there is no default")
        parser.add_argument("--email", default="", help="where to mail the invitation")

    def handle(self, *args: Any, **options: Any) -> None:
        cloud = self._cloud(options["cloud"])
        name = " ".join(options["name"].split())
        if not 0 < len(name) <= LONGEST_NAME:
            self.wrong_use(f"--name has {len(name)} characters: give the partner's name, for people, in 1 to 256")
        self._check_address(options["email"])
        try:
            tenant = uuid.UUID(options["tenant"])
        except ValueError:
            self.wrong_use("--tenant is not a GUID: take the tenant id from the partner's Entra overview page")
        partner = self._partner(name, tenant, cloud)
        invitation, url = invitations.invite(partner=partner, by=actors.command("invite"), email=options["email"])
        is_fine = self._mail(invitation, url) if invitation.email else True
        self.answer(
            {"partner": str(partner.tenant_id), "url": url, "expires_at": invitation.expires_at.isoformat()},
            [url, f"for {partner.name}, good until {invitation.expires_at:%Y-%m-%d %H:%M} UTC"],
            fine=is_fine,
        )

    def _cloud(self, wanted: str) -> str:
        try:
            cloud = cloud_named(wanted).name
        except UnknownCloud as unknown:
            self.wrong_use(str(unknown))
        lacking = outside.lacking(cloud)
        if lacking:
            self.wrong_use(f"the cloud {cloud} is not set up here: set {', '.join(lacking)} first")
        return cloud

    def _partner(self, name: str, tenant: uuid.UUID, cloud: str) -> Partner:
        with transaction.atomic():
            partner, made = Partner.objects.living().get_or_create(
                tenant_id=tenant, defaults={"name": name, "cloud": cloud}
            )
        if partner.cloud != cloud:
            self.wrong_use(f"this tenant is a partner already, in the cloud {partner.cloud}; a tenant never moves")
        if not made and not standing(partner, current_token(partner)).can_reconnect:
            self.needs_a_person(f"{partner.name} is connected or stopped already; there is nothing to invite it to")
        return partner

    def _check_address(self, email: str) -> None:
        try:
            if email:
                Invitation._meta.get_field("email").run_validators(email)
        except ValidationError:
            self.wrong_use(f"--email {email!r} is no mail address")

    def _mail(self, invitation: Invitation, url: str) -> bool:
        """Whether the mail left; without it the link is still good, and somebody can hand it over."""
        try:
            mails.send(
                "invitation",
                to=invitation.email,
                partner=invitation.partner.name,
                url=url,
                context={"partner": invitation.partner, "invitation": invitation},
            )
        except OSError as trouble:
            self.stderr.write(f"The mail did not leave ({type(trouble).__name__}); pass the link on by other means.")
            return False
        return True
