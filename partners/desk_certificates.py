"""At the desk: somebody of security tries what our application proves itself with, and reads what comes next."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from partners import certificates
from partners.desk_acts import NotDone, Page, Warned, confirmed
from partners.desk_roles import Act
from partners.models import User

WHAT = (
    "Each certificate that is set up here is tried at Microsoft with a refresh token that never was. No partner is "
    "touched.",
    "You read which is accepted, which is in use, when it ends, and what to do next. Settings are changed where the "
    "processes run, not here.",
)


def try_certificates(request: HttpRequest) -> HttpResponse:
    """The desk's way to what `rotatecredential` does."""

    def do(user: User, said: dict[str, Any]) -> str | Warned:
        lines: list[str] = []
        is_fine = True
        for cloud in certificates.configured_clouds():
            try:
                document = certificates.tried(cloud, by=user.as_actor(), reason=said["reason"])
            except ValueError as wrong:  # of this cloud only: what the others came to is told all the same
                lines.append(f"Cloud {cloud}: {wrong}")
                is_fine = False
            else:
                is_fine &= document["fine"]
                lines.append(f"Cloud {cloud}: {'. '.join(certificates.in_words(document))}")
        if not lines:
            raise NotDone("No cloud is set up here: there is nothing to try.")
        return " ".join(lines) if is_fine else Warned(" ".join(lines))

    return confirmed(
        request, Page(Act.ROTATE, "Try the certificates", WHAT, reverse("admin:partners_partner_changelist")), do
    )
